// SPDX-License-Identifier: Apache-2.0
//
// Kernels that look at results on the device, where they are: outputs of many tokens are gigabytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <unweight/result.hpp>

namespace unweight::pipelines {

/// Adds to `*different` how many of the values differ in a bit.
[[nodiscard]] Result<void> count_differences(const std::uint16_t* found, const std::uint16_t* expected,
                                             std::size_t values, unsigned long long* different, cudaStream_t stream);

/// out[i] = values[places[i]].
[[nodiscard]] Result<void> gather(const std::uint16_t* values, const std::uint64_t* places, std::uint32_t count,
                                  std::uint16_t* out, cudaStream_t stream);

/// out[i] = pattern[i % pattern_values].
[[nodiscard]] Result<void> repeat(const std::uint16_t* pattern, std::size_t pattern_values, std::uint16_t* out,
                                  std::size_t values, cudaStream_t stream);

}  // namespace unweight::pipelines
