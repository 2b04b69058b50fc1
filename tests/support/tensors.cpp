// SPDX-License-Identifier: Apache-2.0
#include "support/tensors.hpp"
#include <bit>
#include <cmath>
#include <codec/encode.hpp>
#include <format/layout.hpp>

namespace unweight::test {

double Random::normal() {
  // Sum of uniforms (Irwin-Hall) for the body, and a scale mixture for tails: no libm, so the same bits everywhere.
  double sum = 0;
  for (int i = 0; i < 12; ++i) sum += unit();
  return sum - 6;
}

std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

std::string name_of(Filling filling) {
  switch (filling) {
    case Filling::kTrained:
      return "trained";
    case Filling::kConstant:
      return "constant";
    case Filling::kTwoSymbols:
      return "two_symbols";
    case Filling::kZeros:
      return "zeros";
    case Filling::kEveryValue:
      return "every_value";
    case Filling::kUniformBits:
      return "uniform_bits";
    case Filling::kOutlierRows:
      return "outlier_rows";
    case Filling::kOutlierColumns:
      return "outlier_columns";
    case Filling::kEscapes15:
      return "escapes_15";
    case Filling::kEscapes1p5:
      return "escapes_1p5";
    case Filling::kSparse:
      return "sparse";
    case Filling::kRareSpecials:
      return "rare_specials";
  }
  return "?";
}

namespace {

double power_of_two(double exponent) {
  // 2^x for the rows' scales: an exact scaling by the integer part, a quadratic for the rest.
  const double whole = std::floor(exponent), rest = exponent - whole;
  return std::ldexp(1 + rest * (0.6565 + 0.3435 * rest), static_cast<int>(whole));
}

std::uint16_t with_exponent(std::uint16_t value, std::uint64_t exponent) {
  return static_cast<std::uint16_t>((value & 0x807f) | exponent << 7);
}

std::uint16_t special(Random& random) {
  constexpr std::array<std::uint16_t, 8> kSpecials = {0x7fc0, 0xffff, 0x7f81, 0x7f80, 0xff80, 0x0001, 0x807f, 0x8000};
  return kSpecials[random.below(kSpecials.size())];
}

}  // namespace

std::vector<std::uint16_t> make_tensor(const MatrixShape& shape, Filling filling, std::uint64_t seed) {
  Random random(seed ^ 0x5eed0000U ^ static_cast<std::uint64_t>(filling));
  const std::uint64_t rows = shape.batch * shape.rows;
  std::vector<std::uint16_t> values(static_cast<std::size_t>(rows * shape.cols));
  std::size_t at = 0;
  for (std::uint64_t row = 0; row < rows; ++row) {
    const double sigma = 0.02 * power_of_two(0.5 * random.normal());
    for (std::uint64_t col = 0; col < shape.cols; ++col, ++at) {
      const std::uint16_t trained = to_bf16(static_cast<float>(sigma * random.normal()));
      std::uint16_t value = trained;
      switch (filling) {
        case Filling::kTrained:
          break;
        case Filling::kConstant:
          value = 0x3f80;
          break;
        case Filling::kTwoSymbols:
          value = random.below(3) == 0 ? 0x7f7f : 0x8001;
          break;
        case Filling::kZeros:
          value = 0;
          break;
        case Filling::kEveryValue:
          value = static_cast<std::uint16_t>(at + seed);
          break;
        case Filling::kUniformBits:
          value = static_cast<std::uint16_t>(random.next());
          break;
        case Filling::kOutlierRows:
          if (row % 11 == 5) value = static_cast<std::uint16_t>(random.next());
          break;
        case Filling::kOutlierColumns:
          if (col % 37 == 7) value = with_exponent(trained, 160 + (trained >> 7 & 7));
          break;
        case Filling::kEscapes15:
          if (random.below(1000) < 150) value = with_exponent(trained, 90 + random.below(60));
          break;
        case Filling::kEscapes1p5:
          if (random.below(1000) < 15) value = with_exponent(trained, 90 + random.below(60));
          break;
        case Filling::kSparse:
          if (random.below(3) != 0) value = 0;
          break;
        case Filling::kRareSpecials:
          if (random.below(500) == 0) value = special(random);
          break;
      }
      values[at] = value;
    }
  }
  return values;
}

ListsAndValues::ListsAndValues() : values(make_tensor(shape, Filling::kTrained, 11)) {
  for (std::uint32_t v = 0; v < 65536; ++v) values[v] = static_cast<std::uint16_t>(v * 40503U);
  Random random(12);
  for (std::size_t i = 64 * shape.cols; i < 96 * shape.cols; ++i) {
    if (random.below(shape.cols) < i % shape.cols * 9 / 16) values[i] &= 0x807f;
  }
}

ManyPalettes::ManyPalettes() {
  values.resize(shape.rows * shape.cols);
  Random random(3);
  for (std::uint64_t row = 0; row < shape.rows; ++row) {
    std::array<std::uint16_t, 8> exponents{};
    for (auto& e : exponents) e = static_cast<std::uint16_t>(100 + random.below(20));
    for (std::uint64_t col = 0; col < shape.cols; ++col) {
      const std::uint64_t choice = random.below(9);
      const std::uint64_t exponent = choice < 8 ? exponents[choice] : 90 + random.below(60);
      values[row * shape.cols + col] =
          static_cast<std::uint16_t>(random.below(2) << 15 | exponent << 7 | random.below(128));
    }
  }
}

RichTensor::RichTensor() : values(make_tensor(shape, Filling::kTrained, 11)) {
  for (std::uint32_t v = 0; v < 65536; ++v) values[v * 16 + v % 16] = static_cast<std::uint16_t>(v * 40503U);
  for (std::size_t i = 1024 * 1024; i < 1056 * 1024; ++i) values[i] = static_cast<std::uint16_t>(i * 25793U);
  // The last strips: each column of tiles has a list of another length, up to the longest and beyond.
  Random random(12);
  for (std::size_t row = 1056; row < 1088; ++row) {
    for (std::size_t col = 0; col < 1024; ++col) {
      if (random.below(1024) < col * 9 / 16) values[row * 1024 + col] &= 0x807f;
    }
  }
}

std::vector<std::byte> raw_blob(std::span<const std::uint16_t> values, const MatrixShape& shape) {
  std::vector<std::byte> blob(format::raw_blob_bytes(values.size()));
  codec::write_raw(values, shape, blob, 0);
  return blob;
}

}  // namespace unweight::test
