// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cuda/kernels/sm90_decode.cuh>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/decode.hpp>
#include <cuda/launch/decode_params.hpp>
#include <format/layout.hpp>
#include <new>
#include <string>
#include <unweight/cuda.hpp>

namespace unweight {
namespace launch {
namespace {

using Config = sm90::DecodeConfig;
using Traits = sm90::DecodeTraits<Config>;

constexpr std::uint64_t kIndexLimit = std::uint64_t{1} << 31;

std::string text(std::uint64_t value) { return std::to_string(value); }

Result<void> copy_raw(const DeviceBlob& blob, std::uint16_t* values, std::uint64_t row_stride, cudaStream_t stream) {
  const MatrixShape& shape = blob.shape();
  const std::byte* from = blob.data() + format::kHeaderBytes;
  const std::uint64_t rows = shape.batch * shape.rows;
  // Dense rows are one long row: a pitch may not exceed 2^31 bytes, and a single row has none.
  const bool dense = row_stride == shape.cols || rows == 1;
  const cudaError_t error = dense
                                ? cudaMemcpyAsync(values, from, 2 * rows * shape.cols, cudaMemcpyDeviceToDevice, stream)
                                : cudaMemcpy2DAsync(values, 2 * row_stride, from, 2 * shape.cols, 2 * shape.cols, rows,
                                                    cudaMemcpyDeviceToDevice, stream);
  if (error != cudaSuccess) return cuda_failure(error, "decode: copy of a raw blob");
  return {};
}

}  // namespace

Result<void> can_decode(const MatrixShape& shape) {
  const format::TiledGeometry g = format::tiled_geometry(shape.batch, shape.rows, shape.cols, 1);
  if (shape.rows >= kIndexLimit || shape.cols >= kIndexLimit || g.tiles >= kIndexLimit) {
    return fail(ErrorCode::kInvalidArgument, "decode: shape " + text(shape.batch) + " x " + text(shape.rows) + " x " +
                                                 text(shape.cols) + " has 2^31 rows, columns or tiles, or more");
  }
  return {};
}

Result<void> load_decode() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, sm90::decode_kernel<Config>);
  if (error != cudaSuccess) return cuda_failure(error, "decode: load the kernel");
  return {};
}

Result<void> decode_tiled(const DeviceBlob& blob, std::uint16_t* values, std::uint64_t row_stride,
                          cudaStream_t stream) {
  const sm90::DecodeParams params = decode_params(placed(blob), values, row_stride);
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(static_cast<std::uint32_t>(format::ceil_div(params.tile_count, Traits::kTilesPerBlock)));
  launch.blockDim = dim3(Traits::kThreads);
  launch.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&launch, sm90::decode_kernel<Config>, params);
  if (error != cudaSuccess) return cuda_failure(error, "decode: launch");
  return {};
}

}  // namespace launch

Result<void> decode(const DeviceBlob& blob, std::uint16_t* values, std::uint64_t row_stride, cudaStream_t stream) try {
  const MatrixShape& shape = blob.shape();
  if (shape.batch == 0 || shape.rows == 0 || shape.cols == 0) return {};
  if (row_stride < shape.cols) {
    return fail(ErrorCode::kInvalidArgument, "decode: row_stride=" + launch::text(row_stride) +
                                                 " must be at least cols=" + launch::text(shape.cols));
  }
  if (row_stride >= format::kMaxValues / (shape.batch * shape.rows)) {
    return fail(ErrorCode::kInvalidArgument,
                "decode: row_stride=" + launch::text(row_stride) + " is too large: 2^48 values or more in all");
  }
  if (values == nullptr || !launch::is_aligned(values, sizeof *values)) {
    return fail(ErrorCode::kInvalidArgument, "decode: values is null or not aligned to 2 bytes");
  }
  return blob.layout() == BlobLayout::kTiled ? launch::decode_tiled(blob, values, row_stride, stream)
                                             : launch::copy_raw(blob, values, row_stride, stream);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
