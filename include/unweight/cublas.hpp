// SPDX-License-Identifier: Apache-2.0
//
// Multiplication for very many tokens: weights are decoded to memory that the caller gives, then cuBLASLt multiplies.
// What decoding costs does not depend on the number of tokens, so it pays from some thousands on; below, matmul() in
// cuda.hpp is faster.
//
//   auto multiplication = DecodedMatmul::create(*blob, arguments);   // once: asks cuBLASLt, which takes some 100 us
//   auto done = multiplication->run(*blob, arguments, scratch, workspace, stream);
//
// or, to decode the next matrix while this one is multiplied, into two scratches in turn:
//
//   decode(*blob, scratch, k, side_stream), an event, then multiplication->multiply(scratch, arguments, workspace,
//   stream)
//
// unweight does not link to cuBLASLt: create() loads libcublasLt.so when it is first needed, of the major version that
// the library was built with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unweight/cuda.hpp>
#include <unweight/result.hpp>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

/// A multiplication of one shape by one of cuBLASLt's algorithms. A small value: copies share what cuBLASLt made. Calls
/// of one object from several threads are safe.
class DecodedMatmul {
 public:
  /// Bytes of workspace that algorithms may use.
  static constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
  /// Proposals that cuBLASLt is asked for.
  static constexpr std::uint32_t kMostAlgorithms = 16;

  /// Asks cuBLASLt for algorithms for the blob's shape and for the tokens, strides, alignments and presence of a bias
  /// of `like`, whose memory is not looked at. Not to be called while a stream of this thread is being captured.
  /// @param algorithm  which proposal to take, from the best on by cuBLASLt's estimate; below algorithms() of any other
  ///                   object for the same problem
  /// @param multiprocessors  how many the multiplication is to use, 0: all; the others can decode the next matrix
  ///                         meanwhile
  /// Errors: kInvalidArgument (batch other than 1, strides, alignment, algorithm); kCuda (no cuBLASLt, no algorithm).
  [[nodiscard]] static Result<DecodedMatmul> create(const DeviceBlob& weight, const MatmulArguments& like,
                                                    std::uint32_t algorithm = 0, std::uint32_t multiprocessors = 0);

  /// How many proposals there were.
  [[nodiscard]] std::uint32_t algorithms() const noexcept;

  /// Y = X * W^T + bias from dense weights. The bits of Y are those of cuBLASLt on the original weights with the same
  /// algorithm. Asynchronous; allocates nothing; may be captured into a CUDA graph.
  /// @param values     [N, K] bfloat16 without gaps, aligned to 256 bytes, as decode() leaves them
  /// @param arguments  as `like` of create(), but for the addresses, which must be aligned as those were;
  ///                   `matrix` and `workspace` are not used
  /// @param workspace  device memory of kWorkspaceBytes, aligned to 256 bytes
  /// Errors: kInvalidArgument; kCuda.
  [[nodiscard]] Result<void> multiply(const std::uint16_t* values, const MatmulArguments& arguments, void* workspace,
                                      cudaStream_t stream) const;

  /// decode() to `scratch`, memory for N * K values, then multiply().
  [[nodiscard]] Result<void> run(const DeviceBlob& weight, const MatmulArguments& arguments, std::uint16_t* scratch,
                                 void* workspace, cudaStream_t stream) const;

 private:
  struct Problem;
  explicit DecodedMatmul(std::shared_ptr<const Problem> problem) : problem_(std::move(problem)) {}
  std::shared_ptr<const Problem> problem_;
};

}  // namespace unweight
#pragma GCC visibility pop
