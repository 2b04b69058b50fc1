// SPDX-License-Identifier: Apache-2.0
//
// Plans: which way to multiply, for every weight and every number of tokens, on one GPU. `unweight tune` measures and
// writes them; Linear (pipelines.hpp) follows them. docs/tuning.md describes the file, an ordinary JSON document.
//
//   const auto plan = read_plan("plan.json");
//   auto linear = Linear::create(*blob, {.plan = &*plan});
//
// Nothing here needs a GPU or the CUDA toolkit.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unweight/blob.hpp>
#include <unweight/cuda.hpp>
#include <unweight/result.hpp>
#include <vector>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

// ---- numbers of tokens ----------------------------------------------------------------------------------------------

/// Buckets of numbers of tokens: 1; 2; 3 and 4; 5 to 8; ... 32769 to 65536.
inline constexpr std::uint32_t kTokenBuckets = 17;

/// The bucket of 1 to kMaxMatmulTokens tokens.
[[nodiscard]] constexpr std::uint32_t token_bucket(std::uint32_t tokens) noexcept {
  return tokens <= 1 ? 0 : static_cast<std::uint32_t>(std::bit_width(tokens - 1));
}
/// The most tokens of a bucket, which names it, and the fewest.
[[nodiscard]] constexpr std::uint32_t bucket_tokens(std::uint32_t bucket) noexcept {
  return std::uint32_t{1} << bucket;
}
[[nodiscard]] constexpr std::uint32_t bucket_begin(std::uint32_t bucket) noexcept {
  return bucket == 0 ? 1 : bucket_tokens(bucket - 1) + 1;
}
static_assert(token_bucket(kMaxMatmulTokens) + 1 == kTokenBuckets);

// ---- choices --------------------------------------------------------------------------------------------------------

/// The ways to multiply.
enum class Pipeline : std::uint8_t {
  kFused,    ///< matmul(): one kernel, from the blob's bytes as they lie, tiled or raw
  kDecoded,  ///< decode() to a scratch, then cuBLASLt: tiled blobs
  kRaw,      ///< cuBLASLt: raw blobs
};

/// "fused", "decoded", "raw".
[[nodiscard]] std::string_view pipeline_name(Pipeline pipeline) noexcept;

/// One of cuBLASLt's algorithms: the words of its cublasLtMatmulAlgo_t, which mean the same to the same version of
/// cuBLASLt. All zero: the first that cuBLASLt proposes.
struct CublasAlgorithm {
  std::array<std::uint64_t, 8> words{};

  [[nodiscard]] bool first_proposal() const noexcept { return words == std::array<std::uint64_t, 8>{}; }
  friend bool operator==(const CublasAlgorithm&, const CublasAlgorithm&) = default;
};

/// How to multiply.
struct Choice {
  Pipeline pipeline = Pipeline::kFused;
  MatmulConfig config{};        ///< of kFused
  CublasAlgorithm algorithm{};  ///< of the others

  /// Compares what the pipeline looks at.
  friend bool operator==(const Choice& a, const Choice& b) noexcept;
};

/// "fused, strips 2, stages 4, split": for people.
[[nodiscard]] std::string describe(const Choice& choice);

/// A choice for the bucket of so many tokens.
struct TokenChoice {
  std::uint32_t tokens = 0;
  Choice choice{};
};

// ---- plans ----------------------------------------------------------------------------------------------------------

/// How many values of a tiled blob are exceptions, by units of its lists a tile. The kernels' usual path is for up to
/// 32 units a tile; trained weights have about 13.
enum class ExceptionClass : std::uint8_t {
  kUsual,  ///< up to 24
  kMany,   ///< up to 128
  kDense,  ///< more
};
[[nodiscard]] std::string_view exception_class_name(ExceptionClass exceptions) noexcept;
[[nodiscard]] ExceptionClass exception_class(std::uint64_t exception_units, std::uint64_t tiles) noexcept;
/// Of an encoded blob, by its BlobInfo.
[[nodiscard]] ExceptionClass exception_class(const BlobInfo& info) noexcept;

