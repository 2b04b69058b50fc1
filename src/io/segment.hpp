// SPDX-License-Identifier: Apache-2.0
//
// The tensors that one process stores one after the other, and the journal that says how far it got.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <io/file.hpp>
#include <io/plan.hpp>
#include <io/work_control.hpp>
#include <io/work_folder.hpp>
#include <span>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

/// One stored tensor, as the journal has it.
struct StoredTensor {
  bool is_blob = false;
  std::uint64_t size_bytes = 0;
  std::uint64_t checksum = 0;  ///< XXH3-64 of the stored bytes
};

/// Where a segment lies while the work goes on.
struct SegmentPlace {
  std::filesystem::path data;
  std::uint64_t begin = 0;  ///< offset of its first tensor in `data`
  std::filesystem::path journal;
};

[[nodiscard]] SegmentPlace segment_place(const Plan& plan, const WorkFolder& work, const Segment& segment);

/// The journal's records, as far as they are valid and fit the plan.
[[nodiscard]] Result<std::vector<StoredTensor>> read_segment_journal(const Plan& plan, const WorkFolder& work,
                                                                     const Segment& segment);

/// How many of `records` are in the file from `begin` on, by their checksums. A missing file holds none.
[[nodiscard]] Result<std::size_t> count_intact(const std::filesystem::path& data, std::uint64_t begin,
                                               std::span<const StoredTensor> records, WorkControl& control);

/// Prepares a segment for being continued: checks what is there, cuts off what is damaged or incomplete. Returns the
/// records that remain.
[[nodiscard]] Result<std::vector<StoredTensor>> resume_segment(const Plan& plan, const WorkFolder& work,
                                                               const Segment& segment, WorkControl& control);

/// Appends tensors to a segment after resume_segment(). Not thread-safe.
class SegmentWriter {
 public:
  [[nodiscard]] static Result<SegmentWriter> open(const Plan& plan, const WorkFolder& work, const Segment& segment);

  /// A blob, or a tensor's own bytes, from memory.
  [[nodiscard]] Result<void> append(std::span<const std::byte> bytes, bool is_blob);
  /// A tensor's own bytes, straight from its file.
  [[nodiscard]] Result<void> append_copy(const File& source, std::uint64_t offset, std::uint64_t size_bytes,
                                         WorkControl& control);

 private:
  Result<void> record(const StoredTensor& stored);

  File data_;
  Journal journal_;
  std::uint64_t end_ = 0;  ///< offset behind the last tensor
  std::size_t count_ = 0;
};

}  // namespace unweight::io
