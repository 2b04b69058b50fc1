// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fmt/format.h>
#include <format/layout.hpp>
#include <io/file.hpp>
#include <io/json_document.hpp>
#include <io/matrix_view.hpp>
#include <io/synth_plan.hpp>
#include <io/try.hpp>
#include <map>
#include <tune/names.hpp>
#include <unweight/checkpoint.hpp>
#include <unweight/tune.hpp>
#include <utility>

namespace unweight {
namespace {

/// About what blobs of trained weights take.
constexpr double kBitsPerWeight = 11.25;
constexpr std::uint64_t kMaxConfigBytes = std::uint64_t{16} << 20;

std::uint64_t estimated_bytes(std::uint64_t values) {
  return static_cast<std::uint64_t>(kBitsPerWeight / 8 * static_cast<double>(values));
}

/// A tensor, and how it is stored: in a bundle, or as an estimate.
struct Tensor {
  std::string name;
  Dtype dtype = Dtype::kBF16;
  std::vector<std::uint64_t> shape;
  std::uint64_t source_bytes = 0;
  std::uint64_t blob_bytes = 0;  ///< 0: not a blob yet
  std::uint64_t exception_units = 0, tiles = 0;
  bool raw = false;    ///< compression does not pay
  bool alias = false;  ///< another tensor has its values
};

bool is_embedding(std::string_view name) {
  return name.find("embed") != std::string_view::npos || name.find("wte.") != std::string_view::npos;
}

bool is_head(std::string_view name) {
  return name.starts_with("lm_head.") || name.find(".lm_head.") != std::string_view::npos || name == "output.weight";
}

/// "q_proj" of "model.layers.0.self_attn.q_proj.weight".
std::string kind_of(std::string_view name) {
  constexpr std::string_view kWeight = ".weight";
  if (name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  return std::string(name.substr(name.rfind('.') + 1));
}

/// A matrix that multiplies: of one tensor, or of several merged ones.
struct Matrix {
  std::string name;
  MatrixShape shape;
  std::vector<const Tensor*> parts;
};

class Collector {
 public:
  Collector(std::vector<Tensor> tensors, Merging merging) : tensors_(std::move(tensors)), merging_(merging) {}

  ModelMatrices collect() && {
    const bool own_head = std::ranges::any_of(tensors_, [](const Tensor& tensor) { return is_head(tensor.name); });
    for (const Tensor& tensor : tensors_) {
      if (multiplies(tensor, own_head)) {
        add_matrix(tensor);
        if (!is_embedding(tensor.name)) continue;
      }
      // Rows of an embedding are looked up, from dense memory.
      if (!tensor.alias) model_.other_bytes += tensor.source_bytes;
    }
    for (const Matrix& matrix : matrices_) add_to_kind(matrix);
    return std::move(model_);
  }

 private:
  static bool multiplies(const Tensor& tensor, bool own_head) {
    const TensorEntry entry{tensor.name, tensor.dtype, tensor.shape, 0, tensor.source_bytes};
    return io::is_blob_candidate(entry) && !(own_head && is_embedding(tensor.name));
  }

  void add_matrix(const Tensor& tensor) {
    const MatrixShape shape = io::matrix_view(tensor.shape);
    const std::string name = merging_ == Merging::kMerged ? tune::merged_name(tensor.name) : tensor.name;
    if (name != tensor.name) {
      const auto [place, first] = merged_.try_emplace(name, matrices_.size());
      if (!first) {
        Matrix& matrix = matrices_[place->second];
        // Parts of another width cannot be one matrix: they stay apart.
        if (matrix.shape.cols == shape.cols && matrix.shape.batch == shape.batch) {
          matrix.name = name;
          matrix.shape.rows += shape.rows;
          matrix.parts.push_back(&tensor);
          return;
        }
      }
    }
    matrices_.push_back({tensor.name, shape, {&tensor}});
  }

  void add_to_kind(const Matrix& matrix) {
    std::uint64_t bytes = 0, units = 0, tiles = 0;
    for (const Tensor* part : matrix.parts) {
      const std::uint64_t values = part->source_bytes / 2;
      bytes += part->raw               ? format::raw_blob_bytes(values)
               : part->blob_bytes != 0 ? part->blob_bytes
                                       : estimated_bytes(values);
      units += part->exception_units;
      tiles += part->tiles;
    }
    const MatrixShape& shape = matrix.shape;
    const PlanMatrices equal{kind_of(matrix.name),
                             shape.rows,
                             shape.cols,
                             exception_class(units, tiles),
                             bytes / shape.batch,
                             format::raw_blob_bytes(shape.rows * shape.cols),
                             {},
                             0};
    auto group = std::ranges::find_if(model_.matrices, [&](const PlanMatrices& other) {
      return other.kind == equal.kind && other.rows == equal.rows && other.cols == equal.cols &&
             other.exceptions == equal.exceptions;
    });
    if (group == model_.matrices.end()) group = model_.matrices.insert(group, equal);
    // Of blobs of slightly different sizes the largest counts.
    group->compressed_bytes = std::max(group->compressed_bytes, equal.compressed_bytes);
    for (std::uint64_t i = 0; i < shape.batch; ++i) {
      group->names.push_back(shape.batch == 1 ? matrix.name : fmt::format("{}[{}]", matrix.name, i));
    }
  }

  std::vector<Tensor> tensors_;
  Merging merging_;
  ModelMatrices model_;
  std::vector<Matrix> matrices_;
  std::map<std::string, std::size_t> merged_;  ///< name -> index into matrices_
};

/// Bytes of keys and values that a token adds; 0 where the configuration does not say.
std::uint64_t kv_bytes_per_token(simdjson::dom::element config) {
  const auto number = [&](const char* name) {
    std::uint64_t value = 0;
    return config[name].get(value) == simdjson::SUCCESS && value < (1U << 20) ? value : 0;
  };
  const std::uint64_t heads = number("num_attention_heads"), kv_heads = number("num_key_value_heads");
  std::uint64_t head_dim = number("head_dim");
  if (head_dim == 0 && heads != 0) head_dim = number("hidden_size") / heads;
  return number("num_hidden_layers") * 2 * (kv_heads != 0 ? kv_heads : heads) * head_dim * 2;
}

std::uint64_t kv_bytes_of(std::string_view text) {
  const auto document = io::JsonDocument::parse(text);
  if (!document) return 0;
  const std::uint64_t bytes = kv_bytes_per_token(document->root());
  simdjson::dom::element text_config;
  if (bytes == 0 && document->root()["text_config"].get(text_config) == simdjson::SUCCESS) {
    return kv_bytes_per_token(text_config);
  }
  return bytes;
}

Tensor from_report(const TensorReport& report) {
  Tensor tensor{report.name, report.dtype, report.shape, report.source_bytes, 0, 0, 0, false, false};
  tensor.alias = report.stored == StoredAs::kAlias;
  if (report.stored == StoredAs::kBlob) {
    tensor.blob_bytes = report.stored_bytes;
    tensor.exception_units = report.exception_count + report.escaped_tiles * format::kEscapedTileUnits;
    tensor.tiles = report.tile_count;
  }
  return tensor;
}

Result<ModelMatrices> finished(ModelMatrices model, const std::string& name) {
  model.model = name;
  if (model.matrices.empty()) return fail(ErrorCode::kBadCheckpoint, name + ": it has no BF16 matrices");
  return model;
}

}  // namespace

Result<ModelMatrices> model_matrices(const std::filesystem::path& path, Merging merging) {
  return io::guarded([&]() -> Result<ModelMatrices> {
    UNWEIGHT_ASSIGN(const InspectReport report, inspect_path(path, {.threads = 0, .histograms = false}));
    if (report.is_bundle && report.profile == Profile::kDistribution) {
      return fail(ErrorCode::kInvalidArgument,
                  path.native() + ": a bundle of the distribution profile; 'unweight transcode' makes one for the GPU");
    }
    std::vector<Tensor> tensors;
    for (const TensorReport& tensor : report.tensors) {
      tensors.push_back(from_report(tensor));
      tensors.back().raw = report.is_bundle && tensor.stored == StoredAs::kRaw;
    }
    ModelMatrices model = Collector(std::move(tensors), merging).collect();
    if (const auto config = io::read_text(path / "config.json", kMaxConfigBytes)) {
      model.kv_bytes_per_token = kv_bytes_of(*config);
    }
    return finished(std::move(model), path.native());
  });
}

Result<ModelMatrices> known_model_matrices(const std::string& name, Merging merging) {
  return io::guarded([&]() -> Result<ModelMatrices> {
    const auto table = io::synth_model_table();
    const auto known = std::ranges::find(table, name, &io::SynthModel::name);
    if (known == table.end()) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("model '{}' is not known; known: {}", name, fmt::join(synth_models(), ", ")));
    }
    std::vector<Tensor> tensors;
    for (const io::SynthFile& file : io::make_synth_plan(*known).weights) {
      for (const io::SynthTensor& tensor : file.tensors) {
        const TensorEntry& entry = tensor.entry;
        const bool alias = tensor.values_of != entry.name;
        tensors.push_back({entry.name, entry.dtype, entry.shape, entry.size_bytes(), 0, 0, 0, false, alias});
      }
    }
    ModelMatrices model = Collector(std::move(tensors), merging).collect();
    model.kv_bytes_per_token = kv_bytes_of(known->config);
    return finished(std::move(model), name);
  });
}

ModelMatrices shape_matrices(const std::vector<ShapeCount>& shapes) {
  ModelMatrices model;
  for (const ShapeCount& shape : shapes) {
    PlanMatrices equal;
    equal.kind = fmt::format("{}x{}", shape.rows, shape.cols);
    equal.rows = shape.rows;
    equal.cols = shape.cols;
    equal.compressed_bytes = estimated_bytes(shape.rows * shape.cols);
    equal.raw_bytes = format::raw_blob_bytes(shape.rows * shape.cols);
    for (std::uint64_t i = 0; i < shape.count; ++i) equal.names.push_back(fmt::format("{}[{}]", equal.kind, i));
    model.matrices.push_back(std::move(equal));
  }
  return model;
}

std::vector<WeightClass> weight_classes(const ModelMatrices& model) {
  std::vector<WeightClass> classes;
  for (const PlanMatrices& equal : model.matrices) {
    const WeightClass weight{equal.rows, equal.cols, BlobLayout::kTiled, equal.exceptions};
    if (std::ranges::find(classes, weight) == classes.end()) classes.push_back(weight);
  }
  return classes;
}

}  // namespace unweight
