// SPDX-License-Identifier: Apache-2.0
//
// What a plan knows of a model's matrices at the numbers of tokens that count.
#pragma once

#include <string>
#include <unweight/tune.hpp>
#include <vector>

namespace unweight::tune {

/// Of a fused kernel that splits along K, and of cuBLASLt beside it; about, since the sizes are the device's.
inline constexpr std::uint64_t kFusedWorkspaceBytes = 10'000'000, kDenseWorkspaceBytes = std::uint64_t{32} << 20;

[[nodiscard]] constexpr std::uint64_t workspace_bytes(bool dense) {
  return kFusedWorkspaceBytes + (dense ? kDenseWorkspaceBytes : 0);
}

/// Of a matrix that is decoded to memory.
[[nodiscard]] inline std::uint64_t scratch_bytes(std::uint64_t rows, std::uint64_t cols) { return 2 * rows * cols; }

/// The lists that count of one kind of matrix, for each batch size.
struct MatrixCells {
  const PlanMatrices* matrices = nullptr;
  std::vector<const std::vector<Measurement>*> tiled, raw;
  std::vector<double> cublas_us;  ///< of one
};

/// Time of one step's matrices with cuBLAS, for each batch size.
[[nodiscard]] std::vector<double> step_cublas_us(const std::vector<MatrixCells>& kinds, std::size_t batch_sizes);

/// Errors: kInvalidArgument where the plan has no entry or no times, or a batch size is out of range.
[[nodiscard]] Result<std::vector<MatrixCells>> matrix_cells(const Plan& plan, const std::vector<PlanMatrices>& matrices,
                                                            const std::vector<std::uint32_t>& batch_sizes,
                                                            bool dependent_launch, std::vector<std::string>& warnings);

}  // namespace unweight::tune
