// SPDX-License-Identifier: Apache-2.0
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/tensor_map.hpp>
#include <cuda_runtime_api.h>
#include <format/layout.hpp>
#include <string>

namespace unweight::launch {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

/// The driver's function. It is looked up, not linked: programs must start on machines without a driver.
Result<Encode> find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess) return cuda_failure(error, "tensor map: look up cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess) {
    return fail(ErrorCode::kNoDevice, "tensor map: the driver has no cuTensorMapEncodeTiled");
  }
  return reinterpret_cast<Encode>(function);
}

/// A tensor of three dimensions, without gaps in its innermost one.
Result<CUtensorMap> make_map(CUtensorMapDataType type, const void* data, const cuuint64_t (&extents)[3],
                             const cuuint64_t (&strides_bytes)[2], const cuuint32_t (&box)[3],
                             CUtensorMapSwizzle swizzle) {
  static const Result<Encode> encode = find_encode();
  if (!encode) return tl::unexpected(encode.error());
  const cuuint32_t element_strides[3] = {1, 1, 1};
  CUtensorMap map;
  const CUresult result = (*encode)(&map, type, 3, const_cast<void*>(data), extents, strides_bytes, box,
                                    element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return fail(ErrorCode::kCuda, "tensor map: cuTensorMapEncodeTiled failed with error " + std::to_string(result));
  }
  return map;
}

}  // namespace

Result<CUtensorMap> make_tensor_map(const MatrixInMemory& matrix, std::uint32_t box_rows, std::uint32_t box_tiles) {
  constexpr std::uint64_t kValueBytes = sizeof *matrix.values;
  return make_map(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, matrix.values,
                  {format::kTileCols, matrix.rows, matrix.cols / format::kTileCols},
                  {matrix.stride * kValueBytes, format::kTileCols * kValueBytes},
                  {format::kTileCols, box_rows, box_tiles}, CU_TENSOR_MAP_SWIZZLE_128B);
}

Result<CUtensorMap> make_tile_map(const std::byte* tiles, std::uint64_t tiles_per_strip, std::uint64_t strips,
                                  std::uint32_t box_tiles, std::uint32_t box_strips) {
  constexpr std::uint32_t kWords = format::kTileBytes / sizeof(std::uint64_t);
  return make_map(CU_TENSOR_MAP_DATA_TYPE_UINT64, tiles, {kWords, tiles_per_strip, strips},
                  {format::kTileBytes, tiles_per_strip * format::kTileBytes}, {kWords, box_tiles, box_strips},
                  CU_TENSOR_MAP_SWIZZLE_NONE);
}

}  // namespace unweight::launch
