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
//   work   a step of 32 values, a lane each, takes a warp 32 instructions and the time of some eleven dependent ones
//          (two loads from shared memory among them), some 135 cycles. A block has 512 steps, one after the other.
//
// A warp a block, 32 warps a multiprocessor, all of them alone once there are slot tables, which those without a block
// make, where there are enough:
//
//   shared   slot tables, 16 KiB a class          look-up: slot -> rank, frequency, place in the symbol
//            rings of words, 2.25 KiB a warp      rans_words.cuh
//   registers a state a lane, and its slot; the suffixes of the next four steps, loaded while four are decoded
//   global   a step's 32 values: one store of 64 bytes
//
// A step: slot = state % 4096 -> look-up -> next state; lanes whose state fell below 2^16 vote, and each takes the word
// that stands behind those of the lanes before it. The value's prefix is the row's base plus the rank.
//
// Hostile bytes. The host has validated header and tables; even so nothing is read outside the blob, or written outside
// the tensor, whatever the bytes that are found here: starts, sizes and escapes are checked before they are used,
// places in rings are taken back, those in tables masked, and the number of steps follows from the shape. A corrupt
// block is reported in `status`, the one of the lowest number when there are several.
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
#include <cuda/ptx/copy.cuh>
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
  static constexpr std::uint32_t kEnoughMakers = 8;  ///< of the tables: warps that have nothing else to do
  static constexpr std::uint32_t kClassBytes = format::distribution::kFrequencyTotal * sizeof(device::RansSlot);

  // Rings first, then the tables, at multiples of their size, so that a place in one is one bitwise operation.
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t tables_at(std::uint32_t shared) {
    return aligned(shared + Config::kWarps * kRingBytes, kClassBytes);
  }
  /// Behind the tables there is room for a barrier, as what comes ahead of them is aligned to less than their size.
  static constexpr std::uint32_t shared_bytes(std::uint32_t classes) {
    return Config::kWarps * kRingBytes + kClassBytes + classes * kClassBytes;
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

/// Where a block's values lie: format::distribution::place_block() in 32 bits, which the kernel's limits allow and
/// whose divisions are no calls.
struct BlockExtent {
  std::uint32_t matrix;
  std::uint32_t row, col;  ///< of the matrix: the block's first
  std::uint32_t rows, cols;

  [[nodiscard]] __device__ std::uint32_t row_steps() const { return format::distribution::steps_per_row(cols); }
  [[nodiscard]] __device__ std::uint32_t steps() const { return rows * row_steps(); }
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

  /// @param wait_for_tables  called before the first look-up
  template <class WaitForTables>
  __device__ void run(std::uint32_t block, const WaitForTables& wait_for_tables) const {
    const BlockExtent extent = extent_of(block);
    std::uint16_t* const values = first_value(extent);
    BlockParts parts{};
    const bool located = locate(block, extent, parts);
    const bool sound = located && decode(extent, parts, values, wait_for_tables) && patch_escapes(block);
    if (!sound) device::report_block(params.status, block, lane);
  }

 private:
  [[nodiscard]] __device__ BlockExtent extent_of(std::uint32_t block) const {
    const format::distribution::Blocks& blocks = params.blocks;
    const auto parts = static_cast<std::uint32_t>(blocks.col_blocks),
               groups = static_cast<std::uint32_t>(blocks.groups);
    const std::uint32_t group = block / parts;
    BlockExtent extent;
    extent.matrix = group / groups;
    extent.row = (group - extent.matrix * groups) * blocks.group_rows;
    extent.col = (block - group * parts) * blocks.block_cols;
    extent.rows = min(params.rows - extent.row, blocks.group_rows);
    extent.cols = min(params.cols - extent.col, blocks.block_cols);
    return extent;
  }

  /// The scales of 32 rows of a block, a row a lane.
  struct Rows {
    std::uint32_t scales = 0;
    std::uint32_t number = UINT32_MAX;  ///< of the 32 rows that are loaded
  };

  __device__ void load_rows(Rows& rows, const BlockExtent& extent, std::uint32_t row) const {
    if (row / kLanes == rows.number) return;
    rows.number = row / kLanes;
    const std::uint32_t mine = rows.number * kLanes + lane;
    const std::uint8_t* const scales = params.row_scales + std::uint64_t{extent.matrix} * params.rows + extent.row;
    std::uint32_t scale = mine < extent.rows ? scales[mine] : 0;
    if (scale >= params.scale_count) scale = 0;  // no validated blob has it
    rows.scales = params.scales[scale];
  }

  /// What changes from row to row.
  struct RowModel {
    std::uint32_t table;  ///< shared address of its class
    std::uint32_t base_bits;
  };

  /// Of a row beyond the block's last, any.
  __device__ RowModel row_model(Rows& rows, const BlockExtent& extent, std::uint32_t row) const {
    load_rows(rows, extent, row);
    const std::uint32_t scale = __shfl_sync(device::kAllLanes, rows.scales, row % kLanes);
    const std::uint32_t c = min(scale >> 10, params.class_count - 1);
    return {tables + c * DistributionDecodeTraits<Config>::kClassBytes,
            device::base_bits(scale & (format::distribution::kPrefixes - 1))};
  }

  /// Where the block's values go.
  __device__ std::uint16_t* first_value(const BlockExtent& extent) const {
    const std::uint64_t row = extent.matrix * params.matrix_stride + extent.row - params.first_row;
    return params.values + row * params.row_stride + extent.col;
  }

  /// Finds the parts of a block, and whether they fit into it.
  __device__ bool locate(std::uint32_t block, const BlockExtent& extent, BlockParts& parts) const {
    using namespace format::distribution;
    const std::uint32_t begin = params.block_starts[block], end = params.block_starts[block + 1];  // in units
    if (end < begin || end > params.stream_bytes / kStartUnit) return false;
    if (end - begin > kMostBlockBytes / kStartUnit) return false;  // it has words that no step takes
    parts.end = (end - begin) * kStartUnit;
    const std::uint32_t plane = suffix_plane_bytes(extent.steps());
    if (parts.end < plane + kFixedStateBytes) return false;
    parts.begin = params.stream + std::uint64_t{kStartUnit} * begin;
    parts.states = plane;
    const std::uint32_t escapes = params.escape_counts[block];
    const auto fourth_bytes = static_cast<std::uint32_t>(__popc(*parts.at<std::uint32_t>(parts.states)));
    parts.escapes = plane + kFixedStateBytes + (fourth_bytes + kStartUnit - 1) / kStartUnit * kStartUnit;
    parts.words = parts.escapes + escapes * kEscapeBytes;
    return parts.words <= parts.end && escapes <= extent.rows * extent.cols;
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

  __device__ std::uint32_t look_up(std::uint32_t table, std::uint32_t state) const {
    return ptx::load_shared32(table | 4 * device::slot_of(state));
  }

  /// A lane's state and the slot that it names, which is asked for as soon as the state is known.
  struct Lane {
    std::uint32_t state;
    device::RansSlot slot;
  };

  /// A step but for the suffix; returns prefix_bits().
  /// @param next_table  in which the next step's slot lies
  __device__ std::uint32_t step(Lane& at, device::WordRing& words, std::uint32_t base_bits,
                                std::uint32_t next_table) const {
    const device::RansSlot slot = at.slot;
    std::uint32_t state = device::next_state(at.state, slot);
    const bool needs_word = state < format::distribution::kStateLow;
    const std::uint32_t needing = __ballot_sync(device::kAllLanes, needs_word);
    // Loaded by all lanes, so that there is no branch.
    const std::uint32_t word = words.take(needing & lanes_below(), needing & ~lanes_below());
    if (needs_word) state = state << 16 | word;
    at.state = state;
    at.slot = look_up(next_table, state);
    return device::prefix_bits(slot, base_bits);
  }

  /// The words that hold the lane's suffixes of kGroup steps.
  struct SuffixWords {
    std::uint32_t low[kGroup], high[kGroup];

    /// @param plane  the lane's word of the first of them; then of the first one behind them
    __device__ void load(const std::uint32_t*& plane) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kGroup; ++i) {
        low[i] = __ldg(plane + i * kStepWords);
        high[i] = __ldg(plane + i * kStepWords + 1);
      }
      plane += kGroup * kStepWords;
    }
  };

  /// Asks for the suffixes of `step` and later ones in the L2 cache, as far as 32 sectors reach.
  /// @param plane  the lane's word of that step
  /// @param left   steps that are stored from there on; none below 0
  __device__ void prefetch_suffixes(const std::uint32_t* plane, std::int32_t left) const {
    constexpr std::uint32_t kSectorWords = 8, kSectorSteps = 2;  // the latter at most
    if (static_cast<std::int32_t>(lane * kSectorSteps) < left) ptx::prefetch_l2_sector(plane + lane * kSectorWords);
  }

  /// Decodes the block. False where it turns out to be corrupt: then its values are unspecified.
  template <class WaitForTables>
  __device__ bool decode(const BlockExtent& extent, const BlockParts& parts, std::uint16_t* values,
                         const WaitForTables& wait_for_tables) const {
    using namespace format::distribution;
    const std::uint32_t row_steps = extent.row_steps(), whole_steps = extent.cols / kLanes;
    const std::uint32_t steps = extent.steps(), stored = steps - min(steps, kStateSteps);
    const device::SuffixPlace at = device::suffix_place(lane);
    device::WordRing words(ring, parts.begin + parts.words, parts.begin + parts.end, lane);
    const auto* plane = parts.at<std::uint32_t>(0) + at.word;  // of the first step that has not been loaded
    SuffixWords next;
    // Of the last group and of blocks without stored steps, what is loaded are the states: 100 bytes, just enough.
    next.load(plane);
    Rows rows;
    RowModel model = row_model(rows, extent, 0);
    Lane state{first_state(parts), 0};
    words.wait();
    wait_for_tables();
    state.slot = look_up(model.table, state.state);

    std::uint32_t done = 0;
    for (std::uint32_t row = 0; done < stored; ++row) {
      const RowModel following = row_model(rows, extent, row + 1);
      std::uint16_t* out = values + row * params.row_stride + lane;
      const std::uint32_t count = min(row_steps, stored - done), grouped = min(count, whole_steps) / kGroup * kGroup;
      prefetch_suffixes(plane + row_steps * kStepWords, static_cast<std::int32_t>(stored - done - row_steps - kGroup));
      std::uint32_t i = 0;
      for (; i < grouped; i += kGroup) {
        std::uint32_t suffixes[kGroup];
        UNWEIGHT_UNROLL
        for (std::uint32_t k = 0; k < kGroup; ++k) {
          suffixes[k] = device::funnel_shift(next.low[k], next.high[k], at.shift);
        }
        next.load(plane);
        words.refill();
        const std::uint32_t table_after = i + kGroup < row_steps ? model.table : following.table;
        UNWEIGHT_UNROLL
        for (std::uint32_t k = 0; k < kGroup; ++k) {
          if (k + 1 == kGroup) words.look_ahead();  // beside a step, as what it takes is long
          const std::uint32_t prefix = step(state, words, model.base_bits, k + 1 < kGroup ? model.table : table_after);
          out[k * kLanes] = static_cast<std::uint16_t>(device::join_suffix(prefix, suffixes[k]));
        }
        out += kGroup * kLanes;
      }
      if (i != count) {
        // Steps that fill no group, the last of which may have fewer than 32 values.
        plane -= kGroup * kStepWords;
        UNWEIGHT_NO_UNROLL
        for (; i < count; ++i) {
          if (i % kGroup == 0) {
            words.look_ahead();
            words.refill();
          }
          const std::uint32_t prefix =
              step(state, words, model.base_bits, i + 1 < row_steps ? model.table : following.table);
          const std::uint32_t suffix = device::funnel_shift(__ldg(plane), __ldg(plane + 1), at.shift);
          if (i * kLanes + lane < extent.cols) *out = static_cast<std::uint16_t>(device::join_suffix(prefix, suffix));
          out += kLanes;
          plane += kStepWords;
        }
        words.look_ahead();
        next.load(plane);
      }
      done += count;
      model = following;
    }
    return finish(extent, values, state, words, rows, done);
  }

  /// The last steps, whose suffixes are what is left of the states.
  __device__ bool finish(const BlockExtent& extent, std::uint16_t* values, Lane& state, device::WordRing& words,
                         Rows& rows, std::uint32_t done) const {
    using namespace format::distribution;
    const std::uint32_t row_steps = extent.row_steps(), steps = extent.steps();
    const std::uint32_t first_row = done / row_steps, first_step = done - first_row * row_steps;
    std::uint32_t prefixes[kStateSteps] = {};
    words.look_ahead();
    words.refill();
    std::uint32_t row = first_row, i = first_step;
    UNWEIGHT_UNROLL
    for (std::uint32_t k = 0; k < kStateSteps; ++k) {
      if (done + k >= steps) break;
      const RowModel model = row_model(rows, extent, row);
      if (++i == row_steps) {
        i = 0;
        ++row;
      }
      prefixes[k] = step(state, words, model.base_bits, row_model(rows, extent, row).table);
    }
    words.wait();
    const std::uint32_t last = state.state;
    const bool sound = last >> kStateSuffixBits == 1 && words.at_end();
    row = first_row;
    i = first_step;
    UNWEIGHT_UNROLL
    for (std::uint32_t k = 0; k < kStateSteps; ++k) {
      if (done + k >= steps) break;
      const std::uint32_t col = i * kLanes + lane, suffix = last >> (steps - 1 - done - k) * kSuffixBits;
      if (col < extent.cols) {
        values[row * params.row_stride + col] = static_cast<std::uint16_t>(device::join_suffix(prefixes[k], suffix));
      }
      if (++i == row_steps) {
        i = 0;
        ++row;
      }
    }
    return __all_sync(device::kAllLanes, sound);
  }

  /// Puts the escapes' prefixes in their places. False where one is out of place.
  __device__ bool patch_escapes(std::uint32_t block) const {
    using namespace format::distribution;
    if (params.escape_counts[block] == 0) return true;
    __syncwarp();  // the values are there
    // Found again: kept, they would take registers all the while.
    const BlockExtent extent = extent_of(block);
    BlockParts parts{};
    if (!locate(block, extent, parts)) return false;
    std::uint16_t* const values = first_value(extent);
    bool sound = true;
    const auto* const escapes = parts.at<std::uint16_t>(parts.escapes);
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t i = lane; i < (parts.words - parts.escapes) / kEscapeBytes; i += kLanes) {
      const std::uint32_t position = escapes[2 * i], prefix = escapes[2 * i + 1];
      const std::uint32_t row = position / params.blocks.block_cols, col = position % params.blocks.block_cols;
      const bool ascends = i == 0 || escapes[2 * i - 2] < position;
      if (!ascends || row >= extent.rows || col >= extent.cols || prefix >= kPrefixes) {
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
  // Neighbouring blocks go to different multiprocessors, so that few blocks are shared out evenly.
  const std::uint32_t blocks = params.end_block - params.first_block, stride = gridDim.x * Config::kWarps;
  std::uint32_t i = warp * gridDim.x + blockIdx.x;

  // The tables are made by the warps without a block, where there are enough, while the others find theirs.
  const std::uint32_t busy = min(Config::kWarps, (blocks - blockIdx.x + gridDim.x - 1) / gridDim.x);
  const std::uint32_t first_maker = Config::kWarps - busy >= Traits::kEnoughMakers ? busy : 0;
  const std::uint32_t tables_made = tables + params.class_count * Traits::kClassBytes;
  if (threadIdx.x == 0) ptx::barrier_init(tables_made, Config::kWarps - first_maker);
  __syncthreads();
  if (warp >= first_maker) {
    device::make_slot_tables({params.tables, params.table_units}, params.class_count, Config::kWarps - first_maker,
                             warp - first_maker, lane, reinterpret_cast<device::RansSlot*>(shared + (tables - begin)));
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(tables_made);
  }
  const auto wait_for_tables = [&] { ptx::barrier_wait(tables_made, 0); };
  const BlockDecoder<Config> decoder{params, tables, begin + warp * Traits::kRingBytes, lane};
  for (; i < blocks; i += stride) decoder.run(params.first_block + i, wait_for_tables);
}

}  // namespace unweight::sm90
