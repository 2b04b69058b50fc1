// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <io/file.hpp>
#include <io/try.hpp>
#include <memory>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace unweight::io {
namespace {

std::atomic<testing::FaultHook> g_fault_hook{nullptr};

void before_change(const char* operation) {
  if (const testing::FaultHook hook = g_fault_hook.load(std::memory_order_relaxed)) hook(operation);
}

/// Repeats a system call that a signal interrupted.
template <class Call>
auto retry(const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

std::string in_file(std::uint64_t size_bytes, const char* direction, std::uint64_t offset) {
  return std::to_string(size_bytes) + " bytes " + direction + " offset " + std::to_string(offset) + " of";
}

FileStatus to_status(const struct stat& s) {
  FileStatus status;
  status.kind = S_ISREG(s.st_mode)   ? FileStatus::Kind::kRegular
                : S_ISDIR(s.st_mode) ? FileStatus::Kind::kFolder
                                     : FileStatus::Kind::kOther;
  status.size_bytes = static_cast<std::uint64_t>(s.st_size);
  status.modified_ns = static_cast<std::int64_t>(s.st_mtim.tv_sec) * 1'000'000'000 + s.st_mtim.tv_nsec;
  status.device = s.st_dev;
  status.inode = s.st_ino;
  return status;
}

/// Offsets beyond off_t cannot be reached and would turn negative.
bool fits_off_t(std::uint64_t offset, std::uint64_t size_bytes) {
  constexpr auto kMax = static_cast<std::uint64_t>(INT64_MAX);
  return offset <= kMax && size_bytes <= kMax - offset;
}

Result<void> sync_descriptor(int fd, const std::filesystem::path& path) {
  // Some file systems cannot sync a folder and say EINVAL; there is nothing better to do there.
  if (retry([&] { return ::fsync(fd); }) != 0 && errno != EINVAL && errno != EROFS) {
    return fail_errno(errno, "flush", path);
  }
  return {};
}

}  // namespace

void testing::set_fault_hook(FaultHook hook) noexcept { g_fault_hook.store(hook, std::memory_order_relaxed); }

tl::unexpected<Error> fail_errno(int error_number, std::string_view action, const std::filesystem::path& path) {
  ErrorCode code = ErrorCode::kIo;
  if (error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG) code = ErrorCode::kNoSpace;
  if (error_number == ENOENT) code = ErrorCode::kNotFound;
  if (error_number == EEXIST) code = ErrorCode::kExists;
  return fail(code, "cannot " + std::string(action) + " '" + path.native() +
                        "': " + std::generic_category().message(error_number));
}

Result<FileStatus> status_of(const std::filesystem::path& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return fail_errno(errno, "find", path);
  return to_status(s);
}

bool entry_exists(const std::filesystem::path& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) == 0;
}

// ---- File -----------------------------------------------------------------------------------------------------------

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    path_ = std::move(other.path_);
  }
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

Result<File> File::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a fifo must not wait for a writer. It has no effect on regular files.
  const int fd = retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); });
  if (fd < 0) return fail_errno(errno, "open", path);
  File file(fd, path);
  UNWEIGHT_ASSIGN(const FileStatus status, file.status());
  if (status.kind != FileStatus::Kind::kRegular) {
    return fail(ErrorCode::kIo, "cannot open '" + path.native() + "': not a regular file");
  }
  return file;
}

Result<File> File::open_or_create(const std::filesystem::path& path) {
  before_change("create");
  const int fd = retry(
      [&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0644); });
  if (fd < 0) return fail_errno(errno, "create", path);
  File file(fd, path);
  UNWEIGHT_ASSIGN(const FileStatus status, file.status());
  if (status.kind != FileStatus::Kind::kRegular) {
    return fail(ErrorCode::kIo, "cannot write '" + path.native() + "': not a regular file");
  }
  return file;
}

