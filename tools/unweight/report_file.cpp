// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <report_file.hpp>
#include <unistd.h>
#include <utility>

namespace unweight::cli {
namespace {

tl::unexpected<Error> fail_errno(std::string_view action, const std::filesystem::path& path) {
  const int number = errno;
  const bool full = number == ENOSPC || number == EDQUOT || number == EFBIG;
  return fail(full ? ErrorCode::kNoSpace : ErrorCode::kIo,
              fmt::format("cannot {} '{}': {}", action, path.native(), std::strerror(number)));
}

}  // namespace

Result<ReportFile> ReportFile::open(const std::filesystem::path& path) {
  ReportFile file;
  if (path.empty()) return file;
  if (path.extension() != ".html" && path.extension() != ".htm") {
    return fail(ErrorCode::kInvalidArgument, fmt::format("--report '{}' must end in .html", path.native()));
  }
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("--report '{}' is a folder", path.native()));
  }
  file.path_ = path;
  file.temporary_ = path;
  file.temporary_ += fmt::format(".{}.partial", getpid());
  file.stream_.reset(std::fopen(file.temporary_.c_str(), "wbx"));
  if (!file.stream_) return fail_errno("create", file.temporary_);
  return file;
}

ReportFile::~ReportFile() {
  if (stream_) unlink(temporary_.c_str());
}

Result<void> ReportFile::write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stream_.get()) != text.size() || std::fflush(stream_.get()) != 0) {
    return fail_errno("write", temporary_);
  }
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return fail_errno("replace", path_);
  stream_.reset();
  return {};
}

}  // namespace unweight::cli
