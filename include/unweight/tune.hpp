// SPDX-License-Identifier: Apache-2.0
//
// Making plans: what to measure, what to keep in memory, and what to try in a whole model. docs/tuning.md.
//
//   auto model = model_matrices("Llama-3.1-8B", Merging::kMerged);     // or known_model_matrices("llama-3.1-8b", ...)
//   auto tuned = tune_on_device({.weights = weight_classes(*model)});  // pipelines.hpp; a minute
//   auto memory = plan_memory(tuned->plan, *model, {.batch_sizes = {1, 8, 32}});
//   write_plan(tuned->plan, "plan.json");
//
// Nothing here needs a GPU or the CUDA toolkit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unweight/plan.hpp>
#include <unweight/result.hpp>
#include <vector>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

// ---- which matrices -------------------------------------------------------------------------------------------------

/// What multiplies in a model.
struct ModelMatrices {
  std::string model;
  std::vector<PlanMatrices> matrices;    ///< by kind
  std::uint64_t other_bytes = 0;         ///< all other tensors
  std::uint64_t kv_bytes_per_token = 0;  ///< 0: its config.json does not say
};

/// Whether loaders put q_proj, k_proj and v_proj into one matrix, and gate_proj and up_proj, as most servers do.
enum class Merging : std::uint8_t { kMerged, kSeparate };

/// Of a checkpoint or a bundle of the runtime profile. Reads headers alone; sizes of blobs that are not there yet are
/// estimated. Embeddings count as matrices only where the output layer shares them. Errors: those of inspect_path();
/// kBadCheckpoint where nothing multiplies, kInvalidArgument for a bundle of the distribution profile.
[[nodiscard]] Result<ModelMatrices> model_matrices(const std::filesystem::path& path, Merging merging);

/// Of a model that synth_checkpoint() knows. Errors: kInvalidArgument, with the names.
[[nodiscard]] Result<ModelMatrices> known_model_matrices(const std::string& name, Merging merging);

/// Of matrices given by shape and number, with the exceptions of trained weights.
struct ShapeCount {
  std::uint64_t rows = 0;
  std::uint64_t cols = 0;
  std::uint64_t count = 1;
};
[[nodiscard]] ModelMatrices shape_matrices(const std::vector<ShapeCount>& shapes);

/// The different ones, as tiled blobs.
[[nodiscard]] std::vector<WeightClass> weight_classes(const ModelMatrices& model);

// ---- measuring ------------------------------------------------------------------------------------------------------

struct TuneProgress {
  std::uint64_t cells_done = 0;  ///< a cell: a weight and a bucket
  std::uint64_t cells_total = 0;
  double seconds = 0;
  std::string current;
};

struct TuneOptions {
  std::vector<WeightClass> weights{};   ///< tuned as tiled and as raw blobs
  std::vector<std::uint32_t> tokens{};  ///< 1 to kMaxMatmulTokens; the buckets that they fall in are tuned
  double seconds = 60;                  ///< about; 0: as long as it takes
  bool exhaustive = false;              ///< time every candidate
  const Plan* incumbent = nullptr;  ///< its choices are measured again, and stay unless another is faster beyond noise
  std::string command{};            ///< for the plan's origin
  /// Return false to stop: kCancelled.
  std::function<bool(const TuneProgress&)> progress{};
  /// Called with the plan so far after each weight, so that what is measured can be kept should the rest fail.
  std::function<void(const Plan&)> weight_done{};
};

struct TuneReport {
  Plan plan;
  double seconds = 0;
  std::uint64_t candidates_timed = 0;
  std::uint64_t candidates_refused = 0;
  std::vector<std::string> refusals;  ///< each different reason once, with an example
  std::vector<std::string> warnings;  ///< for example: no time was left for some cells
};

// ---- memory ---------------------------------------------------------------------------------------------------------

struct MemoryOptions {
  Objective objective = Objective::kBalanced;
  std::vector<std::uint32_t> batch_sizes = {1, 8, 32};  ///< numbers of tokens that count, each as much as another
  std::uint64_t memory_budget_bytes = 0;                ///< 0: the GPU's memory
  bool dependent_launch = true;                         ///< which of a cell's lists decides
};

