// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace unweight::test {

/// Why `text` is not well-formed XML, or nothing. Knows what the reports use: tags, attributes, CDATA, comments, the
/// five named entities and numbers. Also refuses an id that occurs twice.
[[nodiscard]] std::string markup_error(std::string_view text);

}  // namespace unweight::test
