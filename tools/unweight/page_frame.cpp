// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <page_charts.hpp>
#include <page_frame.hpp>
#include <page_style.hpp>
#include <text.hpp>
#include <unweight/version.h>

namespace unweight::cli {

std::string safe_markup(std::string_view text) { return escape_markup(printable(text)); }

std::string page_begin(std::string_view title, std::string_view subtitle, std::string_view more_style) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>{} - unweight</title>\n<style>{}{}</style>\n</head>\n<body>\n<main>\n"
      "<header><h1>{}</h1>\n<p>{}</p></header>\n",
      title, kPageStyle, more_style, title, subtitle);
}

std::string page_tile(std::string_view title, std::string_view value, std::string_view note, bool lead) {
  return fmt::format("<div{}><dt>{}</dt><dd>{}<small>{}</small></dd></div>\n", lead ? " class=\"lead\"" : "", title,
                     value, note);
}

std::string page_end(std::string_view script) {
  std::string text = "<footer>Made by unweight " UNWEIGHT_VERSION_STRING ".</footer>\n</main>\n";
  if (!script.empty()) text += fmt::format("<script>//<![CDATA[{}//]]></script>\n", script);
  return text + "</body>\n</html>\n";
}

}  // namespace unweight::cli
