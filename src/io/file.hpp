// SPDX-License-Identifier: Apache-2.0
//
// Files by descriptor: whole reads and writes at an offset, durable small files, and errors that name the path, the
// offset and the size. Reading goes through pread and not mmap, so that a file cut short under us is an error and not
// a signal, and memory stays bounded by our own buffers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <utility>
#include <vector>

namespace unweight::io {

/// Turns errno into an Error: "cannot <action> '<path>': <reason>". ENOSPC and EDQUOT become kNoSpace, EFBIG (a size
/// limit of the process or the file system) too; ENOENT kNotFound; EEXIST kExists; all others kIo.
[[nodiscard]] tl::unexpected<Error> fail_errno(int error_number, std::string_view action,
                                               const std::filesystem::path& path);

/// What identifies a file and its state.
struct FileStatus {
  enum class Kind : std::uint8_t { kRegular, kFolder, kOther };
  Kind kind = Kind::kOther;
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;  ///< since the epoch
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

/// Follows symbolic links. kNotFound when nothing is there (or the link is broken).
[[nodiscard]] Result<FileStatus> status_of(const std::filesystem::path& path);
/// Whether a directory entry exists; does not follow symbolic links.
[[nodiscard]] bool entry_exists(const std::filesystem::path& path);

/// An open regular file. Moves, closes itself. Reads and writes may come from any thread.
class File {
 public:
  File() = default;
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  /// Read-only; follows symbolic links; anything but a regular file is refused without blocking.
  [[nodiscard]] static Result<File> open(const std::filesystem::path& path);
  /// For reading and writing; made when missing, otherwise kept as it is. Refuses to go through a symbolic link.
  [[nodiscard]] static Result<File> open_or_create(const std::filesystem::path& path);
  /// As open_or_create(), then emptied.
  [[nodiscard]] static Result<File> create(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int descriptor() const noexcept { return fd_; }

  [[nodiscard]] Result<FileStatus> status() const;
  [[nodiscard]] Result<std::uint64_t> size_bytes() const;

  /// Fills `out` from `offset`. Fewer bytes in the file are an error.
  [[nodiscard]] Result<void> read(std::uint64_t offset, std::span<std::byte> out) const;
  [[nodiscard]] Result<void> write(std::uint64_t offset, std::span<const std::byte> bytes) const;
  [[nodiscard]] Result<void> truncate(std::uint64_t size_bytes) const;
  /// Data and size are on the device when this returns.
  [[nodiscard]] Result<void> sync() const;

 private:
  File(int fd, std::filesystem::path path) noexcept : fd_(fd), path_(std::move(path)) {}

  int fd_ = -1;
  std::filesystem::path path_;
};

/// Copies `size_bytes` bytes inside the kernel where it can, through a buffer where it cannot.
[[nodiscard]] Result<void> copy_range(const File& from, std::uint64_t from_offset, const File& to,
                                      std::uint64_t to_offset, std::uint64_t size_bytes);

/// The whole file as text; more than `limit_bytes` is kIo.
[[nodiscard]] Result<std::string> read_text(const std::filesystem::path& path, std::uint64_t limit_bytes);

/// Writes `text` to `temporary`, makes it durable and renames it to `path`: a reader sees all of it or nothing.
[[nodiscard]] Result<void> write_text_atomically(const std::filesystem::path& path,
                                                 const std::filesystem::path& temporary, std::string_view text);

[[nodiscard]] Result<void> make_folder(const std::filesystem::path& path);
/// With all parents below `root`, which exists.
[[nodiscard]] Result<void> make_folders(const std::filesystem::path& root, const std::filesystem::path& relative);
/// Replaces a file of that name.
[[nodiscard]] Result<void> rename_file(const std::filesystem::path& from, const std::filesystem::path& to);
/// kExists when `to` exists.
[[nodiscard]] Result<void> rename_to_new(const std::filesystem::path& from, const std::filesystem::path& to);
/// A missing file is no error.
[[nodiscard]] Result<void> remove_file(const std::filesystem::path& path);
/// A folder with everything in it; symbolic links are removed, not followed. A missing folder is no error.
[[nodiscard]] Result<void> remove_folder(const std::filesystem::path& path);
/// Makes the entries of a folder durable.
[[nodiscard]] Result<void> sync_folder(const std::filesystem::path& path);

[[nodiscard]] inline std::span<const std::byte> bytes_of(std::string_view text) noexcept {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// Size of the buffers that data streams through.
inline constexpr std::size_t kStreamBytes = std::size_t{4} << 20;

namespace testing {

/// Called before every operation that changes the file system, with its name. Tests end the process here, at each
/// operation in turn, to prove that every interrupted run can be continued. Null outside of tests.
using FaultHook = void (*)(const char* operation);
void set_fault_hook(FaultHook hook) noexcept;

}  // namespace testing
}  // namespace unweight::io
