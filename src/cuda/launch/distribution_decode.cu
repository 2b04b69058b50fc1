// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cuda/kernels/sm90_distribution_decode.cuh>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/distribution_decode.hpp>
#include <cuda/launch/distribution_params.hpp>
#include <cuda/launch/placed_blob.hpp>
#include <cuda/launch/stream_device.cuh>
#include <format/layout.hpp>
#include <new>
#include <string>
#include <unweight/distribution_cuda.hpp>

namespace unweight {
namespace launch {
namespace {

/// As many warps as a multiprocessor holds with 64 registers a thread.
using DistributionDecode = sm90::DistributionDecodeConfig<32>;
using Traits = sm90::DistributionDecodeTraits<DistributionDecode>;

tl::unexpected<Error> refuse(const std::string& message) {
  return fail(ErrorCode::kInvalidArgument, "distribution decode: " + message);
}

std::string text(std::uint64_t value) { return std::to_string(value); }

Result<void> check_arguments(const MatrixShape& shape, const std::uint16_t* values, std::uint64_t row_stride,
                             const distribution::DeviceStatus* status) {
  if (row_stride < shape.cols) {
    return refuse("row_stride=" + text(row_stride) + " must be at least cols=" + text(shape.cols));
  }
  if (row_stride >= format::kMaxValues / (shape.batch * shape.rows)) {
    return refuse("row_stride=" + text(row_stride) + " is too large: 2^48 values or more in all");
  }
  if (values == nullptr || !is_aligned(values, sizeof *values)) {
    return refuse("values is null or not aligned to 2 bytes");
  }
  if (status == nullptr || !is_aligned(status, sizeof *status))
    return refuse("status is null or not aligned to 8 bytes");
  return {};
}

/// Rows that may be padded. A pitch may not exceed 2^31 bytes, and a single row has none.
Result<void> copy_raw(const PlacedDistributionBlob& blob, std::uint16_t* values, std::uint64_t row_stride,
                      cudaStream_t stream) {
  const std::byte* from = blob.data + format::kHeaderBytes;
  const std::uint64_t rows = blob.shape.batch * blob.shape.rows, cols = blob.shape.cols;
  const bool dense = row_stride == cols || rows == 1;
  const cudaError_t error = dense ? cudaMemcpyAsync(values, from, 2 * rows * cols, cudaMemcpyDeviceToDevice, stream)
                                  : cudaMemcpy2DAsync(values, 2 * row_stride, from, 2 * cols, 2 * cols, rows,
                                                      cudaMemcpyDeviceToDevice, stream);
  if (error != cudaSuccess) return cuda_failure(error, "distribution decode: copy of a raw blob");
  return {};
}

}  // namespace

Result<void> load_distribution_decode() {
  // Setting the attribute loads the kernel, too.
  const cudaError_t error = cudaFuncSetAttribute(
      sm90::distribution_decode_kernel<DistributionDecode>, cudaFuncAttributeMaxDynamicSharedMemorySize,
      static_cast<int>(Traits::shared_bytes(format::distribution::kMaxClasses)));
  if (error != cudaSuccess) return cuda_failure(error, "distribution decode: load the kernel");
  return {};
}

void StreamDevice::decode(const sm90::DistributionDecodeParams& params, std::uint32_t class_count) {
  launch(sm90::distribution_decode_kernel<DistributionDecode>, distribution_decode_grid(params, multiprocessors_),
         Traits::kThreads, Traits::shared_bytes(class_count), params);
}

}  // namespace launch

namespace distribution {

Result<void> decode(const DeviceBlob& blob, std::uint16_t* values, std::uint64_t row_stride, DeviceStatus* status,
                    cudaStream_t stream) try {
  const launch::PlacedDistributionBlob placed = launch::placed(blob);
  const MatrixShape& shape = blob.shape();
  if (shape.batch == 0 || shape.rows == 0 || shape.cols == 0) return {};
  if (auto ok = launch::check_arguments(shape, values, row_stride, status); !ok) return ok;
  if (blob.layout() == Layout::kRaw) return launch::copy_raw(placed, values, row_stride, stream);
  const auto params = launch::distribution_decode_params(placed, 0, launch::row_groups(placed),
                                                         {values, row_stride, shape.rows}, &status->word);
  launch::StreamDevice device(stream, blob.multiprocessors(), "distribution decode");
  device.decode(params, blob.class_count());
  return device.outcome();
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace distribution
}  // namespace unweight
