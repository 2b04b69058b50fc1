// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cuda/instances/sm90_small_batch.hpp>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/matmul_launch.hpp>
#include <cuda/launch/small_batch.hpp>
#include <cuda/launch/small_batch_params.hpp>
#include <cuda/launch/tensor_map.hpp>
#include <format/layout.hpp>
#include <vector>

namespace unweight::launch {
namespace {

constexpr std::uint32_t kMinStages = 2, kMaxStages = sm90::kMaxStages;
constexpr std::uint32_t kStripChoices[] = {1, 2, 4, 8, 12, 16};

/// Every kernel, those of a kind together and narrower ones first. Made once: load_small_batch() asks first.
const std::vector<sm90::SmallBatchInstance>& all_instances() {
  static const std::vector<sm90::SmallBatchInstance> all = [] {
    std::vector<sm90::SmallBatchInstance> list;
    for (const auto make : {sm90::small_batch_tiled_1, sm90::small_batch_tiled_2, sm90::small_batch_tiled_4,
                            sm90::small_batch_tiled_warpgroup, sm90::small_batch_raw_1, sm90::small_batch_raw_2,
                            sm90::small_batch_raw_4, sm90::small_batch_raw_warpgroup}) {
      for (const sm90::SmallBatchInstance& instance : make()) list.push_back(instance);
    }
    return list;
  }();
  return all;
}

/// The narrowest kernel that takes the tokens; null where the configuration has none.
const sm90::SmallBatchInstance* find_instance(const MatmulConfig& config, bool raw, std::uint32_t tokens) {
  const auto& all = all_instances();
  const auto found = std::find_if(all.begin(), all.end(), [&](const sm90::SmallBatchInstance& i) {
    return i.strips == config.strips && i.warpgroup == config.warpgroup && i.raw == raw && 8 * i.token_tiles >= tokens;
  });
  return found == all.end() ? nullptr : &*found;
}

/// Of the block with most work, in units of about a stage's time. The constants are a fit to measurements on an H100;
/// docs/kernels.md says how far off the choices are.
double expected_cost(const sm90::Deal& deal, const MatmulConfig& config, std::uint32_t tokens) {
  const double x_bytes = 128.0 * (sm90::stage_tiles(config.strips) / config.strips) * format::align_up(tokens, 8U);
  const double items = deal.most_rounds() + (deal.splits() ? 1 : 0);
  const double product = config.warpgroup ? -0.08 : tokens > 8 ? 0.008 * (tokens - 8) : 0;
  double waits = 0;
  if (deal.by_clusters()) {
    waits = 2.6;
  } else if (deal.splits()) {
    waits = deal.rounds != 0 ? 3 : 5;
  }
  return static_cast<double>(deal.stages()) * (1 + 0.05 * x_bytes / 16384 + 0.014 * config.strips + product) +
         0.3 * items + waits;
}

/// Blocks of a cluster.
std::uint32_t parts_of(const MatrixShape& shape, const MatmulConfig& config, std::uint32_t multiprocessors) {
  if (shape.rows == 0) return 1;
  return small_batch_deal(shape, config, multiprocessors).parts;
}

}  // namespace

Result<void> load_small_batch() {
  for (const sm90::SmallBatchInstance& kernel : all_instances()) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
    if (error != cudaSuccess) return cuda_failure(error, "matmul: load the kernels");
  }
  return {};
}

Result<void> small_batch_can_implement(const MatmulProblem& problem, const MatmulConfig& config) {
  const auto& [shape, layout, multiprocessors, tokens] = problem;
  if (std::find(kStripChoices, std::end(kStripChoices), config.strips) == std::end(kStripChoices)) {
    return refuse("strips=" + text(config.strips) + " must be 1, 2, 4, 8, 12 or 16");
  }
  if (config.stages < kMinStages || config.stages > kMaxStages) {
    return refuse("stages=" + text(config.stages) + " must be 2 to 8");
  }
  if (config.strips == kWideStrips && tokens <= kMostSmallBatchTokens) {
    return refuse("strips=" + text(config.strips) + " is for " + text(kMostSmallBatchTokens + 1) + " to " +
                  text(kMostWideTokens) + " tokens, not " + text(tokens));
  }
  const auto* kernel = find_instance(config, layout == BlobLayout::kRaw, tokens);
  if (kernel == nullptr && config.warpgroup) {
    return refuse("warpgroup needs strips=4, 8, 12 or 16, not " + text(config.strips));
  }
  if (kernel == nullptr && config.strips >= 8) return refuse("strips=" + text(config.strips) + " needs warpgroup");
  if (kernel == nullptr) return refuse("tokens=" + text(tokens) + " must be at most 32 without warpgroup");
  const std::uint32_t parts = parts_of(shape, config, multiprocessors);
  if (const std::uint32_t bytes = kernel->shared_bytes(config.stages, parts); bytes > kSharedBytes) {
    return refuse("strips=" + text(config.strips) + " and stages=" + text(config.stages) + " need " + text(bytes) +
                  " bytes of shared memory for " + text(tokens) + " tokens, which is more than " + text(kSharedBytes));
  }
  return {};
}

