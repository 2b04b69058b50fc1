// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <codec/checksum.hpp>
#include <fmt/format.h>
#include <format/layout.hpp>
#include <io/matrix_view.hpp>
#include <io/segment.hpp>
#include <io/try.hpp>
#include <io/xxh3_stream.hpp>
#include <memory>
#include <optional>
#include <string_view>

namespace unweight::io {
namespace {

/// "<number> <b|r> <size> <checksum>"
std::string to_line(std::size_t number, const StoredTensor& stored) {
  return fmt::format("{} {} {} {:016x}", number, stored.is_blob ? 'b' : 'r', stored.size_bytes, stored.checksum);
}

std::optional<StoredTensor> from_line(std::string_view line, std::size_t number) {
  const auto next_field = [&] {
    const std::size_t end = std::min(line.find(' '), line.size());
    const std::string_view field = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
    return field;
  };
  const auto parse = [](std::string_view field, int base, auto& value) {
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, base);
    return error == std::errc{} && end == field.data() + field.size();
  };
  StoredTensor stored;
  std::size_t found = 0;
  if (!parse(next_field(), 10, found) || found != number) return std::nullopt;
  const std::string_view kind = next_field();
  if (kind != "b" && kind != "r") return std::nullopt;
  stored.is_blob = kind == "b";
  if (!parse(next_field(), 10, stored.size_bytes) || !parse(next_field(), 16, stored.checksum)) return std::nullopt;
  return stored;
}

/// Whether the plan allows a tensor to be stored like that.
bool fits(const TensorEntry& entry, const StoredTensor& stored) {
  if (!stored.is_blob) return stored.size_bytes == entry.size_bytes();
  return is_blob_candidate(entry) && stored.size_bytes < entry.size_bytes() &&
         stored.size_bytes % format::kAlignment == 0;
}

}  // namespace

SegmentPlace segment_place(const Plan& plan, const WorkFolder& work, const Segment& segment) {
  SegmentPlace place;
  const PlannedFile& file = plan.files[segment.file];
  const std::string name = fmt::format("segment-{}-{}", segment.file, segment.number);
  place.journal = work.path(name + ".journal");
  if (segment.number == 0) {
    place.data = work.result() / file.path;
    place.begin = file.data_begin;
  } else {
    place.data = work.path(name + ".data");
  }
  return place;
}

Result<std::vector<StoredTensor>> read_segment_journal(const Plan& plan, const WorkFolder& work,
                                                       const Segment& segment) {
  const PlannedFile& file = plan.files[segment.file];
  UNWEIGHT_ASSIGN(const std::vector<std::string> lines,
                  Journal::read_lines(segment_place(plan, work, segment).journal));
  std::vector<StoredTensor> records;
  const std::size_t count = std::min<std::size_t>(lines.size(), segment.end - segment.begin);
  for (std::size_t i = 0; i < count; ++i) {
    const auto stored = from_line(lines[i], i);
    if (!stored || !fits(file.header.tensors[file.order[segment.begin + i]], *stored)) break;
    records.push_back(*stored);
  }
  return records;
}

Result<std::size_t> count_intact(const std::filesystem::path& data, std::uint64_t begin,
                                 std::span<const StoredTensor> records, WorkControl& control) {
  if (records.empty()) return 0;
  auto file = File::open(data);
  if (!file) {
    if (file.error().code == ErrorCode::kNotFound) return 0;
    return tl::unexpected(std::move(file).error());
  }
  UNWEIGHT_ASSIGN(const std::uint64_t size, file->size_bytes());
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kStreamBytes);
  std::uint64_t at = begin;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (size < at || records[i].size_bytes > size - at) return i;
    Xxh3Stream hash;
    for (std::uint64_t left = records[i].size_bytes; left > 0;) {
      const std::span chunk(buffer.get(), std::min<std::uint64_t>(kStreamBytes, left));
      UNWEIGHT_TRY(file->read(at, chunk));
      hash.update(chunk);
      at += chunk.size();
      left -= chunk.size();
      control.tick();
      UNWEIGHT_TRY(control.outcome());
    }
    if (hash.digest() != records[i].checksum) return i;
  }
  return records.size();
}

Result<std::vector<StoredTensor>> resume_segment(const Plan& plan, const WorkFolder& work, const Segment& segment,
                                                 WorkControl& control) {
  const SegmentPlace place = segment_place(plan, work, segment);
  UNWEIGHT_ASSIGN(std::vector<StoredTensor> records, read_segment_journal(plan, work, segment));
  UNWEIGHT_ASSIGN(const std::size_t intact, count_intact(place.data, place.begin, records, control));
  records.resize(intact);
  if (segment.number == 0) UNWEIGHT_TRY(work.place(plan.files[segment.file].path));
  UNWEIGHT_ASSIGN(const File data, File::open_or_create(place.data));
  UNWEIGHT_ASSIGN(Journal journal, Journal::open(place.journal));
  UNWEIGHT_TRY(journal.keep(intact));
  std::uint64_t end = place.begin;
  for (const StoredTensor& stored : records) end += stored.size_bytes;
  UNWEIGHT_TRY(data.truncate(end));
  return records;
}

Result<SegmentWriter> SegmentWriter::open(const Plan& plan, const WorkFolder& work, const Segment& segment) {
  const SegmentPlace place = segment_place(plan, work, segment);
  SegmentWriter writer;
  UNWEIGHT_ASSIGN(writer.data_, File::open_or_create(place.data));
  UNWEIGHT_ASSIGN(writer.journal_, Journal::open(place.journal));
  UNWEIGHT_ASSIGN(writer.end_, writer.data_.size_bytes());
  writer.count_ = writer.journal_.lines().size();
  return writer;
}

Result<void> SegmentWriter::append(std::span<const std::byte> bytes, bool is_blob) {
  UNWEIGHT_TRY(data_.write(end_, bytes));
  return record({is_blob, bytes.size(), codec::xxh3(bytes)});
}

Result<void> SegmentWriter::append_copy(const File& source, std::uint64_t offset, std::uint64_t size_bytes,
                                        WorkControl& control) {
  Xxh3Stream hash;
  const std::size_t buffer_bytes = std::min<std::uint64_t>(kStreamBytes, size_bytes);
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(buffer_bytes);
  for (std::uint64_t done = 0; done < size_bytes;) {
    const std::span chunk(buffer.get(), std::min<std::uint64_t>(buffer_bytes, size_bytes - done));
    UNWEIGHT_TRY(source.read(offset + done, chunk));
    hash.update(chunk);
    UNWEIGHT_TRY(data_.write(end_ + done, chunk));
    done += chunk.size();
    control.tick();
    UNWEIGHT_TRY(control.outcome());
  }
  return record({false, size_bytes, hash.digest()});
}

Result<void> SegmentWriter::record(const StoredTensor& stored) {
  UNWEIGHT_TRY(journal_.append(to_line(count_, stored)));
  end_ += stored.size_bytes;
  ++count_;
  return {};
}

}  // namespace unweight::io
