// SPDX-License-Identifier: Apache-2.0
//
// The functions of <unweight/unweight_cuda.h> over those of <unweight/pipelines.hpp>.
#include <algorithm>
#include <capi/boundary.hpp>
#include <capi/plan_object.hpp>
#include <cstddef>
#include <cstring>
#include <cuda/capi_objects.hpp>
#include <fmt/format.h>
#include <iterator>
#include <pipelines/choices.hpp>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unweight/pipelines.hpp>
#include <utility>
#include <vector>

struct unweight_linear {
  unweight::Linear linear;
};

namespace {

using unweight::ChoiceSource;
using unweight::CublasAlgorithm;
using unweight::ErrorCode;
using unweight::ExceptionClass;
using unweight::fail;
using unweight::Linear;
using unweight::Pipeline;
using unweight::Result;
using unweight::WeightClass;
using unweight::capi::check_array;
using unweight::capi::check_object;
using unweight::capi::check_struct;
using unweight::capi::fill_config;
using unweight::capi::guarded;
using unweight::capi::read_struct;
using unweight::capi::to_bool;
using unweight::capi::write_struct;
using unweight::pipelines::ChoiceProblem;
using unweight::tune::ChoiceTable;

// What programs have compiled in: members never move.
static_assert(std::is_trivial_v<unweight_linear_options> && std::is_standard_layout_v<unweight_linear_options>);
static_assert(offsetof(unweight_linear_options, plan) == 8);
static_assert(offsetof(unweight_linear_options, overrides) == 16);
static_assert(offsetof(unweight_linear_options, override_tokens) == 24);
static_assert(offsetof(unweight_linear_options, override_count) == 32);
static_assert(offsetof(unweight_linear_options, dependent_launch) == 40);
static_assert(offsetof(unweight_linear_options, no_scratch) == 44);
static_assert(offsetof(unweight_linear_options, no_cublas) == 48);
static_assert(offsetof(unweight_linear_options, no_builtin_tables) == 52);
static_assert(offsetof(unweight_linear_options, reserved) == 56);

static_assert(std::is_trivial_v<unweight_weight_class> && std::is_standard_layout_v<unweight_weight_class>);
static_assert(offsetof(unweight_weight_class, rows) == 8);
static_assert(offsetof(unweight_weight_class, cols) == 16);
static_assert(offsetof(unweight_weight_class, layout) == 24);
static_assert(offsetof(unweight_weight_class, exceptions) == 28);
static_assert(std::is_trivial_v<unweight_device_facts> && std::is_standard_layout_v<unweight_device_facts>);
static_assert(offsetof(unweight_device_facts, gpu) == 8);
static_assert(offsetof(unweight_device_facts, multiprocessors) == 16);
static_assert(offsetof(unweight_device_facts, cublaslt) == 24);
static_assert(std::is_trivial_v<unweight_choice> && std::is_standard_layout_v<unweight_choice>);
static_assert(offsetof(unweight_choice, config) == 8);
static_assert(offsetof(unweight_choice, notes) == 16);
static_assert(offsetof(unweight_choice, notes_bytes) == 24);
static_assert(offsetof(unweight_choice, pipeline) == 32);
static_assert(offsetof(unweight_choice, source) == 36);
static_assert(offsetof(unweight_choice, first_tokens) == 40);
static_assert(offsetof(unweight_choice, last_tokens) == 44);
static_assert(offsetof(unweight_choice, cell_tokens) == 48);
static_assert(offsetof(unweight_choice, keeps_raw) == 52);
static_assert(offsetof(unweight_choice, algorithm) == 56);

// sizeof() in the release that introduced them.
constexpr std::uint64_t kFirstOptionsBytes = 64, kFirstWeightClassBytes = 40, kFirstFactsBytes = 32,
                        kFirstChoiceBytes = 120;
static_assert(sizeof(unweight_linear_options) >= kFirstOptionsBytes);
static_assert(sizeof(unweight_weight_class) >= kFirstWeightClassBytes);
static_assert(sizeof(unweight_device_facts) >= kFirstFactsBytes);
static_assert(sizeof(unweight_choice) >= kFirstChoiceBytes);

// The numbers of C are those of C++.
template <class Enum>
constexpr bool is_number(Enum value, std::uint32_t number) {
  return static_cast<std::uint32_t>(value) == number;
}
static_assert(is_number(Pipeline::kFused, UNWEIGHT_PIPELINE_FUSED) &&
              is_number(Pipeline::kDecoded, UNWEIGHT_PIPELINE_DECODED) &&
              is_number(Pipeline::kRaw, UNWEIGHT_PIPELINE_RAW));
static_assert(is_number(ChoiceSource::kOverride, UNWEIGHT_CHOICE_OVERRIDE) &&
              is_number(ChoiceSource::kPlan, UNWEIGHT_CHOICE_PLAN) &&
              is_number(ChoiceSource::kBuiltinTable, UNWEIGHT_CHOICE_BUILTIN_TABLE) &&
              is_number(ChoiceSource::kCostModel, UNWEIGHT_CHOICE_COST_MODEL) &&
              is_number(ChoiceSource::kFallback, UNWEIGHT_CHOICE_FALLBACK));
static_assert(is_number(ExceptionClass::kUsual, UNWEIGHT_EXCEPTIONS_USUAL) &&
              is_number(ExceptionClass::kMany, UNWEIGHT_EXCEPTIONS_MANY) &&
              is_number(ExceptionClass::kDense, UNWEIGHT_EXCEPTIONS_DENSE));
static_assert(UNWEIGHT_ANY_CUBLASLT == unweight::tune::kAnyCublaslt);
static_assert(std::size(unweight_choice{}.algorithm) == std::tuple_size_v<decltype(CublasAlgorithm::words)>);

Result<void> check_tokens(std::uint32_t tokens, const char* name) {
  if (tokens >= 1 && tokens <= unweight::kMaxMatmulTokens) return {};
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("{} = {} must be 1 to {}", name, tokens, unweight::kMaxMatmulTokens));
}

