// SPDX-License-Identifier: Apache-2.0
//
// Reading and writing safetensors headers: the container of Hugging Face checkpoints.
//
//   u64 little-endian: N, the header's length | N bytes of JSON, optionally padded with spaces | tensor data
//
// The header is untrusted input. The parser follows the rules of the reference implementation and is stricter where
// that one is silent: at most 100 MB; duplicate names and members refused; tensors must tile the data area exactly,
// without overlap, hole or trailing bytes; every product is computed with overflow checks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <utility>
#include <vector>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

/// Element types of safetensors, by their names in the file.
enum class Dtype : std::uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
  kF4,
  kF6E2M3,
  kF6E3M2,
};

/// Width of one element in bits (4 and 6 exist). Never 0.
unsigned dtype_bits(Dtype dtype) noexcept;
/// "BF16", "F8_E4M3", ...
std::string_view dtype_name(Dtype dtype) noexcept;

/// One entry of a header. [begin, end) are byte offsets from the start of the data area.
struct TensorEntry {
  std::string name;
  Dtype dtype = Dtype::kU8;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return end - begin; }
};

/// A parsed and validated header.
struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;                           ///< ordered by begin, end, name
  std::vector<std::pair<std::string, std::string>> metadata;  ///< __metadata__, in file order
  std::uint64_t data_begin = 0;                               ///< 8 + N: file offset of the data area
  std::uint64_t data_bytes = 0;                               ///< size of the data area
};

inline constexpr std::uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

/// Parses the JSON of a header. `json` is exactly the N bytes; `file_bytes` is the size of the whole file, against
/// which the data area is checked. Errors: kBadSafetensors with the tensor's name and the values.
[[nodiscard]] Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, std::uint64_t file_bytes);

/// Makes the first 8 + N bytes of a file: the length and the JSON, padded with spaces so that the data area begins at a
/// multiple of `alignment` (a power of two) and not before `min_data_begin`. Offsets are taken from `tensors`. Throws
/// bad_alloc, having no other way to say that there is no memory for the text.
[[nodiscard]] std::string make_safetensors_header(std::span<const TensorEntry> tensors,
                                                  std::span<const std::pair<std::string, std::string>> metadata,
                                                  std::uint64_t alignment = 128, std::uint64_t min_data_begin = 0);

}  // namespace unweight
#pragma GCC visibility pop
