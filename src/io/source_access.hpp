// SPDX-License-Identifier: Apache-2.0
//
// Where a plan's source is: files that lie there, or a bundle that can restore them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <io/buffer.hpp>
#include <io/duplicates.hpp>
#include <io/plan.hpp>
#include <io/work_control.hpp>
#include <string>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

/// Bytes of a file.
struct FilePlace {
  std::filesystem::path path;
  std::uint64_t offset = 0;
};

/// Reads a plan's source. Files go by their number in Plan::files. Thread-safe.
class SourceAccess {
 public:
  SourceAccess() = default;
  SourceAccess(const SourceAccess&) = delete;
  SourceAccess& operator=(const SourceAccess&) = delete;
  virtual ~SourceAccess() = default;

  /// The duplicates among the source's tensors.
  [[nodiscard]] virtual Result<std::vector<Alias>> aliases(const Plan& plan, WorkControl& control) const = 0;
  /// Memory that read_values() takes beside the values.
  [[nodiscard]] virtual std::uint64_t extra_memory_bytes(const Plan& plan, TensorRef tensor) const = 0;
  /// The values of a blob candidate.
  [[nodiscard]] virtual Result<Buffer> read_values(const Plan& plan, TensorRef tensor, unsigned threads) const = 0;
  /// Where the bytes of a tensor lie that is neither a blob candidate nor an alias.
  [[nodiscard]] virtual FilePlace place(const Plan& plan, TensorRef tensor) const = 0;
  /// The first 8 + N bytes of a safetensors file.
  [[nodiscard]] virtual Result<std::string> head(const Plan& plan, std::size_t file) const = 0;
  /// The file that holds the bytes of one that is copied or kept.
  [[nodiscard]] virtual std::filesystem::path path(const Plan& plan, std::size_t file) const = 0;
  /// SHA-256 of a file that is not copied; reports `counted_bytes` of progress in all.
  [[nodiscard]] virtual Result<std::string> hash(const Plan& plan, std::size_t file, WorkControl& control,
                                                 std::uint64_t counted_bytes) const = 0;
  /// Fails unless a file's digest is what it has to be, if that is known.
  [[nodiscard]] virtual Result<void> check_digest(const Plan& plan, std::size_t file,
                                                  const std::string& digest) const = 0;
  /// Plan::fingerprint of what the source is now.
  [[nodiscard]] virtual Result<std::string> fingerprint(const Plan& plan) const = 0;
};

}  // namespace unweight::io
