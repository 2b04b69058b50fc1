// SPDX-License-Identifier: Apache-2.0
//
// The functions of <unweight/unweight_plan.h> over those of <unweight/plan.hpp> and <unweight/tune.hpp>.
#include <capi/boundary.hpp>
#include <capi/plan_object.hpp>
#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>
#include <unweight/tune.hpp>
#include <utility>

namespace {

using unweight::ErrorCode;
using unweight::fail;
using unweight::Plan;
using unweight::Result;
using unweight::capi::check_array;
using unweight::capi::check_object;
using unweight::capi::check_struct;
using unweight::capi::guarded;
using unweight::capi::read_struct;
using unweight::capi::write_struct;

// What programs have compiled in: members never move.
static_assert(std::is_trivial_v<unweight_refine_options> && std::is_standard_layout_v<unweight_refine_options>);
static_assert(offsetof(unweight_refine_options, step_us) == 8);
static_assert(offsetof(unweight_refine_options, progress) == 16);
static_assert(offsetof(unweight_refine_options, context) == 24);
static_assert(offsetof(unweight_refine_options, tokens) == 32);
static_assert(offsetof(unweight_refine_options, token_count) == 40);
static_assert(offsetof(unweight_refine_options, seconds) == 48);
static_assert(offsetof(unweight_refine_options, least_gain) == 56);
static_assert(offsetof(unweight_refine_options, rounds) == 64);
static_assert(offsetof(unweight_refine_options, passes) == 68);
static_assert(offsetof(unweight_refine_options, reserved) == 72);
static_assert(std::is_trivial_v<unweight_refine_report> && std::is_standard_layout_v<unweight_refine_report>);
static_assert(offsetof(unweight_refine_report, first_us) == 8);
static_assert(offsetof(unweight_refine_report, best_us) == 16);
static_assert(offsetof(unweight_refine_report, seconds) == 24);
static_assert(offsetof(unweight_refine_report, tried) == 32);
static_assert(offsetof(unweight_refine_report, accepted) == 40);
static_assert(offsetof(unweight_refine_report, stopped) == 48);
static_assert(std::is_trivial_v<unweight_refine_progress> && sizeof(unweight_refine_progress) == 48);

// sizeof() in the release that introduced them.
constexpr std::uint64_t kFirstOptionsBytes = 80, kFirstReportBytes = 56;
static_assert(sizeof(unweight_refine_options) >= kFirstOptionsBytes);
static_assert(sizeof(unweight_refine_report) >= kFirstReportBytes);

/// Makes an object of what `read` returns.
template <class Read>
unweight_status make_plan(unweight_plan** plan, const Read& read) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(plan, "plan"); !ok) return ok;
    *plan = nullptr;
    Result<Plan> found = read();
    if (!found) return tl::unexpected(found.error());
    *plan = new unweight_plan{*std::move(found)};
    return {};
  });
}

Result<double> call_timer(const unweight_refine_options& options, const Plan& plan) {
  const auto object = std::make_unique<unweight_plan>(unweight_plan{plan});
  const double us = options.step_us(options.context, object.get());
  if (us > 0) return us;
  return fail(ErrorCode::kCancelled, "refine: the timer returned no time");
}

unweight::RefineOptions to_options(const unweight_refine_options& from) {
  unweight::RefineOptions options;
  if (from.tokens != nullptr) options.tokens.assign(from.tokens, from.tokens + from.token_count);
  options.seconds = from.seconds;
  if (from.least_gain != 0) options.least_gain = from.least_gain;
  if (from.rounds != 0) options.rounds = from.rounds;
  if (from.passes != 0) options.passes = from.passes;
  if (from.progress == nullptr) return options;
  options.progress = [from](const unweight::RefineProgress& progress) {
    const unweight_refine_progress shown{progress.tried,    progress.total,   progress.seconds,
                                         progress.first_us, progress.best_us, progress.current.c_str()};
    return from.progress(from.context, &shown) != 0;
  };
  return options;
}

}  // namespace

unweight_status unweight_plan_read(const char* path, unweight_plan** plan) {
  return make_plan(plan, [&]() -> Result<Plan> {
    if (auto ok = check_object(path, "path"); !ok) return tl::unexpected(ok.error());
    return unweight::read_plan(path);
  });
}

unweight_status unweight_plan_parse(const char* text, size_t text_bytes, unweight_plan** plan) {
  return make_plan(plan, [&]() -> Result<Plan> {
    if (auto ok = check_array(text, text_bytes, "text", "text_bytes"); !ok) return tl::unexpected(ok.error());
    return unweight::parse_plan({text, text_bytes});
  });
}

void unweight_plan_destroy(unweight_plan* plan) { delete plan; }

unweight_status unweight_plan_write(const unweight_plan* plan, const char* path) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(plan, "plan"); !ok) return ok;
    if (auto ok = check_object(path, "path"); !ok) return ok;
    return unweight::write_plan(plan->plan, path);
  });
}

unweight_status unweight_plan_text(const unweight_plan* plan, char* text, size_t capacity_bytes, size_t* text_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(text_bytes, "text_bytes"); !ok) return ok;
    *text_bytes = 0;
    if (auto ok = check_object(plan, "plan"); !ok) return ok;
    if (auto ok = check_array(text, capacity_bytes, "text", "capacity_bytes"); !ok) return ok;
    const std::string all = unweight::plan_text(plan->plan);
    *text_bytes = all.size();
    if (all.size() > capacity_bytes) {
      return fail(ErrorCode::kBufferTooSmall,
                  fmt::format("capacity_bytes = {} is less than the {} of the text", capacity_bytes, all.size()));
    }
    std::memcpy(text, all.data(), all.size());
    return {};
  });
}

unweight_status unweight_plan_keeps_raw(const unweight_plan* plan, const char* tensor_name, int* keeps_raw) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(keeps_raw, "keeps_raw"); !ok) return ok;
    *keeps_raw = 0;
    if (auto ok = check_object(plan, "plan"); !ok) return ok;
    if (auto ok = check_object(tensor_name, "tensor_name"); !ok) return ok;
    *keeps_raw = plan->plan.keeps_raw(tensor_name) ? 1 : 0;
    return {};
  });
}

unweight_status unweight_plan_refine(unweight_plan* plan, const unweight_refine_options* options,
                                     unweight_refine_report* report) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(plan, "plan"); !ok) return ok;
    const auto read = read_struct(options, kFirstOptionsBytes, "options");
    if (!read) return tl::unexpected(read.error());
    if (read->step_us == nullptr) return fail(ErrorCode::kInvalidArgument, "options->step_us is NULL");
    if (auto ok = check_array(read->tokens, read->token_count, "options->tokens", "options->token_count"); !ok)
      return ok;
    if (report != nullptr) {
      if (auto ok = check_struct(report, kFirstReportBytes, "report"); !ok) return ok;
    }
    const auto refined = refine_plan(
        plan->plan, [&](const Plan& changed) { return call_timer(*read, changed); }, to_options(*read));
    if (!refined) return tl::unexpected(refined.error());
    if (report == nullptr) return {};
    write_struct(unweight_refine_report{0, refined->first_us, refined->best_us, refined->seconds, refined->tried,
                                        refined->accepted, refined->stopped ? 1U : 0U, 0},
                 report);
    return {};
  });
}
