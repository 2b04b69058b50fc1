// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <codec/checksum.hpp>
#include <cstring>
#include <io/duplicates.hpp>
#include <io/file.hpp>
#include <io/try.hpp>
#include <map>
#include <memory>
#include <tuple>

namespace unweight::io {
namespace {

constexpr std::uint64_t kSampleBytes = 512;
constexpr std::uint64_t kSamples = 8;
/// Different tensors with equal samples are compared with at most so many others: bounds the work on files made to
/// defeat the samples.
constexpr std::size_t kMaxOriginals = 8;
constexpr std::size_t kCompareBytes = std::size_t{1} << 20;

/// A tensor under consideration.
struct Candidate {
  const SearchedFile* file;
  std::uint32_t tensor;

  [[nodiscard]] const TensorEntry& entry() const { return file->header->tensors[tensor]; }
  [[nodiscard]] std::uint64_t offset() const { return file->header->data_begin + entry().begin; }
  [[nodiscard]] TensorRef ref() const { return {file->file, tensor}; }
};

/// Keeps the file used last open: candidates come sorted by file.
class FileCache {
 public:
  Result<const File*> open(const SearchedFile& file) {
    if (current_ != &file) {
      current_ = nullptr;
      UNWEIGHT_ASSIGN(opened_, File::open(file.path));
      current_ = &file;
    }
    return &opened_;
  }

 private:
  const SearchedFile* current_ = nullptr;
  File opened_;
};

/// Hash of kSamples pieces, evenly spread, the first and the last bytes included.
Result<std::uint64_t> sample_hash(FileCache& cache, const Candidate& candidate) {
  UNWEIGHT_ASSIGN(const File* file, cache.open(*candidate.file));
  const std::uint64_t size = candidate.entry().size_bytes();
  std::array<std::byte, kSampleBytes * kSamples> samples;
  for (std::uint64_t i = 0; i < kSamples; ++i) {
    const std::uint64_t at = (size - kSampleBytes) / (kSamples - 1) * i;
    const std::uint64_t begin = i + 1 == kSamples ? size - kSampleBytes : at;
    UNWEIGHT_TRY(file->read(candidate.offset() + begin, std::span(samples).subspan(i * kSampleBytes, kSampleBytes)));
  }
  return codec::xxh3(samples);
}

class Comparer {
 public:
  Result<bool> equal(const Candidate& a, const Candidate& b, WorkControl& control) {
    UNWEIGHT_ASSIGN(const File* file_a, cache_a_.open(*a.file));
    UNWEIGHT_ASSIGN(const File* file_b, cache_b_.open(*b.file));
    const std::uint64_t size = a.entry().size_bytes();
    for (std::uint64_t at = 0; at < size; at += kCompareBytes) {
      const std::size_t count = std::min<std::uint64_t>(kCompareBytes, size - at);
      UNWEIGHT_TRY(file_a->read(a.offset() + at, std::span(buffer_a_.get(), count)));
      UNWEIGHT_TRY(file_b->read(b.offset() + at, std::span(buffer_b_.get(), count)));
      if (std::memcmp(buffer_a_.get(), buffer_b_.get(), count) != 0) return false;
      control.tick();
      UNWEIGHT_TRY(control.outcome());
    }
    return true;
  }

 private:
  FileCache cache_a_, cache_b_;
  std::unique_ptr<std::byte[]> buffer_a_ = std::make_unique<std::byte[]>(kCompareBytes);
  std::unique_ptr<std::byte[]> buffer_b_ = std::make_unique<std::byte[]>(kCompareBytes);
};

}  // namespace

Result<std::vector<Alias>> find_duplicates(std::span<const SearchedFile> files, WorkControl& control) {
  // Only tensors that share dtype and shape with another are looked into at all.
  std::map<std::tuple<Dtype, std::vector<std::uint64_t>>, std::vector<Candidate>> by_shape;
  for (const SearchedFile& file : files) {
    for (std::uint32_t i = 0; i < file.header->tensors.size(); ++i) {
      const TensorEntry& entry = file.header->tensors[i];
      if (entry.size_bytes() >= kMinAliasBytes) by_shape[{entry.dtype, entry.shape}].push_back({&file, i});
    }
  }

  FileCache cache;
  Comparer comparer;
  std::vector<Alias> aliases;
  for (const auto& [shape, candidates] : by_shape) {
    if (candidates.size() < 2) continue;
    std::map<std::uint64_t, std::vector<Candidate>> originals;
    for (const Candidate& candidate : candidates) {
      control.tick();
      UNWEIGHT_TRY(control.outcome());
      UNWEIGHT_ASSIGN(const std::uint64_t hash, sample_hash(cache, candidate));
      std::vector<Candidate>& same_sample = originals[hash];
      bool is_alias = false;
      for (const Candidate& original : same_sample) {
        UNWEIGHT_ASSIGN(is_alias, comparer.equal(candidate, original, control));
        if (is_alias) {
          aliases.push_back({candidate.ref(), original.ref()});
          break;
        }
      }
      if (!is_alias && same_sample.size() < kMaxOriginals) same_sample.push_back(candidate);
    }
  }
  return aliases;
}

}  // namespace unweight::io
