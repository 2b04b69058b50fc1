// SPDX-License-Identifier: Apache-2.0
//
// CUDA's errors as ours.
#pragma once

#include <cuda_runtime_api.h>
#include <string>
#include <unweight/result.hpp>

namespace unweight::launch {

/// The error for a failed call: kNoDevice where nothing here can run on this machine, otherwise kCuda. `what` names the
/// call's purpose: "decode: launch".
inline tl::unexpected<Error> cuda_failure(cudaError_t error, const std::string& what) {
  // The runtime also keeps the error for the next cudaGetLastError(), which belongs to the caller's own code.
  (void)cudaGetLastError();
  const std::string message = what + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error);
  switch (error) {
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInitializationError:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return fail(ErrorCode::kNoDevice, message);
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return fail(ErrorCode::kNoDevice, message + " (the kernels are for compute capability 9.0)");
    default:
      return fail(ErrorCode::kCuda, message);
  }
}

}  // namespace unweight::launch