Result<File> File::create(const std::filesystem::path& path) {
  UNWEIGHT_ASSIGN(File file, open_or_create(path));
  UNWEIGHT_TRY(file.truncate(0));
  return file;
}

Result<FileStatus> File::status() const {
  struct stat s {};
  if (::fstat(fd_, &s) != 0) return fail_errno(errno, "examine", path_);
  return to_status(s);
}

Result<std::uint64_t> File::size_bytes() const {
  UNWEIGHT_ASSIGN(const FileStatus current, status());
  return current.size_bytes;
}

Result<void> File::read(std::uint64_t offset, std::span<std::byte> out) const {
  std::uint64_t done = 0;
  while (done < out.size()) {
    const std::uint64_t at = offset + done;
    const std::uint64_t wanted = out.size() - done;
    if (!fits_off_t(at, wanted)) return fail_errno(EOVERFLOW, "read " + in_file(wanted, "at", at), path_);
    const ssize_t got = retry([&] { return ::pread(fd_, out.data() + done, wanted, static_cast<off_t>(at)); });
    if (got < 0) return fail_errno(errno, "read " + in_file(wanted, "at", at), path_);
    if (got == 0) {
      return fail(ErrorCode::kIo, "cannot read " + in_file(out.size(), "at", offset) + " '" + path_.native() +
                                      "': the file ends at byte " + std::to_string(at));
    }
    done += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<void> File::write(std::uint64_t offset, std::span<const std::byte> bytes) const {
  std::uint64_t done = 0;
  while (done < bytes.size()) {
    const std::uint64_t at = offset + done;
    const std::uint64_t wanted = bytes.size() - done;
    if (!fits_off_t(at, wanted)) return fail_errno(EFBIG, "write " + in_file(wanted, "at", at), path_);
    before_change("write");
    const ssize_t put = retry([&] { return ::pwrite(fd_, bytes.data() + done, wanted, static_cast<off_t>(at)); });
    if (put < 0) return fail_errno(errno, "write " + in_file(wanted, "at", at), path_);
    if (put == 0) return fail_errno(EIO, "write " + in_file(wanted, "at", at), path_);
    done += static_cast<std::uint64_t>(put);
  }
  return {};
}

Result<void> File::truncate(std::uint64_t size_bytes) const {
  before_change("truncate");
  if (!fits_off_t(0, size_bytes)) return fail_errno(EFBIG, "resize", path_);
  if (retry([&] { return ::ftruncate(fd_, static_cast<off_t>(size_bytes)); }) != 0) {
    return fail_errno(errno, "resize", path_);
  }
  return {};
}

Result<void> File::sync() const {
  before_change("sync");
  return sync_descriptor(fd_, path_);
}

// ---- whole files and folders ----------------------------------------------------------------------------------------

Result<void> copy_range(const File& from, std::uint64_t from_offset, const File& to, std::uint64_t to_offset,
                        std::uint64_t size_bytes) {
  std::uint64_t done = 0;
#if defined(__linux__)
  while (done < size_bytes) {
    if (!fits_off_t(from_offset, size_bytes) || !fits_off_t(to_offset, size_bytes)) break;
    auto in = static_cast<off_t>(from_offset + done);
    auto out = static_cast<off_t>(to_offset + done);
    const std::size_t wanted = std::min<std::uint64_t>(size_bytes - done, std::uint64_t{1} << 30);
    before_change("copy");
    const ssize_t got =
        retry([&] { return ::copy_file_range(from.descriptor(), &in, to.descriptor(), &out, wanted, 0); });
    // Any refusal (other file systems, old kernels) falls through to the buffer, which reports real errors properly.
    if (got <= 0) break;
    done += static_cast<std::uint64_t>(got);
  }
#endif
  if (done == size_bytes) return {};
  const std::size_t buffer_bytes = std::min<std::uint64_t>(kStreamBytes, size_bytes - done);
  const auto buffer = std::make_unique<std::byte[]>(buffer_bytes);
  while (done < size_bytes) {
    const std::span chunk(buffer.get(), std::min<std::uint64_t>(buffer_bytes, size_bytes - done));
    UNWEIGHT_TRY(from.read(from_offset + done, chunk));
    UNWEIGHT_TRY(to.write(to_offset + done, chunk));
    done += chunk.size();
  }
  return {};
}

Result<std::string> read_text(const std::filesystem::path& path, std::uint64_t limit_bytes) {
  UNWEIGHT_ASSIGN(const File file, File::open(path));
  UNWEIGHT_ASSIGN(const std::uint64_t size, file.size_bytes());
  if (size > limit_bytes) {
    return fail(ErrorCode::kIo, "cannot read '" + path.native() + "': " + std::to_string(size) +
                                    " bytes are over the limit of " + std::to_string(limit_bytes));
  }
  std::string text(size, '\0');
  UNWEIGHT_TRY(file.read(0, std::as_writable_bytes(std::span(text))));
  return text;
}

Result<void> write_text_atomically(const std::filesystem::path& path, const std::filesystem::path& temporary,
                                   std::string_view text) {
  {
    UNWEIGHT_ASSIGN(const File file, File::create(temporary));
    UNWEIGHT_TRY(file.write(0, bytes_of(text)));
    UNWEIGHT_TRY(file.sync());
  }
  UNWEIGHT_TRY(rename_file(temporary, path));
  return sync_folder(path.parent_path());
}

Result<void> make_folder(const std::filesystem::path& path) {
  before_change("mkdir");
  if (::mkdir(path.c_str(), 0755) == 0) return {};
  const int error_number = errno;
  struct stat s {};
  if (error_number == EEXIST && ::lstat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode)) return {};
  return fail_errno(error_number, "make the folder", path);
}

Result<void> make_folders(const std::filesystem::path& root, const std::filesystem::path& relative) {
  std::filesystem::path path = root;
  for (const std::filesystem::path& part : relative) {
    path /= part;
    UNWEIGHT_TRY(make_folder(path));
  }
  return {};
}

Result<void> rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  before_change("rename");
  if (::rename(from.c_str(), to.c_str()) != 0) return fail_errno(errno, "rename to '" + to.native() + "'", from);
  return {};
}

