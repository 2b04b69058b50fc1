// SPDX-License-Identifier: Apache-2.0
#define XXH_INLINE_ALL
#include <algorithm>
#include <array>
#include <codec/distribution_reference.hpp>
#include <cstring>
#include <format/distribution_layout.hpp>
#include <map>
#include <utility>
#include <xxhash.h>

namespace unweight::codec::distribution {
namespace {

using namespace format::distribution;

using Bytes = std::vector<std::byte>;
using Counts = std::map<std::uint32_t, std::uint64_t>;  // by symbol or relative prefix; absent: 0
using Frequencies = std::array<std::uint32_t, 256>;     // by rank

std::uint64_t hash(const void* at, std::size_t size) { return XXH3_64bits(at, size); }

template <class T>
void append(Bytes& bytes, T value) {
  bytes.resize(bytes.size() + sizeof value);
  std::memcpy(bytes.data() + bytes.size() - sizeof value, &value, sizeof value);
}

/// DISTRIBUTION.md 6: as in the runtime form.
std::uint64_t content_checksum(std::span<const std::uint16_t> values, const MatrixShape& shape) {
  std::vector<std::uint64_t> strips;
  for (std::uint64_t b = 0; shape.cols != 0 && b < shape.batch; ++b) {
    for (std::uint64_t n = 0; n < shape.rows; n += 16) {
      const std::uint64_t rows = std::min<std::uint64_t>(16, shape.rows - n);
      strips.push_back(hash(values.data() + (b * shape.rows + n) * shape.cols, rows * shape.cols * 2));
    }
  }
  return hash(strips.data(), strips.size() * 8);
}

/// Checksums go in last.
void seal(Bytes& blob, std::uint64_t content) {
  std::vector<std::uint64_t> chunks;
  for (std::size_t at = 256; at < blob.size(); at += std::size_t{1} << 20) {
    chunks.push_back(hash(blob.data() + at, std::min(std::size_t{1} << 20, blob.size() - at)));
  }
  Header h;
  std::memcpy(&h, blob.data(), sizeof h);
  h.content_checksum = content;
  h.payload_checksum = hash(chunks.data(), chunks.size() * 8);
  h.header_checksum = hash(&h, offsetof(Header, header_checksum));
  std::memcpy(blob.data(), &h, sizeof h);
}

Header common_header(const MatrixShape& shape, std::uint64_t blob_bytes) {
  Header h{};
  std::memcpy(h.magic, "UNWTDIST", 8);
  h.version_major = 1;
  h.header_bytes = 256;
  h.blob_bytes = blob_bytes;
  h.dtype = 1;
  h.batch = shape.batch;
  h.rows = shape.rows;
  h.cols = shape.cols;
  return h;
}

Bytes encode_raw(std::span<const std::uint16_t> values, const MatrixShape& shape) {
  Bytes blob(static_cast<std::size_t>(format::raw_blob_bytes(values.size())));
  const Header h = common_header(shape, blob.size());
  std::memcpy(blob.data(), &h, sizeof h);
  if (!values.empty()) std::memcpy(blob.data() + 256, values.data(), values.size_bytes());
  seal(blob, content_checksum(values, shape));
  return blob;
}

// ---- 7: the canonical models ----------------------------------------------------------------------------------------

/// 7.5: frequencies that sum to 4096.
Frequencies normalize(const Counts& counts) {
  Counts shared = counts;
  Frequencies frequencies{};
  std::uint64_t slots = 4096;
  for (bool again = true; again;) {
    std::uint64_t total = 0;
    for (const auto& [rank, count] : shared) total += count;
    if (total == 0) break;
    again = false;
    std::vector<std::uint32_t> small;
    for (const auto& [rank, count] : shared) {
      if (count * slots < total) small.push_back(rank);
    }
    for (const std::uint32_t rank : small) {
      frequencies[rank] = 1;
      --slots;
      shared.erase(rank);
      again = true;
    }
  }
  std::uint64_t total = 0, left = slots;
  for (const auto& [rank, count] : shared) total += count;
  if (total == 0) {
    for (const auto& [rank, count] : shared) frequencies[rank] = 1;
    frequencies[shared.rbegin()->first] = static_cast<std::uint32_t>(slots - (shared.size() - 1));
    return frequencies;
  }
  std::vector<std::pair<std::uint64_t, std::uint32_t>> remainders;
  for (const auto& [rank, count] : shared) {
    frequencies[rank] = static_cast<std::uint32_t>(count * slots / total);
    left -= frequencies[rank];
    remainders.emplace_back(count * slots % total, rank);
  }
  std::sort(remainders.begin(), remainders.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  for (std::size_t i = 0; i < left; ++i) ++frequencies[remainders[i].second];
  return frequencies;
}

struct ClassModel {
  std::uint32_t begin = 0;   // relative prefix of rank 0
  std::uint32_t window = 0;  // ranks that are prefixes
  Frequencies frequencies{};
};

/// 7.4, 7.5. `relative` counts relative prefixes.
ClassModel make_model(Counts relative, std::uint64_t zeros) {
  std::uint64_t total = zeros;
  for (const auto& [prefix, count] : relative) total += count;
  const auto is_rare = [&](std::uint64_t count) { return count == 0 || count * 65536 < total; };
  std::uint32_t peak = 0;
  for (std::uint32_t prefix = 0; prefix < 1024; ++prefix) {
    if (relative[prefix] > relative[peak]) peak = prefix;
  }
  ClassModel model;
  std::vector<std::uint32_t> offsets;  // from 190 below the peak, of prefixes that are not rare
  for (std::uint32_t offset = 0; offset < 254; ++offset) {
    if (!is_rare(relative[(peak - 190 + offset) % 1024])) offsets.push_back(offset);
  }
  Counts symbols;
  std::uint64_t escapes = total;
  if (!offsets.empty()) {
    model.begin = (peak - 190 + offsets.front()) % 1024;
    model.window = offsets.back() - offsets.front() + 1;
    for (std::uint32_t rank = 0; rank < model.window; ++rank) {
      symbols[rank] = relative[(model.begin + rank) % 1024];
      escapes -= symbols[rank];
    }
  }
  if (!is_rare(zeros)) {
    symbols[254] = zeros;
    escapes -= zeros;
  }
  symbols[255] = escapes;
  model.frequencies = normalize(symbols);
  return model;
}

// ---- 5: blocks ------------------------------------------------------------------------------------------------------

struct Symbol {
  std::uint32_t frequency = 0, first = 0;  // first slot
};

std::array<Symbol, 256> cumulate(const Frequencies& frequencies) {
  std::array<Symbol, 256> symbols;
  std::uint32_t first = 0;
  for (std::uint32_t rank = 0; rank < 256; ++rank) {
    symbols[rank] = {frequencies[rank], first};
    first += frequencies[rank];
  }
  return symbols;
}

/// A row of a block: what its values are coded with.
struct RowModel {
  std::uint32_t base = 0;
  std::uint32_t window = 0;
  std::array<Symbol, 256> symbols;
};

std::uint32_t rank_of(std::uint32_t prefix, const RowModel& model) {
  if (prefix == 0) return model.symbols[254].frequency != 0 ? 254 : 255;
  const std::uint32_t relative = (prefix - model.base) % 1024;
  return relative < model.window ? relative : 255;
}

std::uint32_t padding_rank(const RowModel& model) {
  std::uint32_t best = 0;
  for (std::uint32_t rank = 0; rank < 256; ++rank) {
    if (model.symbols[rank].frequency > model.symbols[best].frequency) best = rank;
  }
  return best;
}

struct Block {
  Bytes bytes;
  std::uint16_t escapes = 0;
};

/// `value(row, col)` gives a value of the block.
template <class Value>
Block encode_block(std::uint32_t rows, std::uint32_t cols, std::uint32_t block_cols,
                   const std::vector<RowModel>& models, const Value& value) {
  const std::uint32_t row_steps = (cols + 31) / 32, steps = rows * row_steps, stored = steps < 3 ? 0 : steps - 3;
  // 5.1: what each lane of each step codes.
  std::vector<std::array<std::uint32_t, 32>> ranks(steps), suffixes(steps);
  Bytes escapes;
  for (std::uint32_t step = 0; step < steps; ++step) {
    const std::uint32_t row = step / row_steps;
    for (std::uint32_t lane = 0; lane < 32; ++lane) {
      const std::uint32_t col = step % row_steps * 32 + lane;
      ranks[step][lane] = padding_rank(models[row]);
      suffixes[step][lane] = 0;
      if (col >= cols) continue;
      const std::uint32_t prefix = prefix_of(value(row, col));
      ranks[step][lane] = rank_of(prefix, models[row]);
      suffixes[step][lane] = suffix_of(value(row, col));
      if (ranks[step][lane] != 255) continue;
      append(escapes, static_cast<std::uint16_t>(row * block_cols + col));
      append(escapes, static_cast<std::uint16_t>(prefix));
    }
  }
  // 5.2: from the last step to the first.
  std::array<std::uint64_t, 32> states;
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    states[lane] = 1 << 18;
    for (std::uint32_t step = stored; step < steps; ++step) {
      states[lane] |= std::uint64_t{suffixes[step][lane]} << 6 * (steps - 1 - step);
    }
  }
  std::vector<std::uint16_t> words;  // the last one first
  for (std::uint32_t step = steps; step-- > 0;) {
    for (std::uint32_t lane = 32; lane-- > 0;) {
      const Symbol symbol = models[step / row_steps].symbols[ranks[step][lane]];
      std::uint64_t& x = states[lane];
      if (x >= std::uint64_t{symbol.frequency} << 20) {
        words.push_back(static_cast<std::uint16_t>(x));
        x >>= 16;
      }
      x = x / symbol.frequency * 4096 + x % symbol.frequency + symbol.first;
    }
  }
  // 5.3: the bytes.
  Block block;
  for (std::uint32_t step = 0; step < stored; ++step) {
    std::array<std::uint8_t, 24> plane{};
    for (std::uint32_t bit = 0; bit < 192; ++bit) {
      plane[bit / 8] |= static_cast<std::uint8_t>((suffixes[step][bit / 6] >> bit % 6 & 1) << bit % 8);
    }
    for (const std::uint8_t byte : plane) append(block.bytes, byte);
  }
  std::uint32_t mask = 0;
  for (std::uint32_t lane = 0; lane < 32; ++lane) mask |= (states[lane] >> 24 != 0 ? 1U : 0U) << lane;
  append(block.bytes, mask);
  for (const std::uint64_t x : states) append(block.bytes, static_cast<std::uint16_t>(x));
  for (const std::uint64_t x : states) append(block.bytes, static_cast<std::uint8_t>(x >> 16));
  for (const std::uint64_t x : states) {
    if (x >> 24 != 0) append(block.bytes, static_cast<std::uint8_t>(x >> 24));
  }
  while (block.bytes.size() % 4 != 0) append(block.bytes, std::uint8_t{0});
  block.bytes.insert(block.bytes.end(), escapes.begin(), escapes.end());
  block.escapes = static_cast<std::uint16_t>(escapes.size() / 4);
  for (std::size_t i = words.size(); i-- > 0;) append(block.bytes, words[i]);
  while (block.bytes.size() % 4 != 0) append(block.bytes, std::uint8_t{0});
  return block;
}

}  // namespace

Bytes reference_encode(std::span<const std::uint16_t> values, const MatrixShape& shape) {
  if (values.empty() || shape.cols < 16) return encode_raw(values, shape);
  const std::uint64_t rows = shape.batch * shape.rows;
  const std::uint32_t classes = values.size() >= 1 << 18 ? 4 : values.size() >= 1 << 16 ? 2 : 1;
  const auto value = [&](std::uint64_t row, std::uint64_t col) { return values[row * shape.cols + col]; };

  // 7.2: the rows' scales.
  std::vector<std::uint64_t> positions(rows);
  for (std::uint64_t row = 0; row < rows; ++row) {
    std::uint64_t sum = 0, count = 0;
    for (std::uint64_t col = 0; col < shape.cols; ++col) {
      sum += prefix_of(value(row, col));
      count += prefix_of(value(row, col)) != 0;
    }
    if (count != 0)
      positions[row] = std::min((2 * classes * sum + 4 * count) / (8 * count), std::uint64_t{256} * classes - 1);
  }
  const auto distinct = [&] {
    std::map<std::uint64_t, std::uint32_t> numbers;
    for (const std::uint64_t position : positions) numbers[position] = 0;
    std::uint32_t next = 0;
    for (auto& [position, number] : numbers) number = next++;
    return numbers;
  };
  if (distinct().size() > 256) {
    for (std::uint64_t& position : positions) position -= position % classes;
  }
  const std::map<std::uint64_t, std::uint32_t> scale_numbers = distinct();

  // 7.3 to 7.5: the classes' models.
  const std::uint64_t interval = shape.cols < 256 || values.size() < 1 << 17 ? 1 : values.size() < 1 << 22 ? 4 : 8;
  std::vector<Counts> relative(classes);
  std::vector<std::uint64_t> zeros(classes);
  for (std::uint64_t row = 0; row < rows; ++row) {
    for (std::uint64_t col = 0; col < shape.cols; ++col) {
      if (col / 32 % interval != row % interval) continue;
      const std::uint32_t prefix = prefix_of(value(row, col));
      const std::uint64_t c = positions[row] % classes, octave = positions[row] / classes;
      if (prefix == 0) {
        ++zeros[c];
      } else {
        ++relative[c][static_cast<std::uint32_t>((prefix - 4 * octave) % 1024)];
      }
    }
  }
  std::vector<ClassModel> models;
  for (std::uint32_t c = 0; c < classes; ++c) models.push_back(make_model(relative[c], zeros[c]));
  const auto base_of = [&](std::uint64_t position) {
    return static_cast<std::uint32_t>((4 * (position / classes) + models[position % classes].begin) % 1024);
  };

  // 5: the stream.
  const Blocks g = cut_blocks(shape.batch, shape.rows, shape.cols);
  Bytes stream;
  std::vector<std::uint32_t> starts;
  std::vector<std::uint16_t> escapes;
  for (std::uint64_t block = 0; block < g.count; ++block) {
    const std::uint64_t group = block / g.col_blocks, row0 = group % g.groups * g.group_rows;
    const std::uint64_t row = group / g.groups * shape.rows + row0, col = block % g.col_blocks * g.block_cols;
    const auto block_rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(g.group_rows, shape.rows - row0));
    const auto block_cols = static_cast<std::uint32_t>(std::min<std::uint64_t>(g.block_cols, shape.cols - col));
    std::vector<RowModel> row_models;
    for (std::uint64_t r = row; r < row + block_rows; ++r) {
      const ClassModel& model = models[positions[r] % classes];
      row_models.push_back({base_of(positions[r]), model.window, cumulate(model.frequencies)});
    }
    const Block coded = encode_block(block_rows, block_cols, g.block_cols, row_models,
                                     [&](std::uint32_t r, std::uint32_t c) { return value(row + r, col + c); });
    starts.push_back(static_cast<std::uint32_t>(stream.size() / 4));
    escapes.push_back(coded.escapes);
    stream.insert(stream.end(), coded.bytes.begin(), coded.bytes.end());
  }
  starts.push_back(static_cast<std::uint32_t>(stream.size() / 4));