/// "tiled", "raw".
[[nodiscard]] std::string_view layout_name(BlobLayout layout) noexcept;

/// What of a weight a plan depends on.
struct WeightClass {
  std::uint64_t rows = 0;
  std::uint64_t cols = 0;
  BlobLayout layout = BlobLayout::kTiled;
  ExceptionClass exceptions = ExceptionClass::kUsual;

  friend bool operator==(const WeightClass&, const WeightClass&) = default;
};

/// "4096 x 14336, tiled".
[[nodiscard]] std::string describe(const WeightClass& weight);

/// What a choice took.
struct Measurement {
  Choice choice{};
  double us = 0;     ///< median; 0: not measured
  double noise = 0;  ///< half of the range of the middle half of the samples, as a share of `us`

  friend bool operator==(const Measurement&, const Measurement&) = default;
};

/// What holds for one bucket. In both lists the choice comes first, then what else was measured.
struct PlanCell {
  std::uint32_t tokens = 0;            ///< the bucket's most
  double cublas_us = 0;                ///< the best of cuBLAS on raw weights, measured in turns with these; 0: unknown
  std::vector<Measurement> isolated;   ///< without dependent launch between consecutive kernels
  std::vector<Measurement> dependent;  ///< with it, where the kernel has it

  friend bool operator==(const PlanCell&, const PlanCell&) = default;
};

struct PlanWeight {
  WeightClass weight;
  std::uint64_t bytes = 0;      ///< of such a blob, about
  std::vector<PlanCell> cells;  ///< by tokens

  friend bool operator==(const PlanWeight&, const PlanWeight&) = default;
};

/// Equal matrices of a model, and which of them are to be kept raw.
struct PlanMatrices {
  std::string kind;  ///< "qkv_proj"
  std::uint64_t rows = 0;
  std::uint64_t cols = 0;
  ExceptionClass exceptions = ExceptionClass::kUsual;
  std::uint64_t compressed_bytes = 0;  ///< of one
  std::uint64_t raw_bytes = 0;         ///< of one
  std::vector<std::string> names;      ///< of all, in the model's order
  std::uint64_t raw = 0;               ///< the first so many are kept raw

  friend bool operator==(const PlanMatrices&, const PlanMatrices&) = default;
};

/// What a plan was made for and by.
struct PlanOrigin {
  std::string gpu;  ///< as the driver names it: "NVIDIA H100 80GB HBM3"
  std::uint32_t multiprocessors = 0;
  std::uint64_t memory_bytes = 0;
  std::string driver, cuda;    ///< versions
  std::uint64_t cublaslt = 0;  ///< cublasLtGetVersion(); 0: none
  std::string library;         ///< version of unweight
  std::string kernels;         ///< kernel_set(): 16 hexadecimal digits
  std::string date;            ///< ISO 8601, UTC
  std::string command;

  friend bool operator==(const PlanOrigin&, const PlanOrigin&) = default;
};

/// What is to be small.
enum class Objective : std::uint8_t {
  kLatency,   ///< time: matrices are kept raw wherever that is faster, as far as memory allows
  kMemory,    ///< bytes: nothing is kept raw, nothing is decoded to memory
  kBalanced,  ///< bytes, but no matrix may be slower than kNeverBelow times cuBLAS
};
[[nodiscard]] std::string_view objective_name(Objective objective) noexcept;

/// kBalanced keeps a matrix raw where compressed it would be slower than this, as a multiple of cuBLAS's speed.
inline constexpr double kNeverBelow = 0.97;

