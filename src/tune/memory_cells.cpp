// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fmt/format.h>
#include <tune/memory_cells.hpp>
#include <tune/resolve.hpp>
#include <utility>

namespace unweight::tune {
namespace {

tl::unexpected<Error> refuse(const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, "memory plan: " + why);
}

void warn(std::vector<std::string>& warnings, std::string warning) {
  if (std::ranges::find(warnings, warning) == warnings.end()) warnings.push_back(std::move(warning));
}

/// The cell for a number of tokens, with times.
Result<const PlanCell*> cell_for(const Plan& plan, const WeightClass& weight, std::uint32_t tokens,
                                 std::vector<std::string>& warnings) {
  const PlanWeight* entry = plan.find(weight);
  if (entry == nullptr) return refuse("the plan has no entry for " + describe(weight));
  const auto cells = near_cells(entry->cells, token_bucket(tokens));
  if (cells.empty()) return refuse(fmt::format("the plan has nothing near {} tokens for {}", tokens, describe(weight)));
  const PlanCell& cell = *cells.front();
  for (const auto* list : {&cell.isolated, &cell.dependent}) {
    if (std::ranges::all_of(*list, [](const Measurement& measured) { return measured.us > 0; })) continue;
    return refuse(fmt::format("the plan has no times for {}, {} tokens", describe(weight), cell.tokens));
  }
  if (token_bucket(cell.tokens) != token_bucket(tokens)) {
    warn(warnings,
         fmt::format("{}: {} tokens were not measured; those of {} are used", describe(weight), tokens, cell.tokens));
  }
  return &cell;
}

}  // namespace

std::vector<double> step_cublas_us(const std::vector<MatrixCells>& kinds, std::size_t batch_sizes) {
  std::vector<double> us(batch_sizes);
  for (const MatrixCells& kind : kinds) {
    for (std::size_t b = 0; b < batch_sizes; ++b) {
      us[b] += static_cast<double>(kind.matrices->names.size()) * kind.cublas_us[b];
    }
  }
  return us;
}

Result<std::vector<MatrixCells>> matrix_cells(const Plan& plan, const std::vector<PlanMatrices>& matrices,
                                              const std::vector<std::uint32_t>& batch_sizes, bool dependent_launch,
                                              std::vector<std::string>& warnings) {
  if (batch_sizes.empty()) return refuse("no batch sizes");
  std::vector<MatrixCells> kinds;
  for (const PlanMatrices& equal : matrices) {
    if (equal.names.empty()) continue;
    MatrixCells kind;
    kind.matrices = &equal;
    for (const std::uint32_t tokens : batch_sizes) {
      if (tokens == 0 || tokens > kMaxMatmulTokens) {
        return refuse(fmt::format("batch size {} must be 1 to {}", tokens, kMaxMatmulTokens));
      }
      const auto tiled =
          cell_for(plan, {equal.rows, equal.cols, BlobLayout::kTiled, equal.exceptions}, tokens, warnings);
      if (!tiled) return tl::unexpected(tiled.error());
      const auto raw =
          cell_for(plan, {equal.rows, equal.cols, BlobLayout::kRaw, ExceptionClass::kUsual}, tokens, warnings);
      if (!raw) return tl::unexpected(raw.error());
      kind.tiled.push_back(&list_of(**tiled, dependent_launch));
      kind.raw.push_back(&list_of(**raw, dependent_launch));
      for (const auto* list : {kind.tiled.back(), kind.raw.back()}) {
        if (list->empty()) return refuse(fmt::format("{}: a cell without a choice", equal.kind));
      }
      // Without cuBLAS on that machine, what raw weights take stands for it.
      kind.cublas_us.push_back((*tiled)->cublas_us > 0 ? (*tiled)->cublas_us : kind.raw.back()->front().us);
    }
    kinds.push_back(std::move(kind));
  }
  if (kinds.empty()) return refuse("no matrices");
  return kinds;
}

}  // namespace unweight::tune
