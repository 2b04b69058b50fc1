// SPDX-License-Identifier: Apache-2.0
//
// load_to_device() and unweight_load() on a device: every tensor of bundles of both profiles, bit for bit.
#include "gpu/device_fixture.cuh"
#include "support/checkpoints.hpp"
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <unweight/checkpoint.hpp>
#include <unweight/loader.hpp>
#include <unweight/unweight_cuda.h>
#include <vector>

namespace unweight::test {
namespace {

namespace fs = std::filesystem;

/// A tensor's values from the device.
std::string values_of(const LoadedTensor& tensor) {
  std::string bytes(tensor.size_bytes, '\0');
  if (!tensor.blob) {
    if (!bytes.empty()) EXPECT_CUDA(cudaMemcpy(bytes.data(), tensor.data, bytes.size(), cudaMemcpyDeviceToHost));
    return bytes;
  }
  const MatrixShape& shape = tensor.blob->shape();
  const DeviceArray<std::uint16_t> values(shape.batch * shape.rows * shape.cols);
  const auto done = decode(*tensor.blob, values.data(), shape.cols, nullptr);
  EXPECT_TRUE(done) << done.error().message;
  const auto host = values.download();
  bytes.resize(2 * host.size());
  std::memcpy(bytes.data(), host.data(), bytes.size());
  return bytes;
}

class LoaderOnDevice : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    write_mixed_checkpoint(source_);
    for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
      const auto report = compress_checkpoint(source_, bundle(profile), {.profile = profile});
      ASSERT_TRUE(report) << report.error().message;
    }
  }
  [[nodiscard]] fs::path bundle(Profile profile) const { return folder_ / profile_name(profile); }

  /// Loads into memory that is counted; everything is freed.
  std::map<std::string, std::string> load(const fs::path& path, LoadOptions options = {}) {
    std::map<std::string, std::string> tensors;
    std::vector<void*> memory;
    options.deliver = [&](const LoadedTensor& tensor) -> Result<void> {
      if (tensor.stored == StoredAs::kAlias) {
        EXPECT_TRUE(tensors.contains(tensor.original_file + ":" + tensor.original_name));
      } else if (tensor.data != nullptr) {
        memory.push_back(tensor.data);
      }
      tensors[tensor.file + ":" + tensor.name] = values_of(tensor);
      return {};
    };
    const auto report = load_to_device(path, options);
    EXPECT_TRUE(report) << report.error().message;
    if (report) {
      EXPECT_EQ(report->tensors, tensors.size());
      EXPECT_EQ(report->tensors, report->tensors_blob + report->tensors_raw + report->tensors_alias);
    }
    for (void* at : memory) cudaFree(at);
    return tensors;
  }

  TempFolder folder_;
  fs::path source_ = folder_ / "source";
};

TEST_F(LoaderOnDevice, EverythingArrivesInEitherProfile) {
  const auto plain = load(source_);
  ASSERT_GT(plain.size(), 10U);
  for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
    for (const std::uint64_t device_bytes : {std::uint64_t{0}, std::uint64_t{1}}) {
      LoadOptions options;
      options.device_bytes = device_bytes;
      const auto found = load(bundle(profile), options);
      for (const auto& [name, bytes] : plain) {
        ASSERT_TRUE(found.contains(name)) << name;
        EXPECT_TRUE(found.at(name) == bytes) << name;
      }
    }
  }
}

TEST_F(LoaderOnDevice, LargeTensorsInSlabs) {
  const fs::path source = folder_ / "large";
  fs::create_directories(source);
  std::vector<TensorData> tensors;
  for (int i = 0; i < 3; ++i) {
    tensors.push_back(bf16_tensor("t" + std::to_string(i), {5000, 4096}, Filling::kTrained, i));
  }
  write_file(source / "model.safetensors", make_safetensors(tensors));
  ASSERT_TRUE(
      compress_checkpoint(source, folder_ / "large-bundle", {.profile = Profile::kDistribution, .verify = false}));
  LoadOptions options;
  options.device_bytes = 1;  // a blob and the least slab: each tensor is decoded part by part
  const auto found = load(folder_ / "large-bundle", options);
  for (const auto& tensor : tensors) EXPECT_TRUE(found.at("model.safetensors:" + tensor.name) == tensor.bytes);
}

