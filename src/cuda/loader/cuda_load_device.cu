// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/transcode_params.hpp>
#include <cuda/loader/cuda_load_device.cuh>
#include <io/try.hpp>
#include <string>

namespace unweight::loader {
namespace {

Result<void> check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) return launch::cuda_failure(error, std::string("load: ") + what);
  return {};
}

/// Whether an event has come; with `wait`, it has.
Result<bool> has_come(cudaEvent_t event, bool wait) {
  const cudaError_t error = wait ? cudaEventSynchronize(event) : cudaEventQuery(event);
  if (error == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  if (auto ok = check(error, "device work"); !ok) return tl::unexpected(ok.error());
  return true;
}

class CudaTranscoding final : public io::Transcoding {
 public:
  CudaTranscoding(const distribution::DeviceBlob& blob, std::byte* workspace, std::uint64_t slab_bytes,
                  cudaStream_t stream, cudaEvent_t event, distribution::TranscodeOutcome* outcome)
      : blob_(blob), workspace_(workspace), options_{slab_bytes}, stream_(stream), event_(event), outcome_(outcome) {}
  ~CudaTranscoding() override {
    if (!is_done_) (void)cudaStreamSynchronize(stream_);
  }

  Result<void> plan() {
    UNWEIGHT_TRY(distribution::plan_transcode(blob_, workspace_, options_, outcome_, stream_));
    return check(cudaEventRecord(event_, stream_), "record an event");
  }
  Result<bool> is_planned(bool wait) override { return has_come(event_, wait); }
  Result<std::uint64_t> blob_bytes() override {
    UNWEIGHT_TRY(distribution::check(outcome_->status));
    return outcome_->blob_bytes;
  }
  Result<void> finish(std::byte* out) override {
    UNWEIGHT_TRY(
        distribution::finish_transcode(blob_, workspace_, options_, out, outcome_->blob_bytes, outcome_, stream_));
    return check(cudaEventRecord(event_, stream_), "record an event");
  }
  Result<bool> is_finished(bool wait) override {
    auto come = has_come(event_, wait);
    is_done_ = come && *come;
    return come;
  }
  Result<std::array<std::byte, format::kHeaderBytes>> header() override {
    UNWEIGHT_TRY(distribution::check(outcome_->status));
    return outcome_->header;
  }

 private:
  distribution::DeviceBlob blob_;
  std::byte* workspace_;
  distribution::TranscodeOptions options_;
  cudaStream_t stream_;
  cudaEvent_t event_;
  distribution::TranscodeOutcome* outcome_;
  bool is_done_ = false;
};

}  // namespace

Result<std::unique_ptr<CudaLoadDevice>> CudaLoadDevice::create() {
  std::unique_ptr<CudaLoadDevice> device(new CudaLoadDevice());
  UNWEIGHT_TRY(check(cudaStreamCreateWithFlags(&device->copy_stream_, cudaStreamNonBlocking), "create a stream"));
  UNWEIGHT_TRY(check(cudaStreamCreateWithFlags(&device->transcode_stream_, cudaStreamNonBlocking), "create a stream"));
  UNWEIGHT_TRY(check(cudaEventCreateWithFlags(&device->transcoded_, cudaEventDisableTiming), "create an event"));
  UNWEIGHT_ASSIGN(std::byte* const outcome, device->allocate_host(sizeof *device->outcome_));
  device->outcome_ = new (outcome) distribution::TranscodeOutcome{};
  return device;
}

CudaLoadDevice::~CudaLoadDevice() {
  for (cudaStream_t stream : {copy_stream_, transcode_stream_}) {
    if (stream == nullptr) continue;
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
  for (cudaEvent_t event : copy_events_) cudaEventDestroy(event);
  for (cudaEvent_t event : spare_events_) cudaEventDestroy(event);
  if (transcoded_ != nullptr) cudaEventDestroy(transcoded_);
  for (void* memory : host_memory_) cudaFreeHost(memory);
  for (void* memory : device_memory_) cudaFree(memory);
}

Result<std::byte*> CudaLoadDevice::allocate_host(std::uint64_t size_bytes) {
  void* memory = nullptr;
  UNWEIGHT_TRY(check(cudaMallocHost(&memory, size_bytes), "allocate page-locked memory"));
  host_memory_.push_back(memory);
  return static_cast<std::byte*>(memory);
}

Result<std::byte*> CudaLoadDevice::allocate(std::uint64_t size_bytes) {
  void* memory = nullptr;
  UNWEIGHT_TRY(check(cudaMalloc(&memory, size_bytes), "allocate device memory"));
  device_memory_.push_back(memory);
  return static_cast<std::byte*>(memory);
}

Result<void> CudaLoadDevice::copy(std::byte* to, std::span<const std::byte> from) {
  cudaEvent_t event = nullptr;
  if (spare_events_.empty()) {
    UNWEIGHT_TRY(check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create an event"));
    spare_events_.push_back(event);
  }
  event = spare_events_.back();
  UNWEIGHT_TRY(check(cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, copy_stream_), "copy"));
  UNWEIGHT_TRY(check(cudaEventRecord(event, copy_stream_), "record an event"));
  spare_events_.pop_back();
  copy_events_.push_back(event);
  ++copies_;
  return {};
}

Result<bool> CudaLoadDevice::is_copied(std::uint64_t number, bool wait) {
  while (copied_ < number) {
    UNWEIGHT_ASSIGN(const bool come, has_come(copy_events_.front(), wait));
    if (!come) return false;
    spare_events_.push_back(copy_events_.front());
    copy_events_.pop_front();
    ++copied_;
  }
  return true;
}

Result<std::uint64_t> CudaLoadDevice::workspace_bytes(const MatrixShape& shape, std::uint64_t slab_bytes) {
  std::uint64_t most = 0;
  for (const distribution::Layout layout : {distribution::Layout::kCoded, distribution::Layout::kRaw}) {
    launch::PlacedDistributionBlob blob{};
    blob.shape = shape;
    blob.layout = layout;
    const auto job = launch::TranscodeJob::make(blob, slab_bytes);
    if (!job) {
      return fail(ErrorCode::kInvalidArgument,
                  "load: " + std::to_string(slab_bytes) + " bytes hold no row group of a tensor");
    }
    most = std::max<std::uint64_t>(most, job->workspace_bytes());
  }
  return most;
}

Result<std::unique_ptr<io::Transcoding>> CudaLoadDevice::transcode(std::span<const std::byte> front,
                                                                   const std::byte* blob, std::byte* workspace,
                                                                   std::uint64_t slab_bytes) {
  UNWEIGHT_ASSIGN(const auto placed, distribution::DeviceBlob::create(front, blob));
  auto transcoding =
      std::make_unique<CudaTranscoding>(placed, workspace, slab_bytes, transcode_stream_, transcoded_, outcome_);
  UNWEIGHT_TRY(transcoding->plan());
  return std::unique_ptr<io::Transcoding>(std::move(transcoding));
}

}  // namespace unweight::loader
