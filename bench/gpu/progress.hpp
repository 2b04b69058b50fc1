// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace unweight::bench {

/// Seconds since the program began.
[[nodiscard]] double elapsed_s();

/// A line on the error stream, with elapsed_s().
void progress(const std::string& text);

}  // namespace unweight::bench
