// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <io/file.hpp>
#include <io/listing.hpp>
#include <io/paths.hpp>
#include <io/try.hpp>
#include <numeric>
#include <system_error>
#include <utility>

namespace unweight::io {
namespace {

constexpr std::size_t kMaxFiles = 1'000'000;

/// One level of the walk, for recognising folders that contain themselves through links.
struct OpenFolder {
  std::uint64_t device;
  std::uint64_t inode;
};

class Walk {
 public:
  explicit Walk(Listing& listing) : listing_(listing) {}

  Result<void> folder(const std::filesystem::path& path, const std::string& relative, const FileStatus& status) {
    for (const OpenFolder& above : above_) {
      if (above.device == status.device && above.inode == status.inode) {
        return fail(ErrorCode::kBadCheckpoint, "'" + path.native() + "' is a link to a folder above itself");
      }
    }
    above_.push_back({status.device, status.inode});
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      names.push_back(it->path().filename().native());
      if (names.size() + listing_.files.size() > kMaxFiles) {
        return fail(ErrorCode::kBadCheckpoint, "'" + listing_.root.native() + "' holds over a million files");
      }
    }
    if (error) return fail_errno(error.value(), "list", path);
    if (names.empty() && !relative.empty()) listing_.empty_folders.push_back(relative);
    for (const std::string& name : names) {
      UNWEIGHT_TRY(entry(path / name, relative.empty() ? name : relative + "/" + name));
    }
    above_.pop_back();
    return {};
  }

 private:
  Result<void> entry(const std::filesystem::path& path, const std::string& relative) {
    UNWEIGHT_TRY(check_relative_path(relative, "the name of a file of the checkpoint,", ErrorCode::kBadCheckpoint));
    const auto status = status_of(path);
    if (!status) {
      if (status.error().code != ErrorCode::kNotFound) return tl::unexpected(status.error());
      return fail(ErrorCode::kBadCheckpoint, "'" + path.native() + "' is a broken symbolic link");
    }
    switch (status->kind) {
      case FileStatus::Kind::kFolder:
        return folder(path, relative, *status);
      case FileStatus::Kind::kRegular: {
        if (listing_.files.size() >= kMaxFiles) {
          return fail(ErrorCode::kBadCheckpoint, "'" + listing_.root.native() + "' holds over a million files");
        }
        listing_.files.push_back({relative, status->size_bytes, status->modified_ns});
        return {};
      }
      case FileStatus::Kind::kOther:
        break;
    }
    return fail(ErrorCode::kBadCheckpoint, "'" + path.native() + "' is neither a file nor a folder");
  }

  Listing& listing_;
  std::vector<OpenFolder> above_;
};

}  // namespace

std::uint64_t Listing::total_bytes() const noexcept {
  return std::accumulate(files.begin(), files.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const ListedFile& file) { return sum + file.size_bytes; });
}

std::size_t Listing::find(std::string_view path) const noexcept {
  const auto at = std::lower_bound(files.begin(), files.end(), path,
                                   [](const ListedFile& file, std::string_view wanted) { return file.path < wanted; });
  return at != files.end() && at->path == path ? static_cast<std::size_t>(at - files.begin()) : files.size();
}

bool is_safetensors_name(std::string_view path) noexcept { return path.ends_with(".safetensors"); }

Result<Listing> list_checkpoint(const std::filesystem::path& path) {
  UNWEIGHT_ASSIGN(const FileStatus status, status_of(path));
  Listing listing;
  if (status.kind == FileStatus::Kind::kFolder) {
    listing.root = path;
    Walk walk(listing);
    UNWEIGHT_TRY(walk.folder(path, "", status));
  } else {
    const std::string name = path.filename().native();
    if (status.kind != FileStatus::Kind::kRegular || !is_safetensors_name(name)) {
      return fail(ErrorCode::kInvalidArgument, "'" + path.native() + "' is neither a folder nor a .safetensors file");
    }
    UNWEIGHT_TRY(check_relative_path(name, "the name of the file,", ErrorCode::kBadCheckpoint));
    listing.root = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    listing.single_file = true;
    listing.files.push_back({name, status.size_bytes, status.modified_ns});
  }
  std::sort(listing.files.begin(), listing.files.end(),
            [](const ListedFile& a, const ListedFile& b) { return a.path < b.path; });
  std::sort(listing.empty_folders.begin(), listing.empty_folders.end());
  return listing;
}

}  // namespace unweight::io
