// SPDX-License-Identifier: Apache-2.0
//
// The quick encoder of the distribution form. Two passes over the values, in parallel: the first hashes strips, takes
// the scales of their rows and counts prefixes while they are in cache; the second encodes blocks. Blocks have sizes
// that only encoding tells, so a few chunks of them at a time are encoded into buffers and then put behind each other.
//
// The blob is a pure function of the values; src/codec/distribution_reference.cpp states it in the plainest terms.
#include <algorithm>
#include <array>
#include <codec/arguments.hpp>
#include <codec/checksum.hpp>
#include <codec/distribution_block.hpp>
#include <codec/distribution_encode.hpp>
#include <codec/distribution_model.hpp>
#include <codec/distribution_open.hpp>
#include <codec/encode.hpp>
#include <codec/open.hpp>
#include <codec/out_of_memory.hpp>
#include <codec/parallel.hpp>
#include <codec/prefix_counter.hpp>
#include <codec/strips.hpp>
#include <cstring>
#include <fmt/format.h>
#include <format/blob_view.hpp>
#include <memory>
#include <mutex>
#include <new>

namespace unweight {
namespace codec::distribution {
namespace {

using namespace format::distribution;

void finish_header(Header& header, const MatrixShape& shape, const Sections& sections, std::uint64_t blob_bytes,
                   std::span<std::byte> out) {
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version_major = kVersionMajor;
  header.version_minor = kVersionMinor;
  header.header_bytes = format::kHeaderBytes;
  header.blob_bytes = blob_bytes;
  header.dtype = format::kDtypeBf16;
  header.batch = shape.batch;
  header.rows = shape.rows;
  header.cols = shape.cols;
  header.block_starts_offset = sections.block_starts_offset;
  header.escape_counts_offset = sections.escape_counts_offset;
  header.scales_offset = sections.scales_offset;
  header.tables_offset = sections.tables_offset;
  header.row_scales_offset = sections.row_scales_offset;
  header.stream_offset = sections.stream_offset;
  std::memcpy(out.data(), &header, sizeof header);
}

/// Encoded blocks, one behind the other.
struct CodedChunk {
  std::unique_ptr<std::byte[]> memory;  ///< room for the worst; what is not written costs nothing
  std::size_t size_bytes = 0;
  std::vector<CodedSize> blocks;
};

class CodedEncoder {
 public:
  CodedEncoder(const RansKernels& kernels, std::span<const std::uint16_t> values, const MatrixShape& shape,
               unsigned threads, std::span<std::byte> out)
      : kernels_(kernels),
        values_(values),
        shape_(shape),
        threads_(threads),
        out_(out),
        strips_(shape),
        blocks_(cut_blocks(shape.batch, shape.rows, shape.cols)),
        class_count_(choose_class_count(shape)),
        positions_(static_cast<std::size_t>(shape.batch * shape.rows)),
        content_(static_cast<std::size_t>(strips_.count())) {}

  /// Writes the blob but for its checksums, and returns its size; 0 when coding does not pay. `raw_bytes` is the size
  /// of the raw blob, which `out` can hold.
  std::uint64_t run(std::uint64_t raw_bytes) {
    std::vector<ClassCounts> counts = survey(true);
    if (limit_positions(positions_, class_count_)) counts = survey(false);
    model_ = make_tensor_model(positions_, counts);
    for (const ClassModel& model : model_.classes) tables_.push_back(make_encode_table(model));

    const std::vector<std::uint16_t> units = table_units(model_.classes);
    sections_ = place_sections(blocks_, positions_.size(), static_cast<std::uint32_t>(model_.scales.size()),
                               static_cast<std::uint32_t>(units.size()));
    const std::uint64_t most_bytes = raw_bytes - raw_bytes / kMinSavingDivisor;
    if (sections_.blob_bytes(0) > most_bytes) return 0;
    most_stream_bytes_ = std::min(most_bytes - sections_.stream_offset, kStartUnit * std::uint64_t{UINT32_MAX});
    first_hashed_ = hashed_ = format::ceil_div(sections_.stream_offset - format::kHeaderBytes, kPayloadChunkBytes);
    if (!encode_blocks()) return 0;
    const std::uint64_t blob_bytes = sections_.blob_bytes(stream_bytes_);
    if (!tiles_pay(blob_bytes, raw_bytes)) return 0;
    write_tables(units, blob_bytes);

    Header h{};
    h.layout = static_cast<std::uint8_t>(Layout::kCoded);
    h.class_count = static_cast<std::uint8_t>(class_count_);
    h.scale_count = static_cast<std::uint16_t>(model_.scales.size());
    h.table_units = static_cast<std::uint16_t>(units.size());
    h.stream_bytes = stream_bytes_;
    finish_header(h, shape_, sections_, blob_bytes, out_);
    return blob_bytes;
  }

