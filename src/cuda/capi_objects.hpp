// SPDX-License-Identifier: Apache-2.0
//
// Objects and structures of the C interface of the CUDA part, as C++ sees them.
#pragma once

#include <unweight/cuda.hpp>
#include <unweight/distribution_cuda.hpp>
#include <unweight/unweight_cuda.h>

struct unweight_device_blob {
  unweight::DeviceBlob blob;
};

struct unweight_distribution_device_blob {
  unweight::distribution::DeviceBlob blob;
};

namespace unweight::capi {

inline cudaStream_t to_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

/// A flag of a structure: 0 or 1.
[[nodiscard]] Result<bool> to_bool(std::uint32_t value, const char* name);

/// A configuration of the caller's, checked as far as C++ types would have checked it.
[[nodiscard]] Result<MatmulConfig> to_config(const unweight_matmul_config* config, const char* name);

/// Fills in a configuration of the caller's, whose struct_size says how much of it there is.
[[nodiscard]] Result<void> fill_config(const MatmulConfig& from, unweight_matmul_config* config, const char* name);

[[nodiscard]] Result<MatmulArguments> to_arguments(const unweight_matmul_arguments* arguments);

}  // namespace unweight::capi
