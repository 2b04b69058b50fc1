// SPDX-License-Identifier: Apache-2.0
#include "support/markup.hpp"
#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <vector>

namespace unweight::test {
namespace {

class MarkupChecker {
 public:
  explicit MarkupChecker(std::string_view text) : text_(text) {}

  std::string check() {
    if (starts("<!DOCTYPE html>")) skip_past(">");
    while (error_.empty() && at_ < text_.size()) step();
    if (error_.empty() && !open_.empty()) fail("<" + open_.back() + "> is not closed");
    if (error_.empty() && roots_ != 1) fail("there is not one root element");
    return error_;
  }

 private:
  [[nodiscard]] bool starts(std::string_view with) const { return text_.substr(at_).starts_with(with); }

  void fail(const std::string& what) {
    const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    if (error_.empty()) error_ = "line " + std::to_string(line) + ": " + what;
  }

  std::string_view skip_past(std::string_view end) {
    const std::size_t found = text_.find(end, at_);
    if (found == std::string_view::npos) {
      fail("no " + std::string(end));
      at_ = text_.size();
      return {};
    }
    const std::string_view skipped = text_.substr(at_, found - at_);
    at_ = found + end.size();
    return skipped;
  }

  void step() {
    if (starts("<![CDATA[")) {
      skip_past("]]>");
    } else if (starts("<!--")) {
      skip_past("-->");
    } else if (starts("</")) {
      at_ += 2;
      const std::string name(skip_past(">"));
      if (open_.empty() || open_.back() != name) return fail("</" + name + "> closes nothing");
      open_.pop_back();
    } else if (starts("<")) {
      read_tag();
    } else {
      const std::size_t end = std::min(text_.find('<', at_), text_.size());
      check_text(text_.substr(at_, end - at_));
      at_ = end;
    }
  }

  std::string read_name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 || text_[at_] == '-')) {
      ++at_;
    }
    if (begin == at_) fail("a name is missing");
    return std::string(text_.substr(begin, at_ - begin));
  }

  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }

  void read_tag() {
    ++at_;
    const std::string name = read_name();
    std::set<std::string> attributes;
    for (skip_space(); error_.empty() && !starts(">") && !starts("/>"); skip_space()) {
      const std::string attribute = read_name();
      if (!attributes.insert(attribute).second) fail("attribute " + attribute + " occurs twice");
      if (!starts("=\"")) return fail("attribute " + attribute + " has no quoted value");
      at_ += 2;
      const std::string_view value = skip_past("\"");
      if (value.find('<') != std::string_view::npos) fail("'<' in an attribute");
      check_text(value);
      if (attribute == "id" && !ids_.insert(std::string(value)).second) fail("id occurs twice");
    }
    if (open_.empty()) ++roots_;
    if (starts("/>")) {
      at_ += 2;
    } else if (error_.empty()) {
      ++at_;
      open_.push_back(name);
    }
  }

  void check_text(std::string_view text) {
    constexpr std::array<std::string_view, 5> kEntities = {"amp", "lt", "gt", "quot", "apos"};
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto c = static_cast<unsigned char>(text[i]);
      if (c < 0x20 && c != '\n' && c != '\t' && c != '\r') fail("control character");
      if (c != '&') continue;
      const std::size_t end = text.find(';', i);
      if (end == std::string_view::npos) return fail("'&' without ';'");
      const std::string_view entity = text.substr(i + 1, end - i - 1);
      const bool number = entity.size() > 1 && entity.front() == '#' &&
                          entity.find_first_not_of("0123456789", 1) == std::string_view::npos;
      if (!number && std::ranges::find(kEntities, entity) == kEntities.end()) {
        fail("unknown entity " + std::string(entity));
      }
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string error_;
  std::vector<std::string> open_;
  std::set<std::string> ids_;
  int roots_ = 0;
};

}  // namespace

std::string markup_error(std::string_view text) { return MarkupChecker(text).check(); }

}  // namespace unweight::test
