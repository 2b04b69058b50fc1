// SPDX-License-Identifier: Apache-2.0
#include <cuda/launch/cuda_error.hpp>
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <tune/candidates.hpp>
#include <tune/choice.hpp>
#include <unweight/pipelines.hpp>

namespace unweight {
namespace {

/// FNV-1a, 64 bits.
class Hash {
 public:
  void add(std::uint32_t value) {
    for (int byte = 0; byte < 4; ++byte) hash_ = (hash_ ^ (value >> 8 * byte & 0xff)) * 1099511628211ULL;
  }
  [[nodiscard]] std::string text() const { return fmt::format("{:016x}", hash_); }

 private:
  std::uint64_t hash_ = 14695981039346656037ULL;
};

std::string hash_of_kernels() {
  // Small, large, wide and tall; 132 multiprocessors are an H100's. What counts is that the list never changes.
  constexpr MatrixShape kShapes[] = {{1, 512, 512}, {1, 4096, 4096}, {1, 28672, 4096}, {1, 4096, 14336}};
  constexpr std::uint32_t kMultiprocessors = 132;
  constexpr std::uint32_t kBuckets[] = {0, 3, 4, 5, 6, 7, 9, 12, 16};
  Hash hash;
  for (const tune::ConfigMember& member : tune::kConfigMembers) {
    for (const char letter : member.name) hash.add(static_cast<unsigned char>(letter));
  }
  for (const MatrixShape& shape : kShapes) {
    for (const BlobLayout layout : {BlobLayout::kTiled, BlobLayout::kRaw}) {
      for (const std::uint32_t bucket : kBuckets) {
        const auto all = tune::config_candidates(bucket, false, [&](std::uint32_t tokens, const MatmulConfig& config) {
          return can_implement({shape, layout, kMultiprocessors, tokens}, config);
        });
        hash.add(static_cast<std::uint32_t>(all.legal.size()));
        for (const MatmulConfig& config : all.legal) {
          for (const tune::ConfigMember& member : tune::kConfigMembers) hash.add(member.get(config));
        }
      }
    }
  }
  return hash.text();
}

}  // namespace

std::string kernel_set() {
  static const std::string hash = hash_of_kernels();
  return hash;
}

Result<DeviceIdentity> device_identity() try {
  static std::mutex mutex;
  static std::map<int, DeviceIdentity> known;  // asking takes the driver a millisecond
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) {
    return launch::cuda_failure(error, "device");
  }
  const std::lock_guard lock(mutex);
  if (const auto found = known.find(device); found != known.end()) return found->second;
  const auto properties = std::make_unique<cudaDeviceProp>();
  if (const cudaError_t error = cudaGetDeviceProperties(properties.get(), device); error != cudaSuccess) {
    return launch::cuda_failure(error, "device properties");
  }
  const DeviceIdentity identity{properties->name, static_cast<std::uint32_t>(properties->multiProcessorCount),
                                kernel_set()};
  return known.emplace(device, identity).first->second;
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