MatmulConfig choose_small_batch(const MatmulProblem& problem) {
  const auto& [shape, layout, blocks, tokens] = problem;
  const bool raw = layout == BlobLayout::kRaw;
  MatmulConfig best;
  double least = 0;
  for (const std::uint32_t strips : kStripChoices) {
    for (const bool warpgroup : {false, true}) {
      for (const bool split : {false, true}) {
        const MatmulConfig config{.strips = strips, .split = split, .warpgroup = warpgroup};
        // For few tokens four warps together have no advantage.
        if ((warpgroup && tokens <= 16) || strips == kWideStrips || find_instance(config, raw, tokens) == nullptr)
          continue;
        const double cost = expected_cost(small_batch_deal(shape, config, blocks), config, tokens);
        if (least != 0 && cost >= least) continue;
        least = cost;
        best = config;
      }
    }
  }
  const sm90::SmallBatchInstance& kernel = *find_instance(best, raw, tokens);
  const std::uint32_t parts = parts_of(shape, best, blocks);
  best.stages = 3;
  while (best.stages > kMinStages && kernel.shared_bytes(best.stages, parts) > kSharedBytes) --best.stages;
  return best;
}

CostedConfig choose_wide_batch(const MatmulProblem& problem) {
  constexpr double kTile = 123, kItem = 3500, kByCluster = 3500, kByMemory = 9000;  // cycles
  const auto costed = [&](bool split) -> CostedConfig {
    MatmulConfig config{.strips = kWideStrips, .split = split, .warpgroup = true};
    const sm90::Deal deal = small_batch_deal(problem.shape, config, problem.multiprocessors);
    config.stages = deal.by_clusters() ? 4 : 5;
    const double tiles = static_cast<double>(deal.stages()) * sm90::stage_tiles(kWideStrips);
    const double ends = deal.by_clusters() ? kByCluster : deal.splits() ? kByMemory : 0;
    return {config, kTile * tiles + kItem * deal.most_rounds() + ends};
  };
  return quicker(costed(false), costed(true));
}

Result<void> small_batch(const DeviceBlob& weight, const MatmulArguments& arguments, const MatmulConfig& config,
                         cudaStream_t stream) {
  const PlacedBlob blob = placed(weight);
  const bool raw = weight.layout() == BlobLayout::kRaw;
  const sm90::SmallBatchInstance& kernel = *find_instance(config, raw, arguments.tokens);
  const sm90::SmallBatchParams params = small_batch_params(blob, arguments, config, weight.multiprocessors());
  CUtensorMap x_map{}, w_map{};
  if (params.x_by_tensor_copy) {
    auto map = make_tensor_map(activations(blob, arguments), params.x_tile_rows, kernel.col_tiles);
    if (!map) return tl::unexpected(map.error());
    x_map = *map;
  }
  if (!raw || params.raw_by_tensor_copy) {
    auto map =
        raw ? make_tensor_map(raw_matrix(blob, arguments.matrix), kernel.strips * format::kTileRows, kernel.col_tiles)
            : make_tile_map(matrix_tiles(blob, arguments.matrix), params.tiles_per_strip, params.strips,
                            kernel.col_tiles, kernel.strips);
    if (!map) return tl::unexpected(map.error());
    w_map = *map;
  }
  MatmulLaunch launch(params.deal.blocks, kernel.threads, kernel.shared_bytes(config.stages, params.deal.parts),
                      stream);
  if (config.dependent_launch) launch.set_dependent();
  launch.set_cluster(params.deal.parts);
  const cudaError_t error = cudaLaunchKernelEx(&launch.config(), kernel.kernel, params, x_map, w_map);
  if (error != cudaSuccess) return cuda_failure(error, "matmul: launch");
  return {};
}

}  // namespace unweight::launch
