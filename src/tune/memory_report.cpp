// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fmt/format.h>
#include <io/try.hpp>
#include <tune/memory_cells.hpp>
#include <utility>

namespace unweight {
namespace {

using tune::MatrixCells;

class Reporter {
 public:
  explicit Reporter(const Plan& plan) : plan_(plan), request_(plan.request) {}

  Result<MemoryReport> run() {
    auto kinds =
        tune::matrix_cells(plan_, plan_.matrices, request_.batch_sizes, request_.dependent_launch, report_.warnings);
    if (!kinds) return tl::unexpected(kinds.error());
    for (const MatrixCells& kind : *kinds) add(kind);
    const std::size_t batches = request_.batch_sizes.size();
    StepSums all_cublas(batches), compressed(batches), chosen(batches);
    for (const KindCost& kind : report_.kinds) {
      all_cublas.add(kind.count, kind.raw_bytes, kind.cublas_us);
      compressed.add(kind.count, kind.compressed_bytes, kind.compressed_us);
      chosen.add(kind.count - kind.raw, kind.compressed_bytes, kind.compressed_us);
      chosen.add(kind.raw, kind.raw_bytes, kind.raw_us);
    }
    report_.all_cublas = cost(all_cublas, tune::kDenseWorkspaceBytes);
    report_.all_compressed = cost(compressed, scratch_of_all_ + tune::workspace_bytes(scratch_of_all_ != 0));
    report_.chosen = cost(chosen, scratch_ + tune::workspace_bytes(dense_));
    return std::move(report_);
  }

 private:
  struct StepSums {
    explicit StepSums(std::size_t batches) : us(batches) {}
    void add(std::uint64_t count, std::uint64_t one_bytes, const std::vector<double>& one_us) {
      bytes += count * one_bytes;
      for (std::size_t b = 0; b < us.size(); ++b) us[b] += static_cast<double>(count) * one_us[b];
    }
    std::uint64_t bytes = 0;
    std::vector<double> us;
  };

  void add(const MatrixCells& cells) {
    const PlanMatrices& matrices = *cells.matrices;
    KindCost kind{matrices.kind,
                  matrices.rows,
                  matrices.cols,
                  matrices.names.size(),
                  matrices.raw,
                  matrices.compressed_bytes,
                  matrices.raw_bytes,
                  {},
                  {},
                  cells.cublas_us,
                  {}};
    bool decodes = false;
    for (std::size_t b = 0; b < cells.tiled.size(); ++b) {
      const Measurement& tiled = cells.tiled[b]->front();
      kind.compressed_us.push_back(tiled.us);
      kind.raw_us.push_back(cells.raw[b]->front().us);
      kind.pipelines.push_back(tiled.choice.pipeline);
      decodes = decodes || tiled.choice.pipeline == Pipeline::kDecoded;
      if (kind.raw == kind.count || cells.cublas_us[b] >= kNeverBelow * tiled.us) continue;
      report_.warnings.push_back(fmt::format("{}, {} tokens: {:.2f} times as fast as cuBLAS, and kept compressed",
                                             matrices.kind, request_.batch_sizes[b], cells.cublas_us[b] / tiled.us));
    }
    const std::uint64_t scratch = decodes ? tune::scratch_bytes(matrices.rows, matrices.cols) : 0;
    scratch_of_all_ = std::max(scratch_of_all_, scratch);
    if (kind.raw < kind.count) scratch_ = std::max(scratch_, scratch);
    dense_ = dense_ || kind.raw != 0 || decodes;
    report_.kinds.push_back(std::move(kind));
  }

  [[nodiscard]] StepCost cost(const StepSums& sums, std::uint64_t scratch_bytes) const {
    StepCost cost{sums.bytes, scratch_bytes, sums.us, 0, 0};
    const std::uint64_t all = request_.other_bytes + sums.bytes + scratch_bytes, gpu = plan_.origin.memory_bytes;
    if (all != 0) cost.models_on_gpu = gpu / all;
    if (request_.kv_bytes_per_token != 0 && gpu > all)
      cost.kv_tokens_on_gpu = (gpu - all) / request_.kv_bytes_per_token;
    return cost;
  }

  const Plan& plan_;
  const PlanRequest& request_;
  MemoryReport report_;
  std::uint64_t scratch_ = 0, scratch_of_all_ = 0;
  bool dense_ = false;
};

}  // namespace

Result<MemoryReport> memory_report(const Plan& plan) {
  return io::guarded([&] { return Reporter(plan).run(); });
}

}  // namespace unweight
