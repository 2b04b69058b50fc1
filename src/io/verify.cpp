// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <fmt/format.h>
#include <io/bundle.hpp>
#include <io/file_hash.hpp>
#include <io/json_text.hpp>
#include <io/listing.hpp>
#include <io/restore.hpp>
#include <io/try.hpp>
#include <memory>
#include <optional>
#include <unweight/checkpoint.hpp>

namespace unweight {
namespace {

using namespace io;

tl::unexpected<Error> differs(std::string message) { return fail(ErrorCode::kNotIdentical, std::move(message)); }

/// The same files with the same sizes on both sides.
Result<void> compare_listings(const Bundle& bundle, const Listing& source) {
  for (const BundleFile& file : bundle.files) {
    const std::size_t at = source.find(file.manifest.path);
    if (at == source.files.size()) {
      return differs("'" + source.root.native() + "' lacks the file " + quoted_name(file.manifest.path));
    }
    if (source.files[at].size_bytes != file.manifest.size_bytes) {
      return differs(fmt::format("'{}' has {} bytes, in the bundle it has {}",
                                 source.full_path(file.manifest.path).native(), source.files[at].size_bytes,
                                 file.manifest.size_bytes));
    }
  }
  if (source.files.size() == bundle.files.size()) return {};
  for (const ListedFile& listed : source.files) {
    const bool known = std::any_of(bundle.files.begin(), bundle.files.end(),
                                   [&](const BundleFile& file) { return file.manifest.path == listed.path; });
    if (!known) return differs("'" + source.full_path(listed.path).native() + "' is not in the bundle");
  }
  return {};
}

/// Compares a restored stream with a file of the source.
class Comparison {
 public:
  explicit Comparison(File file) : file_(std::move(file)) {}

  Result<void> operator()(std::span<const std::byte> bytes) {
    if (buffer_.size_bytes() < bytes.size()) buffer_ = Buffer(bytes.size());
    const std::span<std::byte> expected = buffer_.bytes().first(bytes.size());
    UNWEIGHT_TRY(file_.read(offset_, expected));
    if (std::memcmp(expected.data(), bytes.data(), bytes.size()) != 0) {
      const auto at = std::mismatch(bytes.begin(), bytes.end(), expected.begin()).first - bytes.begin();
      return differs(fmt::format("'{}' differs from the bundle at byte {}", file_.path().native(),
                                 offset_ + static_cast<std::uint64_t>(at)));
    }
    offset_ += bytes.size();
    return {};
  }

 private:
  File file_;
  Buffer buffer_;
  std::uint64_t offset_ = 0;
};

/// The files that the bundle changed are not read when it is restored, but loaders read them.
Result<void> check_changed_file(const Bundle& bundle, const ManifestFile& manifest, WorkControl& control) {
  if (manifest.restore != Restore::kKept) return {};
  UNWEIGHT_ASSIGN(const File file, File::open(bundle.full_path(manifest.path)));
  UNWEIGHT_ASSIGN(const std::uint64_t size, file.size_bytes());
  UNWEIGHT_ASSIGN(const std::string digest, hash_file(file, size, control, 0));
  if (digest == manifest.bundle_sha256) return {};
  return fail(ErrorCode::kBadBundle, fmt::format("'{}' has SHA-256 {}, the manifest says {}", file.path().native(),
                                                 digest, manifest.bundle_sha256));
}

Result<VerifyReport> verify(const std::filesystem::path& path, const VerifyOptions& options) {
  UNWEIGHT_ASSIGN(const Bundle bundle, open_bundle(path));
  std::optional<Listing> source;
  if (!options.against.empty()) {
    UNWEIGHT_ASSIGN(source, list_checkpoint(options.against));
    UNWEIGHT_TRY(compare_listings(bundle, *source));
  }
  WorkControl control(options.progress);
  RestoreSteps steps;
  steps.is_done = [](std::size_t) { return false; };
  steps.make_consumer = [&](std::size_t file) -> Result<BytePipe::Consumer> {
    if (!source) return [](std::span<const std::byte>) -> Result<void> { return {}; };
    UNWEIGHT_ASSIGN(File opened, File::open(source->full_path(bundle.files[file].manifest.path)));
    // A consumer is copyable, a file is not.
    auto comparison = std::make_shared<Comparison>(std::move(opened));
    return [comparison](std::span<const std::byte> bytes) { return (*comparison)(bytes); };
  };
  steps.complete = [&](std::size_t file) { return check_changed_file(bundle, bundle.files[file].manifest, control); };
  UNWEIGHT_TRY(restore_all(bundle, options.threads, steps, control));
  control.report_end();

  VerifyReport report;
  report.files = bundle.files.size();
  for (const BundleFile& file : bundle.files) {
    report.tensors += file.tensors.size();
    report.bytes += file.manifest.size_bytes;
  }
  report.compared_with_source = source.has_value();
  return report;
}

}  // namespace

Result<VerifyReport> verify_bundle(const std::filesystem::path& bundle, const VerifyOptions& options) {
  return guarded([&]() -> Result<VerifyReport> {
    const Stopwatch watch;
    UNWEIGHT_ASSIGN(VerifyReport report, verify(bundle, options));
    report.seconds = watch.seconds();
    report.peak_memory_bytes = io::peak_memory_bytes();
    return report;
  });
}

}  // namespace unweight
