// SPDX-License-Identifier: Apache-2.0
//
// The decoder of the distribution form in AVX2: a step of 32 lanes is four vectors of 8 states.
#include <algorithm>
#include <bit>
#include <codec/rans_avx2.hpp>
#include <cstring>

namespace unweight::codec::distribution {
namespace {

using namespace format::distribution;

constexpr std::uint32_t kVectors = kLanes / 8;

/// Two vectors of 8 numbers below 2^16 as one of 16.
__m256i pack_words(__m256i a, __m256i b) { return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8); }

/// kSpread[mask]: a byte shuffle that gives each lane of `mask` a word in turn, zero-extended, and 0 to the others. It
/// works on halves of a register that both hold the same words.
alignas(32) constexpr auto kSpread = [] {
  std::array<std::array<std::uint8_t, 32>, 256> table{};
  for (std::uint32_t mask = 0; mask < 256; ++mask) {
    std::uint8_t next = 0;
    for (std::uint32_t lane = 0; lane < 8; ++lane) {
      for (std::uint32_t i = 0; i < 4; ++i) table[mask][4 * lane + i] = 0x80;
      if ((mask >> lane & 1) == 0) continue;
      table[mask][4 * lane] = next++;
      table[mask][4 * lane + 1] = next++;
    }
  }
  return table;
}();

/// One step of 8 lanes but for the words: returns the slots' entries and which lanes need a word.
[[gnu::always_inline]] inline __m256i decode_vector(__m256i& x, const std::uint32_t* slots, __m256i& need) {
  const __m256i slot_mask = _mm256_set1_epi32(kSlots - 1);
  const __m256i entry = _mm256_i32gather_epi32(reinterpret_cast<const int*>(slots), _mm256_and_si256(x, slot_mask), 4);
  const __m256i high = _mm256_srli_epi32(x, kFrequencyBits);
  const __m256i bias = _mm256_and_si256(_mm256_srli_epi32(entry, 12), slot_mask);
  // The entry has the frequency less one.
  x = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_and_si256(entry, slot_mask), high), _mm256_add_epi32(high, bias));
  need = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
  return entry;
}

/// Gives words to the lanes that need one. Reads 16 bytes at `words`; returns what follows those taken.
[[gnu::always_inline]] inline const std::byte* take_words(__m256i& x, __m256i need, const std::byte* words) {
  const auto mask = static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(need)));
  const __m256i next = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(words)), load256(kSpread[mask].data()));
  // Other lanes are shifted by 0.
  x = _mm256_or_si256(_mm256_sllv_epi32(x, _mm256_and_si256(need, _mm256_set1_epi32(16))), next);
  return words + sizeof(std::uint16_t) * static_cast<std::size_t>(std::popcount(mask));
}

/// Values of 16 entries but for their suffixes.
__m256i prefixes_of(__m256i entries0, __m256i entries1, __m256i base) {
  const __m256i ranks = pack_words(_mm256_srli_epi32(entries0, 24), _mm256_srli_epi32(entries1, 24));
  const __m256i special = _mm256_cmpgt_epi16(ranks, _mm256_set1_epi16(kMaxWindow - 1));
  // Shifted to the top and back, a prefix loses what is beyond its 10 bits.
  const __m256i prefixes = _mm256_srli_epi16(_mm256_slli_epi16(_mm256_add_epi16(ranks, base), 6), 1);
  return _mm256_andnot_si256(special, prefixes);
}

/// Sign and low mantissa bits of 16 values, from 12 bytes; 16 are read.
__m256i load_suffixes(const std::byte* at) {
  // Each element gets the two bytes that hold its 6 bits, which a multiplication moves to the top.
  const __m256i pairs = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(at)),
                                            _mm256_setr_epi8(0, 1, 0, 1, 1, 2, 1, 2, 3, 4, 3, 4, 4, 5, 4, 5, 6, 7, 6, 7,
                                                             7, 8, 7, 8, 9, 10, 9, 10, 10, 11, 10, 11));
  const __m256i top = _mm256_mullo_epi16(pairs, _mm256_set1_epi64x(0x0001004000100400));
  return _mm256_or_si256(_mm256_and_si256(top, _mm256_set1_epi16(static_cast<short>(0x8000))),
                         _mm256_and_si256(_mm256_srli_epi16(top, 10), _mm256_set1_epi16(31)));
}

/// The states of a block and its next word: what a step changes. The rest of a block's state would have to be read
/// again after each store of values, which could change it for all that the compiler knows.
struct Lanes {
  __m256i x[kVectors];
  const std::byte* words;
};

/// A step of 32 values in three parts.
struct Step {
  __m256i need[kVectors], entries[kVectors];

  [[gnu::always_inline]] void look_up(Lanes& lanes, const std::uint32_t* slots) {
    for (std::uint32_t v = 0; v < kVectors; ++v) entries[v] = decode_vector(lanes.x[v], slots, need[v]);
  }