TEST_F(LoaderOnDevice, DamageIsReportedAndNothingLeaks) {
  std::size_t before = 0, after = 0, total = 0;
  for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
    Random random(3);
    const auto tree = read_tree(bundle(profile));
    for (int round = 0; round < 20; ++round) {
      for (const auto& [path, bytes] : tree) {
        if (!path.ends_with(".safetensors") || path.find('/') != std::string::npos) continue;
        std::string damaged = bytes;
        const std::size_t at = damaged.size() / 3 + random.below(damaged.size() / 3);
        damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
        write_file(bundle(profile) / path, damaged);
      }
      if (round == 1) ASSERT_CUDA(cudaMemGetInfo(&before, &total));
      LoadOptions options;
      options.deliver = [](const LoadedTensor& tensor) -> Result<void> {
        if (tensor.stored != StoredAs::kAlias) cudaFree(tensor.data);
        return {};
      };
      const auto report = load_to_device(bundle(profile), options);
      if (!report) EXPECT_NE(report.error().message.find("tensor"), std::string::npos) << report.error().message;
    }
    for (const auto& [path, bytes] : tree) {
      if (!path.ends_with('/')) write_file(bundle(profile) / path, bytes);
    }
  }
  ASSERT_CUDA(cudaMemGetInfo(&after, &total));
  EXPECT_GE(after + (std::size_t{64} << 20), before);
}

struct Counts {
  int delivered = 0, blobs = 0, allocated = 0, released = 0, stop_after = -1;
};

TEST_F(LoaderOnDevice, TheCInterfaceDoesTheSame) {
  Counts counts;
  unweight_load_options options{};
  options.struct_size = sizeof options;
  options.user = &counts;
  options.deliver = [](void* user, const unweight_loaded_tensor* tensor) {
    auto& c = *static_cast<Counts*>(user);
    EXPECT_EQ(tensor->struct_size, sizeof *tensor);
    c.blobs += tensor->blob != nullptr ? 1 : 0;
    if (tensor->blob != nullptr) EXPECT_STREQ(tensor->dtype, "BF16");
    unweight_device_blob_destroy(tensor->blob);
    if (tensor->original_name == nullptr) cudaFree(tensor->data);
    return ++c.delivered == c.stop_after ? 1 : 0;
  };
  options.allocate = [](void* user, const char*, const char*, std::uint64_t size_bytes) {
    ++static_cast<Counts*>(user)->allocated;
    void* memory = nullptr;
    return cudaMalloc(&memory, size_bytes) == cudaSuccess ? memory : nullptr;
  };
  options.release = [](void* user, void* memory) {
    ++static_cast<Counts*>(user)->released;
    cudaFree(memory);
  };
  ASSERT_EQ(unweight_load(bundle(Profile::kDistribution).c_str(), &options), UNWEIGHT_OK)
      << unweight_last_error_message();
  EXPECT_GT(counts.blobs, 3);
  EXPECT_EQ(counts.released, 0);
  counts = {};
  counts.stop_after = 2;
  EXPECT_EQ(unweight_load(bundle(Profile::kRuntime).c_str(), &options), UNWEIGHT_CANCELLED);
  EXPECT_EQ(counts.delivered, 2);
  EXPECT_EQ(unweight_load(nullptr, &options), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_load("/nonexistent", &options), UNWEIGHT_NOT_FOUND);
  options.deliver = nullptr;
  EXPECT_EQ(unweight_load("/nonexistent", &options), UNWEIGHT_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace unweight::test
