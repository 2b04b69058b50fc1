// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <chrono>
#include <codec/checksum.hpp>
#include <io/paths.hpp>
#include <io/try.hpp>
#include <io/work_folder.hpp>
#include <sys/file.h>
#include <system_error>
#include <thread>

namespace unweight::io {
namespace {

constexpr std::uint64_t kMaxJournalBytes = std::uint64_t{4} << 30;
constexpr std::size_t kChecksumDigits = 16;

std::string hexadecimal(std::uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(kChecksumDigits, '0');
  for (std::size_t i = kChecksumDigits; i-- > 0; value >>= 4) text[i] = kDigits[value & 15];
  return text;
}

std::string sealed(std::string_view line) {
  return std::string(line) + " " + hexadecimal(codec::xxh3(bytes_of(line))) + "\n";
}

/// The lines of `text` up to the first that is damaged or incomplete.
std::vector<std::string> valid_lines(std::string_view text) {
  std::vector<std::string> lines;
  for (std::size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
    const std::string_view whole = text.substr(0, end + 1);
    if (whole.size() < kChecksumDigits + 2) break;
    const std::string_view line = whole.substr(0, whole.size() - kChecksumDigits - 2);
    if (sealed(line) != whole) break;
    lines.emplace_back(line);
    text.remove_prefix(whole.size());
  }
  return lines;
}

Result<bool> is_work_folder(const std::filesystem::path& root) {
  std::error_code error;
  if (!std::filesystem::is_directory(std::filesystem::symlink_status(root, error))) return false;
  if (entry_exists(root / "work.lock")) return true;
  const bool empty = std::filesystem::is_empty(root, error);
  if (error) return fail_errno(error.value(), "list", root);
  return empty;
}

}  // namespace

// ---- FileLock -------------------------------------------------------------------------------------------------------

Result<FileLock> FileLock::try_acquire(const std::filesystem::path& path) {
  for (;;) {
    UNWEIGHT_ASSIGN(File file, File::open_or_create(path));
    if (::flock(file.descriptor(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno != EWOULDBLOCK) return fail_errno(errno, "lock", path);
      return fail(ErrorCode::kBusy, "'" + path.native() + "' is locked: another process is at work there");
    }
    // The holder before us may have removed the file in the meantime: then our lock is on a file that is gone.
    UNWEIGHT_ASSIGN(const FileStatus ours, file.status());
    const auto current = status_of(path);
    if (current && current->inode == ours.inode && current->device == ours.device) return FileLock(std::move(file));
  }
}

Result<FileLock> FileLock::acquire(const std::filesystem::path& path, WorkControl& control) {
  for (;;) {
    auto lock = try_acquire(path);
    if (lock || lock.error().code != ErrorCode::kBusy) return lock;
    control.tick();
    UNWEIGHT_TRY(control.outcome());
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

// ---- WorkFolder -----------------------------------------------------------------------------------------------------

Result<WorkFolder> WorkFolder::open(const std::filesystem::path& output) {
  WorkFolder folder(output, partial_path(output));
  if (entry_exists(folder.root_)) {
    UNWEIGHT_ASSIGN(const bool ours, is_work_folder(folder.root_));
    if (!ours) {
      return fail(ErrorCode::kExists,
                  "'" + folder.root_.native() + "' is in the way: it is not a work folder of an interrupted run");
    }
  }
  UNWEIGHT_TRY(make_folder(folder.root_));
  // The mark comes before anything else, so that a run that ends right here can be continued too.
  UNWEIGHT_TRY(File::open_or_create(folder.lock_path()));
  return folder;
}

Result<WorkFolder> WorkFolder::open_existing(const std::filesystem::path& output) {
  const WorkFolder folder(output, partial_path(output));
  if (!entry_exists(folder.lock_path())) {
    return fail(ErrorCode::kNotFound, "'" + folder.root_.native() + "' does not exist: there is nothing to finish");
  }
  return folder;
}

Result<std::filesystem::path> WorkFolder::place(std::string_view relative) const {
  const std::filesystem::path below(relative);
  UNWEIGHT_TRY(make_folder(result()));
  UNWEIGHT_TRY(make_folders(result(), below.parent_path()));
  return result() / below;
}

Result<void> WorkFolder::write_result(std::string_view relative, std::string_view text) const {
  UNWEIGHT_ASSIGN(const std::filesystem::path target, place(relative));
  return write_text_atomically(target, path("result.tmp"), text);
}

Result<void> WorkFolder::publish() const {
  UNWEIGHT_TRY(rename_to_new(result(), output_));
  UNWEIGHT_TRY(sync_folder(output_.parent_path()));
  return remove();
}

bool WorkFolder::was_published(const std::filesystem::path& output) {
  const WorkFolder work(output, partial_path(output));
  std::error_code error;
  return entry_exists(output) && !entry_exists(work.result()) &&
         (entry_exists(work.lock_path()) || std::filesystem::is_empty(work.root_, error));
}

Result<void> WorkFolder::remove() const {
  std::error_code error;
  std::vector<std::filesystem::path> locks;
  for (const auto& entry : std::filesystem::directory_iterator(root_, error)) {
    if (entry.path().extension() == ".lock") {
      if (entry.path() != lock_path()) locks.push_back(entry.path());
    } else if (entry.is_directory(error) && !entry.is_symlink(error)) {
      UNWEIGHT_TRY(remove_folder(entry.path()));
    } else {
      UNWEIGHT_TRY(remove_file(entry.path()));
    }
  }
  // work.lock goes last: as long as it is there, was_published() recognises the folder.
  for (const auto& lock : locks) UNWEIGHT_TRY(remove_file(lock));
  UNWEIGHT_TRY(remove_file(lock_path()));
  return remove_folder(root_);
}

Result<EnteredWorkFolder> enter_work_folder(const std::filesystem::path& output, std::string_view lock_name) {
  auto folder = WorkFolder::open(output);
  auto lock = folder ? FileLock::try_acquire(folder->path(lock_name)) : tl::unexpected(folder.error());
  if (auto absent = check_absent(output); !absent) {
    // Another process has just finished. What we made in its work folder, or in its place, is to go too.
    if (folder && WorkFolder::was_published(output)) UNWEIGHT_TRY(folder->remove());
    return tl::unexpected(std::move(absent).error());
  }
  if (!lock) return tl::unexpected(std::move(lock).error());
  return EnteredWorkFolder{*std::move(folder), *std::move(lock)};
}

Result<void> sync_tree_folders(const std::filesystem::path& root) {
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (it->is_directory(error)) UNWEIGHT_TRY(sync_folder(it->path()));
  }
  if (error) return fail_errno(error.value(), "list", root);
  return sync_folder(root);
}

Result<void> check_absent(const std::filesystem::path& output) {
  if (!entry_exists(output)) return {};
  return fail(ErrorCode::kExists, "the output '" + output.native() + "' exists already");
}

// ---- Journal --------------------------------------------------------------------------------------------------------

Result<Journal> Journal::open(const std::filesystem::path& path) {
  Journal journal;
  UNWEIGHT_ASSIGN(journal.file_, File::open_or_create(path));
  UNWEIGHT_ASSIGN(journal.lines_, read_lines(path));
  const std::size_t count = journal.lines_.size();
  UNWEIGHT_TRY(journal.keep(count));
  return journal;
}

Result<std::vector<std::string>> Journal::read_lines(const std::filesystem::path& path) {
  const auto text = read_text(path, kMaxJournalBytes);
  if (!text) {
    if (text.error().code == ErrorCode::kNotFound) return std::vector<std::string>{};
    return tl::unexpected(text.error());
  }
  return valid_lines(*text);
}

Result<void> Journal::append(std::string line) {
  const std::string text = sealed(line);
  UNWEIGHT_TRY(file_.write(size_bytes_, bytes_of(text)));
  size_bytes_ += text.size();
  lines_.push_back(std::move(line));
  return {};
}

Result<void> Journal::keep(std::size_t count) {
  lines_.resize(count);
  size_bytes_ = 0;
  for (const std::string& line : lines_) size_bytes_ += sealed(line).size();
  return file_.truncate(size_bytes_);
}

}  // namespace unweight::io