/// What the plan was asked to do, and for which model.
struct PlanRequest {
  Objective objective = Objective::kBalanced;
  std::vector<std::uint32_t> batch_sizes;  ///< numbers of tokens that count
  std::uint64_t memory_budget_bytes = 0;   ///< of weights, scratch and workspace together; 0: what the GPU has
  std::string model;                       ///< name or path; may be empty
  std::uint64_t other_bytes = 0;           ///< tensors that are no matrices of a multiplication
  std::uint64_t kv_bytes_per_token = 0;    ///< of its cache of keys and values; 0: unknown
  bool dependent_launch = false;           ///< which of a cell's lists decided

  friend bool operator==(const PlanRequest&, const PlanRequest&) = default;
};

struct Plan {
  PlanOrigin origin;
  PlanRequest request;
  std::vector<PlanMatrices> matrices;
  std::vector<PlanWeight> weights;

  /// Null where there is none.
  [[nodiscard]] const PlanWeight* find(const WeightClass& weight) const noexcept;
  /// Whether the plan keeps the tensor of that name raw, or the matrix that it is merged into: q_proj, k_proj and
  /// v_proj into qkv_proj, gate_proj and up_proj into gate_up_proj.
  [[nodiscard]] bool keeps_raw(std::string_view tensor_name) const;

  friend bool operator==(const Plan&, const Plan&) = default;
};

/// Reads a plan. Whether it suits a device is another question: plan_suits(). Errors: kNotFound, kIo, and those of
/// parse_plan().
[[nodiscard]] Result<Plan> read_plan(const std::filesystem::path& path);

/// Reads a plan from text. Nothing is overlooked: kBadJson for what is no JSON, for members that are missing, unknown,
/// twice there or of another type; kInvalidArgument for values out of range, with the place in the message. Whether a
/// kernel has a configuration is checked where a plan is used.
[[nodiscard]] Result<Plan> parse_plan(std::string_view text);

/// The text of a plan: a function of the plan alone. parse_plan() gives the plan back, with times rounded to
/// nanoseconds. Throws bad_alloc, having no other way to say that there is no memory for it.
[[nodiscard]] std::string plan_text(const Plan& plan);

/// Writes plan_text() to `path` in one step: readers see the old file or the new one. Errors: kIo, kNoSpace.
[[nodiscard]] Result<void> write_plan(const Plan& plan, const std::filesystem::path& path);

/// The lines of src/tune/tables/*.inc for a plan: the library's built-in tables are made of them. Throws as
/// plan_text().
[[nodiscard]] std::string plan_table_text(const Plan& plan);

/// The cell that stands for so many tokens, 1 to kMaxMatmulTokens: that of their bucket, otherwise the nearest one, the
/// larger of two as near; null where the nearest is more than two buckets away and none lies beyond.
[[nodiscard]] const PlanCell* nearest_cell(const PlanWeight& entry, std::uint32_t tokens);

/// What a plan is compared with before it is used.
struct DeviceIdentity {
  std::string gpu;
  std::uint32_t multiprocessors = 0;
  std::string kernels;
};

/// kInvalidArgument, with both sides in the message, unless the plan was made for that GPU, by a library of this
/// version (major and minor) with the same kernels.
[[nodiscard]] Result<void> plan_suits(const Plan& plan, const DeviceIdentity& device);

/// Where a choice comes from, in the order in which they are asked.
enum class ChoiceSource : std::uint8_t {
  kOverride,      ///< the caller's own
  kPlan,          ///< the caller's plan
  kBuiltinTable,  ///< the library's table for this GPU
  kCostModel,     ///< rules
  kFallback,      ///< a configuration that is legal for every problem
};
[[nodiscard]] std::string_view choice_source_name(ChoiceSource source) noexcept;

struct ResolvedChoice {
  Choice choice;
  ChoiceSource source = ChoiceSource::kFallback;
  std::uint32_t cell_tokens = 0;  ///< the cell of a plan or table that it stands in, the nearest one; 0: none
};

}  // namespace unweight
#pragma GCC visibility pop
