// SPDX-License-Identifier: Apache-2.0
//
// Decode of the distribution form: blocks of interleaved rANS streams -> bf16 W[batch, N, K], row-major, straight from
// the blob's bytes (docs/DISTRIBUTION.md).
//
//   in     stream      about 10.4 bits a value in blocks of at most 16,384 values: suffixes, 32 states, escapes, words
//          tables      6 B a block, 1 B a row, up to 8 classes of frequencies
//   out    values      any row stride >= K
//
//   bytes  10.5 bits in + 16 bits out a value. 28672 x 4096: 154 MB + 235 MB, 130 us at the 3.0 TB/s of a copy.
//   work   a step of 32 values, a lane each, takes a warp some 40 instructions and the time of about ten dependent
//   ones,
//          two of them loads from shared memory: some 150 cycles. A block has 512 steps, one after the other.
//
// A warp a block, 32 warps a multiprocessor, all of them alone after they have made the slot tables together:
//
//   shared   slot tables, 16 KiB a class          look-up: slot -> rank, frequency, place in the symbol
//            rings of words, 2 KiB a warp         rans_words.cuh
//   registers a state a lane; the suffixes of the next four steps, loaded while four are decoded
//   global   a step's 32 values: one store of 64 bytes
//
// A step: slot = state % 4096 -> look-up -> next state; lanes whose state fell below 2^16 vote, and each takes the word
// that stands behind those of the lanes before it. The value's prefix is the row's base plus the rank.
//
// Hostile bytes. The host has validated header and tables; even so nothing is read outside the blob, or written outside
// the tensor, whatever the bytes that are found here: starts, sizes and escapes are checked before they are used,
// places in rings and tables are masked, and the number of steps follows from the shape. A corrupt block is reported in
// `status`, the one of the lowest number when there are several.
//
// Limits: rows, columns and blocks below 2^31.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/decode_status.cuh>
#include <cuda/device/rans_lane.cuh>
#include <cuda/device/rans_words.cuh>
#include <cuda/device/slot_tables.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/registers.cuh>
#include <cuda/ptx/shared.cuh>
#include <format/distribution_layout.hpp>

namespace unweight::sm90 {

template <std::uint32_t Warps>
struct DistributionDecodeConfig {
  static constexpr std::uint32_t kWarps = Warps;  ///< of a block, one a multiprocessor
};

/// Where things lie. All addresses are device memory.
struct DistributionDecodeParams {
  const std::uint32_t* block_starts;
  const std::uint16_t* escape_counts;
  const std::uint16_t* scales;
  const std::uint16_t* tables;
  const std::uint8_t* row_scales;
  const std::byte* stream;  ///< aligned to 16 bytes
  std::uint16_t* values;    ///< of the first row that is decoded
  std::uint64_t row_stride;
  std::uint64_t matrix_stride;  ///< from matrix to matrix of `values`, in rows
  std::uint64_t first_row;      ///< of the blocks that are decoded, in rows of `values`
  std::uint64_t* status;
  const std::uint32_t* only_if;  ///< null, or nothing is done where this is 0
  format::distribution::Blocks blocks;
  std::uint64_t stream_bytes;
  std::uint32_t first_block, end_block;  ///< which are decoded
  std::uint32_t rows, cols;              ///< of a matrix
  std::uint32_t class_count, scale_count, table_units;
};

template <class Config>
struct DistributionDecodeTraits {
  static constexpr std::uint32_t kThreads = Config::kWarps * device::kLanes;
  static constexpr std::uint32_t kRingBytes = device::WordRing::kBytes;
  static constexpr std::uint32_t kClassBytes = format::distribution::kFrequencyTotal * sizeof(device::RansSlot);

  // Rings and tables begin at multiples of their sizes, so that a place in them is one bitwise operation.
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t rings_at(std::uint32_t shared) {
    return aligned(shared, kRingBytes);
  }
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t tables_at(std::uint32_t shared) {
    return aligned(rings_at(shared) + Config::kWarps * kRingBytes, kClassBytes);
  }
  static constexpr std::uint32_t shared_bytes(std::uint32_t classes) {
    return kRingBytes + Config::kWarps * kRingBytes + kClassBytes + classes * kClassBytes;
  }
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t aligned(std::uint32_t at, std::uint32_t size) {
    return (at + size - 1) / size * size;
  }
};

/// Where the parts of a block lie, in bytes from its first one, where the suffixes are.
struct BlockParts {
  const std::byte* begin;
  std::uint32_t states;  ///< the mask of their fourth bytes first
  std::uint32_t escapes;
  std::uint32_t words;
  std::uint32_t end;

