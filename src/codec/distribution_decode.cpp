// SPDX-License-Identifier: Apache-2.0
//
// The quick decoder of the distribution form: row groups in parallel, each decoded block by block, patched, and hashed
// while it is in cache.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <codec/arguments.hpp>
#include <codec/distribution_decode.hpp>
#include <codec/distribution_open.hpp>
#include <codec/out_of_memory.hpp>
#include <codec/parallel.hpp>
#include <codec/strips.hpp>
#include <fmt/format.h>
#include <mutex>
#include <new>

namespace unweight {
namespace codec::distribution {
namespace {

using namespace format::distribution;

MatrixShape shape_of(const View& blob) { return {blob.header().batch, blob.header().rows, blob.header().cols}; }

tl::unexpected<Error> corrupt_block(std::uint64_t block, const char* what) {
  return fail(ErrorCode::kCorruptPayload, fmt::format("distribution blob: block {} {}", block, what));
}

/// Finds the parts of a block, whose lengths View has validated. `escapes` is set to where its escapes begin.
CodedBlock locate(std::span<const std::byte> bytes, const BlockPlace& place, std::uint32_t escape_count,
                  const std::byte*& escapes) {
  CodedBlock block;
  block.rows = place.rows;
  block.cols = place.cols;
  block.suffixes = bytes.data();
  const std::byte* at = bytes.data() + suffix_plane_bytes(place.steps());
  const auto mask = format::load<std::uint32_t>(at);
  const std::byte* low = at + kMaskBytes;
  const std::byte* third = low + 2 * kLanes;
  const std::byte* fourth = third + kLanes;
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    block.states[lane] = format::load<std::uint16_t>(low + 2 * lane) | std::to_integer<std::uint32_t>(third[lane])
                                                                           << 16;
    if ((mask >> lane & 1) != 0) block.states[lane] |= std::to_integer<std::uint32_t>(*fourth++) << 24;
  }
  escapes = at + kFixedStateBytes + format::align_up(static_cast<std::uint64_t>(std::popcount(mask)), kStartUnit);
  block.words = escapes + std::size_t{escape_count} * kEscapeBytes;
  block.word_count = static_cast<std::size_t>(bytes.data() + bytes.size() - block.words) / sizeof(std::uint16_t);
  return block;
}

/// Words fill units of 4 bytes: where their number is odd, one word of 0 follows.
bool are_all_words(const DecodeJob& job) {
  const std::size_t count = job.block.word_count;
  if (job.words == count) return true;
  return job.words < count && count - job.words == 1 &&
         format::load<std::uint16_t>(job.block.words + 2 * job.words) == 0;
}

/// Puts the escapes' prefixes in their places. False where a position is outside the block or not above the last one.
bool patch_escapes(const std::byte* escapes, std::uint32_t count, const DecodeJob& job, std::uint32_t block_cols) {
  std::int32_t last = -1;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto position = format::load<std::uint16_t>(escapes + std::size_t{i} * kEscapeBytes);
    const auto prefix = format::load<std::uint16_t>(escapes + std::size_t{i} * kEscapeBytes + 2);
    const std::uint32_t row = position / block_cols, col = position % block_cols;
    if (position <= last || row >= job.block.rows || col >= job.block.cols || prefix >= kPrefixes) return false;
    last = position;
    std::uint16_t& value = job.values[row * job.stride + col];
    value = join(prefix, suffix_of(value));
  }
  return true;
}

/// Row groups that are decoded at a time: their blocks in turn, which is 1.4 times as fast.
constexpr std::size_t kGroupsAtOnce = 2;

class BlobDecoder {
 public:
  BlobDecoder(const RansKernels& kernels, const View& blob)
      : kernels_(kernels), blob_(blob), tables_(make_decode_tables(blob)) {}

  /// Decodes all blocks of up to kGroupsAtOnce row groups (over all matrices); values[i] receives the rows of group
  /// begin + i.
  Result<void> decode_groups(std::uint64_t begin, std::span<std::uint16_t* const> values) const {
    const Blocks& blocks = blob_.blocks();
    std::array<std::vector<DecodeRow>, kGroupsAtOnce> rows;
    for (std::size_t i = 0; i < values.size(); ++i) rows[i] = row_models((begin + i) * blocks.col_blocks);
    // Blocks of the same columns after each other: mostly they have the same shape.
    for (std::uint64_t part = 0; part < blocks.col_blocks; ++part) {
      std::array<DecodeJob, kGroupsAtOnce> jobs;
      std::array<const std::byte*, kGroupsAtOnce> escapes{};
      for (std::size_t i = 0; i < values.size(); ++i) {
        const std::uint64_t block = (begin + i) * blocks.col_blocks + part;
        const BlockPlace place = blob_.place(block);
        DecodeJob& job = jobs[i];
        job.block = locate(blob_.block(block), place, blob_.escape_count(block), escapes[i]);
        job.block.row_models = rows[i].data();
        job.values = values[i] + place.col;
        job.stride = static_cast<std::size_t>(blob_.header().cols);
      }
      kernels_.decode(std::span(jobs).first(values.size()));
      for (std::size_t i = 0; i < values.size(); ++i) {
        const std::uint64_t block = (begin + i) * blocks.col_blocks + part;
        if (!are_all_words(jobs[i])) return corrupt_block(block, "does not decode");
        if (!patch_escapes(escapes[i], blob_.escape_count(block), jobs[i], blocks.block_cols)) {
          return corrupt_block(block, "has escapes out of order or out of range");
        }
      }
    }
    return {};
  }

