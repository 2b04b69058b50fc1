// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstring>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/distribution_decode.hpp>
#include <cuda/launch/placed_blob.hpp>
#include <cuda/launch/stream_device.cuh>
#include <cuda/launch/transcode_params.hpp>
#include <new>
#include <string>
#include <unweight/distribution_cuda.hpp>

namespace unweight {
namespace launch {
namespace {

tl::unexpected<Error> refuse(const std::string& message) {
  return fail(ErrorCode::kInvalidArgument, "transcode: " + message);
}

Result<void> check_address(const void* address, std::uint64_t alignment, const char* name) {
  if (address != nullptr && is_aligned(address, alignment)) return {};
  return refuse(std::string(name) + " is null or not aligned to " + std::to_string(alignment) + " bytes");
}

Result<TranscodeJob> make_job(const distribution::DeviceBlob& blob, const distribution::TranscodeOptions& options) {
  const auto job = TranscodeJob::make(placed(blob), options.slab_bytes);
  if (job) return *job;
  return refuse("slab_bytes=" + std::to_string(options.slab_bytes) + " is less than a row group of " +
                std::to_string(blob.shape().cols) + " columns takes");
}

Result<TranscodeJob> checked_job(const distribution::DeviceBlob& blob, const distribution::TranscodeOptions& options,
                                 const void* workspace, const distribution::TranscodeOutcome* outcome) {
  auto job = make_job(blob, options);
  if (!job) return job;
  if (auto ok = check_address(workspace, 256, "workspace"); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_address(outcome, alignof(distribution::TranscodeOutcome), "outcome"); !ok) {
    return tl::unexpected(ok.error());
  }
  return job;
}

template <class Kernel>
Result<void> load(Kernel* kernel) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return cuda_failure(error, "transcode: load the kernels");
  return {};
}

}  // namespace

Result<void> load_transcode() {
  // One of each, as all of a file's kernels are loaded together or one by one as the environment says.
  const Result<void> loaded[] = {
      load(sm90::row_palettes_kernel<sm90::RowPalettesConfig>),
      load(sm90::nearest_palettes_kernel<sm90::RowPalettesConfig>),
      load(sm90::dictionary_kernel<sm90::DictionaryConfig>),
      load(sm90::count_units_kernel<sm90::CountUnitsConfig>),
      load(sm90::encode_tiles_kernel<sm90::EncodeTilesConfig>),
      load(sm90::strip_hashes_kernel<sm90::HashConfig>),
      load(sm90::plan_kernel<sm90::PlanConfig>),
      load(sm90::chunk_hashes_kernel<sm90::HashConfig>),
      load(sm90::unpack_raw_kernel<sm90::UnpackRawConfig>),
  };
  for (const Result<void>& result : loaded) {
    if (!result) return result;
  }
  return {};
}

}  // namespace launch

namespace distribution {

Result<std::size_t> transcode_workspace_bytes(const DeviceBlob& blob, const TranscodeOptions& options) try {
  const auto job = launch::make_job(blob, options);
  if (!job) return tl::unexpected(job.error());
  return job->workspace_bytes();
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> plan_transcode(const DeviceBlob& blob, void* workspace, const TranscodeOptions& options,
                            TranscodeOutcome* outcome, cudaStream_t stream) try {
  const auto job = launch::checked_job(blob, options, workspace, outcome);
  if (!job) return tl::unexpected(job.error());
  launch::StreamDevice device(stream, blob.multiprocessors(), "transcode");
  job->plan(workspace, outcome, device);
  return device.outcome();
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> finish_transcode(const DeviceBlob& blob, void* workspace, const TranscodeOptions& options, void* out,
                              std::uint64_t capacity_bytes, TranscodeOutcome* outcome, cudaStream_t stream) try {
  const auto job = launch::checked_job(blob, options, workspace, outcome);
  if (!job) return tl::unexpected(job.error());
  if (auto ok = launch::check_address(out, kDeviceBlobAlignment, "out"); !ok) return ok;
  launch::StreamDevice device(stream, blob.multiprocessors(), "transcode");
  job->finish(workspace, out, capacity_bytes, outcome, device);
  return device.outcome();
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> transcode(const DeviceBlob& blob, void* workspace, const TranscodeOptions& options, void* out,
                       std::uint64_t capacity_bytes, TranscodeOutcome* outcome, cudaStream_t stream) {
  if (auto ok = plan_transcode(blob, workspace, options, outcome, stream); !ok) return ok;
  return finish_transcode(blob, workspace, options, out, capacity_bytes, outcome, stream);
}

Result<unweight::DeviceBlob> transcoded_blob(const TranscodeOutcome& outcome, const void* device_bytes) {
  if (auto ok = check(outcome.status); !ok) return tl::unexpected(ok.error());
  return unweight::DeviceBlob::create_unchecked(outcome.header, device_bytes);
}

}  // namespace distribution
}  // namespace unweight
