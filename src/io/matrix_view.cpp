// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <format/layout.hpp>
#include <io/matrix_view.hpp>

namespace unweight::io {
namespace {

std::uint64_t product(std::span<const std::uint64_t> extents) noexcept {
  std::uint64_t result = 1;
  for (const std::uint64_t extent : extents) result *= extent;
  return result;
}

/// Values that the tiles of a view hold, padding included.
std::uint64_t tiled_values(const MatrixShape& view) noexcept {
  return view.batch * format::align_up(view.rows, format::kTileRows) * format::align_up(view.cols, format::kTileCols);
}

}  // namespace

bool is_blob_candidate(const TensorEntry& tensor) noexcept {
  const std::uint64_t values = tensor.size_bytes() / 2;
  return tensor.dtype == Dtype::kBF16 && tensor.shape.size() >= 2 && values >= kMinBlobValues &&
         values < format::kMaxValues;
}

MatrixShape matrix_view(std::span<const std::uint64_t> shape) noexcept {
  const std::size_t rank = shape.size();
  const MatrixShape by_last{product(shape.first(rank - 2)), shape[rank - 2], shape[rank - 1]};
  if (rank == 2) return by_last;
  const std::uint64_t values = product(shape);
  const std::uint64_t padded = tiled_values(by_last);
  if (padded <= values + values / 16) return by_last;
  const MatrixShape by_first{1, shape[0], product(shape.subspan(1))};
  return tiled_values(by_first) < padded ? by_first : by_last;
}

}  // namespace unweight::io
