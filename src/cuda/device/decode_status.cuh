// SPDX-License-Identifier: Apache-2.0
//
// How kernels that read hostile bytes say what they found: one word in device memory, 0 while all is well. The largest
// of all reports stays, whatever their order, so the outcome is the same on every run.
#pragma once

#include <cstdint>
#include <format/layout.hpp>

namespace unweight::device {

/// What a report says, in the word's top byte; the graver ones are higher.
enum class Finding : std::uint32_t {
  kNone = 0,
  kContentChecksum = 1,  ///< the decoded values are not what was encoded
  kTooLarge = 2,         ///< the output does not fit its buffer
  kCorruptBlock = 3,     ///< with the lowest such block's number
};

inline constexpr std::uint32_t kFindingShift = 56;
inline constexpr std::uint64_t kFindingNumbers = (std::uint64_t{1} << kFindingShift) - 1;

/// A report about the thing of that number; of two, the lower number's is the larger.
UNWEIGHT_HOST_DEVICE constexpr std::uint64_t make_report(Finding finding, std::uint64_t number) {
  return static_cast<std::uint64_t>(finding) << kFindingShift | (kFindingNumbers - number);
}
UNWEIGHT_HOST_DEVICE constexpr Finding finding_of(std::uint64_t report) {
  return static_cast<Finding>(report >> kFindingShift);
}
UNWEIGHT_HOST_DEVICE constexpr std::uint64_t number_of(std::uint64_t report) {
  return kFindingNumbers - (report & kFindingNumbers);
}

/// By all lanes of a warp.
__device__ inline void report_block(std::uint64_t* status, std::uint32_t block, std::uint32_t lane) {
  if (lane != 0) return;
  static_assert(sizeof(unsigned long long) == sizeof *status);
  atomicMax(reinterpret_cast<unsigned long long*>(status),
            static_cast<unsigned long long>(make_report(Finding::kCorruptBlock, block)));
}

}  // namespace unweight::device
