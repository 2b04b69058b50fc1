// SPDX-License-Identifier: Apache-2.0
//
// Parameters of kernels/sm90_distribution_decode.cuh. Host code without CUDA, so that tests on the CPU can give the
// kernel what its launcher gives it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cuda/kernels/sm90_distribution_decode.cuh>
#include <format/distribution_layout.hpp>
#include <unweight/distribution_cuda.hpp>

namespace unweight::launch {

/// A validated distribution blob and the address it lies at.
struct PlacedDistributionBlob {
  MatrixShape shape;
  distribution::Layout layout;
  std::uint32_t class_count, scale_count, table_units;
  std::uint64_t stream_bytes;
  std::uint64_t content_checksum;
  const std::byte* data;

  /// Of a coded blob.
  [[nodiscard]] format::distribution::Blocks blocks() const {
    return format::distribution::cut_blocks(shape.batch, shape.rows, shape.cols);
  }
};

inline PlacedDistributionBlob placed(const distribution::DeviceBlob& blob) {
  return {blob.shape(),       blob.layout(),       blob.class_count(),      blob.scale_count(),
          blob.table_units(), blob.stream_bytes(), blob.content_checksum(), blob.data()};
}

/// Where decoded rows go: row n of matrix b to row b * matrix_stride + n - first_row of `values`.
struct DecodedRows {
  std::uint16_t* values;
  std::uint64_t row_stride;     ///< in values
  std::uint64_t matrix_stride;  ///< in rows
  std::uint64_t first_row = 0;
};

/// For row groups [first_group, end_group) of a coded blob, counted through all matrices.
inline sm90::DistributionDecodeParams distribution_decode_params(const PlacedDistributionBlob& blob,
                                                                 std::uint64_t first_group, std::uint64_t end_group,
                                                                 const DecodedRows& rows, std::uint64_t* status) {
  using namespace format::distribution;
  const Blocks blocks = blob.blocks();
  const Sections at = place_sections(blocks, blob.shape.batch * blob.shape.rows, blob.scale_count, blob.table_units);
  const auto section = [&]<class T>(const T*, std::uint64_t offset) {
    return reinterpret_cast<const T*>(blob.data + offset);
  };
  sm90::DistributionDecodeParams params{};
  params.block_starts = section(params.block_starts, at.block_starts_offset);
  params.escape_counts = section(params.escape_counts, at.escape_counts_offset);
  params.scales = section(params.scales, at.scales_offset);
  params.tables = section(params.tables, at.tables_offset);
  params.row_scales = section(params.row_scales, at.row_scales_offset);
  params.stream = section(params.stream, at.stream_offset);
  params.values = rows.values;
  params.row_stride = rows.row_stride;
  params.matrix_stride = rows.matrix_stride;
  params.first_row = rows.first_row;
  params.status = status;
  params.blocks = blocks;
  params.stream_bytes = blob.stream_bytes;
  params.first_block = static_cast<std::uint32_t>(first_group * blocks.col_blocks);
  params.end_block = static_cast<std::uint32_t>(end_group * blocks.col_blocks);
  params.rows = static_cast<std::uint32_t>(blob.shape.rows);
  params.cols = static_cast<std::uint32_t>(blob.shape.cols);
  params.class_count = blob.class_count;
  params.scale_count = blob.scale_count;
  params.table_units = blob.table_units;
  return params;
}

/// All of a coded blob's row groups.
inline std::uint64_t row_groups(const PlacedDistributionBlob& blob) { return blob.shape.batch * blob.blocks().groups; }

/// Thread blocks of the kernel: one a multiprocessor, no more than there are blocks.
inline std::uint32_t distribution_decode_grid(const sm90::DistributionDecodeParams& params,
                                              std::uint32_t multiprocessors) {
  return std::min(multiprocessors, params.end_block - params.first_block);
}

}  // namespace unweight::launch
