// SPDX-License-Identifier: Apache-2.0
//
// The distribution form on a device: decode and transcode, timed for one shape.
#pragma once

#include <ceilings.hpp>
#include <cstddef>
#include <graph_timer.hpp>
#include <string>
#include <unweight/blob.hpp>
#include <vector>

namespace unweight::bench {

struct DistributionResult {
  MatrixShape shape;
  std::size_t blob_bytes = 0, runtime_bytes = 0, value_bytes = 0, workspace_bytes = 0;
  std::size_t sets = 0;
  Spread decode_us, transcode_us;
  Spread plan_us, finish_us;  ///< the two halves of transcoding
  Spread copy_us;             ///< of as many bytes as the decode moves
  std::string clocks;
};

/// Checks both against the CPU's codecs before anything is timed.
[[nodiscard]] DistributionResult measure_distribution(const MatrixShape& shape, const Ceiling& ceiling, int rounds);

/// For a results file, and for people.
[[nodiscard]] std::string distribution_json(const std::vector<DistributionResult>& results, const Ceiling& ceiling);
[[nodiscard]] std::string distribution_head();
[[nodiscard]] std::string distribution_line(const DistributionResult& result, const Ceiling& ceiling);

}  // namespace unweight::bench