Result<std::vector<unweight::TokenChoice>> to_overrides(const unweight_linear_options& options) {
  std::vector<unweight::TokenChoice> overrides;
  if (options.override_count == 0) return overrides;
  if (auto ok = check_object(options.overrides, "options->overrides"); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_array(options.override_tokens, options.override_count, "options->override_tokens",
                            "options->override_count");
      !ok) {
    return tl::unexpected(ok.error());
  }
  // The caller's structures, which may be longer than ours, lie one after the other.
  const std::uint64_t size = options.overrides->struct_size;
  const auto* at = reinterpret_cast<const std::byte*>(options.overrides);
  for (std::size_t i = 0; i < options.override_count; ++i, at += size) {
    const auto* config = reinterpret_cast<const unweight_matmul_config*>(at);
    const auto read = unweight::capi::to_config(config, fmt::format("options->overrides[{}]", i).c_str());
    if (!read) return tl::unexpected(read.error());
    if (config->struct_size != size) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("options->overrides[{}]: struct_size = {} is not that of the first, {}", i,
                              config->struct_size, size));
    }
    overrides.push_back({options.override_tokens[i], {Pipeline::kFused, *read, {}}});
  }
  return overrides;
}

/// Calls `use` with the caller's options, which may be null, as C++ has them. Returns its result, or an error.
template <class Use>
auto with_options(const unweight_linear_options* given, const Use& use) -> decltype(use(unweight::LinearOptions{})) {
  if (given == nullptr) return use(unweight::LinearOptions{});
  const auto options = read_struct(given, kFirstOptionsBytes, "options");
  if (!options) return tl::unexpected(options.error());
  const auto overrides = to_overrides(*options);
  if (!overrides) return tl::unexpected(overrides.error());
  const auto dependent = to_bool(options->dependent_launch, "options->dependent_launch");
  const auto no_scratch = to_bool(options->no_scratch, "options->no_scratch");
  const auto no_cublas = to_bool(options->no_cublas, "options->no_cublas");
  const auto no_tables = to_bool(options->no_builtin_tables, "options->no_builtin_tables");
  for (const auto* flag : {&dependent, &no_scratch, &no_cublas, &no_tables}) {
    if (!*flag) return tl::unexpected(flag->error());
  }
  return use(unweight::LinearOptions{.plan = options->plan == nullptr ? nullptr : &options->plan->plan,
                                     .overrides = *overrides,
                                     .dependent_launch = *dependent,
                                     .scratch = !*no_scratch,
                                     .cublas = !*no_cublas,
                                     .builtin_tables = !*no_tables});
}

/// Makes an object of what `create` returns.
template <class Create>
unweight_status make_linear(const unweight_device_blob* device_blob, unweight_linear** linear, const Create& create) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(linear, "linear"); !ok) return ok;
    *linear = nullptr;
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    Result<Linear> made = create(device_blob->blob);
    if (!made) return tl::unexpected(made.error());
    *linear = new unweight_linear{*std::move(made)};
    return {};
  });
}

