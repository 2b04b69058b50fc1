// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <interrupt.hpp>
#include <progress_bar.hpp>
#include <string_view>
#include <sys/ioctl.h>
#include <text.hpp>
#include <unistd.h>

namespace unweight::cli {
namespace {

constexpr std::size_t kBarColumns = 24;
constexpr std::size_t kDefaultColumns = 80;

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

std::size_t terminal_columns() {
  winsize size = {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultColumns;
}

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string_view value = environment(name);
    if (!value.empty()) {
      return value.find("UTF-8") != value.npos || value.find("utf8") != value.npos || value.find("UTF8") != value.npos;
    }
  }
  return false;
}

std::string draw_bar(double fraction, bool unicode) {
  std::string bar;
  if (!unicode) {
    const auto full = static_cast<std::size_t>(fraction * static_cast<double>(kBarColumns));
    return "[" + std::string(full, '#') + std::string(kBarColumns - full, '.') + "]";
  }
  constexpr std::array<std::string_view, 8> kEighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const auto eighths = static_cast<std::size_t>(fraction * static_cast<double>(8 * kBarColumns));
  std::size_t columns = eighths / 8;
  for (std::size_t i = 0; i < columns; ++i) bar += "█";
  if (eighths % 8 != 0) {
    bar += kEighths[eighths % 8];
    ++columns;
  }
  for (; columns < kBarColumns; ++columns) bar += "░";
  return bar;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The time that `left` will take when `done` took `seconds`.
std::string eta_text(double left, double done, double seconds) {
  if (!(done > 0 && seconds > 0)) return "ETA -";
  const auto whole = static_cast<std::uint64_t>(std::min(left * seconds / done, 359'999.0) + 0.5);
  return whole < 3600 ? fmt::format("ETA {}:{:02}", whole / 60, whole % 60)
                      : fmt::format("ETA {}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

/// The line, with as much of it as fits.
std::string assemble(const std::string& verb, double fraction, const std::string& notes, const std::string& current,
                     std::size_t columns, bool unicode) {
  std::string text =
      fmt::format("{} {} {:3.0f}%  {}", verb, draw_bar(fraction, unicode), std::min(100.0, 100 * fraction), notes);
  const std::size_t width = display_width(text);
  constexpr std::size_t kShortestName = 8;
  if (columns > width + 2 + kShortestName && !current.empty()) {
    text += "  " + shorten_front(printable(current), columns - width - 3, unicode ? kEllipsis : "...");
  } else if (columns > 0 && width >= columns) {
    text = fmt::format("{} {:3.0f}%", verb, std::min(100.0, 100 * fraction));
  }
  return text;
}

}  // namespace

ProgressBar::ProgressBar(std::string verb, OutputMode mode)
    : verb_(std::move(verb)),
      shown_(mode == OutputMode::kNormal && isatty(STDERR_FILENO) != 0 && environment("TERM") != "dumb"),
      unicode_(locale_is_utf8()) {}

ProgressBar::~ProgressBar() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

ProgressCallback ProgressBar::callback() {
  return [this](const Progress& progress) {
    if (shown_) draw(line(verb_, progress, seconds_since(start_), terminal_columns(), unicode_));
    return received_signal() == 0;
  };
}

void ProgressBar::show(double fraction, const std::string& current) {
  if (!shown_) return;
  const std::string eta = eta_text(1 - fraction, fraction, seconds_since(start_));
  draw(assemble(verb_, fraction, eta, current, terminal_columns(), unicode_));
}

std::string ProgressBar::line(const std::string& verb, const Progress& progress, double seconds, std::size_t columns,
                              bool unicode) {
  const std::uint64_t done = std::min(progress.bytes_done, progress.bytes_total);
  const double fraction =
      progress.bytes_total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(progress.bytes_total);
  // What an earlier run had finished took no time now.
  const std::uint64_t done_now = done - std::min(done, progress.bytes_resumed);
  const std::string eta =
      eta_text(static_cast<double>(progress.bytes_total - done), static_cast<double>(done_now), seconds);
  const std::string notes = format_rate(done_now, seconds) + "  " + eta;
  return assemble(verb, fraction, notes, progress.current, columns, unicode);
}

void ProgressBar::draw(const std::string& text) {
  const std::string drawn = "\r\x1b[K" + text;
  std::fwrite(drawn.data(), 1, drawn.size(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace unweight::cli
