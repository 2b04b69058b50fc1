// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <io/synth_plan.hpp>
#include <map>
#include <numeric>
#include <string_view>

namespace unweight::io {
namespace {

using Shape = std::vector<std::uint64_t>;

SynthTensor tensor(std::string name, SynthRecipe recipe, Shape shape) {
  SynthTensor result;
  result.recipe = recipe;
  result.values_of = name;
  result.entry.name = std::move(name);
  result.entry.dtype = Dtype::kBF16;
  result.entry.end = std::accumulate(shape.begin(), shape.end(), std::uint64_t{2}, std::multiplies<>());
  result.entry.shape = std::move(shape);
  return result;
}

void add_attention(const SynthModel& model, const std::string& layer, std::vector<SynthTensor>& out) {
  const auto projection = [&](std::string_view name, std::uint64_t heads) {
    const std::string prefix = fmt::format("{}.self_attn.{}_proj", layer, name);
    const std::uint64_t features = heads * model.head_dim;
    out.push_back(tensor(prefix + ".weight", SynthRecipe::kMatrix, {features, model.hidden}));
    if (model.qkv_biases) out.push_back(tensor(prefix + ".bias", SynthRecipe::kBias, {features}));
  };
  projection("q", model.heads);
  projection("k", model.kv_heads);
  projection("v", model.kv_heads);
  out.push_back(
      tensor(layer + ".self_attn.o_proj.weight", SynthRecipe::kMatrix, {model.hidden, model.heads * model.head_dim}));
  if (model.qk_norms) {
    out.push_back(tensor(layer + ".self_attn.q_norm.weight", SynthRecipe::kNorm, {model.head_dim}));
    out.push_back(tensor(layer + ".self_attn.k_norm.weight", SynthRecipe::kNorm, {model.head_dim}));
  }
}

void add_mlp(const SynthModel& model, const std::string& layer, std::vector<SynthTensor>& out) {
  const auto projection = [&](std::string_view name, Shape shape) {
    out.push_back(tensor(fmt::format("{}.mlp.{}_proj.weight", layer, name), SynthRecipe::kMatrix, std::move(shape)));
  };
  projection("gate", {model.intermediate, model.hidden});
  projection("up", {model.intermediate, model.hidden});
  projection("down", {model.hidden, model.intermediate});
}

void add_norms(const SynthModel& model, const std::string& layer, std::vector<SynthTensor>& out) {
  const auto norm = [&](std::string_view name) {
    out.push_back(tensor(fmt::format("{}.{}_layernorm.weight", layer, name), SynthRecipe::kNorm, {model.hidden}));
  };
  norm("input");
  if (model.feedforward_norms) {
    norm("pre_feedforward");
    norm("post_feedforward");
  }
  norm("post_attention");
}

/// All tensors in the order of the model's modules, in which they are assigned to files. Offsets are not set.
std::vector<SynthTensor> model_tensors(const SynthModel& model) {
  constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
  const Shape embedding_shape = {model.vocabulary, model.hidden};
  std::vector<SynthTensor> tensors;
  tensors.push_back(tensor(std::string(kEmbedding), SynthRecipe::kMatrix, embedding_shape));
  for (std::uint64_t i = 0; i < model.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}", i);
    add_attention(model, layer, tensors);
    if (model.layer_order == SynthLayerOrder::kNormsBeforeMlp) {
      add_norms(model, layer, tensors);
      add_mlp(model, layer, tensors);
    } else {
      add_mlp(model, layer, tensors);
      add_norms(model, layer, tensors);
    }
  }
  tensors.push_back(tensor("model.norm.weight", SynthRecipe::kNorm, {model.hidden}));
  if (model.head != SynthHead::kAbsent) {
    tensors.push_back(tensor("lm_head.weight", SynthRecipe::kMatrix, embedding_shape));
    if (model.head == SynthHead::kDuplicate) tensors.back().values_of = kEmbedding;
  }
  return tensors;
}

/// The rule of Hugging Face: a file takes tensors while their data stays within the limit; headers do not count.
std::vector<SynthFile> split_into_files(std::vector<SynthTensor> tensors, std::uint64_t max_file_bytes) {
  std::vector<SynthFile> files(1);
  std::uint64_t bytes = 0;
  for (SynthTensor& tensor : tensors) {
    const std::uint64_t size = tensor.entry.size_bytes();
    if (!files.back().tensors.empty() && bytes + size > max_file_bytes) {
      files.emplace_back();
      bytes = 0;
    }
    bytes += size;
    files.back().tensors.push_back(std::move(tensor));
  }
  return files;
}

/// Order, offsets and header as safetensors' serializer makes them: wide dtypes first (there is one here), then by
/// name; the data begins at a multiple of 8.
void lay_out(SynthFile& file) {
  std::ranges::sort(file.tensors, {},
                    [](const SynthTensor& tensor) -> const std::string& { return tensor.entry.name; });
  std::vector<TensorEntry> entries;
  std::uint64_t offset = 0;
  for (SynthTensor& tensor : file.tensors) {
    const std::uint64_t size = tensor.entry.size_bytes();
    tensor.entry.begin = offset;
    offset += size;
    tensor.entry.end = offset;
    entries.push_back(tensor.entry);
  }
  const std::pair<std::string, std::string> metadata[] = {{"format", "pt"}};
  file.header = make_safetensors_header(entries, metadata, 8);
}

/// model.safetensors.index.json, in the text form of json.dumps(indent=2, sort_keys=True). Names need no escapes.
std::string index_text(const std::vector<SynthFile>& files) {
  std::map<std::string_view, std::string_view> weight_map;
  std::uint64_t total = 0;
  for (const SynthFile& file : files) {
    for (const SynthTensor& tensor : file.tensors) {
      weight_map[tensor.entry.name] = file.path;
      total += tensor.entry.size_bytes();
    }
  }
  std::string text = fmt::format("{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{", total);
  std::string_view separator = "\n";
  for (const auto& [name, path] : weight_map) {
    text += fmt::format("{}    \"{}\": \"{}\"", separator, name, path);
    separator = ",\n";
  }
  return text + "\n  }\n}\n";
}

}  // namespace

std::uint64_t SynthPlan::size_bytes() const noexcept {
  std::uint64_t total = 0;
  for (const SynthFile& file : weights) total += file.size_bytes();
  for (const auto& [path, text] : texts) total += text.size();
  return total;
}

SynthPlan make_synth_plan(const SynthModel& model) {
  SynthPlan plan;
  plan.weights = split_into_files(model_tensors(model), model.max_file_bytes);
  const std::size_t count = plan.weights.size();
  for (std::size_t i = 0; i < count; ++i) {
    SynthFile& file = plan.weights[i];
    file.path = count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
    lay_out(file);
  }
  plan.texts.emplace_back("config.json", model.config);
  plan.texts.emplace_back("generation_config.json", model.generation_config);
  if (count > 1) plan.texts.emplace_back("model.safetensors.index.json", index_text(plan.weights));
  return plan;
}

}  // namespace unweight::io
