// SPDX-License-Identifier: Apache-2.0
//
// What the functions for checkpoints share: options in, reports out, progress back to C.
#pragma once

#include <capi/boundary.hpp>
#include <cstdint>
#include <fmt/format.h>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>
#include <unweight/unweight_checkpoint.h>

namespace unweight::capi {

[[nodiscard]] inline Result<void> check_path(const char* path, const char* name) {
  if (auto ok = check_object(path, name); !ok) return ok;
  if (*path == '\0') return fail(ErrorCode::kInvalidArgument, fmt::format("{} is empty", name));
  return {};
}

/// Options that may be NULL.
template <class Options>
[[nodiscard]] Result<Options> read_options(const Options* options, std::uint64_t first_bytes) {
  if (options == nullptr) return Options{};
  return read_struct(options, first_bytes, "options");
}

[[nodiscard]] inline Result<bool> read_flag(std::uint32_t value, const char* name) {
  if (value <= 1) return value == 1;
  return fail(ErrorCode::kInvalidArgument, fmt::format("options->{} = {} must be 0 or 1", name, value));
}

/// A report that may be NULL.
template <class Report>
[[nodiscard]] Result<void> check_report(const Report* report, std::uint64_t first_bytes) {
  return report == nullptr ? Result<void>{} : check_struct(report, first_bytes, "report");
}

template <class Report>
void fill_report(const Report& from, Report* to) {
  if (to != nullptr) write_struct(from, to);
}

[[nodiscard]] inline ProgressCallback to_progress(unweight_progress_callback callback, void* user_data) {
  if (callback == nullptr) return {};
  return [callback, user_data](const Progress& progress) {
    const unweight_progress shown{sizeof(unweight_progress), progress.bytes_done,   progress.bytes_total,
                                  progress.bytes_resumed,    progress.tensors_done, progress.tensors_total,
                                  progress.current.c_str()};
    return callback(&shown, user_data) == 0;
  };
}

}  // namespace unweight::capi
