// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <io/synth_values.hpp>

namespace unweight::io {
namespace {

// ---- random bits ----------------------------------------------------------------------------------------------------

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio: the step of the Weyl sequence

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit changes every output bit with p = 1/2.
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// Random bits of values 2 * pair (low half) and 2 * pair + 1 (high half).
constexpr std::uint64_t pair_bits(std::uint64_t key, std::uint64_t pair) { return mix(key + pair * kGolden); }

constexpr std::uint32_t value_bits(std::uint64_t key, std::uint64_t index) {
  return static_cast<std::uint32_t>(pair_bits(key, index >> 1) >> (32 * (index & 1)));
}

// ---- elementary functions, without libm -----------------------------------------------------------------------------

constexpr double kLn2 = 0.6931471805599453;
constexpr double kSqrtTwoOverPi = 0.7978845608028654;

/// e^x for -40 < x < 40: x = n ln 2 + r, Taylor series of e^r. ldexp() is exact.
double exponential(double x) {
  const auto n = static_cast<int>(x / kLn2 + (x < 0 ? -0.5 : 0.5));
  const double r = x - n * kLn2;
  double term = 1;
  double sum = 1;
  for (int i = 1; i <= 20; ++i) {
    term = term * r / i;
    sum += term;
  }
  return std::ldexp(sum, n);
}

/// Twice the density of N(0, 1): minus the derivative of tail().
double density(double z) { return kSqrtTwoOverPi * exponential(-0.5 * z * z); }

/// P(|N(0, 1)| > z) for 0 <= z < 8.
double tail(double z) {
  if (z < 2) {  // 1 - density * (z + z^3/3 + z^5/(3*5) + ...)
    double term = z;
    double sum = z;
    for (int i = 1; i < 60; ++i) {
      term = term * z * z / (2 * i + 1);
      sum += term;
    }
    return 1 - density(z) * sum;
  }
  double fraction = z;  // density / (z + 1/(z + 2/(z + 3/(z + ...))))
  for (int i = 120; i >= 1; --i) fraction = z + i / fraction;
  return density(z) / fraction;
}

// ---- N(0, 1) --------------------------------------------------------------------------------------------------------

/// |N(0, 1)| as a function of its tail probability t = m / 2^32, m odd. Segments are as fine as floating-point numbers
/// with 5 fraction bits: 32 in every octave of t, so that the tail is resolved as well as the centre. Within a segment
/// the distance from the end nearer to t = 1 is used, so that small values keep their relative precision.
class HalfNormal {
 public:
  HalfNormal() {
    double z = 0;  // of the segment's upper end; the first is t = 1
    for (int octave = 0; octave < 32; ++octave) {
      for (int i = kSegments - 1; i >= 0; --i) {
        const double t = std::ldexp(kSegments + i, -kSegmentBits - 1 - octave);
        double next = z;  // Newton from below: tail() is convex, so that every step stays below the root
        for (int step = 0; step < 12; ++step) next += (tail(next) - t) / density(next);
        auto& segment = segments_[static_cast<std::size_t>(octave * kSegments + i)];
        segment.start = static_cast<float>(z);
        segment.slope = static_cast<float>(std::ldexp(next - z, -kDistanceBits));
        z = next;
      }
    }
  }

  /// N(0, 1) from 32 random bits: bit 0 is the sign, the others are m without its lowest bit.
  [[nodiscard]] float operator()(std::uint32_t bits) const {
    const std::uint32_t m = bits | 1;
    const int octave = std::countl_zero(m);
    const std::uint32_t normalized = m << octave;  // 1 segment[5] distance[26]
    const Segment& segment =
        segments_[static_cast<std::size_t>(octave * kSegments) + (normalized >> kDistanceBits) % kSegments];
    const auto distance = static_cast<std::int32_t>(kDistances - normalized % kDistances);
    const float z = segment.start + segment.slope * static_cast<float>(distance);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(z) | bits << 31);
  }

 private:
  static constexpr int kSegmentBits = 5;
  static constexpr int kSegments = 1 << kSegmentBits;
  static constexpr int kDistanceBits = 31 - kSegmentBits;
  static constexpr std::uint32_t kDistances = 1U << kDistanceBits;

  struct Segment {
    float start = 0;  ///< value at the segment's upper end
    float slope = 0;  ///< increase per unit of distance from there
  };
  std::array<Segment, std::size_t{32} * kSegments> segments_;
};

const HalfNormal& normal() {
  static const HalfNormal table;
  return table;
}

/// Rounds to nearest even. Requires a finite value.
std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/// out[i] = mean + scale * N(0, 1) of value number begin + i.
void fill(std::uint64_t key, std::uint64_t begin, float mean, float scale, std::span<std::uint16_t> out) {
  const HalfNormal& table = normal();
  const auto value = [&](std::uint32_t bits) { return to_bf16(mean + scale * table(bits)); };
  std::size_t i = 0;
  if (begin % 2 != 0 && !out.empty()) out[i++] = value(value_bits(key, begin));
  for (; i + 1 < out.size(); i += 2) {
    const std::uint64_t bits = pair_bits(key, (begin + i) >> 1);
    out[i] = value(static_cast<std::uint32_t>(bits));
    out[i + 1] = value(static_cast<std::uint32_t>(bits >> 32));
  }
  if (i < out.size()) out[i] = value(value_bits(key, begin + i));
}

}  // namespace

std::uint64_t synth_tensor_key(std::uint64_t seed, std::string_view tensor_name) noexcept {
  std::uint64_t key = mix(seed + kGolden);
  for (const char c : tensor_name) key = mix(key ^ static_cast<unsigned char>(c)) + kGolden;
  return mix(key);
}

float synth_row_sigma(std::uint64_t tensor_key, std::uint64_t row) noexcept {
  const std::uint64_t row_key = mix(tensor_key ^ 0x726f77);  // "row": a stream of its own
  const double n = static_cast<double>(normal()(value_bits(row_key, row)));
  return static_cast<float>(0.02 * exponential(0.5 * n * kLn2));
}

void synth_values(std::uint64_t tensor_key, SynthRecipe recipe, std::uint64_t cols, std::uint64_t begin,
                  std::span<std::uint16_t> out) noexcept {
  switch (recipe) {
    case SynthRecipe::kNorm:
      fill(tensor_key, begin, 1.0F, 0.1F, out);
      return;
    case SynthRecipe::kBias:
      fill(tensor_key, begin, 0.0F, 0.02F, out);
      return;
    case SynthRecipe::kMatrix:
      break;
  }
  while (!out.empty()) {
    const std::uint64_t row = begin / cols;
    const std::size_t rest_of_row = static_cast<std::size_t>(std::min<std::uint64_t>(cols - begin % cols, out.size()));
    fill(tensor_key, begin, 0.0F, synth_row_sigma(tensor_key, row), out.first(rest_of_row));
    out = out.subspan(rest_of_row);
    begin += rest_of_row;
  }
}

}  // namespace unweight::io