Result<void> rename_to_new(const std::filesystem::path& from, const std::filesystem::path& to) {
  before_change("rename");
#if defined(RENAME_NOREPLACE)
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
  if (errno != EINVAL && errno != ENOSYS) return fail_errno(errno, "rename '" + from.native() + "' to", to);
#endif
  if (entry_exists(to)) return fail_errno(EEXIST, "rename '" + from.native() + "' to", to);
  if (::rename(from.c_str(), to.c_str()) != 0) return fail_errno(errno, "rename '" + from.native() + "' to", to);
  return {};
}

Result<void> remove_file(const std::filesystem::path& path) {
  before_change("remove");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove", path);
  return {};
}

Result<void> remove_folder(const std::filesystem::path& path) {
  if (!entry_exists(path)) return {};
  std::error_code error;
  // Entries one by one, so that tests can stop between any two of them.
  const std::filesystem::directory_iterator entries(path, error);
  if (error) return fail_errno(error.value(), "list", path);
  for (const auto& entry : entries) {
    if (entry.is_directory(error) && !entry.is_symlink(error)) {
      UNWEIGHT_TRY(remove_folder(entry.path()));
    } else {
      UNWEIGHT_TRY(remove_file(entry.path()));
    }
  }
  before_change("rmdir");
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove", path);
  return {};
}

Result<void> sync_folder(const std::filesystem::path& path) {
  before_change("sync");
  const std::filesystem::path folder = path.empty() ? "." : path;
  const int fd = retry([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) return fail_errno(errno, "open", folder);
  auto done = sync_descriptor(fd, folder);
  ::close(fd);
  return done;
}

}  // namespace unweight::io
