// SPDX-License-Identifier: Apache-2.0
//
// The file of --report: opened before the work so that a bad path fails at once, replaced in one step at the end.
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string_view>
#include <unweight/result.hpp>

namespace unweight::cli {

class ReportFile {
 public:
  /// An empty path: nothing is opened. The name must end in .html or .htm, so that a slip of the keyboard cannot
  /// replace a weight file. Errors: kInvalidArgument, kIo.
  [[nodiscard]] static Result<ReportFile> open(const std::filesystem::path& path);

  ReportFile(ReportFile&&) noexcept = default;
  ReportFile& operator=(ReportFile&&) = delete;
  /// Removes what was not written completely.
  ~ReportFile();

  /// Once. Errors: kIo, kNoSpace.
  [[nodiscard]] Result<void> write(std::string_view text);

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  using Stream = std::unique_ptr<std::FILE, Close>;

  ReportFile() = default;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  Stream stream_;
};

}  // namespace unweight::cli
