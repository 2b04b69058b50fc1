// SPDX-License-Identifier: Apache-2.0
//
// `<out>.partial`: where an operation works until its result can appear under its final name.
//
//   result/        the tree that is renamed to `<out>` at the end
//   work.lock      marks the folder as ours; held while something in it is decided for all processes
//   ...            locks, journals and parts of the operation
#pragma once

#include <cstdint>
#include <filesystem>
#include <io/file.hpp>
#include <io/work_control.hpp>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

/// An exclusive lock (flock) on a file, given up when the object goes away or the process ends in any way.
class FileLock {
 public:
  FileLock() = default;
  /// kBusy when another process holds it.
  [[nodiscard]] static Result<FileLock> try_acquire(const std::filesystem::path& path);
  /// Waits; ends early when the operation is cancelled.
  [[nodiscard]] static Result<FileLock> acquire(const std::filesystem::path& path, WorkControl& control);

 private:
  explicit FileLock(File file) : file_(std::move(file)) {}
  File file_;
};

class WorkFolder {
 public:
  /// The work folder of `output`, made when missing. kExists when that name is taken by something that is not a work
  /// folder. `output` as resolve_output() returned it.
  [[nodiscard]] static Result<WorkFolder> open(const std::filesystem::path& output);
  /// kNotFound when there is none.
  [[nodiscard]] static Result<WorkFolder> open_existing(const std::filesystem::path& output);

  [[nodiscard]] const std::filesystem::path& output() const noexcept { return output_; }
  [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }
  [[nodiscard]] std::filesystem::path path(std::string_view name) const { return root_ / name; }
  [[nodiscard]] std::filesystem::path result() const { return root_ / "result"; }
  [[nodiscard]] std::filesystem::path lock_path() const { return root_ / kMark; }

  /// Makes the folders above result()/relative and returns that path.
  [[nodiscard]] Result<std::filesystem::path> place(std::string_view relative) const;
  /// Writes a file of the result in one step, by way of a temporary file outside of it.
  [[nodiscard]] Result<void> write_result(std::string_view relative, std::string_view text) const;

  /// Renames result() to the output and removes the rest. result() must have been made durable.
  [[nodiscard]] Result<void> publish() const;
  /// Whether a call of publish() for `output` was cut off between its two steps.
  [[nodiscard]] static bool was_published(const std::filesystem::path& output);
  /// Removes everything, the lock files last.
  [[nodiscard]] Result<void> remove() const;

 private:
  static constexpr std::string_view kMark = "work.lock";

  WorkFolder(std::filesystem::path output, std::filesystem::path root)
      : output_(std::move(output)), root_(std::move(root)) {}

  std::filesystem::path output_;
  std::filesystem::path root_;
};

/// A work folder in which this process has the lock `lock_name`.
struct EnteredWorkFolder {
  WorkFolder folder;
  FileLock lock;
};

/// Opens the work folder of `output` and takes a lock in it. kBusy when another process has that; kExists when `output`
/// appears meanwhile.
[[nodiscard]] Result<EnteredWorkFolder> enter_work_folder(const std::filesystem::path& output,
                                                          std::string_view lock_name);

/// Makes every folder of a tree durable; its files have been synced one by one.
[[nodiscard]] Result<void> sync_tree_folders(const std::filesystem::path& root);

/// kExists when `output` exists.
[[nodiscard]] Result<void> check_absent(const std::filesystem::path& output);

/// An append-only text file whose lines carry checksums: after a crash, what was written completely is still there and
/// the rest is ignored.
class Journal {
 public:
  Journal() = default;
  /// Opens or makes it, reads the valid lines, and cuts off what follows them.
  [[nodiscard]] static Result<Journal> open(const std::filesystem::path& path);
  /// The valid lines of a journal that another process may be writing; none when it is missing.
  [[nodiscard]] static Result<std::vector<std::string>> read_lines(const std::filesystem::path& path);

  [[nodiscard]] const std::vector<std::string>& lines() const noexcept { return lines_; }
  /// Without newline.
  [[nodiscard]] Result<void> append(std::string line);
  /// Forgets all lines but the first `count`.
  [[nodiscard]] Result<void> keep(std::size_t count);

 private:
  File file_;
  std::vector<std::string> lines_;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace unweight::io