  [[gnu::always_inline]] void renormalize(Lanes& lanes) const {
    for (std::uint32_t v = 0; v < kVectors; ++v) lanes.words = take_words(lanes.x[v], need[v], lanes.words);
  }

  [[gnu::always_inline]] void store(__m256i base, const std::byte* suffixes, std::uint16_t* out) const {
    store256(out, _mm256_or_si256(prefixes_of(entries[0], entries[1], base), load_suffixes(suffixes)));
    store256(out + 16, _mm256_or_si256(prefixes_of(entries[2], entries[3], base), load_suffixes(suffixes + 12)));
  }
};

/// The words of a block. A step may read more of them than it uses, so the last ones are moved to a buffer in time.
class Words {
 public:
  /// Bytes that a step may read.
  static constexpr std::ptrdiff_t kStepBytes = (kLanes + 8) * sizeof(std::uint16_t);

  Words(const std::byte* begin, std::size_t count) : end_(begin + count * sizeof(std::uint16_t)) {}

  /// A step may begin with at least so many bytes left.
  [[nodiscard]] std::ptrdiff_t least_left() const { return in_buffer_ ? 0 : kStepBytes; }
  [[nodiscard]] const std::byte* end() const { return end_; }
  [[nodiscard]] bool exhausted() const { return exhausted_; }

  /// Where to go on when there are fewer bytes left.
  [[gnu::noinline]] const std::byte* move(const std::byte* words) {
    if (in_buffer_) {  // the block is corrupt: whatever it reads from here on
      exhausted_ = true;
      return end_;
    }
    const auto left = static_cast<std::size_t>(end_ - words);
    buffer_ = {};
    std::memcpy(buffer_.data(), words, left);
    end_ = buffer_.data() + left;
    in_buffer_ = true;
    return buffer_.data();
  }

 private:
  const std::byte* end_;
  bool in_buffer_ = false;
  bool exhausted_ = false;
  std::array<std::byte, 3 * kStepBytes> buffer_;
};

constexpr int kWrite = 1;

/// A block on its way.
class Stream {
 public:
  explicit Stream(const DecodeJob& job)
      : job_(job), words_(job.block.words, job.block.word_count), suffixes_(job.block.suffixes) {
    for (std::uint32_t v = 0; v < kVectors; ++v) lanes_.x[v] = load256(job.block.states.data() + 8 * v);
    lanes_.words = job.block.words;
  }

  [[nodiscard]] std::uint32_t row_steps() const { return steps_per_row(job_.block.cols); }
  [[nodiscard]] std::uint32_t steps() const { return job_.block.rows * row_steps(); }
  /// Steps whose suffixes are in the suffix plane; those of the others are in the final states.
  [[nodiscard]] std::uint32_t stored_steps() const { return steps() - std::min(steps(), kStateSteps); }

  /// Decodes `count` whole steps at the start of a row.
  void decode_row(std::uint32_t row, std::uint32_t count) {
    RowDecoder decoder(*this, row);
    for (std::uint32_t i = 0; i < count; ++i) {
      Step step;
      decoder.begin(words_);
      step.look_up(decoder.lanes, decoder.slots);
      step.renormalize(decoder.lanes);
      decoder.store(step);
    }
    lanes_ = decoder.lanes;
    suffixes_ = decoder.suffixes;
  }

  /// The same for two blocks, a step of each in turn.
  static void decode_row(Stream& a, Stream& b, std::uint32_t row, std::uint32_t count) {
    RowDecoder decoder_a(a, row), decoder_b(b, row);
    for (std::uint32_t i = 0; i < count; ++i) {
      // Part by part, not step by step: what waits for one block's lookups would fill the CPU's queues before it came
      // to those of the other.
      Step step_a, step_b;
      decoder_a.begin(a.words_);
      decoder_b.begin(b.words_);
      step_a.look_up(decoder_a.lanes, decoder_a.slots);
      step_b.look_up(decoder_b.lanes, decoder_b.slots);
      step_a.renormalize(decoder_a.lanes);
      step_b.renormalize(decoder_b.lanes);
      decoder_a.store(step_a);
      decoder_b.store(step_b);
    }
    a.lanes_ = decoder_a.lanes;
    a.suffixes_ = decoder_a.suffixes;
    b.lanes_ = decoder_b.lanes;
    b.suffixes_ = decoder_b.suffixes;
  }

  /// Decodes the last values of a row, fewer than 32.
  void decode_short_step(std::uint32_t row) {
    alignas(32) std::array<std::uint16_t, kLanes> values;
    decode_one(job_.block.row_models[row], suffixes_, values.data());
    suffixes_ += kStepSuffixBytes;
    std::memcpy(job_.values + row * job_.stride + job_.block.cols / kLanes * kLanes, values.data(),
                (job_.block.cols % kLanes) * sizeof(std::uint16_t));
  }

