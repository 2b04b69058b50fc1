// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <io/try.hpp>
#include <limits>
#include <optional>
#include <tune/knapsack.hpp>
#include <tune/memory_cells.hpp>
#include <tune/tuner.hpp>
#include <utility>

namespace unweight {
namespace {

using tune::MatrixCells;

tl::unexpected<Error> refuse(const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, "memory plan: " + why);
}

/// The entry of a list that is to come first, null where none is allowed: the one that does, unless another is faster
/// beyond the noise.
const Measurement* pick(const std::vector<Measurement>& list, bool decoded_allowed) {
  const auto allowed = [&](const Measurement& measured) {
    return decoded_allowed || measured.choice.pipeline != Pipeline::kDecoded;
  };
  const Measurement* best = nullptr;
  for (const Measurement& measured : list) {
    if (allowed(measured) && (best == nullptr || measured.us < best->us)) best = &measured;
  }
  if (best == nullptr || !allowed(list.front())) return best;
  return tune::clearly_slower(list.front(), *best) ? best : &list.front();
}

/// Times of one matrix of a kind, for each batch size.
struct Kind {
  const PlanMatrices* matrices = nullptr;
  std::vector<double> without_scratch_us, with_scratch_us, raw_us, cublas_us;
  bool decodes = false;  ///< where a scratch is there, it is used

  [[nodiscard]] std::uint64_t count() const { return matrices->names.size(); }
  [[nodiscard]] std::uint64_t scratch() const { return tune::scratch_bytes(matrices->rows, matrices->cols); }
  [[nodiscard]] const std::vector<double>& compressed_us(std::uint64_t scratch_bytes) const {
    return scratch_bytes >= scratch() ? with_scratch_us : without_scratch_us;
  }
};

/// A way to use memory: how much for decoded weights, and how many of each kind are raw.
struct Solution {
  std::uint64_t scratch = 0;
  std::vector<std::uint64_t> raw;
  double time = 0;  ///< shares of the time with cuBLAS, summed over batch sizes
  std::uint64_t bytes = 0;
  bool optimal = true;
};

class MemoryPlanner {
 public:
  MemoryPlanner(Plan& plan, const ModelMatrices& model, const MemoryOptions& options)
      : plan_(plan), model_(model), options_(options) {}

  Result<MemoryReport> run() {
    std::vector<std::string> warnings;
    auto cells = tune::matrix_cells(plan_, model_.matrices, options_.batch_sizes, options_.dependent_launch, warnings);
    if (!cells) return tl::unexpected(cells.error());
    for (const MatrixCells& kind : *cells) {
      if (auto ok = add_kind(kind); !ok) return tl::unexpected(ok.error());
    }
    step_cublas_us_ = tune::step_cublas_us(*cells, options_.batch_sizes.size());
    auto solution = solve();
    if (!solution) return tl::unexpected(solution.error());
    write(*solution);
    auto report = memory_report(plan_);
    if (report) report->optimal = solution->optimal;
    return report;
  }

 private:
  [[nodiscard]] Result<void> add_kind(const MatrixCells& cells) {
    Kind kind;
    kind.matrices = cells.matrices;
    kind.cublas_us = cells.cublas_us;
    for (std::size_t b = 0; b < cells.tiled.size(); ++b) {
      const Measurement* without = pick(*cells.tiled[b], false);
      const Measurement* with = pick(*cells.tiled[b], true);
      if (without == nullptr) {
        return refuse(fmt::format("{}, {} tokens: the plan has no choice without a scratch", cells.matrices->kind,
                                  options_.batch_sizes[b]));
      }
      kind.without_scratch_us.push_back(without->us);
      kind.with_scratch_us.push_back(with->us);
      kind.raw_us.push_back(pick(*cells.raw[b], true)->us);
      kind.decodes = kind.decodes || with->choice.pipeline == Pipeline::kDecoded;
    }
    kinds_.push_back(std::move(kind));
    return {};
  }

  [[nodiscard]] std::uint64_t capacity() const {
    if (options_.memory_budget_bytes != 0) return options_.memory_budget_bytes;
    return plan_.origin.memory_bytes != 0 ? plan_.origin.memory_bytes : std::numeric_limits<std::uint64_t>::max();
  }

  /// Everything that is there in any case: tensors that are no matrices, and the matrices, compressed.
  [[nodiscard]] std::uint64_t least_bytes() const {
    std::uint64_t bytes = model_.other_bytes;
    for (const Kind& kind : kinds_) bytes += kind.count() * kind.matrices->compressed_bytes;
    return bytes;
  }

