// SPDX-License-Identifier: Apache-2.0
//
// One entry point for any number of tokens: a Linear multiplies with one weight by whichever pipeline its plan has
// chosen for that number: the fused kernel, a decode to memory before cuBLASLt, or cuBLASLt on raw weights.
//
//   auto linear = Linear::create(*blob, {.plan = &plan});             // once: looks everything up, asks cuBLASLt
//   // once, for all weights: the largest workspace_bytes(), zeroed, and scratch_bytes() of device memory
//   auto done = linear->run({.x = x, .x_stride = k, .y = y, .y_stride = n, .tokens = tokens, .workspace = workspace,
//                            .scratch = scratch}, stream);
//
// Which pipeline runs depends on the plan, the number of tokens and the alignment of the operands (see run()), and on
// nothing else; so the same call gives the same bits. What may differ between numbers of tokens: sums in another order.
// A caller who wants the same bits for every number of tokens overrides the choice of every bucket.
//
// unweight does not link to cuBLASLt; it is loaded where a plan or the caller wants it. Where there is none, the fused
// kernel does everything.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unweight/cuda.hpp>
#include <unweight/plan.hpp>
#include <unweight/result.hpp>
#include <unweight/tune.hpp>
#include <vector>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

struct LinearOptions {
  const Plan* plan = nullptr;                ///< asked first; not kept
  std::span<const TokenChoice> overrides{};  ///< go before the plan
  bool dependent_launch = false;             ///< the fused kernel runs with it; and which of a plan's lists counts
  bool scratch = true;                       ///< calls will bring a scratch; without, nothing is decoded to memory
  bool cublas = true;                        ///< cuBLASLt may be used
  bool builtin_tables = true;                ///< the library's own tables may be asked
};

/// Operands of Linear::run(): those of matmul(), and a scratch.
struct LinearArguments {
  const std::uint16_t* x = nullptr;     ///< [tokens, K]
  std::uint64_t x_stride = 0;           ///< values between rows of x, at least K
  std::uint16_t* y = nullptr;           ///< [tokens, N]
  std::uint64_t y_stride = 0;           ///< values between rows of y, at least N
  const std::uint16_t* bias = nullptr;  ///< [N], or null
  std::uint32_t tokens = 0;             ///< 0 to kMaxMatmulTokens
  std::uint64_t matrix = 0;             ///< which matrix of the blob's batch
  void* workspace = nullptr;            ///< workspace_bytes(), aligned to 256, zeroed once
  std::uint16_t* scratch = nullptr;     ///< scratch_bytes(), aligned to 256; null where that is 0
};

/// A weight, ready to be multiplied with. A small value: copies share what was prepared. It refers to the blob's device
/// memory. Calls from several threads are safe.
class Linear {
 public:
  /// Looks up a choice for each of the kTokenBuckets: overrides, the plan, the library's table, rules (plan.hpp). A
  /// plan for another GPU or other kernels is not used, and notes() says so; one that suits, but has an illegal entry
  /// for this weight, is an error. Not to be called while a stream of this thread is being captured. Errors:
  /// kInvalidArgument (an override, or an entry of the plan, with the reason); kNoDevice; kCuda.
  [[nodiscard]] static Result<Linear> create(const DeviceBlob& weight, const LinearOptions& options = {});

  /// The same for another weight of the same shape, layout and class of exceptions, without looking anything up.
  /// Errors: kInvalidArgument.
  [[nodiscard]] Result<Linear> for_weight(const DeviceBlob& other) const;

  [[nodiscard]] const DeviceBlob& weight() const noexcept { return weight_; }
  /// What runs for 1 to kMaxMatmulTokens tokens. Looks up an array.
  [[nodiscard]] const ResolvedChoice& choice(std::uint32_t tokens) const noexcept;
  /// What could not be used of the plan and the tables, and why; each one line.
  [[nodiscard]] const std::vector<std::string>& notes() const noexcept;

  /// Device memory for any number of tokens. One workspace and one scratch, of the largest sizes, may serve all weights
  /// of a device, as long as no two calls run at the same time; consecutive calls in a stream do not, also with
  /// dependent launch. The workspace is zeroed once, before its first use, and kept as it is between calls.
  [[nodiscard]] std::size_t workspace_bytes() const noexcept;
  /// For up to `most_tokens` tokens; 0 where nothing is decoded to memory.
  [[nodiscard]] std::size_t scratch_bytes(std::uint32_t most_tokens = kMaxMatmulTokens) const noexcept;