/// Text with its zero, cut where there is no room.
Result<void> copy_text(std::string_view from, char* text, std::size_t capacity_bytes) {
  if (auto ok = check_object(text, "text"); !ok) return ok;
  if (capacity_bytes == 0) return fail(ErrorCode::kInvalidArgument, "capacity_bytes = 0 must be 1 or more");
  const std::size_t size = std::min(from.size(), capacity_bytes - 1);
  std::memcpy(text, from.data(), size);
  text[size] = '\0';
  return {};
}

// ---- choices --------------------------------------------------------------------------------------------------------

Result<WeightClass> to_weight_class(const unweight_weight_class* given) {
  const auto read = read_struct(given, kFirstWeightClassBytes, "weight");
  if (!read) return tl::unexpected(read.error());
  if (read->rows == 0 || read->cols == 0) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("weight: {} x {} has no values to multiply with", read->rows, read->cols));
  }
  if (read->layout > UNWEIGHT_LAYOUT_TILED) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("weight->layout = {} must be 0 or 1", read->layout));
  }
  if (read->exceptions > UNWEIGHT_EXCEPTIONS_DENSE) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("weight->exceptions = {} must be 0 to 2", read->exceptions));
  }
  return WeightClass{read->rows, read->cols, static_cast<unweight::BlobLayout>(read->layout),
                     static_cast<ExceptionClass>(read->exceptions)};
}

Result<ChoiceProblem> to_problem(const unweight_weight_class* weight, const unweight_device_facts* device) {
  auto weight_class = to_weight_class(weight);
  if (!weight_class) return tl::unexpected(weight_class.error());
  ChoiceProblem problem{*weight_class, 1, {}, UNWEIGHT_ANY_CUBLASLT};
  if (device != nullptr) {
    const auto facts = read_struct(device, kFirstFactsBytes, "device");
    if (!facts) return tl::unexpected(facts.error());
    if ((facts->gpu == nullptr) != (facts->multiprocessors == 0)) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("device->multiprocessors = {} must be {}", facts->multiprocessors,
                              facts->gpu == nullptr ? "0 where gpu is NULL" : "1 or more where gpu is given"));
    }
    problem.cublaslt = facts->cublaslt;
    if (facts->gpu != nullptr) {
      problem.device = {facts->gpu, facts->multiprocessors, unweight::kernel_set()};
      return problem;
    }
  }
  auto current = unweight::device_identity();
  if (!current) return tl::unexpected(current.error());
  problem.device = *std::move(current);
  return problem;
}

/// Fills in what the caller's structure has room for, and what it points to.
Result<void> fill_choice(const ChoiceTable& table, std::uint32_t tokens, bool keeps_raw, unweight_choice* choice) {
  const std::uint32_t bucket = unweight::token_bucket(tokens);
  const unweight::ResolvedChoice& found = table.at(tokens);
  const bool fused = found.choice.pipeline == Pipeline::kFused;
  unweight_choice filled{};
  std::memcpy(&filled, choice, std::min<std::size_t>(choice->struct_size, sizeof filled));
  if (filled.config != nullptr) {
    const auto& config = fused ? found.choice.config : table.fused[bucket];
    if (auto ok = fill_config(config, filled.config, "choice->config"); !ok) return ok;
  }
  if (filled.notes != nullptr) {
    if (auto ok = copy_text(fmt::format("{}", fmt::join(table.notes, "\n")), filled.notes, filled.notes_bytes); !ok) {
      return ok;
    }
  }
  filled.pipeline = static_cast<std::uint32_t>(found.choice.pipeline);
  filled.source = static_cast<std::uint32_t>(found.source);
  filled.first_tokens = unweight::bucket_begin(bucket);
  filled.last_tokens = unweight::bucket_tokens(bucket);
  filled.cell_tokens = found.cell_tokens;
  filled.keeps_raw = keeps_raw ? 1 : 0;
  const CublasAlgorithm algorithm = fused ? CublasAlgorithm{} : found.choice.algorithm;
  std::ranges::copy(algorithm.words, filled.algorithm);
  write_struct(filled, choice);
  return {};
}

}  // namespace

unweight_status unweight_device_decode_to_raw(const unweight_device_blob* device_blob, void* device_bytes, void* stream,
                                              unweight_device_blob** raw_blob) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(raw_blob, "raw_blob"); !ok) return ok;
    *raw_blob = nullptr;
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    const auto raw = decode_to_raw(device_blob->blob, device_bytes, unweight::capi::to_stream(stream));
    if (!raw) return tl::unexpected(raw.error());
    *raw_blob = new unweight_device_blob{*raw};
    return {};
  });
}

