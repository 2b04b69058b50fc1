// SPDX-License-Identifier: Apache-2.0
//
// The functions of <unweight/unweight_cuda.h> about CUDA graphs that are being captured.
#include <atomic>
#include <capi/boundary.hpp>
#include <cstdint>
#include <cuda/launch/cuda_error.hpp>
#include <cuda_runtime_api.h>
#include <unweight/unweight_cuda.h>

namespace {

using unweight::ErrorCode;
using unweight::fail;
using unweight::Result;
using unweight::capi::check_object;
using unweight::capi::guarded;
using unweight::launch::cuda_failure;

struct Capture {
  std::uint64_t number = 0;  ///< 0: none
  cudaGraph_t graph = nullptr;
};

Result<Capture> capture_of(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long number = 0;
  Capture found;
#if CUDART_VERSION >= 13000
  const cudaError_t error = cudaStreamGetCaptureInfo(static_cast<cudaStream_t>(stream), &status, &number, &found.graph);
#else
  const cudaError_t error =
      cudaStreamGetCaptureInfo_v2(static_cast<cudaStream_t>(stream), &status, &number, &found.graph);
#endif
  if (error != cudaSuccess) return cuda_failure(error, "capture of a stream");
  if (status == cudaStreamCaptureStatusActive) found.number = number;
  return found;
}

/// Called by the driver, on a thread of its own: must call nothing of CUDA.
void CUDART_CB set_released(void* released) {
  std::atomic_ref(*static_cast<std::uint32_t*>(released)).store(1, std::memory_order_release);
}

}  // namespace

unweight_status unweight_stream_capture(void* stream, uint64_t* capture) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(capture, "capture"); !ok) return ok;
    *capture = 0;
    const auto found = capture_of(stream);
    if (!found) return tl::unexpected(found.error());
    *capture = found->number;
    return {};
  });
}

unweight_status unweight_stream_capture_lease(void* stream, uint32_t* released) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(released, "released"); !ok) return ok;
    const auto found = capture_of(stream);
    if (!found) return tl::unexpected(found.error());
    if (found->number == 0) return fail(ErrorCode::kInvalidArgument, "the stream is not being captured");
    *released = 0;
    cudaUserObject_t object = nullptr;
    cudaError_t error = cudaUserObjectCreate(&object, released, set_released, 1, cudaUserObjectNoDestructorSync);
    if (error != cudaSuccess) return cuda_failure(error, "lease of a graph: object");
    error = cudaGraphRetainUserObject(found->graph, object, 1, cudaGraphUserObjectMove);
    if (error == cudaSuccess) return {};
    (void)cudaUserObjectRelease(object, 1);  // sets the flag: nobody holds it
    return cuda_failure(error, "lease of a graph");
  });
}
