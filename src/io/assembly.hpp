// SPDX-License-Identifier: Apache-2.0
//
// From finished segments to a complete bundle: join, write headers, index, config and manifest, publish.
#pragma once

#include <cstdint>
#include <io/plan.hpp>
#include <io/segment.hpp>
#include <io/work_control.hpp>
#include <io/work_folder.hpp>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

/// Whether joining has begun: from then on no share may be worked on.
[[nodiscard]] bool joining_has_begun(const WorkFolder& work);

/// Joins all segments and publishes the bundle. With `check_bytes` every segment is read and compared with its journal
/// first (the shares of other processes); without, the caller has just done so. kBadCheckpoint, naming the shares, when
/// some are not done. kSourceChanged when the source is not as it was planned.
[[nodiscard]] Result<void> assemble(const Plan& plan, const WorkFolder& work, bool check_bytes, unsigned threads,
                                    WorkControl& control, CompressReport& report);

/// Adds what `records` say about the tensors of a segment.
void add_to_report(const Plan& plan, const Segment& segment, const std::vector<StoredTensor>& records,
                   CompressReport& report);

}  // namespace unweight::io
