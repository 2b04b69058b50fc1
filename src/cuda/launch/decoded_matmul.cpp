// SPDX-License-Identifier: Apache-2.0
#if __has_include(<cublasLt.h>)
#include <bit>
#include <cuda/launch/cublaslt.hpp>
#include <cuda/launch/placed_blob.hpp>
#include <new>
#include <string>
#include <unweight/cublas.hpp>

namespace unweight {

using launch::DenseCall;
using launch::DenseMultiplier;

namespace {

std::string text(std::uint64_t value) { return std::to_string(value); }

tl::unexpected<Error> refuse(const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, "decoded matmul: " + why);
}

constexpr std::uint32_t kMostAlignment = 256;

/// The largest power of two that divides an address, up to what cuBLASLt cares for.
std::uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | kMostAlignment;
  return std::uint32_t{1} << std::countr_zero(bits);
}

}  // namespace

struct DecodedMatmul::Problem {
  std::shared_ptr<const DenseMultiplier> multiplier;
  MatrixShape shape;
  MatmulArguments like;
  DenseCall call;
  cublasLtMatmulAlgo_t algorithm;
  std::uint32_t algorithms = 0;

  [[nodiscard]] Result<void> check(const MatmulArguments& a) const {
    if (a.tokens != like.tokens || a.x_stride != like.x_stride || a.y_stride != like.y_stride) {
      return refuse("tokens=" + text(a.tokens) + ", x_stride=" + text(a.x_stride) + ", y_stride=" + text(a.y_stride) +
                    " are not what it was created for, " + text(like.tokens) + ", " + text(like.x_stride) + ", " +
                    text(like.y_stride));
    }
    if ((a.bias == nullptr) != (like.bias == nullptr)) return refuse("created with a bias, called without, or reverse");
    if (a.x == nullptr || a.y == nullptr) return refuse("x or y is null");
    if (alignment_of(a.x) < alignment_of(like.x) || alignment_of(a.y) < alignment_of(like.y)) {
      return refuse("x or y is aligned to fewer bytes than what it was created for");
    }
    return {};
  }
};

Result<DecodedMatmul> DecodedMatmul::create(const DeviceBlob& weight, const MatmulArguments& like,
                                            std::uint32_t algorithm, std::uint32_t multiprocessors) try {
  const MatrixShape& shape = weight.shape();
  if (shape.batch != 1) return refuse("batch=" + text(shape.batch) + " must be 1");
  if (shape.rows == 0 || shape.cols == 0 || like.tokens == 0) {
    return refuse("rows=" + text(shape.rows) + ", cols=" + text(shape.cols) + ", tokens=" + text(like.tokens) +
                  ": there is nothing to multiply");
  }
  if (like.x_stride < shape.cols) {
    return refuse("x_stride=" + text(like.x_stride) + " must be at least cols=" + text(shape.cols));
  }
  if (like.y_stride < shape.rows) {
    return refuse("y_stride=" + text(like.y_stride) + " must be at least rows=" + text(shape.rows));
  }
  if (multiprocessors > weight.multiprocessors()) {
    return refuse("multiprocessors=" + text(multiprocessors) + " must be at most the device's, " +
                  text(weight.multiprocessors()));
  }
  auto multiplier = DenseMultiplier::get();
  if (!multiplier) return tl::unexpected(multiplier.error());
  auto call = launch::describe_call((*multiplier)->lt(), {shape.rows, shape.cols, like.tokens, like.x_stride,
                                                          like.y_stride, like.bias != nullptr, multiprocessors});
  if (!call) return tl::unexpected(call.error());
  const auto found =
      (*multiplier)->proposals(*call, kMostAlgorithms, kWorkspaceBytes, alignment_of(like.x), alignment_of(like.y));
  if (!found) return tl::unexpected(found.error());
  if (algorithm >= found->size()) {
    return refuse("algorithm=" + text(algorithm) + " must be below " + text(found->size()) +
                  ", the number of proposals");
  }
  const Problem problem{
      *multiplier, shape, like, *call, (*found)[algorithm], static_cast<std::uint32_t>(found->size())};
  return DecodedMatmul(std::make_shared<const Problem>(problem));
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

std::uint32_t DecodedMatmul::algorithms() const noexcept { return problem_->algorithms; }

Result<void> DecodedMatmul::multiply(const std::uint16_t* values, const MatmulArguments& arguments, void* workspace,
                                     cudaStream_t stream) const try {
  const Problem& p = *problem_;
  if (auto ok = p.check(arguments); !ok) return ok;
  if (values == nullptr || !launch::is_aligned(values, kMostAlignment)) {
    return refuse("values are null or not aligned to 256 bytes");
  }
  if (workspace == nullptr || !launch::is_aligned(workspace, kMostAlignment)) {
    return refuse("the workspace is null or not aligned to 256 bytes");
  }
  DenseCall call = p.call;  // several threads may call, each with a bias of its own
  const cublasStatus_t status = p.multiplier->multiply(
      call, p.algorithm, {values, arguments.x, arguments.y, arguments.bias, workspace, kWorkspaceBytes}, stream);
  return p.multiplier->lt().check(status, "multiply");
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> DecodedMatmul::run(const DeviceBlob& weight, const MatmulArguments& arguments, std::uint16_t* scratch,
                                void* workspace, cudaStream_t stream) const {
  const MatrixShape& shape = weight.shape();
  if (!(shape == problem_->shape)) {
    return refuse("the weight is " + text(shape.rows) + " x " + text(shape.cols) + ", not " +
                  text(problem_->shape.rows) + " x " + text(problem_->shape.cols));
  }
  if (auto ok = problem_->check(arguments); !ok) return ok;
  if (auto ok = decode(weight, scratch, shape.cols, stream); !ok) return ok;
  return multiply(scratch, arguments, workspace, stream);
}

}  // namespace unweight
#else  // a toolkit without cuBLAS
#include <unweight/cublas.hpp>

namespace unweight {

struct DecodedMatmul::Problem {};

Result<DecodedMatmul> DecodedMatmul::create(const DeviceBlob&, const MatmulArguments&, std::uint32_t, std::uint32_t) {
  return fail(ErrorCode::kCuda, "cuBLASLt: this library was built without its header");
}
// Nothing below is ever called: there is no object.
std::uint32_t DecodedMatmul::algorithms() const noexcept { return 0; }
Result<void> DecodedMatmul::multiply(const std::uint16_t*, const MatmulArguments&, void*, cudaStream_t) const {
  return {};
}
Result<void> DecodedMatmul::run(const DeviceBlob&, const MatmulArguments&, std::uint16_t*, void*, cudaStream_t) const {
  return {};
}

}  // namespace unweight
#endif
