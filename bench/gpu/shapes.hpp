// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unweight/blob.hpp>

namespace unweight::bench {

/// "4096x14336": one matrix of that many rows and columns. Ends the program if the text is something else.
[[nodiscard]] MatrixShape parse_shape(const std::string& text);

[[nodiscard]] std::string to_string(const MatrixShape& shape);

}  // namespace unweight::bench