  // 2.2: the sections.
  Bytes blob(256);
  const auto offset = [&blob] { return std::uint64_t{blob.size()}; };
  Header h = common_header(shape, 0);
  h.layout = 1;
  h.class_count = static_cast<std::uint8_t>(classes);
  h.scale_count = static_cast<std::uint16_t>(scale_numbers.size());
  h.stream_bytes = stream.size();
  h.block_starts_offset = offset();
  for (const std::uint32_t start : starts) append(blob, start);
  h.escape_counts_offset = offset();
  for (const std::uint16_t count : escapes) append(blob, count);
  h.scales_offset = offset();
  for (const auto& [position, number] : scale_numbers) {
    append(blob, static_cast<std::uint16_t>(position % classes << 10 | base_of(position)));
  }
  h.tables_offset = offset();
  for (const ClassModel& model : models) {
    append(blob, static_cast<std::uint16_t>(model.window));
    append(blob, static_cast<std::uint16_t>(model.frequencies[254]));
    append(blob, static_cast<std::uint16_t>(model.frequencies[255]));
    for (std::uint32_t rank = 0; rank < model.window; ++rank) {
      append(blob, static_cast<std::uint16_t>(model.frequencies[rank]));
    }
  }
  h.table_units = static_cast<std::uint16_t>((offset() - h.tables_offset) / 2);
  h.row_scales_offset = offset();
  for (const std::uint64_t position : positions) append(blob, static_cast<std::uint8_t>(scale_numbers.at(position)));
  while (blob.size() % 16 != 0) append(blob, std::uint8_t{0});
  h.stream_offset = offset();
  blob.insert(blob.end(), stream.begin(), stream.end());
  while (blob.size() % 128 != 0) append(blob, std::uint8_t{0});
  h.blob_bytes = blob.size();
  std::memcpy(blob.data(), &h, sizeof h);

  // 7.6: does it pay?
  const std::uint64_t raw_bytes = format::raw_blob_bytes(values.size());
  if (blob.size() > raw_bytes - raw_bytes / 32 || stream.size() / 4 > UINT32_MAX) return encode_raw(values, shape);
  seal(blob, content_checksum(values, shape));
  return blob;
}

}  // namespace unweight::codec::distribution