  /// Y = X * W^T + bias, for any number of tokens. Asynchronous: enqueues one or two kernels, or what cuBLASLt needs.
  /// Allocates nothing, never synchronises, and may be captured into a CUDA graph; cuBLASLt loads a kernel when that is
  /// first enqueued, so run each number of tokens once before it is captured.
  ///
  /// cuBLASLt needs x, y and bias aligned to 16 bytes and strides that are multiples of 8. Where they are not, or where
  /// it refuses the call with both algorithms that were prepared for the bucket, the fused kernel runs instead.
  /// @param stream  of the device that the blob lies on, which must be the current one; null is the default stream
  /// Errors: kInvalidArgument as matmul(), and for a missing scratch; kNoDevice; kCuda.
  [[nodiscard]] Result<void> run(const LinearArguments& arguments, cudaStream_t stream) const;

 private:
  friend class DecodeAhead;
  struct Prepared;
  Linear(const DeviceBlob& weight, std::shared_ptr<const Prepared> prepared)
      : weight_(weight), prepared_(std::move(prepared)) {}

  /// run(), or its second half where the scratch holds the decoded weights already.
  [[nodiscard]] Result<void> multiply(const LinearArguments& arguments, bool decoded, cudaStream_t stream) const;
  /// Whether run() would decode for these operands.
  [[nodiscard]] bool decodes(const LinearArguments& arguments) const noexcept;

  DeviceBlob weight_;
  std::shared_ptr<const Prepared> prepared_;
};

// ---- decoding ahead -------------------------------------------------------------------------------------------------

/// Multiplies with one weight after another while the next one is decoded on a side stream, into two scratches in turn:
/// for many tokens, where multiplying takes longer than decoding.
///
///   auto ahead = DecodeAhead::create({scratch_0, scratch_1}, side_stream);
///   for (std::size_t i = 0; i < layers.size(); ++i) {
///     const Linear* next = i + 1 < layers.size() ? &layers[i + 1] : nullptr;
///     auto done = ahead->run(layers[i], arguments[i], next, next ? arguments[i + 1] : LinearArguments{}, stream);
///   }
///
/// Results have the bits of Linear::run(). What else is enqueued on `stream` between the calls keeps its order. The
/// side stream is joined to `stream` by the last call, so that the whole may be captured into one graph.
class DecodeAhead {
 public:
  /// Makes events. Not to be called while a stream of this thread is being captured.
  /// @param scratches  scratch_bytes() of the largest weight each, aligned to 256
  /// @param side       a stream of the same device, used by nobody else meanwhile
  /// Errors: kInvalidArgument; kCuda.
  [[nodiscard]] static Result<DecodeAhead> create(const std::array<std::uint16_t*, 2>& scratches, cudaStream_t side);

  DecodeAhead(DecodeAhead&&) noexcept;
  DecodeAhead& operator=(DecodeAhead&&) noexcept;
  ~DecodeAhead();

  /// `linear.run()` with the weights that the call before has begun to decode, or, where it has not, with its own
  /// decode before it; meanwhile decodes those of `next`, if its run() would.
  /// @param arguments       their scratch is not used
  /// @param next            what the next call will multiply with; null: this is the last call
  /// @param next_arguments  what it will be called with: their tokens and alignments count
  /// Errors: as Linear::run(); kInvalidArgument where another weight was announced than comes.
  [[nodiscard]] Result<void> run(const Linear& linear, const LinearArguments& arguments, const Linear* next,
                                 const LinearArguments& next_arguments, cudaStream_t stream);

 private:
  struct Events;
  DecodeAhead(const std::array<std::uint16_t*, 2>& scratches, cudaStream_t side, std::unique_ptr<Events> events);

  std::array<std::uint16_t*, 2> scratches_;
  cudaStream_t side_;
  std::unique_ptr<Events> events_;
  unsigned turn_ = 0;                     ///< of the scratch that holds what `announced_` refers to
  const std::byte* announced_ = nullptr;  ///< the weight that is being decoded; null: none
};

// ---- the device -----------------------------------------------------------------------------------------------------

/// Which configurations the fused kernels of this library have, as 16 hexadecimal digits: a hash of what
/// can_implement() accepts for a list of problems. Needs no device.
[[nodiscard]] std::string kernel_set();

/// What plans for the current device are compared with. Errors: kNoDevice; kCuda.
[[nodiscard]] Result<DeviceIdentity> device_identity();

/// Measures all cells of the options on the current device; see tune.hpp. Uses device memory for the largest weight
/// several times over, and for `tokens` rows of it. Every candidate is checked before it is timed: fused kernels bit
/// for bit against the same kernel on raw weights, decoded ones against cuBLASLt's same algorithm on the original
/// weights. Errors: kNotIdentical where a kernel is wrong; kCancelled; kNoDevice; kCuda; kOutOfMemory.
[[nodiscard]] Result<TuneReport> tune_on_device(const TuneOptions& options);

}  // namespace unweight
#pragma GCC visibility pop
