// SPDX-License-Identifier: Apache-2.0
//
// What a work folder remembers of the operation that made it, so that only the same operation continues there.
#pragma once

#include <cstdint>
#include <io/duplicates.hpp>
#include <io/plan.hpp>
#include <io/work_folder.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

struct PlanFile {
  std::string operation;  ///< "compress" or "decompress"
  std::uint32_t shard_count = 1;
  bool verify = true;
  std::string fingerprint;
  std::vector<Alias> aliases;
};

/// Nothing when there is none yet. kSourceChanged when it cannot be read as one of this version.
[[nodiscard]] Result<std::optional<PlanFile>> load_plan_file(const WorkFolder& work);
[[nodiscard]] Result<void> save_plan_file(const WorkFolder& work, const PlanFile& plan);

/// kSourceChanged unless `found` is of the same operation, source and options as `wanted` (aliases aside).
[[nodiscard]] Result<void> check_same_plan(const WorkFolder& work, const PlanFile& found, const PlanFile& wanted);

}  // namespace unweight::io
