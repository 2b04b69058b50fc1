// SPDX-License-Identifier: Apache-2.0
//
// Tensors that tests, fuzzers and benchmarks share: named fillings of any shape, the same on every machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unweight/blob.hpp>
#include <vector>

namespace unweight::test {

/// A small, well-mixed generator (splitmix64); the tests must not depend on a library's distributions.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
  }
  std::uint64_t below(std::uint64_t n) { return next() % n; }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  /// Near enough to N(0, 1) for tests.
  double normal();

 private:
  std::uint64_t state_;
};

/// Round to nearest even.
std::uint16_t to_bf16(float value);

enum class Filling {
  kTrained,     ///< row sigma 0.02 * 2^(0.5 n): the synthetic recipe
  kConstant,    ///< one value
  kTwoSymbols,  ///< two values far apart
  kZeros,
  kEveryValue,      ///< all 65,536 bit patterns in turn: NaNs, infinities, subnormals, -0
  kUniformBits,     ///< random 16-bit patterns: does not compress
  kOutlierRows,     ///< trained, but every 11th row is random bits
  kOutlierColumns,  ///< trained, but every 37th column is 2^40 times larger
  kEscapes15,       ///< trained, but 15% of the values have an exponent from anywhere in a range of 60
  kEscapes1p5,      ///< the same with 1.5%
  kSparse,          ///< trained, two thirds exact zeros
  kRareSpecials,    ///< trained, with a NaN, an infinity, a subnormal or a -0 now and then
};

inline constexpr std::array kAllFillings = {
    Filling::kTrained,    Filling::kConstant,    Filling::kTwoSymbols,  Filling::kZeros,
    Filling::kEveryValue, Filling::kUniformBits, Filling::kOutlierRows, Filling::kOutlierColumns,
    Filling::kEscapes15,  Filling::kEscapes1p5,  Filling::kSparse,      Filling::kRareSpecials,
};

std::string name_of(Filling filling);

std::vector<std::uint16_t> make_tensor(const MatrixShape& shape, Filling filling, std::uint64_t seed);

/// A small tiled tensor that holds all 65,536 values, and tiles with as many exceptions as one can have: every column
/// of tiles has lists of another length, up to exponent planes.
struct ListsAndValues {
  ListsAndValues();
  MatrixShape shape{1, 160, 1024};
  std::vector<std::uint16_t> values;
};

/// A tiled tensor with more palettes than a blob has: rows whose exponents are scattered, each in its own way.
struct ManyPalettes {
  ManyPalettes();
  MatrixShape shape{1, 600, 128};
  std::vector<std::uint16_t> values;
};

/// A tiled tensor that holds all 65,536 values among trained ones, strips of random bits (exponent planes), and rows
/// with long lists.
struct RichTensor {
  RichTensor();
  MatrixShape shape{1, 1088, 1024};
  std::vector<std::uint16_t> values;
};

/// A blob of the raw layout, also where tiles would pay.
std::vector<std::byte> raw_blob(std::span<const std::uint16_t> values, const MatrixShape& shape);

}  // namespace unweight::test