  [[nodiscard]] std::uint64_t content_checksum() const { return combine_chunks(content_); }

  /// Of the finished blob: of the chunks that were not hashed while they were in cache, and all of them.
  [[nodiscard]] std::uint64_t finish_payload_checksum(std::uint64_t blob_bytes) {
    const auto payload =
        std::span<const std::byte>(out_).first(static_cast<std::size_t>(blob_bytes)).subspan(format::kHeaderBytes);
    payload_.resize(static_cast<std::size_t>(format::ceil_div(payload.size(), kPayloadChunkBytes)));
    parallel_for(threads_, payload_.size(), [&](std::uint64_t chunk) {
      if (chunk >= first_hashed_ && chunk < hashed_) return;
      const auto begin = static_cast<std::size_t>(chunk * kPayloadChunkBytes);
      const std::size_t size = std::min<std::size_t>(kPayloadChunkBytes, payload.size() - begin);
      payload_[static_cast<std::size_t>(chunk)] = tile_kernels().xxh3(payload.data() + begin, size);
    });
    return combine_chunks(payload_);
  }

 private:
  // ---- the first pass -----------------------------------------------------------------------------------------------

  /// Counts the prefixes of all classes. `measure`: takes the rows' scales and hashes the strips first; otherwise the
  /// positions are final.
  std::vector<ClassCounts> survey(bool measure) {
    std::vector<ClassCounts> counts(class_count_);
    std::mutex counts_mutex;
    const std::uint64_t per_chunk = strips_per_chunk(shape_) * kChunksAtOnce;
    parallel_for(threads_, format::ceil_div(strips_.count(), per_chunk), [&](std::uint64_t chunk) {
      PrefixCounter counter(class_count_);
      const std::uint64_t end = std::min(strips_.count(), (chunk + 1) * per_chunk);
      for (std::uint64_t strip = chunk * per_chunk; strip < end; ++strip) {
        const auto strip_values = strips_.values(values_, strip);
        if (measure) content_[static_cast<std::size_t>(strip)] = strip_checksum(tile_kernels(), strip_values);
        for (std::uint32_t row = 0; row < strips_.rows(strip); ++row) {
          const auto cols = static_cast<std::size_t>(shape_.cols);
          survey_row(strips_.row_begin(strip) + row, strip_values.subspan(row * cols, cols), measure, counter);
        }
      }
      const std::lock_guard lock(counts_mutex);
      counter.add_to(counts);
    });
    return counts;
  }

  void survey_row(std::uint64_t row, std::span<const std::uint16_t> values, bool measure, PrefixCounter& counter) {
    std::uint16_t& position = positions_[static_cast<std::size_t>(row)];
    if (measure) {
      position =
          static_cast<std::uint16_t>(scale_position(kernels_.sum_row(values.data(), values.size()), class_count_));
    }
    const std::uint32_t c = position % class_count_, octave_base = position / class_count_ * kPrefixesPerOctave;
    const std::uint64_t interval = choose_count_interval(shape_);
    if (interval == 1) return counter.count(values, c, octave_base);
    const std::size_t stride = static_cast<std::size_t>(interval) * kLanes;
    for (std::size_t col = static_cast<std::size_t>(row % interval) * kLanes; col < values.size(); col += stride) {
      counter.count(values.subspan(col, std::min<std::size_t>(kLanes, values.size() - col)), c, octave_base);
    }
  }

  // ---- the second pass ----------------------------------------------------------------------------------------------

  /// Encodes all blocks, a few chunks at a time, so that no more of them is held than that. False when they are too
  /// many bytes.
  bool encode_blocks() {
    const std::uint64_t at_once = 2 * std::uint64_t{threads_};
    std::vector<CodedChunk> chunks(static_cast<std::size_t>(at_once));
    std::uint64_t block = 0;
    if (threads_ == 1) block = encode_in_place(chunks[0]);
    while (block < blocks_.count) {
      const std::uint64_t left = format::ceil_div(blocks_.count - block, kBlocksPerChunk);
      const std::uint64_t count = std::min(at_once, left);
      parallel_for(threads_, count, [&](std::uint64_t i) {
        CodedChunk& chunk = chunks[static_cast<std::size_t>(i)];
        if (!chunk.memory) {
          chunk.memory = std::make_unique_for_overwrite<std::byte[]>(kBlocksPerChunk * kMaxBlockBytes);
        }
        const std::uint64_t begin = block + i * kBlocksPerChunk;
        encode_chunk(begin, std::min(blocks_.count, begin + kBlocksPerChunk), chunk.memory.get(), chunk);
      });
      for (std::uint64_t i = 0; i < count; ++i) {
        const CodedChunk& chunk = chunks[static_cast<std::size_t>(i)];
        if (chunk.size_bytes > most_stream_bytes_ - stream_bytes_) return false;
        std::memcpy(stream_end(), chunk.memory.get(), chunk.size_bytes);
        block = add_to_index(block, chunk);
      }
    }
    store_start(blocks_.count);
    return true;
  }

