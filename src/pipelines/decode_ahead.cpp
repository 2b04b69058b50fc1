// SPDX-License-Identifier: Apache-2.0
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/placed_blob.hpp>
#include <cuda_runtime_api.h>
#include <new>
#include <unweight/pipelines.hpp>
#include <utility>

namespace unweight {

struct DecodeAhead::Events {
  cudaEvent_t reached = nullptr;            ///< by `stream`: what it held before
  std::array<cudaEvent_t, 2> decoded = {};  ///< to each scratch

  Events() = default;
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  ~Events() {
    for (const cudaEvent_t event : {reached, decoded[0], decoded[1]}) {
      if (event != nullptr) cudaEventDestroy(event);
    }
  }
};

namespace {

/// The first error of a chain of calls.
class Chain {
 public:
  template <class Call>
  Chain& then(const Call& call) {
    if (error_ == cudaSuccess) error_ = call();
    return *this;
  }
  [[nodiscard]] Result<void> result() const {
    if (error_ == cudaSuccess) return {};
    return launch::cuda_failure(error_, "decode ahead");
  }

 private:
  cudaError_t error_ = cudaSuccess;
};

}  // namespace

Result<DecodeAhead> DecodeAhead::create(const std::array<std::uint16_t*, 2>& scratches, cudaStream_t side) try {
  for (const std::uint16_t* scratch : scratches) {
    if (scratch != nullptr && launch::is_aligned(scratch, 256)) continue;
    return fail(ErrorCode::kInvalidArgument, "decode ahead: a scratch is null or not aligned to 256 bytes");
  }
  if (scratches[0] == scratches[1])
    return fail(ErrorCode::kInvalidArgument, "decode ahead: both scratches are the same");
  auto events = std::make_unique<Events>();
  Chain made;
  for (cudaEvent_t* event : {&events->reached, &events->decoded[0], &events->decoded[1]}) {
    made.then([&] { return cudaEventCreateWithFlags(event, cudaEventDisableTiming); });
  }
  if (auto ok = made.result(); !ok) return tl::unexpected(ok.error());
  return DecodeAhead(scratches, side, std::move(events));
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

DecodeAhead::DecodeAhead(const std::array<std::uint16_t*, 2>& scratches, cudaStream_t side,
                         std::unique_ptr<Events> events)
    : scratches_(scratches), side_(side), events_(std::move(events)) {}
DecodeAhead::DecodeAhead(DecodeAhead&&) noexcept = default;
DecodeAhead& DecodeAhead::operator=(DecodeAhead&&) noexcept = default;
DecodeAhead::~DecodeAhead() = default;

Result<void> DecodeAhead::run(const Linear& linear, const LinearArguments& arguments, const Linear* next,
                              const LinearArguments& next_arguments, cudaStream_t stream) try {
  const bool ready = announced_ != nullptr;
  if (ready && announced_ != linear.weight().data()) {
    return fail(ErrorCode::kInvalidArgument, "decode ahead: the weight is not the one that the call before announced");
  }
  announced_ = nullptr;
  const unsigned here = turn_, there = 1 - turn_;
  Chain chain;
  if (ready) chain.then([&] { return cudaStreamWaitEvent(stream, events_->decoded[here], 0); });
  const bool decodes_next = next != nullptr && next->decodes(next_arguments);
  if (decodes_next) {
    // The other scratch is free when the multiplication before this one, which read it, has ended.
    chain.then([&] { return cudaEventRecord(events_->reached, stream); });
    chain.then([&] { return cudaStreamWaitEvent(side_, events_->reached, 0); });
    if (auto ok = chain.result(); !ok) return ok;
    const DeviceBlob& weight = next->weight();
    if (auto ok = decode(weight, scratches_[there], weight.shape().cols, side_); !ok) return ok;
    chain.then([&] { return cudaEventRecord(events_->decoded[there], side_); });
    announced_ = weight.data();
  }
  if (auto ok = chain.result(); !ok) return ok;
  LinearArguments with_scratch = arguments;
  with_scratch.scratch = scratches_[here];
  if (decodes_next) turn_ = there;
  return linear.multiply(with_scratch, ready, stream);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
