// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 of whole files, alone or while they are copied.
#pragma once

#include <cstdint>
#include <filesystem>
#include <io/file.hpp>
#include <io/work_control.hpp>
#include <string>
#include <unweight/result.hpp>

namespace unweight::io {

/// Reports `counted_bytes` of progress in all, at most the file's size. A file that is not `size_bytes` long any more
/// is kSourceChanged.
[[nodiscard]] Result<std::string> hash_file(const File& file, std::uint64_t size_bytes, WorkControl& control,
                                            std::uint64_t counted_bytes);

/// Copies `file` to `target`, made durable, and returns the SHA-256 of what was read.
[[nodiscard]] Result<std::string> copy_and_hash(const File& file, const std::filesystem::path& target,
                                                std::uint64_t size_bytes, WorkControl& control);

}  // namespace unweight::io