  /// Time that one raw matrix saves, as a share of the step, summed over batch sizes; 0 where it may not be raw.
  [[nodiscard]] double gain_of(const Kind& kind, std::uint64_t scratch) const {
    if (options_.objective == Objective::kMemory) return 0;
    const std::vector<double>& compressed_us = kind.compressed_us(scratch);
    double gain = 0;
    bool below = false;
    for (std::size_t b = 0; b < compressed_us.size(); ++b) {
      const double saved_us = compressed_us[b] - kind.raw_us[b];
      if (std::abs(saved_us) > tune::kLeastNoise * compressed_us[b]) gain += saved_us / step_cublas_us_[b];
      below = below || kind.cublas_us[b] < kNeverBelow * compressed_us[b];
    }
    return options_.objective == Objective::kLatency || below ? gain : 0;
  }

  [[nodiscard]] Solution solve_with(std::uint64_t scratch, std::uint64_t fixed_bytes) const {
    Solution solution;
    solution.scratch = scratch;
    std::vector<tune::KnapsackKind> items;
    for (const Kind& kind : kinds_) {
      const std::uint64_t raw = kind.matrices->raw_bytes, compressed = kind.matrices->compressed_bytes;
      items.push_back({gain_of(kind, scratch), raw > compressed ? raw - compressed : 0, kind.count()});
      for (std::size_t b = 0; b < kind.cublas_us.size(); ++b) {
        solution.time += static_cast<double>(kind.count()) * kind.compressed_us(scratch)[b] / step_cublas_us_[b];
      }
    }
    const tune::KnapsackResult filled = tune::fill_knapsack(items, capacity() - fixed_bytes);
    solution.raw = filled.taken;
    solution.optimal = filled.optimal;
    solution.time -= filled.gain;
    solution.bytes = fixed_bytes;
    for (std::size_t k = 0; k < items.size(); ++k) solution.bytes += filled.taken[k] * items[k].bytes;
    return solution;
  }

  /// The best one for each size that the scratch may have, and of those the best.
  [[nodiscard]] Result<Solution> solve() const {
    const bool memory = options_.objective == Objective::kMemory;
    std::vector<std::uint64_t> scratches = {0};
    for (const Kind& kind : kinds_) {
      if (!memory && kind.decodes) scratches.push_back(kind.scratch());
    }
    std::ranges::sort(scratches);
    std::optional<Solution> best;
    const auto consider = [&](const Solution& solution) {
      const bool better =
          !best || solution.time < best->time || (solution.time == best->time && solution.bytes < best->bytes);
      if (better) best = solution;
    };
    for (const std::uint64_t scratch : scratches) {
      // What may need cuBLASLt has room for its workspace.
      const std::uint64_t fixed = least_bytes() + tune::workspace_bytes(!memory) + scratch;
      if (fixed <= capacity()) consider(solve_with(scratch, fixed));
    }
    if (best) return *best;
    const std::uint64_t fixed = least_bytes() + tune::workspace_bytes(false);
    if (fixed > capacity()) {
      return refuse(
          fmt::format("a budget of {} bytes is less than the {} that the model takes with all matrices "
                      "compressed",
                      capacity(), fixed));
    }
    Solution compressed = solve_with(0, fixed);
    if (std::ranges::any_of(compressed.raw, [](std::uint64_t raw) { return raw != 0; })) {
      std::ranges::fill(compressed.raw, 0);  // raw matrices would need the workspace that does not fit
    }
    return compressed;
  }

  void write(const Solution& solution) {
    plan_.request = {options_.objective, options_.batch_sizes,      options_.memory_budget_bytes, model_.model,
                     model_.other_bytes, model_.kv_bytes_per_token, options_.dependent_launch};
    plan_.matrices.clear();
    std::size_t k = 0;
    for (const PlanMatrices& equal : model_.matrices) {
      if (equal.names.empty()) continue;
      plan_.matrices.push_back(equal);
      plan_.matrices.back().raw = solution.raw[k++];
    }
    for (PlanWeight& entry : plan_.weights) {
      const bool decoded = entry.weight.layout == BlobLayout::kRaw ||
                           solution.scratch >= tune::scratch_bytes(entry.weight.rows, entry.weight.cols);
      for (PlanCell& cell : entry.cells) {
        for (std::vector<Measurement>* list : {&cell.isolated, &cell.dependent}) {
          const Measurement* first = list->empty() ? nullptr : pick(*list, decoded);
          if (first == nullptr) continue;
          const auto at = list->begin() + (first - list->data());
          std::rotate(list->begin(), at, at + 1);
        }
      }
    }
  }

  Plan& plan_;
  const ModelMatrices& model_;
  const MemoryOptions& options_;
  std::vector<Kind> kinds_;
  std::vector<double> step_cublas_us_;
};

}  // namespace

Result<MemoryReport> plan_memory(Plan& plan, const ModelMatrices& model, const MemoryOptions& options) {
  return io::guarded([&] { return MemoryPlanner(plan, model, options).run(); });
}

}  // namespace unweight
