// SPDX-License-Identifier: Apache-2.0
//
// Inspection for C: the report of <unweight/checkpoint.hpp> in an object, handed out tensor by tensor.
#include <capi/checkpoint/structs.hpp>
#include <cstddef>
#include <unweight/checkpoint.hpp>
#include <unweight/safetensors.hpp>
#include <unweight/unweight_checkpoint.h>
#include <utility>

struct unweight_inspection {
  unweight::InspectReport report;
};

namespace {

using unweight::ErrorCode;
using unweight::fail;
using unweight::Result;
using unweight::StoredAs;
using unweight::TensorReport;
using unweight::capi::check_object;
using unweight::capi::check_path;
using unweight::capi::check_struct;
using unweight::capi::fill_report;
using unweight::capi::guarded;
using unweight::capi::read_flag;
using unweight::capi::read_options;
using unweight::capi::to_progress;

// What programs have compiled in: members never move, and these are sizeof() in the release that introduced them.
static_assert(offsetof(unweight_inspect_options, progress) == 24);
static_assert(offsetof(unweight_inspect_summary, is_bundle) == 32);
static_assert(offsetof(unweight_tensor_report, bits_per_weight) == 80 &&
              offsetof(unweight_tensor_report, stored) == 96);
constexpr std::uint64_t kOptionsBytes = 40, kSummaryBytes = 40, kTensorBytes = 104;
static_assert(sizeof(unweight_inspect_options) >= kOptionsBytes);
static_assert(sizeof(unweight_inspect_summary) >= kSummaryBytes);
static_assert(sizeof(unweight_tensor_report) >= kTensorBytes);

static_assert(UNWEIGHT_STORED_BLOB == static_cast<int>(StoredAs::kBlob));
static_assert(UNWEIGHT_STORED_RAW == static_cast<int>(StoredAs::kRaw));
static_assert(UNWEIGHT_STORED_ALIAS == static_cast<int>(StoredAs::kAlias));

unweight_tensor_report to_tensor_report(const TensorReport& from) {
  unweight_tensor_report report{};
  report.file = from.file.c_str();
  report.name = from.name.c_str();
  report.dtype = unweight::dtype_name(from.dtype).data();  // a literal
  report.shape = from.shape.data();
  report.rank = from.shape.size();
  report.alias_of = from.alias_of.c_str();
  report.source_bytes = from.source_bytes;
  report.stored_bytes = from.stored_bytes;
  report.exception_count = from.exception_count;
  report.bits_per_weight = from.bits_per_weight;
  report.exponent_entropy_bits = from.exponent_entropy_bits;
  report.stored = static_cast<std::uint32_t>(from.stored);
  report.palette_count = from.palette_count;
  return report;
}

}  // namespace

unweight_status unweight_inspect_path(const char* path, const unweight_inspect_options* options,
                                      unweight_inspection** inspection) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(inspection, "inspection"); !ok) return ok;
    *inspection = nullptr;
    if (auto ok = check_path(path, "path"); !ok) return ok;
    const auto read = read_options(options, kOptionsBytes);
    if (!read) return tl::unexpected(read.error());
    const auto headers_only = read_flag(read->headers_only, "headers_only");
    if (!headers_only) return tl::unexpected(headers_only.error());
    auto found = unweight::inspect_path(path, {.threads = read->threads,
                                               .histograms = !*headers_only,
                                               .progress = to_progress(read->progress, read->user_data)});
    if (!found) return tl::unexpected(found.error());
    *inspection = new unweight_inspection{std::move(*found)};
    return {};
  });
}

void unweight_inspection_destroy(unweight_inspection* inspection) { delete inspection; }

unweight_status unweight_inspection_summary(const unweight_inspection* inspection, unweight_inspect_summary* summary) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(inspection, "inspection"); !ok) return ok;
    if (auto ok = check_struct(summary, kSummaryBytes, "summary"); !ok) return ok;
    const auto& report = inspection->report;
    unweight_inspect_summary filled{};
    filled.tensors = report.tensors.size();
    filled.source_bytes = report.source_bytes;
    filled.stored_bytes = report.stored_bytes;
    filled.is_bundle = report.is_bundle ? 1 : 0;
    filled.profile = static_cast<std::uint32_t>(report.profile);
    fill_report(filled, summary);
    return {};
  });
}

unweight_status unweight_inspection_tensor(const unweight_inspection* inspection, uint64_t index,
                                           unweight_tensor_report* report) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(inspection, "inspection"); !ok) return ok;
    if (auto ok = check_struct(report, kTensorBytes, "report"); !ok) return ok;
    const auto& tensors = inspection->report.tensors;
    if (index >= tensors.size()) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("index = {} must be below the number of tensors, {}", index, tensors.size()));
    }
    fill_report(to_tensor_report(tensors[static_cast<std::size_t>(index)]), report);
    return {};
  });
}
