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
#include <string>
#include <string_view>
#include <type_traits>
#include <unweight/pipelines.hpp>
#include <utility>
#include <vector>

struct unweight_linear {
  unweight::Linear linear;
};

namespace {

using unweight::ErrorCode;
using unweight::fail;
using unweight::Linear;
using unweight::Result;
using unweight::capi::check_array;
using unweight::capi::check_object;
using unweight::capi::guarded;
using unweight::capi::read_struct;
using unweight::capi::to_bool;

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

constexpr std::uint64_t kFirstOptionsBytes = 64;  // sizeof() in the release that introduced it
static_assert(sizeof(unweight_linear_options) >= kFirstOptionsBytes);

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
    overrides.push_back({options.override_tokens[i], {unweight::Pipeline::kFused, *read, {}}});
  }
  return overrides;
}

Result<Linear> create(const unweight::DeviceBlob& blob, const unweight_linear_options* given) {
  if (given == nullptr) return Linear::create(blob);
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
  return Linear::create(blob, {.plan = options->plan == nullptr ? nullptr : &options->plan->plan,
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
  return make_linear(device_blob, linear, [&](const unweight::DeviceBlob& blob) { return create(blob, options); });
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