  /// Hashes the payload's chunks that are complete: those between the tables and the end of the stream so far.
  void hash_stream() {
    const std::uint64_t end = (sections_.stream_offset + stream_bytes_ - format::kHeaderBytes) / kPayloadChunkBytes;
    for (; hashed_ < end; ++hashed_) {
      const std::byte* begin = out_.data() + format::kHeaderBytes + hashed_ * kPayloadChunkBytes;
      payload_.resize(static_cast<std::size_t>(hashed_));
      payload_.push_back(tile_kernels().xxh3(begin, kPayloadChunkBytes));
    }
  }

  /// One thread needs no memory in between as long as the output has room for the worst. Returns the first block that
  /// may not have it.
  std::uint64_t encode_in_place(CodedChunk& chunk) {
    std::uint64_t block = 0;
    while (block < blocks_.count) {
      const std::uint64_t room = (most_stream_bytes_ - stream_bytes_) / kMaxBlockBytes;
      const std::uint64_t count = std::min({blocks_.count - block, kBlocksPerChunk, room});
      if (count == 0) break;
      encode_chunk(block, block + count, stream_end(), chunk);
      block = add_to_index(block, chunk);
    }
    return block;
  }

  [[nodiscard]] std::byte* stream_end() const { return out_.data() + sections_.stream_offset + stream_bytes_; }

  void store_start(std::uint64_t block) {
    format::store(out_.data() + sections_.block_starts_offset + block * sizeof(std::uint32_t),
                  static_cast<std::uint32_t>(stream_bytes_ / kStartUnit));
  }

  /// Returns the block behind the chunk.
  std::uint64_t add_to_index(std::uint64_t block, const CodedChunk& chunk) {
    for (const CodedSize& size : chunk.blocks) {
      store_start(block);
      format::store(out_.data() + sections_.escape_counts_offset + block++ * sizeof(std::uint16_t), size.escapes);
      stream_bytes_ += size.bytes;
    }
    hash_stream();
    return block;
  }

  void encode_chunk(std::uint64_t begin, std::uint64_t end, std::byte* out, CodedChunk& chunk) const {
    const auto scratch = std::make_unique<BlockScratch>();
    chunk.size_bytes = 0;
    chunk.blocks.clear();
    const auto values_at = [this](const BlockPlace& place) {
      return values_.data() + place.row * shape_.cols + place.col;
    };
    for (std::uint64_t b = begin; b < end; ++b) {
      const BlockPlace place = place_block(blocks_, shape_.rows, shape_.cols, b);
      scratch->rows.resize(place.rows);
      for (std::uint32_t row = 0; row < place.rows; ++row) {
        const std::uint16_t scale = model_.scales[model_.row_scales[static_cast<std::size_t>(place.row + row)]];
        scratch->rows[row] = {&tables_[scale_class(scale)], scale_base(scale)};
      }
      BlockValues block{values_at(place), static_cast<std::size_t>(shape_.cols), place.rows, place.cols,
                        blocks_.block_cols};
      if (b + 1 < end) {
        const BlockPlace next = place_block(blocks_, shape_.rows, shape_.cols, b + 1);
        block.next = values_at(next);
        block.next_rows = next.rows;
        block.next_cols = next.cols;
      }
      chunk.blocks.push_back(encode_block(kernels_, block, *scratch, out + chunk.size_bytes));
      chunk.size_bytes += chunk.blocks.back().bytes;
    }
  }

  void write_tables(std::span<const std::uint16_t> units, std::uint64_t blob_bytes) {
    std::byte* const out = out_.data();
    std::memcpy(out + sections_.scales_offset, model_.scales.data(), model_.scales.size() * sizeof(std::uint16_t));
    std::memcpy(out + sections_.tables_offset, units.data(), units.size_bytes());
    std::memcpy(out + sections_.row_scales_offset, model_.row_scales.data(), model_.row_scales.size());
    std::fill(out + sections_.row_scales_offset + model_.row_scales.size(), out + sections_.stream_offset,
              std::byte{0});
    std::fill(out + sections_.stream_offset + stream_bytes_, out + blob_bytes, std::byte{0});
  }