  template <class T>
  [[nodiscard]] __device__ const T* at(std::uint32_t offset) const {
    return reinterpret_cast<const T*>(begin + offset);
  }
};

/// A block's values, by a warp.
template <class Config>
struct BlockDecoder {
  static constexpr std::uint32_t kGroup = 4;  ///< steps that are decoded at a time
  static constexpr std::uint32_t kLanes = device::kLanes;
  static constexpr std::uint32_t kStepWords = format::distribution::kStepSuffixBytes / sizeof(std::uint32_t);
  /// More than any valid block has: a suffix, an escape and a word for each value.
  static constexpr std::uint32_t kMostBlockBytes = 8 * format::distribution::kMaxBlockValues;

  const DistributionDecodeParams& params;
  std::uint32_t tables;  ///< shared address of the slot tables
  std::uint32_t ring;    ///< and of the warp's ring
  std::uint32_t lane;

  __device__ void run(std::uint32_t block) const {
    const auto place = format::distribution::place_block(params.blocks, params.rows, params.cols, block);
    std::uint16_t* const values = first_value(place);
    BlockParts parts;
    const bool sound =
        locate(block, place, parts) && decode(place, parts, values) && patch_escapes(block, place, values);
    if (!sound) device::report_block(params.status, block, lane);
  }

 private:
  /// The scales of 32 rows of a block, a row a lane.
  struct Rows {
    std::uint32_t scales = 0;
    std::uint32_t number = UINT32_MAX;  ///< of the 32 rows that are loaded
  };

  __device__ void load_rows(Rows& rows, const format::distribution::BlockPlace& place, std::uint32_t row) const {
    if (row / kLanes == rows.number) return;
    rows.number = row / kLanes;
    const std::uint32_t mine = rows.number * kLanes + lane;
    std::uint32_t scale = mine < place.rows ? params.row_scales[place.row + mine] : 0;
    if (scale >= params.scale_count) scale = 0;  // no validated blob has it
    rows.scales = params.scales[scale];
  }

  /// What changes from row to row.
  struct RowModel {
    std::uint32_t table;  ///< shared address of its class
    std::uint32_t base5;
  };

  __device__ RowModel row_model(Rows& rows, const format::distribution::BlockPlace& place, std::uint32_t row) const {
    load_rows(rows, place, row);
    const std::uint32_t scale = __shfl_sync(device::kAllLanes, rows.scales, row % kLanes);
    const std::uint32_t c = min(scale >> 10, params.class_count - 1);
    return {tables + c * DistributionDecodeTraits<Config>::kClassBytes, (scale & (format::distribution::kPrefixes - 1))
                                                                            << 5};
  }

  /// Where the block's values go.
  __device__ std::uint16_t* first_value(const format::distribution::BlockPlace& place) const {
    const std::uint64_t matrix = place.row / params.rows;
    const std::uint64_t row = place.row - matrix * params.rows + matrix * params.matrix_stride - params.first_row;
    return params.values + row * params.row_stride + place.col;
  }

  /// Finds the parts of a block, and whether they fit into it.
  __device__ bool locate(std::uint32_t block, const format::distribution::BlockPlace& place, BlockParts& parts) const {
    using namespace format::distribution;
    const std::uint64_t begin = std::uint64_t{kStartUnit} * params.block_starts[block];
    const std::uint64_t end = std::uint64_t{kStartUnit} * params.block_starts[block + 1];
    const std::uint32_t plane = suffix_plane_bytes(place.steps());
    if (end < begin || end > params.stream_bytes || end - begin < plane + kFixedStateBytes) return false;
    if (end - begin > kMostBlockBytes) return false;  // it has words that no step takes
    parts.begin = params.stream + begin;
    parts.states = plane;
    parts.end = static_cast<std::uint32_t>(end - begin);
    const std::uint32_t escapes = params.escape_counts[block];
    const auto fourth_bytes = static_cast<std::uint32_t>(__popc(*parts.at<std::uint32_t>(parts.states)));
    parts.escapes = plane + kFixedStateBytes + (fourth_bytes + kStartUnit - 1) / kStartUnit * kStartUnit;
    parts.words = parts.escapes + escapes * kEscapeBytes;
    return parts.words <= parts.end && escapes <= place.rows * place.cols;
  }

