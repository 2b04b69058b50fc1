// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <io/file_hash.hpp>
#include <io/sha256.hpp>
#include <io/try.hpp>
#include <memory>
#include <span>

namespace unweight::io {
namespace {

constexpr std::size_t kHashBytes = std::size_t{1} << 20;

/// Hashes `file`; writes what it reads to `target` unless that is null.
Result<std::string> stream(const File& file, std::uint64_t size_bytes, const File* target, WorkControl& control,
                           std::uint64_t counted_bytes) {
  UNWEIGHT_ASSIGN(const std::uint64_t found_bytes, file.size_bytes());
  if (found_bytes != size_bytes) {
    return fail(ErrorCode::kSourceChanged, "'" + file.path().native() + "' has " + std::to_string(found_bytes) +
                                               " bytes now, it had " + std::to_string(size_bytes));
  }
  const std::size_t buffer_bytes = std::min<std::uint64_t>(kHashBytes, size_bytes);
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(buffer_bytes);
  Sha256 hash;
  std::uint64_t counted = 0;
  for (std::uint64_t done = 0; done < size_bytes;) {
    const std::span chunk(buffer.get(), std::min<std::uint64_t>(buffer_bytes, size_bytes - done));
    UNWEIGHT_TRY(file.read(done, chunk));
    hash.update(chunk);
    if (target != nullptr) UNWEIGHT_TRY(target->write(done, chunk));
    done += chunk.size();
    const auto share = static_cast<double>(done) / static_cast<double>(size_bytes);
    const std::uint64_t due =
        done == size_bytes ? counted_bytes : static_cast<std::uint64_t>(share * static_cast<double>(counted_bytes));
    control.add_bytes(due - std::min(due, counted));
    counted = std::max(due, counted);
    UNWEIGHT_TRY(control.outcome());
  }
  return hash.finish();
}

}  // namespace

Result<std::string> hash_file(const File& file, std::uint64_t size_bytes, WorkControl& control,
                              std::uint64_t counted_bytes) {
  return stream(file, size_bytes, nullptr, control, counted_bytes);
}

Result<std::string> copy_and_hash(const File& file, const std::filesystem::path& target, std::uint64_t size_bytes,
                                  WorkControl& control) {
  UNWEIGHT_ASSIGN(const File copy, File::create(target));
  auto digest = stream(file, size_bytes, &copy, control, size_bytes);
  if (digest) UNWEIGHT_TRY(copy.sync());
  return digest;
}

}  // namespace unweight::io