  /// Two megabytes of values: worth starting a thread for.
  static constexpr std::uint64_t kBlocksPerChunk = 64;
  /// Megabytes of values that a thread surveys before it adds up its counts.
  static constexpr std::uint64_t kChunksAtOnce = 4;

  const RansKernels& kernels_;
  std::span<const std::uint16_t> values_;
  MatrixShape shape_;
  unsigned threads_;
  std::span<std::byte> out_;
  Strips strips_;
  Blocks blocks_;
  std::uint32_t class_count_;
  std::vector<std::uint16_t> positions_;  ///< by row: its scale
  std::vector<std::uint64_t> content_;
  TensorModel model_;
  std::vector<EncodeTable> tables_;
  Sections sections_;
  std::uint64_t most_stream_bytes_ = 0;
  std::uint64_t stream_bytes_ = 0;
  std::vector<std::uint64_t> payload_;  ///< checksums of the payload's chunks
  std::uint64_t first_hashed_ = 0;      ///< of the chunks in [first_hashed_, hashed_) the checksum is known
  std::uint64_t hashed_ = 0;
};

}  // namespace

std::uint64_t write_raw(std::span<const std::uint16_t> values, const MatrixShape& shape, std::span<std::byte> out,
                        unsigned threads) {
  const std::uint64_t blob_bytes = format::raw_blob_bytes(values.size());
  Header h{};
  h.layout = static_cast<std::uint8_t>(Layout::kRaw);
  finish_header(h, shape, Sections{}, blob_bytes, out);
  if (!values.empty()) std::memcpy(out.data() + format::kHeaderBytes, values.data(), values.size_bytes());
  std::fill(out.data() + format::kHeaderBytes + values.size_bytes(), out.data() + blob_bytes, std::byte{0});
  const Strips strips(shape);
  std::vector<std::uint64_t> content(static_cast<std::size_t>(strips.count()));
  const std::uint64_t per_chunk = strips_per_chunk(shape);
  parallel_for(threads, format::ceil_div(strips.count(), per_chunk), [&](std::uint64_t chunk) {
    const std::uint64_t end = std::min(strips.count(), (chunk + 1) * per_chunk);
    for (std::uint64_t strip = chunk * per_chunk; strip < end; ++strip) {
      content[static_cast<std::size_t>(strip)] = strip_checksum(tile_kernels(), strips.values(values, strip));
    }
  });
  const auto blob = out.first(static_cast<std::size_t>(blob_bytes));
  seal_blob(blob, combine_chunks(content), payload_checksum(blob.subspan(format::kHeaderBytes), threads));
  return blob_bytes;
}

Result<std::uint64_t> encode_with(const RansKernels& kernels, std::span<const std::uint16_t> values,
                                  const MatrixShape& shape, std::span<std::byte> out, unsigned threads) {
  auto bound = check_encode_arguments(values, shape, out);
  if (!bound) return bound;
  // Thin matrices are mostly padding, which codes for nothing.
  if (!values.empty() && shape.cols >= kLeastCols) {
    CodedEncoder encoder(kernels, values, shape, threads, out);
    if (const std::uint64_t size = encoder.run(*bound); size != 0) {
      seal_blob(out.first(static_cast<std::size_t>(size)), encoder.content_checksum(),
                encoder.finish_payload_checksum(size));
      return size;
    }
  }
  return write_raw(values, shape, out, threads);
}

}  // namespace codec::distribution

namespace distribution {

Result<std::uint64_t> encode_into(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                  std::span<std::byte> out, const EncodeOptions& options) try {
  return codec::distribution::encode_with(codec::distribution::rans_kernels(), values, shape, out,
                                          codec::resolve_threads(options.threads));
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("encoding {} values", values.size());
}

Result<std::vector<std::byte>> encode(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                      const EncodeOptions& options) try {
  const auto bound = encode_bound(shape);
  if (!bound) return tl::unexpected(bound.error());
  std::vector<std::byte> blob;
  if (values.size() == shape.batch * shape.rows * shape.cols) blob.resize(static_cast<std::size_t>(*bound));
  const auto size = distribution::encode_into(values, shape, blob, options);
  if (!size) return tl::unexpected(size.error());
  blob.resize(static_cast<std::size_t>(*size));
  return blob;
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("encoding {} values", values.size());
}

}  // namespace distribution
}  // namespace unweight
