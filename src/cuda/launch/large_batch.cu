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

constexpr std::uint32_t kSharers = sm90::LargeBatchShape::kSharers, kStrips = sm90::LargeBatchShape::kStrips;

/// Made once: load_large_batch() asks first.
const std::vector<sm90::LargeBatchInstance>& all_instances() {
  static const std::vector<sm90::LargeBatchInstance> all = [] {
    std::vector<sm90::LargeBatchInstance> list = sm90::large_batch_tiled();
    for (const sm90::LargeBatchInstance& instance : sm90::large_batch_raw()) list.push_back(instance);
    return list;
  }();
  return all;
}

const sm90::LargeBatchInstance& instance(bool raw, std::uint32_t tokens) {
  const auto& all = all_instances();
  return *std::find_if(all.begin(), all.end(), [&](const sm90::LargeBatchInstance& i) {
    return i.raw == raw && i.tokens == large_batch_tokens(tokens);
  });
}

/// Cycles of the pair with most work, as measured on an H200: a stage's, and what comes at the end of an item, of one
/// that is summed up by way of memory, and of one that a cluster has.
double expected_cost(const sm90::Deal& deal, std::uint32_t tokens) {
  const double stage = large_batch_tokens(tokens) == 128 ? 2 * 1000 : 2 * 1330;
  double parts = 0;
  if (deal.by_clusters()) {
    parts = 5000;
  } else if (deal.splits()) {
    parts = 12000;
  }
  return static_cast<double>(deal.stages()) * stage + 3500 * deal.most_rounds() + parts;
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
  if (config.strips != kStrips) {
    return refuse("tokens=" + text(tokens) + " needs strips=" + text(kStrips) + ", not " + text(config.strips));
  }
  if (problem.multiprocessors == 1) return refuse("tokens=" + text(tokens) + " needs two multiprocessors");
  return {};
}

CostedConfig choose_large_batch(const MatmulProblem& problem) {
  const auto costed = [&](const MatmulConfig& config) -> CostedConfig {
    return {config, expected_cost(large_batch_deal(problem.shape, config, problem.multiprocessors, problem.tokens),
                                  problem.tokens)};
  };
  return quicker(costed({.strips = kStrips, .warpgroup = true}),
                 costed({.strips = kStrips, .split = true, .warpgroup = true}));
}

Result<void> large_batch(const DeviceBlob& weight, const MatmulArguments& arguments, const MatmulConfig& config,
                         cudaStream_t stream) {
  const PlacedBlob blob = placed(weight);
  const bool raw = weight.layout() == BlobLayout::kRaw;
  const sm90::LargeBatchInstance& kernel = instance(raw, arguments.tokens);
  const sm90::LargeBatchParams params = large_batch_params(blob, arguments, config, weight.multiprocessors());
  CUtensorMap x_map{}, w_map{};
  if (params.x_by_tensor_copy) {
    auto map = make_tensor_map(activations(blob, arguments), params.x_share, 1);
    if (!map) return tl::unexpected(map.error());
    x_map = *map;
  }
  if (!raw || params.raw_by_tensor_copy) {
    auto map =
        raw ? make_tensor_map(raw_matrix(blob, arguments.matrix), kStrips * format::kTileRows, 1)
            : make_tile_map(matrix_tiles(blob, arguments.matrix), params.tiles_per_strip, params.strips, 1, kStrips);
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
