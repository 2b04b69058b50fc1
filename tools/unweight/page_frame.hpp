// SPDX-License-Identifier: Apache-2.0
//
// Beginning and end of every page: one file, well-formed as HTML and as XML, that loads nothing.
#pragma once

#include <string>
#include <string_view>

namespace unweight::cli {

/// Text from files or paths, safe in markup.
[[nodiscard]] std::string safe_markup(std::string_view text);

/// Up to and with the heading. `title` and `subtitle` are markup; `more_style` follows the common style sheet.
[[nodiscard]] std::string page_begin(std::string_view title, std::string_view subtitle,
                                     std::string_view more_style = {});

/// One figure of a list of tiles. All are markup.
[[nodiscard]] std::string page_tile(std::string_view title, std::string_view value, std::string_view note,
                                    bool lead = false);

/// From the footer on; `script` may be empty.
[[nodiscard]] std::string page_end(std::string_view script);

}  // namespace unweight::cli
