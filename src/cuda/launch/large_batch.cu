// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cuda/instances/sm90_large_batch.hpp>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/large_batch.hpp>
#include <cuda/launch/large_batch_params.hpp>
#include <cuda/launch/matmul_launch.hpp>
#include <cuda/launch/tensor_map.hpp>
#include <format/layout.hpp>
#include <vector>

namespace unweight::launch {
namespace {

constexpr std::uint32_t kSharers = 2;  ///< blocks of a pair

/// Made once: load_large_batch() asks first.
const std::vector<sm90::LargeBatchInstance>& all_instances() {
  static const std::vector<sm90::LargeBatchInstance> all = [] {
    std::vector<sm90::LargeBatchInstance> list = sm90::large_batch_tiled();
    for (const sm90::LargeBatchInstance& instance : sm90::large_batch_raw()) list.push_back(instance);
    return list;
  }();
  return all;
}

const sm90::LargeBatchInstance& instance(const MatmulConfig& config, bool raw, std::uint32_t tokens) {
  const auto& all = all_instances();
  return *std::find_if(all.begin(), all.end(), [&](const sm90::LargeBatchInstance& i) {
    return i.strips == config.strips && i.raw == raw && i.tokens == large_batch_tokens(config, tokens);
  });
}

/// Of the pair with most work, in units of 128 rows x 256 tokens x 128 columns.
double expected_cost(const sm90::Deal& deal, const MatmulConfig& config, std::uint32_t tokens) {
  const std::uint32_t block_tokens = large_batch_tokens(config, tokens);
  // A column of 8 strips x 128 tokens takes more than half of one with 256 tokens.
  const double stage = config.strips == 8 && block_tokens == 128 ? 0.65 : 0.5 * config.strips / 8;
  const double scale = config.strips == 8 ? (block_tokens == 128 ? stage : 1) : stage;
  const double items = deal.rounds + (deal.longer_rounds != 0 ? 1 : 0) + (deal.splits() ? 1 : 0);
  double waits = 0;
  if (deal.by_clusters()) {
    waits = 2;
  } else if (deal.splits()) {
    waits = 4;
  }
  return static_cast<double>(deal.stages()) * scale + 0.5 * items + waits;
}

}  // namespace

Result<void> load_large_batch() {
  for (const sm90::LargeBatchInstance& kernel : all_instances()) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
    if (error != cudaSuccess) return cuda_failure(error, "matmul: load the kernels");
  }
  return {};
}

Result<void> large_batch_can_implement(const MatmulProblem& problem, const MatmulConfig& config) {
  const std::uint32_t tokens = problem.tokens;
  if (!config.warpgroup) return refuse("tokens=" + text(tokens) + " needs warpgroup");
  if (config.strips != 8 && config.strips != 16) {
    return refuse("tokens=" + text(tokens) + " needs strips=8 or 16, not " + text(config.strips));
  }
  if (problem.multiprocessors == 1) return refuse("tokens=" + text(tokens) + " needs two multiprocessors");
  return {};
}

MatmulConfig choose_large_batch(const DeviceBlob& weight, std::uint32_t tokens) {
  MatmulConfig best;
  double least = 0;
  for (const std::uint32_t strips : {8U, 16U}) {
    for (const bool split : {false, true}) {
      const MatmulConfig config{.strips = strips, .split = split, .warpgroup = true};
      const auto deal = large_batch_deal(weight.shape(), config, weight.multiprocessors(), tokens);
      const double cost = expected_cost(deal, config, tokens);
      if (least != 0 && cost >= least) continue;
      least = cost;
      best = config;
    }
  }
  return best;
}

Result<void> large_batch(const DeviceBlob& weight, const MatmulArguments& arguments, const MatmulConfig& config,
                         cudaStream_t stream) {
  const PlacedBlob blob = placed(weight);
  const bool raw = weight.layout() == BlobLayout::kRaw;
  const sm90::LargeBatchInstance& kernel = instance(config, raw, arguments.tokens);
  const sm90::LargeBatchParams params = large_batch_params(blob, arguments, config, weight.multiprocessors());
  CUtensorMap x_map{}, w_map{};
  if (params.x_by_tensor_copy) {
    auto map = make_tensor_map(activations(blob, arguments), kernel.x_copy_tokens, 1);
    if (!map) return tl::unexpected(map.error());
    x_map = *map;
  }
  if (!raw || params.raw_by_tensor_copy) {
    auto map = raw ? make_tensor_map(raw_matrix(blob, arguments.matrix), kernel.strips * format::kTileRows, 1)
                   : make_tile_map(matrix_tiles(blob, arguments.matrix), params.tiles_per_strip, params.strips, 1,
                                   kernel.strips);
    if (!map) return tl::unexpected(map.error());
    w_map = *map;
  }
  MatmulLaunch launch(params.deal.blocks * kSharers, kernel.threads, kernel.shared_bytes, stream);
  if (config.dependent_launch) launch.set_dependent();
  launch.set_cluster(kSharers * params.deal.parts);
  const cudaError_t error = cudaLaunchKernelEx(&launch.config(), kernel.kernel, params, x_map, w_map);
  if (error != cudaSuccess) return cuda_failure(error, "matmul: launch");
  return {};
}

}  // namespace unweight::launch
