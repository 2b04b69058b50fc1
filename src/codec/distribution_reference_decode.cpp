// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <codec/distribution_reference.hpp>
#include <cstring>
#include <format/distribution_layout.hpp>

namespace unweight::codec::distribution {
namespace {

using namespace format::distribution;

template <class T>
T read(std::span<const std::byte> blob, std::uint64_t offset) {
  T value;
  std::memcpy(&value, blob.data() + offset, sizeof value);
  return value;
}

/// DISTRIBUTION.md 4: which rank each of the 4096 slots belongs to, and the ranks' frequencies and first slots.
struct Class {
  std::array<std::uint32_t, 4096> rank_of_slot{};
  std::array<std::uint32_t, 256> frequency{}, first{};
};

Class read_class(std::span<const std::byte> blob, std::uint64_t& at) {
  Class c;
  const auto window = read<std::uint16_t>(blob, at);
  c.frequency[254] = read<std::uint16_t>(blob, at + 2);
  c.frequency[255] = read<std::uint16_t>(blob, at + 4);
  at += 6;
  for (std::uint32_t rank = 0; rank < window; ++rank, at += 2) c.frequency[rank] = read<std::uint16_t>(blob, at);
  std::uint32_t slot = 0;
  for (std::uint32_t rank = 0; rank < 256; ++rank) {
    c.first[rank] = slot;
    for (std::uint32_t i = 0; i < c.frequency[rank]; ++i) c.rank_of_slot[slot++] = rank;
  }
  return c;
}

}  // namespace

std::optional<std::vector<std::uint16_t>> reference_decode(std::span<const std::byte> blob) {
  const auto h = read<Header>(blob, 0);
  std::vector<std::uint16_t> values(h.batch * h.rows * h.cols);
  if (h.layout == 0) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = read<std::uint16_t>(blob, 256 + 2 * i);
    return values;
  }
  std::vector<Class> classes;
  std::uint64_t at = h.tables_offset;
  for (std::uint32_t c = 0; c < h.class_count; ++c) classes.push_back(read_class(blob, at));
  const Blocks g = cut_blocks(h.batch, h.rows, h.cols);
  for (std::uint64_t block = 0; block < g.count; ++block) {
    const std::uint64_t group = block / g.col_blocks, row0 = group % g.groups * g.group_rows;
    const std::uint64_t first_row = group / g.groups * h.rows + row0, first_col = block % g.col_blocks * g.block_cols;
    const auto rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(g.group_rows, h.rows - row0));
    const auto cols = static_cast<std::uint32_t>(std::min<std::uint64_t>(g.block_cols, h.cols - first_col));
    const std::uint32_t row_steps = (cols + 31) / 32, steps = rows * row_steps, stored = steps < 3 ? 0 : steps - 3;

    // 5.3: the block's parts.
    const std::uint64_t planes =
        h.stream_offset + 4 * std::uint64_t{read<std::uint32_t>(blob, h.block_starts_offset + 4 * block)};
    const std::uint64_t end =
        h.stream_offset + 4 * std::uint64_t{read<std::uint32_t>(blob, h.block_starts_offset + 4 * block + 4)};
    const std::uint64_t states_at = planes + 24 * stored;
    const auto mask = read<std::uint32_t>(blob, states_at);
    std::uint64_t next = states_at + 100;
    std::array<std::uint32_t, 32> states;
    for (std::uint32_t lane = 0; lane < 32; ++lane) {
      states[lane] = read<std::uint16_t>(blob, states_at + 4 + 2 * lane) |
                     std::uint32_t{read<std::uint8_t>(blob, states_at + 68 + lane)} << 16;
      if ((mask >> lane & 1) != 0) states[lane] |= std::uint32_t{read<std::uint8_t>(blob, next++)} << 24;
    }
    while ((next - states_at) % 4 != 0) ++next;
    const std::uint64_t escapes_at = next;
    const auto escapes = read<std::uint16_t>(blob, h.escape_counts_offset + 2 * block);
    next += 4 * std::uint64_t{escapes};

    // 5.2: the symbols.
    const auto value = [&](std::uint32_t row, std::uint32_t col) -> std::uint16_t& {
      return values[(first_row + row) * h.cols + first_col + col];
    };
    for (std::uint32_t step = 0; step < steps; ++step) {
      const std::uint32_t row = step / row_steps;
      const auto scale = read<std::uint16_t>(
          blob, h.scales_offset + 2 * std::uint64_t{read<std::uint8_t>(blob, h.row_scales_offset + first_row + row)});
      for (std::uint32_t lane = 0; lane < 32; ++lane) {
        std::uint32_t& x = states[lane];
        const Class& model = classes[scale >> 10];
        const std::uint32_t slot = x % 4096, rank = model.rank_of_slot[slot];
        x = model.frequency[rank] * (x / 4096) + slot - model.first[rank];
        if (x < 65536) {
          if (next + 2 > end) return std::nullopt;
          x = x << 16 | read<std::uint16_t>(blob, next);
          next += 2;
        }
        const std::uint32_t col = step % row_steps * 32 + lane;
        if (col >= cols) continue;
        const std::uint32_t prefix = rank < 254 ? ((scale & 1023) + rank) % 1024 : 0;
        std::uint32_t suffix = 0;
        for (std::uint32_t bit = 0; step < stored && bit < 6; ++bit) {
          const std::uint32_t from = 6 * lane + bit;
          suffix |= (read<std::uint8_t>(blob, planes + 24 * step + from / 8) >> from % 8 & 1U) << bit;
        }
        value(row, col) = join(prefix, suffix);
      }
    }
    if (next + 2 == end && read<std::uint16_t>(blob, next) == 0) next += 2;
    if (next != end) return std::nullopt;
    for (std::uint32_t lane = 0; lane < 32; ++lane) {
      if (states[lane] >> 18 != 1) return std::nullopt;
      for (std::uint32_t step = stored; step < steps; ++step) {
        const std::uint32_t col = step % row_steps * 32 + lane;
        if (col < cols) value(step / row_steps, col) |= join(0, states[lane] >> 6 * (steps - 1 - step) & 63);
      }
    }
    // 5.4: the escapes.
    std::int64_t last = -1;
    for (std::uint32_t i = 0; i < escapes; ++i) {
      const auto position = read<std::uint16_t>(blob, escapes_at + 4 * i);
      const auto prefix = read<std::uint16_t>(blob, escapes_at + 4 * i + 2);
      const std::uint32_t row = position / g.block_cols, col = position % g.block_cols;
      if (position <= last || row >= rows || col >= cols || prefix >= 1024) return std::nullopt;
      last = position;
      value(row, col) = join(prefix, suffix_of(value(row, col)));
    }
  }
  return values;
}

}  // namespace unweight::codec::distribution
