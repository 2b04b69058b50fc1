// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/loader/cuda_load_device.cuh>
#include <cuda_runtime_api.h>
#include <io/load_run.hpp>
#include <io/try.hpp>
#include <unweight/loader.hpp>
#include <utility>

namespace unweight {
namespace loader {
namespace {

LoadMemory default_memory() {
  return {[](const std::string&, const std::string&, std::uint64_t size_bytes) -> Result<void*> {
            void* memory = nullptr;
            const cudaError_t error = cudaMalloc(&memory, size_bytes);
            if (error != cudaSuccess) return launch::cuda_failure(error, "load: allocate device memory");
            return memory;
          },
          [](void* memory) { cudaFree(memory); }};
}

/// Turns what loading delivers into what the caller gets.
class Delivery final : public io::LoadSink {
 public:
  Delivery(const io::LoadSource& source, const LoadOptions& options, LoadReport& report)
      : source_(source),
        options_(options),
        memory_(options.memory.allocate ? options.memory : default_memory()),
        report_(report),
        delivered_(source.aliases.empty() ? 0 : source.items.size()) {}

  Result<std::byte*> allocate(const io::LoadItem& item, std::uint64_t size_bytes) override {
    if (size_bytes == 0) return nullptr;
    UNWEIGHT_ASSIGN(void* const memory,
                    memory_.allocate(source_.files[item.file].path, source_.tensor(item).name, size_bytes));
    if (memory == nullptr || reinterpret_cast<std::uintptr_t>(memory) % kDeviceBlobAlignment != 0) {
      if (memory != nullptr) release(static_cast<std::byte*>(memory), size_bytes);
      return fail(ErrorCode::kInvalidArgument, "load: the memory allocated for it is null or not aligned to 128 bytes");
    }
    return static_cast<std::byte*>(memory);
  }

  void release(std::byte* data, std::uint64_t) noexcept override {
    if (memory_.release) memory_.release(data);
  }

  Result<void> deliver(const io::LoadItem& item, std::byte* data, std::uint64_t size_bytes,
                       std::span<const std::byte> header) override {
    LoadedTensor tensor = describe(item.file, item.tensor);
    tensor.stored = item.stored;
    tensor.data = data;
    tensor.size_bytes = size_bytes;
    if (item.stored == StoredAs::kBlob) {
      auto blob = DeviceBlob::create_unchecked(header, data);
      if (!blob) {
        release(data, size_bytes);
        return tl::unexpected(std::move(blob).error());
      }
      tensor.blob = *blob;
    }
    ++report_.tensors;
    ++(item.stored == StoredAs::kBlob ? report_.tensors_blob : report_.tensors_raw);
    if (!delivered_.empty()) delivered_[static_cast<std::size_t>(&item - source_.items.data())] = tensor;
    return options_.deliver(tensor);
  }

  Result<void> deliver_aliases() {
    for (const io::LoadAlias& alias : source_.aliases) {
      const LoadedTensor& original = delivered_[alias.item];
      LoadedTensor tensor = describe(alias.file, alias.tensor);
      tensor.stored = StoredAs::kAlias;
      tensor.data = original.data;
      tensor.size_bytes = original.size_bytes;
      tensor.blob = original.blob;
      tensor.original_file = original.file;
      tensor.original_name = original.name;
      ++report_.tensors;
      ++report_.tensors_alias;
      UNWEIGHT_TRY(options_.deliver(tensor));
    }
    return {};
  }

 private:
  [[nodiscard]] LoadedTensor describe(std::uint32_t file, std::uint32_t number) const {
    const TensorEntry& entry = source_.files[file].header.tensors[number];
    LoadedTensor tensor;
    tensor.file = source_.files[file].path;
    tensor.name = entry.name;
    tensor.dtype = entry.dtype;
    tensor.shape = entry.shape;
    return tensor;
  }

  const io::LoadSource& source_;
  const LoadOptions& options_;
  LoadMemory memory_;
  LoadReport& report_;
  std::vector<LoadedTensor> delivered_;  ///< by item, where there are aliases
};

Result<LoadReport> run(const std::filesystem::path& path, const LoadOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  if (!options.deliver) return fail(ErrorCode::kInvalidArgument, "load: options.deliver is empty");
  if (options.threads == 0) return fail(ErrorCode::kInvalidArgument, "load: options.threads = 0 must be 1 or more");
  UNWEIGHT_ASSIGN(const io::LoadSource source, io::open_load_source(path));
  LoadReport report;
  report.is_bundle = source.is_bundle;
  report.profile = source.profile;
  UNWEIGHT_ASSIGN(const auto device, CudaLoadDevice::create());
  Delivery delivery(source, options, report);
  const io::LoadLimits limits{options.threads, options.host_buffer_bytes, options.device_bytes, options.verify};
  UNWEIGHT_ASSIGN(const io::LoadTotals totals, io::load(source, limits, *device, delivery));
  UNWEIGHT_TRY(delivery.deliver_aliases());
  report.stored_bytes = totals.stored_bytes;
  report.loaded_bytes = totals.loaded_bytes;
  report.device_extra_bytes = totals.device_extra_bytes;
  report.host_buffer_bytes = totals.host_buffer_bytes;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

}  // namespace
}  // namespace loader

Result<LoadReport> load_to_device(const std::filesystem::path& path, const LoadOptions& options) {
  return io::guarded([&] { return loader::run(path, options); });
}

}  // namespace unweight