  /// The lane's state at the start of the block.
  __device__ std::uint32_t first_state(const BlockParts& parts) const {
    using namespace format::distribution;
    const std::uint32_t mask = *parts.at<std::uint32_t>(parts.states);
    const std::byte* low = parts.begin + parts.states + kMaskBytes;
    const std::byte* third = low + kLanes * sizeof(std::uint16_t);
    std::uint32_t state = reinterpret_cast<const std::uint16_t*>(low)[lane];
    state |= static_cast<std::uint32_t>(third[lane]) << 16;
    if ((mask >> lane & 1) != 0) {
      const int before = __popc(mask & lanes_below());
      state |= static_cast<std::uint32_t>(third[kLanes + static_cast<std::uint32_t>(before)]) << 24;
    }
    return state;
  }

  [[nodiscard]] __device__ std::uint32_t lanes_below() const { return (1U << lane) - 1; }

  /// A step but for the suffix; returns prefix_bits().
  __device__ std::uint32_t step(std::uint32_t& state, device::WordRing& words, const RowModel& model) const {
    const device::RansSlot slot = ptx::load_shared32(model.table | 4 * device::slot_of(state));
    state = device::next_state(state, slot);
    const bool needs_word = state < format::distribution::kStateLow;
    const std::uint32_t needing = __ballot_sync(device::kAllLanes, needs_word);
    // Loaded by all lanes, so that there is no branch.
    const std::uint32_t word = words.word(static_cast<std::uint32_t>(__popc(needing & lanes_below())));
    if (needs_word) state = state << 16 | word;
    words.take(static_cast<std::uint32_t>(__popc(needing)));
    return device::prefix_bits(slot, model.base5);
  }

  /// The words that hold the lane's suffixes of kGroup steps.
  struct SuffixWords {
    std::uint32_t low[kGroup], high[kGroup];

    __device__ void load(const std::uint32_t* plane, std::uint32_t step, const device::SuffixPlace& at) {
      const std::uint32_t* words = plane + step * kStepWords;
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kGroup; ++i) {
        low[i] = __ldg(words + i * kStepWords + at.word0);
        high[i] = __ldg(words + i * kStepWords + at.word1);
      }
    }
  };

  /// Decodes the block. False where it turns out to be corrupt: then its values are unspecified.
  __device__ bool decode(const format::distribution::BlockPlace& place, const BlockParts& parts,
                         std::uint16_t* values) const {
    using namespace format::distribution;
    const std::uint32_t row_steps = steps_per_row(place.cols), whole_steps = place.cols / kLanes;
    const std::uint32_t steps = place.steps(), stored = steps - min(steps, kStateSteps);
    const device::SuffixPlace at = device::suffix_place(lane);
    std::uint32_t state = first_state(parts);
    device::WordRing words(ring, parts.begin + parts.words, parts.begin + parts.end, lane);
    Rows rows;
    const auto* const plane = parts.at<std::uint32_t>(0);
    SuffixWords next;
    // Of the last group and of blocks without stored steps, what is loaded here are the states.
    next.load(plane, 0, at);

    std::uint32_t done = 0, row = 0;
    for (; done < stored; ++row) {
      const RowModel model = row_model(rows, place, row);
      std::uint16_t* out = values + row * params.row_stride + lane;
      const std::uint32_t count = min(row_steps, stored - done);
      std::uint32_t i = 0;
      for (; i + kGroup <= min(count, whole_steps); i += kGroup) {
        std::uint32_t suffixes[kGroup];
        UNWEIGHT_UNROLL
        for (std::uint32_t k = 0; k < kGroup; ++k) {
          suffixes[k] = device::funnel_shift(next.low[k], next.high[k], at.shift);
        }
        done += kGroup;
        next.load(plane, done, at);
        words.refill();
        UNWEIGHT_UNROLL
        for (std::uint32_t k = 0; k < kGroup; ++k) {
          const std::uint32_t prefix = step(state, words, model);
          out[k * kLanes] = static_cast<std::uint16_t>(device::join_suffix(prefix, suffixes[k]));
        }
        out += kGroup * kLanes;
      }
      if (i == count) continue;
      // Steps that fill no group, the last of which may have fewer than 32 values.
      UNWEIGHT_NO_UNROLL
      for (; i < count; ++i, ++done) {
        if (i % kGroup == 0) words.refill();
        const std::uint32_t prefix = step(state, words, model);
        const std::uint32_t* stored_at = plane + done * kStepWords;
        const std::uint32_t low = __ldg(stored_at + at.word0), high = __ldg(stored_at + at.word1);
        const std::uint32_t suffix = device::funnel_shift(low, high, at.shift);
        if (i * kLanes + lane < place.cols) *out = static_cast<std::uint16_t>(device::join_suffix(prefix, suffix));
        out += kLanes;
      }
      if (whole_steps >= kGroup) next.load(plane, done, at);
    }
    return finish(place, values, state, words, rows, done);
  }