unweight_status unweight_linear_create(const unweight_device_blob* device_blob, const unweight_linear_options* options,
                                       unweight_linear** linear) {
  return make_linear(device_blob, linear, [&](const unweight::DeviceBlob& blob) {
    return with_options(options, [&](const unweight::LinearOptions& given) { return Linear::create(blob, given); });
  });
}

unweight_status unweight_linear_for_weight(const unweight_linear* linear, const unweight_device_blob* device_blob,
                                           unweight_linear** other) {
  return make_linear(device_blob, other, [&](const unweight::DeviceBlob& blob) -> Result<Linear> {
    if (auto ok = check_object(linear, "linear"); !ok) return tl::unexpected(ok.error());
    return linear->linear.for_weight(blob);
  });
}

void unweight_linear_destroy(unweight_linear* linear) { delete linear; }

unweight_status unweight_linear_memory(const unweight_linear* linear, uint32_t most_tokens, size_t* workspace_bytes,
                                       size_t* scratch_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(workspace_bytes, "workspace_bytes"); !ok) return ok;
    if (auto ok = check_object(scratch_bytes, "scratch_bytes"); !ok) return ok;
    *workspace_bytes = *scratch_bytes = 0;
    if (auto ok = check_object(linear, "linear"); !ok) return ok;
    if (auto ok = check_tokens(most_tokens, "most_tokens"); !ok) return ok;
    *workspace_bytes = linear->linear.workspace_bytes();
    *scratch_bytes = linear->linear.scratch_bytes(most_tokens);
    return {};
  });
}

unweight_status unweight_linear_describe(const unweight_linear* linear, uint32_t tokens, char* text,
                                         size_t capacity_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(linear, "linear"); !ok) return ok;
    if (auto ok = check_tokens(tokens, "tokens"); !ok) return ok;
    const unweight::ResolvedChoice& found = linear->linear.choice(tokens);
    std::string words = fmt::format("{} ({}", describe(found.choice), choice_source_name(found.source));
    if (found.cell_tokens != 0) words += fmt::format(", {} tokens", found.cell_tokens);
    return copy_text(words + ")", text, capacity_bytes);
  });
}

unweight_status unweight_linear_notes(const unweight_linear* linear, char* text, size_t capacity_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(linear, "linear"); !ok) return ok;
    return copy_text(fmt::format("{}", fmt::join(linear->linear.notes(), "\n")), text, capacity_bytes);
  });
}

unweight_status unweight_linear_run(const unweight_linear* linear, const unweight_matmul_arguments* arguments,
                                    uint16_t* scratch, void* stream) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(linear, "linear"); !ok) return ok;
    const auto a = unweight::capi::to_arguments(arguments);
    if (!a) return tl::unexpected(a.error());
    return linear->linear.run(
        {a->x, a->x_stride, a->y, a->y_stride, a->bias, a->tokens, a->matrix, a->workspace, scratch},
        unweight::capi::to_stream(stream));
  });
}

unweight_status unweight_device_blob_class(const unweight_device_blob* device_blob,
                                           unweight_weight_class* weight_class) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_struct(weight_class, kFirstWeightClassBytes, "weight_class"); !ok) return ok;
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    const WeightClass found = unweight::pipelines::class_of(device_blob->blob);
    write_struct(unweight_weight_class{0, found.rows, found.cols, static_cast<std::uint32_t>(found.layout),
                                       static_cast<std::uint32_t>(found.exceptions), 0},
                 weight_class);
    return {};
  });
}

unweight_status unweight_choose(const unweight_weight_class* weight, const unweight_device_facts* device,
                                const unweight_linear_options* options, const char* tensor_name, uint32_t tokens,
                                unweight_choice* choice) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_struct(choice, kFirstChoiceBytes, "choice"); !ok) return ok;
    if (auto ok = check_tokens(tokens, "tokens"); !ok) return ok;
    const auto problem = to_problem(weight, device);
    if (!problem) return tl::unexpected(problem.error());
    return with_options(options, [&](const unweight::LinearOptions& given) -> Result<void> {
      const auto table = unweight::pipelines::resolve_choices(*problem, given);
      if (!table) return tl::unexpected(table.error());
      const unweight::Plan* plan = given.plan;
      const bool keeps_raw = plan != nullptr && tensor_name != nullptr && plan_suits(*plan, problem->device) &&
                             plan->keeps_raw(tensor_name);
      return fill_choice(*table, tokens, keeps_raw, choice);
    });
  });
}
