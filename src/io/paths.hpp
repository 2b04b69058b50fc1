// SPDX-License-Identifier: Apache-2.0
//
// Which paths are acceptable: names that come out of files, and where output may go.
#pragma once

#include <filesystem>
#include <string_view>
#include <unweight/result.hpp>

namespace unweight::io {

/// A path that a document names: relative, made of plain components separated by '/', UTF-8, without NUL, at most 4096
/// bytes. `what` names it in the error, `code` is the error's code.
[[nodiscard]] Result<void> check_relative_path(std::string_view path, std::string_view what, ErrorCode code);

/// The absolute path of an output that does not exist yet, its parent folder resolved. kNotFound when the parent is
/// missing, kInvalidArgument when the path has no name of its own ("/", "..").
[[nodiscard]] Result<std::filesystem::path> resolve_output(const std::filesystem::path& out);

/// kInvalidArgument when `output` (as resolve_output() returned it) or its work folder lies inside `input`, or `input`
/// inside one of them. `input` exists.
[[nodiscard]] Result<void> check_apart(const std::filesystem::path& input, const std::filesystem::path& output);

/// `<out>.partial`, where work in progress lies.
[[nodiscard]] std::filesystem::path partial_path(const std::filesystem::path& output);

}  // namespace unweight::io
