// SPDX-License-Identifier: Apache-2.0
//
// The models that synth_checkpoint() knows: what their checkpoints look like on the Hugging Face Hub.
//
// Faithful: tensor names, shapes and dtypes, the assignment of tensors to files, the order and offsets in the files
// (headers byte for byte, and so the files' sizes), the index, config.json and generation_config.json.
// Left out: tokenizers, licences and model cards; the second copy of the weights in another layout that some
// repositories carry (consolidated.safetensors, original/).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace unweight::io {

/// What a checkpoint holds for the output layer.
enum class SynthHead : std::uint8_t {
  kUntied,     ///< lm_head.weight with values of its own
  kDuplicate,  ///< lm_head.weight, although tied: the same bytes as the embedding
  kAbsent,     ///< tied and not stored
};

/// Order in which a layer's tensors are assigned to files. It decides where a file ends.
enum class SynthLayerOrder : std::uint8_t {
  kNormsLast,       ///< attention, MLP, norms: the order of the modules in transformers
  kNormsBeforeMlp,  ///< attention, norms, MLP
};

/// A decoder-only transformer of the Llama family.
struct SynthModel {
  std::string_view name;
  std::uint64_t layers = 0;
  std::uint64_t hidden = 0;
  std::uint64_t intermediate = 0;
  std::uint64_t heads = 0;
  std::uint64_t kv_heads = 0;
  std::uint64_t head_dim = 0;
  std::uint64_t vocabulary = 0;
  bool qkv_biases = false;
  bool qk_norms = false;           ///< Qwen3: norms of the query and key heads
  bool feedforward_norms = false;  ///< Gemma 2: norms before and after the MLP, too
  SynthHead head = SynthHead::kUntied;
  SynthLayerOrder layer_order = SynthLayerOrder::kNormsLast;
  std::uint64_t max_file_bytes = 5'000'000'000;  ///< max_shard_size of save_pretrained(): "5GB"
  std::string_view config;
  std::string_view generation_config;
};

/// All models, ordered by name.
[[nodiscard]] std::span<const SynthModel> synth_model_table() noexcept;

}  // namespace unweight::io
