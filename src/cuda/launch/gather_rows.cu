// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cuda/kernels/sm90_gather_rows.cuh>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/gather_rows.hpp>
#include <cuda/launch/gather_rows_params.hpp>
#include <format/layout.hpp>
#include <new>
#include <string>
#include <unweight/cuda.hpp>

namespace unweight {
namespace {

using Config = sm90::GatherRowsConfig;

constexpr std::uint64_t kMostBlocks = (std::uint64_t{1} << 31) - 1;

Result<void> check(const DeviceBlob& blob, std::span<const std::int64_t> row_numbers, const std::uint16_t* values,
                   std::uint64_t row_stride) {
  const std::uint64_t cols = blob.shape().cols;
  if (row_stride < cols) {
    return fail(ErrorCode::kInvalidArgument, "gather_rows: row_stride=" + std::to_string(row_stride) +
                                                 " must be at least cols=" + std::to_string(cols));
  }
  if (values == nullptr || !launch::is_aligned(values, sizeof *values)) {
    return fail(ErrorCode::kInvalidArgument, "gather_rows: values is null or not aligned to 2 bytes");
  }
  if (row_numbers.data() == nullptr || !launch::is_aligned(row_numbers.data(), sizeof(std::int64_t))) {
    return fail(ErrorCode::kInvalidArgument, "gather_rows: row_numbers is null or not aligned to 8 bytes");
  }
  if (row_stride >= format::kMaxValues / row_numbers.size()) {
    return fail(ErrorCode::kInvalidArgument, "gather_rows: " + std::to_string(row_numbers.size()) + " rows of stride " +
                                                 std::to_string(row_stride) + " are 2^48 values or more");
  }
  if (row_numbers.size() > kMostBlocks * Config::kWarps / format::ceil_div(cols, std::uint64_t{format::kTileCols})) {
    return fail(ErrorCode::kInvalidArgument, "gather_rows: " + std::to_string(row_numbers.size()) + " rows of " +
                                                 std::to_string(cols) + " columns are too many for one call");
  }
  return {};
}

}  // namespace

namespace launch {

Result<void> load_gather_rows() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, sm90::gather_rows_kernel<Config>);
  if (error != cudaSuccess) return cuda_failure(error, "gather_rows: load the kernel");
  return {};
}

}  // namespace launch

Result<void> gather_rows(const DeviceBlob& blob, std::span<const std::int64_t> row_numbers, std::uint16_t* values,
                         std::uint64_t row_stride, cudaStream_t stream) try {
  const MatrixShape& shape = blob.shape();
  if (row_numbers.empty() || shape.cols == 0) return {};
  if (auto ok = check(blob, row_numbers, values, row_stride); !ok) return ok;
  const sm90::GatherRowsParams params =
      launch::gather_rows_params(launch::placed(blob), row_numbers, values, row_stride);
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(
      static_cast<std::uint32_t>(format::ceil_div(params.row_count * params.row_tiles, std::uint64_t{Config::kWarps})));
  launch.blockDim = dim3(Config::kThreads);
  launch.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&launch, sm90::gather_rows_kernel<Config>, params);
  if (error != cudaSuccess) return launch::cuda_failure(error, "gather_rows: launch");
  return {};
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
