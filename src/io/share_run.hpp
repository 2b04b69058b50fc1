// SPDX-License-Identifier: Apache-2.0
//
// One process's share of a compression: the tensors of its segments, and the files that it copies or hashes.
#pragma once

#include <cstdint>
#include <io/plan.hpp>
#include <io/work_control.hpp>
#include <io/work_folder.hpp>
#include <optional>
#include <string>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

/// Stores what is still missing of share `share_index`. Everything done before is checked first and kept.
[[nodiscard]] Result<void> run_share(const Plan& plan, const WorkFolder& work, std::uint32_t share_index,
                                     unsigned threads, WorkControl& control);

/// The journal of a share's files.
[[nodiscard]] std::filesystem::path files_journal_path(const WorkFolder& work, std::uint32_t share_index);

/// SHA-256 by file index, as far as the journals of all shares have them.
[[nodiscard]] Result<std::vector<std::optional<std::string>>> read_file_digests(const Plan& plan,
                                                                                const WorkFolder& work);

}  // namespace unweight::io
