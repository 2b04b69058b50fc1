// SPDX-License-Identifier: Apache-2.0
//
// From a plan to a bundle: what compressing and transcoding have in common.
#pragma once

#include <cstdint>
#include <filesystem>
#include <io/plan.hpp>
#include <io/work_control.hpp>
#include <io/work_folder.hpp>
#include <string>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>

namespace unweight::io {

[[nodiscard]] std::string share_lock_name(std::uint32_t share);

/// Completes `plan` with the duplicates: those that the work folder knows, or newly found ones that it then remembers.
/// `operation` is what the work folder has to be of.
[[nodiscard]] Result<void> settle_plan(Plan& plan, const std::string& operation, const WorkFolder& work,
                                       WorkControl& control);

/// A report before any work is done.
[[nodiscard]] CompressReport begin_report(const Plan& plan);

/// Joins the segments, publishes the bundle and completes the report.
[[nodiscard]] Result<void> complete_bundle(const Plan& plan, const WorkFolder& work, bool check_bytes, unsigned threads,
                                           WorkControl& control, CompressReport& report);

/// Does a share of a plan, from an output that does not exist to the bundle, or to the share alone where there are
/// several.
[[nodiscard]] Result<CompressReport> run_plan(Plan plan, const std::string& operation,
                                              const std::filesystem::path& output, std::uint32_t share_index,
                                              unsigned threads, WorkControl& control);

/// After publish() was cut off behind the rename: the bundle is complete, only the work folder is left to remove. A
/// success if the bundle is of this plan.
[[nodiscard]] Result<CompressReport> complete_publication(const Plan& plan, const std::filesystem::path& output);

/// The output's absolute path; fails where it and the source lie in each other.
[[nodiscard]] Result<std::filesystem::path> check_paths(const std::filesystem::path& source,
                                                        const std::filesystem::path& out);

}  // namespace unweight::io