  /// The steps whose suffixes are in the states. Returns the number of words, or kCorrupt.
  std::size_t finish() {
    constexpr std::array<std::byte, 2 * kStepSuffixBytes> kNoSuffixes{};
    alignas(32) std::array<std::array<std::uint16_t, kLanes>, kStateSteps> last{};
    const std::uint32_t stored = stored_steps();
    for (std::uint32_t i = stored; i < steps(); ++i) {
      decode_one(job_.block.row_models[i / row_steps()], kNoSuffixes.data(), last[i - stored].data());
    }
    if (words_.exhausted() || lanes_.words > words_.end()) return kCorrupt;
    alignas(32) States x;
    for (std::uint32_t v = 0; v < kVectors; ++v) store256(x.data() + 8 * v, lanes_.x[v]);
    for (const std::uint32_t state : x) {
      if (state >> kStateSuffixBits != 1) return kCorrupt;
    }
    for (std::uint32_t i = stored; i < steps(); ++i) {
      const std::uint32_t col = i % row_steps() * kLanes;
      std::uint16_t* out = job_.values + i / row_steps() * job_.stride + col;
      for (std::uint32_t lane = 0; lane < std::min(kLanes, job_.block.cols - col); ++lane) {
        out[lane] = static_cast<std::uint16_t>(last[i - stored][lane] |
                                               join(0, x[lane] >> (steps() - 1 - i) * kSuffixBits & 63U));
      }
    }
    return job_.block.word_count - static_cast<std::size_t>(words_.end() - lanes_.words) / sizeof(std::uint16_t);
  }

 private:
  /// What decoding a row changes, in registers.
  struct RowDecoder {
    RowDecoder(const Stream& stream, std::uint32_t row)
        : lanes(stream.lanes_),
          slots(stream.job_.block.row_models[row].table->slots.data()),
          base(_mm256_set1_epi16(static_cast<short>(stream.job_.block.row_models[row].base))),
          suffixes(stream.suffixes_),
          out(stream.job_.values + row * stream.job_.stride),
          next(row + 1 < stream.job_.block.rows ? out + stream.job_.stride : out) {}

    [[gnu::always_inline]] void begin(Words& words) {
      if (words.end() - lanes.words < words.least_left()) lanes.words = words.move(lanes.words);
    }

    [[gnu::always_inline]] void store(const Step& step) {
      __builtin_prefetch(next, kWrite);
      next += kLanes;
      step.store(base, suffixes, out);
      suffixes += kStepSuffixBytes;
      out += kLanes;
    }

    Lanes lanes;
    const std::uint32_t* slots;
    __m256i base;
    const std::byte* suffixes;
    std::uint16_t* out;
    const std::uint16_t* next;  ///< the same place of the next row, which the hardware does not foresee
  };

  void decode_one(const DecodeRow& model, const std::byte* suffixes, std::uint16_t* out) {
    if (words_.end() - lanes_.words < words_.least_left()) lanes_.words = words_.move(lanes_.words);
    Step step;
    step.look_up(lanes_, model.table->slots.data());
    step.renormalize(lanes_);
    step.store(_mm256_set1_epi16(static_cast<short>(model.base)), suffixes, out);
  }

  const DecodeJob& job_;
  Lanes lanes_;
  Words words_;
  const std::byte* suffixes_;
};

void decode_one_block(DecodeJob& job) {
  Stream stream(job);
  const std::uint32_t row_steps = stream.row_steps(), whole_steps = job.block.cols / kLanes;
  std::uint32_t left = stream.stored_steps();
  for (std::uint32_t row = 0; left != 0; ++row) {
    const std::uint32_t count = std::min(row_steps, left), whole = std::min(count, whole_steps);
    stream.decode_row(row, whole);
    if (whole < count) stream.decode_short_step(row);
    left -= count;
  }
  job.words = stream.finish();
}

/// Two blocks of one shape. Each step waits for the block's last one, so two blocks keep the CPU busier than one.
void decode_two_blocks(DecodeJob& job_a, DecodeJob& job_b) {
  Stream a(job_a), b(job_b);
  const std::uint32_t row_steps = a.row_steps(), whole_steps = job_a.block.cols / kLanes;
  std::uint32_t left = a.stored_steps();
  for (std::uint32_t row = 0; left != 0; ++row) {
    const std::uint32_t count = std::min(row_steps, left), whole = std::min(count, whole_steps);
    Stream::decode_row(a, b, row, whole);
    if (whole < count) {
      a.decode_short_step(row);
      b.decode_short_step(row);
    }
    left -= count;
  }
  job_a.words = a.finish();
  job_b.words = b.finish();
}

}  // namespace

void decode_avx2(std::span<DecodeJob> jobs) {
  std::size_t i = 0;
  for (; i + 1 < jobs.size(); i += 2) {
    const CodedBlock &a = jobs[i].block, &b = jobs[i + 1].block;
    if (a.rows == b.rows && a.cols == b.cols) {
      decode_two_blocks(jobs[i], jobs[i + 1]);
    } else {
      decode_one_block(jobs[i]);
      decode_one_block(jobs[i + 1]);
    }
  }
  if (i < jobs.size()) decode_one_block(jobs[i]);
}

}  // namespace unweight::codec::distribution