 private:
  [[nodiscard]] std::vector<DecodeRow> row_models(std::uint64_t block) const {
    const BlockPlace place = blob_.place(block);
    std::vector<DecodeRow> rows(place.rows);
    for (std::uint32_t row = 0; row < place.rows; ++row) {
      const std::uint16_t scale = blob_.row_scale(place.row + row);
      rows[row] = {&tables_[scale_class(scale)], scale_base(scale)};
    }
    return rows;
  }

  const RansKernels& kernels_;
  const View& blob_;
  std::vector<DecodeTable> tables_;
};

void copy_raw(const View& blob, std::uint64_t first_value, std::span<std::uint16_t> values) {
  if (values.empty()) return;
  std::memcpy(values.data(), blob.payload().data() + first_value * sizeof(std::uint16_t), values.size_bytes());
}

/// The first failure among those of many threads.
class Failure {
 public:
  void set(Result<void> result) {
    if (result) return;
    const std::lock_guard lock(mutex_);
    if (first_) first_ = std::move(result);
    failed_ = true;
  }
  [[nodiscard]] bool failed() const noexcept { return failed_; }
  [[nodiscard]] Result<void> take() { return std::move(first_); }

 private:
  std::mutex mutex_;
  Result<void> first_;
  std::atomic<bool> failed_{false};
};

/// Row groups that make about a megabyte of values.
std::uint64_t groups_per_chunk(const View& blob) {
  constexpr std::uint64_t kChunkBytes = std::uint64_t{1} << 20;
  return kGroupsAtOnce *
         std::max<std::uint64_t>(1, kChunkBytes / (kGroupsAtOnce * 2 * blob.blocks().group_rows * blob.header().cols));
}

}  // namespace

std::vector<DecodeTable> make_decode_tables(const View& blob) {
  std::vector<DecodeTable> tables(blob.class_count());
  for (std::uint32_t c = 0; c < blob.class_count(); ++c) {
    const Frequencies& frequencies = blob.frequencies(c);
    std::uint32_t slot = 0;
    for (std::uint32_t rank = 0; rank < kRanks; ++rank) {
      for (std::uint32_t i = 0; i < frequencies[rank]; ++i) {
        tables[c].slots[slot++] = (frequencies[rank] - 1U) | i << 12 | rank << 24;
      }
    }
  }
  return tables;
}

Result<void> decode_rows_with(const RansKernels& kernels, const View& blob, std::uint64_t row_begin,
                              std::uint64_t row_count, std::span<std::uint16_t> values, unsigned threads) {
  const MatrixShape shape = shape_of(blob);
  if (auto ok = check_row_range(shape, row_begin, row_count, values.size()); !ok) return ok;
  if (values.empty()) return {};
  if (blob.layout() == Layout::kRaw) {
    copy_raw(blob, row_begin * shape.cols, values);
    return {};
  }
  const BlobDecoder decoder(kernels, blob);
  const Blocks& blocks = blob.blocks();
  const auto group_of_row = [&](std::uint64_t row) {
    return row / shape.rows * blocks.groups + row % shape.rows / blocks.group_rows;
  };
  const std::uint64_t first = group_of_row(row_begin), last = group_of_row(row_begin + row_count - 1);
  const std::uint64_t per_chunk = groups_per_chunk(blob);
  Failure failure;
  parallel_for(threads, format::ceil_div(last - first + 1, per_chunk), [&](std::uint64_t chunk) {
    const std::uint64_t end = std::min(last + 1, first + (chunk + 1) * per_chunk);
    for (std::uint64_t group = first + chunk * per_chunk; group < end && !failure.failed(); group += kGroupsAtOnce) {
      std::array<std::uint16_t*, kGroupsAtOnce> out{};
      std::array<std::vector<std::uint16_t>, kGroupsAtOnce> whole;  // of groups of which only some rows are wanted
      const std::size_t count = std::min<std::size_t>(kGroupsAtOnce, static_cast<std::size_t>(end - group));
      const auto wanted = [&](const BlockPlace& place) {
        const std::uint64_t begin = std::max(row_begin, place.row);
        return std::pair(begin, std::min(row_begin + row_count, place.row + place.rows) - begin);
      };
      for (std::size_t i = 0; i < count; ++i) {
        const BlockPlace place = blob.place((group + i) * blocks.col_blocks);
        const auto [begin, rows_wanted] = wanted(place);
        out[i] = values.data() + (begin - row_begin) * shape.cols;
        if (rows_wanted == place.rows) continue;
        whole[i].resize(static_cast<std::size_t>(place.rows * shape.cols));
        out[i] = whole[i].data();
      }
      failure.set(decoder.decode_groups(group, std::span(out).first(count)));
      for (std::size_t i = 0; i < count; ++i) {
        if (whole[i].empty()) continue;
        const BlockPlace place = blob.place((group + i) * blocks.col_blocks);
        const auto [begin, rows_wanted] = wanted(place);
        std::copy_n(whole[i].data() + (begin - place.row) * shape.cols, rows_wanted * shape.cols,
                    values.data() + (begin - row_begin) * shape.cols);
      }
    }
  });
  return failure.take();
}

