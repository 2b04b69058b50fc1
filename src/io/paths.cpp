// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <io/file.hpp>
#include <io/json_text.hpp>
#include <io/paths.hpp>
#include <io/try.hpp>
#include <simdjson.h>
#include <string>
#include <system_error>

namespace unweight::io {
namespace {

/// Whether `path` is `folder` or lies below it. Both absolute and resolved.
bool is_within(const std::filesystem::path& path, const std::filesystem::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

}  // namespace

Result<void> check_relative_path(std::string_view path, std::string_view what, ErrorCode code) {
  const auto refuse = [&](const char* reason) {
    return fail(code, std::string(what) + " " + quoted_name(path) + " " + reason);
  };
  if (path.empty()) return refuse("is empty");
  if (path.size() > 4096) return refuse("is longer than 4096 bytes");
  if (!simdjson::validate_utf8(path.data(), path.size())) return fail(code, std::string(what) + " is not valid UTF-8");
  if (path.find('\0') != std::string_view::npos) return refuse("contains a NUL character");
  if (path.front() == '/') return refuse("is absolute");
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty()) return refuse("has an empty component");
    if (part == "." || part == "..") return refuse("has a component '.' or '..'");
    begin = end + 1;
  }
  return {};
}

Result<std::filesystem::path> resolve_output(const std::filesystem::path& out) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(out, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // a trailing slash
  if (error || out.empty() || !path.has_filename()) {
    return fail(ErrorCode::kInvalidArgument, "the output '" + out.native() + "' has no name");
  }
  const std::filesystem::path parent = std::filesystem::canonical(path.parent_path(), error);
  if (error) return fail_errno(error.value(), "use the folder of the output,", path.parent_path());
  UNWEIGHT_ASSIGN(const FileStatus status, status_of(parent));
  if (status.kind != FileStatus::Kind::kFolder) {
    return fail(ErrorCode::kNotFound, "the output's parent '" + parent.native() + "' is not a folder");
  }
  return parent / path.filename();
}

Result<void> check_apart(const std::filesystem::path& input, const std::filesystem::path& output) {
  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::canonical(input, error);
  if (error) return fail_errno(error.value(), "find", input);
  if (is_within(output, resolved)) {
    return fail(ErrorCode::kInvalidArgument,
                "the output '" + output.native() + "' lies inside the input '" + input.native() + "'");
  }
  for (const std::filesystem::path& taken : {output, partial_path(output)}) {
    if (is_within(resolved, taken)) {
      return fail(ErrorCode::kInvalidArgument,
                  "the input '" + input.native() + "' lies inside the output '" + taken.native() + "'");
    }
  }
  return {};
}

std::filesystem::path partial_path(const std::filesystem::path& output) {
  std::filesystem::path partial = output;
  partial += ".partial";
  return partial;
}

}  // namespace unweight::io
