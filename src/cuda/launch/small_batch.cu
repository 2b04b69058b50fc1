// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cuda/instances/sm90_small_batch.hpp>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/decode.hpp>
#include <cuda/launch/small_batch.hpp>
#include <cuda/launch/small_batch_params.hpp>
#include <cuda/launch/tensor_map.hpp>
#include <format/layout.hpp>
#include <new>
#include <string>
#include <vector>

namespace unweight {
namespace launch {
namespace {

/// What a block may use on compute capability 9.0: 227 KiB.
constexpr std::uint32_t kSharedBytes = 232448;
constexpr std::uint32_t kMinStages = 2, kMaxStages = sm90::kMaxStages;

std::string text(std::uint64_t value) { return std::to_string(value); }

tl::unexpected<Error> refuse(const std::string& why) { return fail(ErrorCode::kInvalidArgument, "matmul: " + why); }

Result<void> check_tokens(std::uint32_t tokens) {
  if (tokens <= kMaxMatmulTokens) return {};
  return refuse("tokens=" + text(tokens) + " must be at most " + text(kMaxMatmulTokens));
}

constexpr std::uint32_t kStripChoices[] = {1, 2, 4, 8, 16};
constexpr std::size_t kMostItemSums = 128 * 256;  ///< 8 strips x 256 tokens, or 16 x 64, which are fewer

/// Every kernel, those of a kind together and narrower ones first. Made once: load_small_batch() asks first.
const std::vector<sm90::SmallBatchInstance>& all_instances() {
  static const std::vector<sm90::SmallBatchInstance> all = [] {
    std::vector<sm90::SmallBatchInstance> list;
    for (const auto make :
         {sm90::small_batch_tiled_1, sm90::small_batch_tiled_2, sm90::small_batch_tiled_4,
          sm90::small_batch_tiled_warpgroup, sm90::small_batch_raw_1, sm90::small_batch_raw_2, sm90::small_batch_raw_4,
          sm90::small_batch_raw_warpgroup, sm90::large_batch_tiled, sm90::large_batch_raw}) {
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
    return i.strips == config.strips && i.warpgroup == config.warpgroup && i.share_x == config.share_x &&
           i.raw == raw && 8 * i.token_tiles >= std::min(tokens, kMostItemTokens);
  });
  return found == all.end() ? nullptr : &*found;
}

/// Of the block with most work, in units of about a stage's time. The constants are a fit to measurements on an H100;
/// docs/kernels.md says how far off the choices are.
double expected_cost(const sm90::SmallBatchDeal& deal, const MatmulConfig& config, std::uint32_t tokens) {
  const double x_bytes = 128.0 * (sm90::kStageTiles / config.strips) * format::align_up(tokens, 8U);
  const double items = deal.rounds + (deal.longer_rounds != 0 ? 1 : 0) + (deal.splits() ? 1 : 0);
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
std::uint32_t parts_of(const MatrixShape& shape, const MatmulConfig& config, std::uint32_t multiprocessors,
                       std::uint32_t tokens) {
  if (shape.rows == 0) return 1;
  return small_batch_deal(shape, config, multiprocessors, tokens).parts;
}

/// Most stages up to `wanted` that shared memory has room for.
std::uint32_t stages_that_fit(const sm90::SmallBatchInstance& kernel, std::uint32_t parts, std::uint32_t wanted) {
  while (wanted > kMinStages && kernel.shared_bytes(wanted, parts) > kSharedBytes) --wanted;
  return wanted;
}

}  // namespace

Result<std::uint32_t> multiprocessors() {
  int device = 0, count = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return cuda_failure(error, "count multiprocessors");
  return static_cast<std::uint32_t>(count);
}

Result<void> load_small_batch() {
  for (const sm90::SmallBatchInstance& kernel : all_instances()) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
    if (error != cudaSuccess) return cuda_failure(error, "matmul: load the kernels");
  }
  return {};
}

Result<void> small_batch(const DeviceBlob& weight, const MatmulArguments& arguments, const MatmulConfig& config,
                         cudaStream_t stream) {
  const PlacedBlob blob = placed(weight);
  const bool raw = weight.layout() == BlobLayout::kRaw;
  const sm90::SmallBatchInstance& kernel = *find_instance(config, raw, arguments.tokens);
  const sm90::SmallBatchParams params = small_batch_params(blob, arguments, config, weight.multiprocessors());
  CUtensorMap x_map{}, w_map{};
  if (params.x_by_tensor_copy) {
    auto map = make_tensor_map(activations(blob, arguments), kernel.x_copy_tokens, kernel.x_tiles);
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

  cudaLaunchConfig_t launch{};
  const std::uint32_t cluster_blocks = kernel.share_x ? 2 : params.deal.parts;
  launch.gridDim = dim3(params.deal.blocks * (kernel.share_x ? 2 : 1));
  launch.blockDim = dim3(kernel.threads);
  launch.dynamicSmemBytes = kernel.shared_bytes(config.stages, params.deal.parts);
  launch.stream = stream;
  cudaLaunchAttribute attributes[2]{};
  launch.attrs = attributes;
  if (config.dependent_launch) {
    cudaLaunchAttribute& dependent = attributes[launch.numAttrs++];
    dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    dependent.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster_blocks > 1) {
    cudaLaunchAttribute& cluster = attributes[launch.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = cluster_blocks;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }
  const cudaError_t error = cudaLaunchKernelEx(&launch, kernel.kernel, params, x_map, w_map);
  if (error != cudaSuccess) return cuda_failure(error, "matmul: launch");
  return {};
}

}  // namespace launch

Result<void> can_implement(const MatmulProblem& problem, const MatmulConfig& config) try {
  using launch::refuse, launch::text;
  const auto& [shape, layout, all_multiprocessors, tokens] = problem;
  const std::uint32_t multiprocessors = std::max(2U, all_multiprocessors);  // an empty tensor has no device
  if (auto ok = launch::check_tokens(tokens); !ok) return ok;
  if (std::find(launch::kStripChoices, std::end(launch::kStripChoices), config.strips) ==
      std::end(launch::kStripChoices)) {
    return refuse("strips=" + text(config.strips) + " must be 1, 2, 4, 8 or 16");
  }
  if (config.stages < launch::kMinStages || config.stages > launch::kMaxStages) {
    return refuse("stages=" + text(config.stages) + " must be 2 to 8");
  }
  if (config.share_x && tokens <= 64) return refuse("share_x is for more than 64 tokens");
  if (auto ok = launch::can_decode(shape); !ok) return ok;
  const auto* kernel = launch::find_instance(config, layout == BlobLayout::kRaw, tokens);
  if (kernel == nullptr && config.warpgroup && tokens > 64) {
    return refuse("tokens=" + text(tokens) + " needs strips=8");
  }
  if (kernel == nullptr && config.warpgroup)
    return refuse("warpgroup needs strips=4, 8 or 16, not " + text(config.strips));
  if (kernel == nullptr && config.strips >= 8) return refuse("strips=" + text(config.strips) + " needs warpgroup");
  if (kernel == nullptr) return refuse("tokens=" + text(tokens) + " must be at most 32 without warpgroup");
  const std::uint32_t parts = launch::parts_of(shape, config, multiprocessors, tokens);
  if (const std::uint32_t bytes = kernel->shared_bytes(config.stages, parts); bytes > launch::kSharedBytes) {
    return refuse("strips=" + text(config.strips) + " and stages=" + text(config.stages) + " need " + text(bytes) +
                  " bytes of shared memory for " + text(tokens) + " tokens, which is more than " +
                  text(launch::kSharedBytes));
  }
  return {};
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> can_implement(const DeviceBlob& weight, std::uint32_t tokens, const MatmulConfig& config) {
  return can_implement({weight.shape(), weight.layout(), weight.multiprocessors(), tokens}, config);
}

std::size_t matmul_workspace_bytes(const DeviceBlob& weight) noexcept {
  constexpr std::size_t kItemBytes = launch::kMostItemSums * sizeof(float);
  return launch::small_batch_flag_bytes(weight.multiprocessors()) + weight.multiprocessors() * kItemBytes;
}

Result<MatmulConfig> choose_matmul_config(const DeviceBlob& weight, std::uint32_t tokens) try {
  if (auto ok = launch::check_tokens(tokens); !ok) return tl::unexpected(ok.error());
  const bool raw = weight.layout() == BlobLayout::kRaw;
  const std::uint32_t blocks = std::max(1U, weight.multiprocessors());
  MatmulConfig best{.warpgroup = tokens > 32};
  if (weight.shape().rows == 0) return best;
  double least = 0;
  for (const std::uint32_t strips : launch::kStripChoices) {
    for (const bool warpgroup : {false, true}) {
      for (const bool split : {false, true}) {
        const MatmulConfig config{.strips = strips, .split = split, .warpgroup = warpgroup};
        // For few tokens four warps together have no advantage.
        if ((warpgroup && tokens <= 16) || launch::find_instance(config, raw, tokens) == nullptr) continue;
        const auto deal = launch::small_batch_deal(weight.shape(), config, blocks, tokens);
        const double cost = launch::expected_cost(deal, config, tokens);
        if (least != 0 && cost >= least) continue;
        least = cost;
        best = config;
      }
    }
  }
  best.stages = launch::stages_that_fit(*launch::find_instance(best, raw, tokens),
                                        launch::parts_of(weight.shape(), best, blocks, tokens), tokens > 64 ? 4 : 3);
  return best;
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> matmul(const DeviceBlob& weight, const MatmulArguments& arguments, const MatmulConfig& config,
                    cudaStream_t stream) try {
  using launch::refuse, launch::text;
  if (auto ok = can_implement(weight, arguments.tokens, config); !ok) return ok;
  const MatrixShape& shape = weight.shape();
  if (arguments.matrix >= shape.batch) {
    return refuse("matrix=" + text(arguments.matrix) + " must be below batch=" + text(shape.batch));
  }
  if (arguments.tokens == 0 || shape.rows == 0) return {};
  if (shape.cols == 0) return refuse("cols=0: there is nothing to multiply");
  constexpr std::uint64_t kStrideLimit = std::uint64_t{1} << 40;
  if (arguments.x_stride < shape.cols || arguments.x_stride >= kStrideLimit) {
    return refuse("x_stride=" + text(arguments.x_stride) + " must be at least cols=" + text(shape.cols) +
                  " and below 2^40");
  }
  if (arguments.y_stride < shape.rows || arguments.y_stride >= kStrideLimit) {
    return refuse("y_stride=" + text(arguments.y_stride) + " must be at least rows=" + text(shape.rows) +
                  " and below 2^40");
  }
  if (arguments.y == nullptr || !launch::is_aligned(arguments.y, 2)) {
    return refuse("y is null or not aligned to 2 bytes");
  }
  if (arguments.x == nullptr || !launch::is_aligned(arguments.x, 2)) {
    return refuse("x is null or not aligned to 2 bytes");
  }
  if (!launch::is_aligned(arguments.bias, 2)) return refuse("bias is not aligned to 2 bytes");
  if (config.split && (arguments.workspace == nullptr || !launch::is_aligned(arguments.workspace, 256))) {
    return refuse("split needs a workspace aligned to 256 bytes");
  }
  return launch::small_batch(weight, arguments, config, stream);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
