// SPDX-License-Identifier: Apache-2.0
//
// From a model's dimensions to the files of its checkpoint.
#pragma once

#include <cstdint>
#include <io/synth_models.hpp>
#include <io/synth_values.hpp>
#include <string>
#include <unweight/safetensors.hpp>
#include <utility>
#include <vector>

namespace unweight::io {

/// One tensor of a planned file. Its values are those of the tensor named `values_of`: itself, but for a duplicate.
struct SynthTensor {
  TensorEntry entry;
  SynthRecipe recipe = SynthRecipe::kMatrix;
  std::string values_of;
};

/// One safetensors file: header, then the tensors in this order without gaps.
struct SynthFile {
  std::string path;
  std::string header;
  std::vector<SynthTensor> tensors;

  [[nodiscard]] std::uint64_t size_bytes() const noexcept {
    return header.size() + (tensors.empty() ? 0 : tensors.back().entry.end);
  }
};

/// Everything that synth_checkpoint() writes.
struct SynthPlan {
  std::vector<SynthFile> weights;
  std::vector<std::pair<std::string, std::string>> texts;  ///< path and contents of the JSON files

  [[nodiscard]] std::uint64_t size_bytes() const noexcept;
};

[[nodiscard]] SynthPlan make_synth_plan(const SynthModel& model);

}  // namespace unweight::io