Result<void> decode_with(const RansKernels& kernels, const View& blob, std::span<std::uint16_t> values,
                         const DecodeOptions& options) {
  if (values.size() != blob.values()) {
    return fail(ErrorCode::kShapeMismatch,
                fmt::format("buffer of {} values for a tensor of {}", values.size(), blob.values()));
  }
  const Strips strips(shape_of(blob));
  std::vector<std::uint64_t> content(options.verify_checksums ? static_cast<std::size_t>(strips.count()) : 0);
  const auto hash_strips = [&](std::uint64_t begin, std::uint64_t end) {
    if (!options.verify_checksums) return;
    for (std::uint64_t strip = begin; strip < end; ++strip) {
      content[static_cast<std::size_t>(strip)] = strip_checksum(tile_kernels(), strips.values(values, strip));
    }
  };
  if (blob.layout() == Layout::kRaw) {
    copy_raw(blob, 0, values);
    hash_strips(0, strips.count());
    return options.verify_checksums ? check_content(blob, content) : Result<void>{};
  }
  const BlobDecoder decoder(kernels, blob);
  const Blocks& blocks = blob.blocks();
  const std::uint64_t groups = strips.shape.batch * blocks.groups, per_chunk = groups_per_chunk(blob);
  const std::uint64_t group_strips = blocks.group_rows / format::kTileRows;
  Failure failure;
  parallel_for(options.threads, format::ceil_div(groups, per_chunk), [&](std::uint64_t chunk) {
    const std::uint64_t end = std::min(groups, (chunk + 1) * per_chunk);
    for (std::uint64_t group = chunk * per_chunk; group < end && !failure.failed(); group += kGroupsAtOnce) {
      std::array<std::uint16_t*, kGroupsAtOnce> out{};
      const std::size_t count = std::min<std::size_t>(kGroupsAtOnce, static_cast<std::size_t>(end - group));
      for (std::size_t i = 0; i < count; ++i) {
        out[i] = values.data() + blob.place((group + i) * blocks.col_blocks).row * strips.shape.cols;
      }
      failure.set(decoder.decode_groups(group, std::span(out).first(count)));
      for (std::uint64_t g = group; g < group + count; ++g) {
        const std::uint64_t first = g / blocks.groups * strips.per_matrix + g % blocks.groups * group_strips;
        hash_strips(first, first + format::ceil_div(blob.place(g * blocks.col_blocks).rows, format::kTileRows));
      }
    }
  });
  if (failure.failed()) return failure.take();
  return options.verify_checksums ? check_content(blob, content) : Result<void>{};
}

}  // namespace codec::distribution

namespace distribution {

Result<void> decode(std::span<const std::byte> blob, std::span<std::uint16_t> values,
                    const DecodeOptions& options) try {
  const auto view = codec::distribution::open_blob(blob);
  if (!view) return tl::unexpected(view.error());
  return codec::distribution::decode_with(codec::distribution::rans_kernels(), *view, values, options);
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("decoding {} values", values.size());
}

Result<void> decode_rows(std::span<const std::byte> blob, std::uint64_t row_begin, std::uint64_t row_count,
                         std::span<std::uint16_t> values, const DecodeOptions& options) try {
  const auto view = codec::distribution::open_blob(blob);
  if (!view) return tl::unexpected(view.error());
  return codec::distribution::decode_rows_with(codec::distribution::rans_kernels(), *view, row_begin, row_count, values,
                                               options.threads);
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("decoding {} values", values.size());
}

}  // namespace distribution
}  // namespace unweight
