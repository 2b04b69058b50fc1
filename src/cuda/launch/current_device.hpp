// SPDX-License-Identifier: Apache-2.0
//
// What the current device has: memory at an address, multiprocessors.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <unweight/result.hpp>

namespace unweight::launch {

/// Whether `address` is aligned to kDeviceBlobAlignment and memory that kernels on the current device can use. `what`
/// begins the error: "device blob".
[[nodiscard]] Result<void> check_device_address(const void* address, const char* what);

[[nodiscard]] Result<std::uint32_t> multiprocessors();

}  // namespace unweight::launch
