// SPDX-License-Identifier: Apache-2.0
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/decode.hpp>
#include <cuda/launch/large_batch.hpp>
#include <cuda/launch/matmul_launch.hpp>
#include <cuda/launch/matmul_operands.hpp>
#include <cuda/launch/small_batch.hpp>
#include <cuda/launch/small_batch_params.hpp>
#include <new>
#include <unweight/cuda.hpp>

namespace unweight {
namespace launch {
namespace {

/// Of a block that leaves partial sums: 256 tokens x 128 rows, or half of the one and twice of the other.
constexpr std::size_t kMostPartialSums = 256 * 128;

Result<void> check_tokens(std::uint32_t tokens) {
  if (tokens <= kMaxMatmulTokens) return {};
  return refuse("tokens=" + text(tokens) + " must be at most " + text(kMaxMatmulTokens));
}

Result<void> check_arguments(const MatrixShape& shape, const MatmulArguments& arguments, bool needs_workspace) {
  constexpr std::uint64_t kStrideLimit = std::uint64_t{1} << 40;
  if (arguments.x_stride < shape.cols || arguments.x_stride >= kStrideLimit) {
    return refuse("x_stride=" + text(arguments.x_stride) + " must be at least cols=" + text(shape.cols) +
                  " and below 2^40");
  }
  if (arguments.y_stride < shape.rows || arguments.y_stride >= kStrideLimit) {
    return refuse("y_stride=" + text(arguments.y_stride) + " must be at least rows=" + text(shape.rows) +
                  " and below 2^40");
  }
  if (arguments.y == nullptr || !is_aligned(arguments.y, 2)) return refuse("y is null or not aligned to 2 bytes");
  if (arguments.x == nullptr || !is_aligned(arguments.x, 2)) return refuse("x is null or not aligned to 2 bytes");
  if (!is_aligned(arguments.bias, 2)) return refuse("bias is not aligned to 2 bytes");
  if (needs_workspace && (arguments.workspace == nullptr || !is_aligned(arguments.workspace, 256))) {
    return refuse("split needs a workspace aligned to 256 bytes");
  }
  return {};
}

}  // namespace
}  // namespace launch

Result<void> can_implement(const MatmulProblem& problem, const MatmulConfig& config) try {
  if (auto ok = launch::check_tokens(problem.tokens); !ok) return ok;
  if (auto ok = launch::can_decode(problem.shape); !ok) return ok;
  return launch::is_small_batch(problem.tokens, config) ? launch::small_batch_can_implement(problem, config)
                                                        : launch::large_batch_can_implement(problem, config);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> can_implement(const DeviceBlob& weight, std::uint32_t tokens, const MatmulConfig& config) {
  return can_implement({weight.shape(), weight.layout(), weight.multiprocessors(), tokens}, config);
}

std::size_t matmul_workspace_bytes(const DeviceBlob& weight) noexcept {
  return launch::partial_flag_bytes(weight.multiprocessors()) +
         weight.multiprocessors() * launch::kMostPartialSums * sizeof(float);
}

Result<MatmulConfig> choose_matmul_config(const MatmulProblem& problem) try {
  if (auto ok = launch::check_tokens(problem.tokens); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::can_decode(problem.shape); !ok) return tl::unexpected(ok.error());
  const bool few = problem.tokens <= launch::kMostSmallBatchTokens;
  const std::uint32_t least = few ? 1 : 2;  // multiprocessors, without which there is nothing to weigh up
  if (problem.shape.rows == 0 || problem.multiprocessors < least) {
    return few ? MatmulConfig{.warpgroup = problem.tokens > 32} : MatmulConfig{.strips = 8, .warpgroup = true};
  }
  if (few) return launch::choose_small_batch(problem);
  const launch::CostedConfig large = launch::choose_large_batch(problem);
  if (problem.tokens > launch::kMostWideTokens) return large.config;
  // Of two that take about as long the wide one: measured, it is better than expected more often than not.
  const launch::CostedConfig wide = launch::choose_wide_batch(problem);
  return large.cycles < 0.9 * wide.cycles ? large.config : wide.config;
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<MatmulConfig> choose_matmul_config(const DeviceBlob& weight, std::uint32_t tokens) {
  return choose_matmul_config({weight.shape(), weight.layout(), weight.multiprocessors(), tokens});
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
  if (auto ok = launch::check_arguments(shape, arguments, config.split); !ok) return ok;
  return launch::is_small_batch(arguments.tokens, config) ? launch::small_batch(weight, arguments, config, stream)
                                                          : launch::large_batch(weight, arguments, config, stream);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
