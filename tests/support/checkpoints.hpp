// SPDX-License-Identifier: Apache-2.0
//
// Folders, files and small checkpoints for tests of the container.
#pragma once

#include "support/tensors.hpp"
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unweight/safetensors.hpp>
#include <vector>

namespace unweight::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSanitized = false;  ///< whether a sanitizer makes this build slow and hungry
#endif

/// A folder of its own for one test, removed at the end.
class TempFolder {
 public:
  /// Small files go to memory where the system offers that: the container flushes every file to the device, and tests
  /// that end a run at each of its steps would wait for that most of the time. TMPDIR overrides both.
  enum class Where { kMemory, kDisk };
  explicit TempFolder(Where where = Where::kMemory);
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder();
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

void write_file(const std::filesystem::path& path, std::string_view bytes);  ///< makes the folders above it
[[nodiscard]] std::string read_file(const std::filesystem::path& path);

/// Every file's bytes by its relative path; a folder without entries stands as "<path>/" with no bytes. What a test
/// compares to say that two folders are the same.
using Tree = std::map<std::string, std::string>;
[[nodiscard]] Tree read_tree(const std::filesystem::path& root);
/// Names of the entries that differ, for messages.
[[nodiscard]] std::string difference(const Tree& a, const Tree& b);

/// A tensor with its bytes.
struct TensorData {
  std::string name;
  Dtype dtype = Dtype::kBF16;
  std::vector<std::uint64_t> shape;
  std::string bytes;
};

[[nodiscard]] TensorData bf16_tensor(std::string name, std::vector<std::uint64_t> shape, Filling filling,
                                     std::uint64_t seed);
/// Random bytes of any dtype.
[[nodiscard]] TensorData random_tensor(std::string name, Dtype dtype, std::vector<std::uint64_t> shape,
                                       std::uint64_t seed);

using Metadata = std::vector<std::pair<std::string, std::string>>;

/// A file with a compact header, data in the order given.
[[nodiscard]] std::string make_safetensors(const std::vector<TensorData>& tensors, const Metadata& metadata = {});
/// A file of any header text, length field included.
[[nodiscard]] std::string file_with_header(std::string_view json, std::string_view data);

/// A checkpoint with a bit of everything: two shards and an index, every dtype, ranks 0 to 4, empty tensors, ragged
/// extents, noise, a tied duplicate, config, tokenizer, nested and empty folders, an empty file, a hidden file, a
/// header with odd spacing and order.
void write_mixed_checkpoint(const std::filesystem::path& root);
/// Two shards with a handful of tensors of some tens of kilobytes each.
void write_small_checkpoint(const std::filesystem::path& root);

/// Runs `body` in a child process, which ends without running any test code after it. Returns the status of waitpid().
int run_in_child(const std::function<int()>& body);

}  // namespace unweight::test