/// Bytes, and microseconds of the matrices of one step, a figure for each batch size.
struct StepCost {
  std::uint64_t matrix_bytes = 0;
  std::uint64_t scratch_bytes = 0;  ///< and the workspace
  std::vector<double> us;
  std::uint64_t models_on_gpu = 0;     ///< that fit beside each other
  std::uint64_t kv_tokens_on_gpu = 0;  ///< that fit beside one; 0 where their size is unknown
};

/// What one kind of matrix gives and takes.
struct KindCost {
  std::string kind;
  std::uint64_t rows = 0, cols = 0, count = 0, raw = 0;
  std::uint64_t compressed_bytes = 0, raw_bytes = 0;     ///< of one
  std::vector<double> compressed_us, raw_us, cublas_us;  ///< of one, for each batch size
  std::vector<Pipeline> pipelines;                       ///< of the compressed ones
};

struct MemoryReport {
  StepCost all_cublas;  ///< every matrix raw, by the best of cuBLAS
  StepCost all_compressed;
  StepCost chosen;
  std::vector<KindCost> kinds;
  bool optimal = true;                ///< the search for what to keep raw came to its end
  std::vector<std::string> warnings;  ///< for example: batch sizes between which the plan has to guess
};

/// Decides which of a model's matrices are kept raw and whether any are decoded to memory; writes that, the request and
/// the model into the plan: PlanMatrices::raw, and the order of the lists of each cell.
///
/// Time is the sum over batch sizes of the step's time as a share of the time with cuBLAS; the choice minimises it
/// among all that the objective allows and that fit the budget, exactly. Errors: kInvalidArgument where the plan has no
/// entry for a matrix, a batch size is out of range, or the budget is below what all matrices take when compressed.
[[nodiscard]] Result<MemoryReport> plan_memory(Plan& plan, const ModelMatrices& model, const MemoryOptions& options);

/// What the choices of a plan cost as they stand, for its request and its matrices. Errors: as plan_memory().
[[nodiscard]] Result<MemoryReport> memory_report(const Plan& plan);

// ---- in the whole model ---------------------------------------------------------------------------------------------

/// Microseconds of one step of the model with that plan: the caller prepares its layers by it, captures the step anew,
/// and measures. An error ends the refinement.
using StepTimer = std::function<Result<double>(const Plan& plan)>;

struct RefineProgress {
  std::uint64_t tried = 0;
  std::uint64_t total = 0;  ///< at most
  double seconds = 0;
  double first_us = 0;  ///< the step at the beginning
  double best_us = 0;   ///< and now
  std::string current;  ///< "4096 x 4096, tiled, 16 tokens: fused, strips 2, stages 3"
};

struct RefineOptions {
  std::vector<std::uint32_t> tokens{};  ///< whose buckets the step uses; empty: all of the plan's
  double seconds = 60;                  ///< no new trial after that; 0: no limit
  std::uint32_t rounds = 5;             ///< measurements of each side in a trial, in turns
  double least_gain = 0.002;            ///< share of the step's time that a change must bring, beyond the noise
  std::uint32_t passes = 2;             ///< over all cells; ends early when one changes nothing
  std::function<double()> now_s{};      ///< a clock; empty: the steady one
  /// Return false to stop: the plan is the best so far, RefineReport::stopped is set.
  std::function<bool(const RefineProgress&)> progress{};
};

struct RefineReport {
  double first_us = 0, best_us = 0;  ///< medians
  std::uint64_t tried = 0, accepted = 0;
  double seconds = 0;
  bool stopped = false;              ///< by the time limit or the callback
  std::vector<std::string> changes;  ///< accepted ones
};

/// Coordinate descent: for one cell of one weight at a time, the measured alternatives of the list that the plan's
/// request names take the choice's place; a change stays when the step becomes faster beyond the noise of both sides.
/// Errors: kInvalidArgument (options); the timer's. After an error the plan is the best so far, too.
[[nodiscard]] Result<RefineReport> refine_plan(Plan& plan, const StepTimer& step_us, const RefineOptions& options);

}  // namespace unweight
#pragma GCC visibility pop