  /// The last steps, whose suffixes are what is left of the states.
  __device__ bool finish(const format::distribution::BlockPlace& place, std::uint16_t* values, std::uint32_t state,
                         device::WordRing& words, Rows& rows, std::uint32_t done) const {
    using namespace format::distribution;
    const std::uint32_t row_steps = steps_per_row(place.cols), steps = place.steps();
    // Written without their suffixes first.
    const auto value_at = [&](std::uint32_t step) -> std::uint16_t* {
      const std::uint32_t row = step / row_steps, col = (step - row * row_steps) * kLanes + lane;
      return col < place.cols ? values + row * params.row_stride + col : nullptr;
    };
    words.refill();
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t i = done; i < steps; ++i) {
      const std::uint32_t row = i / row_steps;
      const std::uint32_t prefix = step(state, words, row_model(rows, place, row));
      if (std::uint16_t* const value = value_at(i)) *value = static_cast<std::uint16_t>(device::join_suffix(prefix, 0));
    }
    words.drain();
    const bool sound = state >> kStateSuffixBits == 1 && words.at_end();
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t i = steps; i-- > done; state >>= kSuffixBits) {
      std::uint16_t* const value = value_at(i);
      if (value != nullptr) *value = static_cast<std::uint16_t>(device::join_suffix(*value, state));
    }
    return __all_sync(device::kAllLanes, sound);
  }

  /// Puts the escapes' prefixes in their places. False where one is out of place.
  __device__ bool patch_escapes(std::uint32_t block, const format::distribution::BlockPlace& place,
                                std::uint16_t* values) const {
    using namespace format::distribution;
    if (params.escape_counts[block] == 0) return true;
    BlockParts parts;  // found again: kept, they would take registers all the while
    if (!locate(block, place, parts)) return false;
    __syncwarp();  // the values are there
    bool sound = true;
    const auto* const escapes = parts.at<std::uint16_t>(parts.escapes);
    for (std::uint32_t i = lane; i < (parts.words - parts.escapes) / kEscapeBytes; i += kLanes) {
      const std::uint32_t position = escapes[2 * i], prefix = escapes[2 * i + 1];
      const std::uint32_t row = position / params.blocks.block_cols, col = position % params.blocks.block_cols;
      const bool ascends = i == 0 || escapes[2 * i - 2] < position;
      if (!ascends || row >= place.rows || col >= place.cols || prefix >= kPrefixes) {
        sound = false;
        continue;
      }
      std::uint16_t& value = values[row * params.row_stride + col];
      value = join(prefix, suffix_of(value));
    }
    return __all_sync(device::kAllLanes, sound);
  }
};

template <class Config>
__global__ void __launch_bounds__(DistributionDecodeTraits<Config>::kThreads, 1)
    distribution_decode_kernel(const __grid_constant__ DistributionDecodeParams params) {
  using Traits = DistributionDecodeTraits<Config>;
  if (params.only_if != nullptr && *params.only_if == 0) return;
  const std::uint32_t warp = threadIdx.x / device::kLanes, lane = threadIdx.x % device::kLanes;
  std::byte* const shared = ptx::dynamic_shared_memory();
  const std::uint32_t begin = ptx::shared_address(shared), tables = Traits::tables_at(begin);
  __shared__ device::SlotScratch scratch;
  device::make_slot_tables(params.tables, params.table_units, params.class_count, Config::kWarps, warp, lane, scratch,
                           reinterpret_cast<device::RansSlot*>(shared + (tables - begin)));
  __syncthreads();

  // Neighbouring blocks go to different multiprocessors, so that few blocks are shared out evenly.
  const BlockDecoder<Config> decoder{params, tables, Traits::rings_at(begin) + warp * Traits::kRingBytes, lane};
  const std::uint32_t blocks = params.end_block - params.first_block, stride = gridDim.x * Config::kWarps;
  for (std::uint32_t i = warp * gridDim.x + blockIdx.x; i < blocks; i += stride) decoder.run(params.first_block + i);
}

}  // namespace unweight::sm90
