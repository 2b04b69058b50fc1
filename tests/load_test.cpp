// SPDX-License-Identifier: Apache-2.0
//
// Loading without a device: one made of host memory stands in, whose copies are done late, in part, or not before
// somebody waits for them. src/cuda/loader has the real one.
#include "support/checkpoints.hpp"
#include <algorithm>
#include <codec/distribution_open.hpp>
#include <deque>
#include <gtest/gtest.h>
#include <io/load_run.hpp>
#include <io/matrix_view.hpp>
#include <io/piece_reader.hpp>
#include <io/try.hpp>
#include <map>
#include <memory>
#include <set>
#include <unweight/checkpoint.hpp>
#include <unweight/distribution.hpp>

namespace unweight {
namespace {

namespace fs = std::filesystem;
using test::Random;
using test::TempFolder;

class HostTranscoding final : public io::Transcoding {
 public:
  HostTranscoding(const std::byte* blob, std::uint64_t size_bytes, Random& random)
      : blob_(blob, size_bytes), random_(random) {}
  Result<bool> is_planned(bool wait) override {
    if (!wait && random_.below(2) == 0) return false;
    if (runtime_.empty()) {
      auto runtime = distribution::to_runtime(blob_);
      if (runtime) {
        runtime_ = *std::move(runtime);
      } else {
        error_ = runtime.error();
      }
    }
    return true;
  }
  Result<std::uint64_t> blob_bytes() override {
    if (error_) return tl::unexpected(*error_);
    return runtime_.size();
  }
  Result<void> finish(std::byte* out) override {
    out_ = out;
    return {};
  }
  Result<bool> is_finished(bool wait) override {
    if (!wait && random_.below(2) == 0) return false;
    std::copy(runtime_.begin(), runtime_.end(), out_);
    return true;
  }
  Result<std::array<std::byte, format::kHeaderBytes>> header() override {
    std::array<std::byte, format::kHeaderBytes> header{};
    std::copy_n(runtime_.begin(), header.size(), header.begin());
    return header;
  }

 private:
  std::span<const std::byte> blob_;
  Random& random_;
  std::vector<std::byte> runtime_;
  std::optional<Error> error_;
  std::byte* out_ = nullptr;
};

class HostDevice final : public io::LoadDevice {
 public:
  explicit HostDevice(std::uint64_t seed) : random_(seed) {}

  Result<std::byte*> allocate_host(std::uint64_t size_bytes) override { return make(size_bytes); }
  Result<std::byte*> allocate(std::uint64_t size_bytes) override {
    extra_bytes += size_bytes;
    return make(size_bytes);
  }
  Result<void> copy(std::byte* to, std::span<const std::byte> from) override {
    copies_.push_back({to, from});
    ++enqueued_;
    return {};
  }
  Result<std::uint64_t> latest_copy() override { return enqueued_; }
  Result<bool> is_copied(std::uint64_t number, bool wait) override {
    while (done_ < number) {
      if (!wait && random_.below(3) != 0) return false;
      std::copy(copies_.front().from.begin(), copies_.front().from.end(), copies_.front().to);
      copies_.pop_front();
      ++done_;
    }
    return true;
  }
  Result<std::uint64_t> workspace_bytes(const MatrixShape&, std::uint64_t slab_bytes) override {
    slabs.insert(slab_bytes);
    return 1000 + slab_bytes;
  }
  Result<std::unique_ptr<io::Transcoding>> transcode(std::span<const std::byte> front, const std::byte* blob,
                                                     std::byte* workspace, std::uint64_t) override {
    EXPECT_NE(workspace, nullptr);
    const auto opened = codec::distribution::open_front(front);
    if (!opened) return tl::unexpected(opened.error());
    return std::make_unique<HostTranscoding>(blob, opened->header().blob_bytes, random_);
  }

  std::uint64_t extra_bytes = 0;
  std::set<std::uint64_t> slabs;

 private:
  struct Copy {
    std::byte* to;
    std::span<const std::byte> from;
  };
  Result<std::byte*> make(std::uint64_t size_bytes) {
    memory_.push_back(std::make_unique<std::byte[]>(size_bytes));
    return memory_.back().get();
  }

  Random random_;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::deque<Copy> copies_;
  std::uint64_t enqueued_ = 0, done_ = 0;
};

/// Keeps what is delivered, by file and name.
class Collector final : public io::LoadSink {
 public:
  explicit Collector(const io::LoadSource& source) : source_(source) {}
  ~Collector() override { EXPECT_TRUE(given_.empty()) << "memory that was neither delivered nor released"; }

  Result<std::byte*> allocate(const io::LoadItem&, std::uint64_t size_bytes) override {
    if (allocations-- == 0) return fail(ErrorCode::kCuda, "no device memory");
    auto memory = std::make_unique<std::byte[]>(size_bytes);
    std::byte* const data = memory.get();
    given_[data] = std::move(memory);
    return data;
  }
  void release(std::byte* data, std::uint64_t) noexcept override { EXPECT_EQ(given_.erase(data), 1U); }
  Result<void> deliver(const io::LoadItem& item, std::byte* data, std::uint64_t size_bytes,
                       std::span<const std::byte> header) override {
    const auto memory = given_.extract(data);
    EXPECT_FALSE(memory.empty());
    if (deliveries-- == 0) return fail(ErrorCode::kCancelled, "enough");
    const std::size_t number = static_cast<std::size_t>(&item - source_.items.data());
    EXPECT_EQ(number, next_++);
    std::string bytes;
    if (item.stored == StoredAs::kBlob) {
      EXPECT_EQ(header.size(), format::kHeaderBytes);
      EXPECT_TRUE(std::equal(header.begin(), header.end(), data));
      const std::span<const std::byte> blob(data, size_bytes);
      const auto info = inspect(blob);
      if (!info) return tl::unexpected(info.error());
      bytes.resize(info->value_bytes);
      std::vector<std::uint16_t> values(info->value_bytes / 2);
      if (auto ok = decode(blob, values); !ok) return ok;
      std::memcpy(bytes.data(), values.data(), bytes.size());
    } else {
      EXPECT_TRUE(header.empty());
      bytes.assign(reinterpret_cast<const char*>(data), size_bytes);
    }
    tensors[source_.files[item.file].path + ":" + source_.tensor(item).name] = std::move(bytes);
    return {};
  }

  std::map<std::string, std::string> tensors;
  std::uint64_t allocations = UINT64_MAX, deliveries = UINT64_MAX;

 private:
  const io::LoadSource& source_;
  std::map<std::byte*, std::unique_ptr<std::byte[]>> given_;
  std::size_t next_ = 0;
};

/// Loads, and checks who owns what.
Result<std::map<std::string, std::string>> load(const fs::path& path, const io::LoadLimits& limits, std::uint64_t seed,
                                                std::uint64_t allocations = UINT64_MAX,
                                                std::uint64_t deliveries = UINT64_MAX) {
  return io::guarded([&]() -> Result<std::map<std::string, std::string>> {
    UNWEIGHT_ASSIGN(const io::LoadSource source, io::open_load_source(path));
    HostDevice device(seed);
    Collector collector(source);
    collector.allocations = allocations;
    collector.deliveries = deliveries;
    UNWEIGHT_TRY(io::load(source, limits, device, collector));
    for (const io::LoadAlias& alias : source.aliases) {
      const io::LoadItem& item = source.items[alias.item];
      collector
          .tensors[source.files[alias.file].path + ":" + source.files[alias.file].header.tensors[alias.tensor].name] =
          collector.tensors.at(source.files[item.file].path + ":" + source.tensor(item).name);
    }
    return collector.tensors;
  });
}

class Loading : public ::testing::Test {
 protected:
  void make(bool mixed) {
    if (mixed) {
      test::write_mixed_checkpoint(source_);
    } else {
      test::write_small_checkpoint(source_);
    }
    for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
      ASSERT_TRUE(compress_checkpoint(source_, bundle(profile), {.profile = profile}));
    }
  }
  [[nodiscard]] fs::path bundle(Profile profile) const { return folder_ / profile_name(profile); }

  TempFolder folder_;
  fs::path source_ = folder_ / "source";
};

TEST_F(Loading, EverythingArrivesInEitherProfile) {
  make(true);
  const auto plain = load(source_, {}, 1);
  ASSERT_TRUE(plain) << plain.error().message;
  ASSERT_GT(plain->size(), 10U);
  std::uint64_t seed = 0;
  for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
    for (const unsigned threads : {1U, 3U}) {
      for (const std::uint64_t device_bytes : {std::uint64_t{0}, std::uint64_t{1}}) {
        const auto found = load(bundle(profile), {.threads = threads, .device_bytes = device_bytes}, ++seed);
        ASSERT_TRUE(found) << found.error().message;
        // A plain folder is loaded without its sub-folders; a bundle as a whole.
        for (const auto& [name, bytes] : *plain) {
          ASSERT_TRUE(found->contains(name)) << name;
          EXPECT_TRUE(found->at(name) == bytes) << name << ", seed " << seed;
        }
      }
    }
  }
}

/// Blobs of several pieces, more of them than buffers and ring hold.
TEST_F(Loading, LargeTensorsGoThroughSmallBuffers) {
  std::vector<test::TensorData> tensors;
  for (int i = 0; i < 4; ++i) {
    tensors.push_back(test::bf16_tensor("t" + std::to_string(i), {3000, 3200}, test::Filling::kTrained,
                                        static_cast<std::uint64_t>(i)));
  }
  fs::create_directories(source_);
  test::write_file(source_ / "model.safetensors", test::make_safetensors(tensors));
  for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
    ASSERT_TRUE(compress_checkpoint(source_, bundle(profile), {.profile = profile, .verify = false}));
    const auto source = io::open_load_source(bundle(profile)).value();
    EXPECT_GT(io::cut_pieces(source.items).size(), 7U);
    HostDevice device(3);
    Collector collector(source);
    const auto totals = io::load(source, {.threads = 2, .device_bytes = 1}, device, collector);
    ASSERT_TRUE(totals) << totals.error().message;
    EXPECT_EQ(totals->host_buffer_bytes, 2 * io::kMostPieceBytes);
    EXPECT_EQ(totals->device_extra_bytes, device.extra_bytes);
    for (const auto& tensor : tensors)
      EXPECT_TRUE(collector.tensors.at("model.safetensors:" + tensor.name) == tensor.bytes);
    if (profile == Profile::kRuntime) {
      EXPECT_EQ(device.extra_bytes, 0U);
      continue;
    }
    // One blob and a slab.
    EXPECT_LT(device.extra_bytes, tensors[0].bytes.size() + (std::size_t{18} << 20));
    EXPECT_FALSE(device.slabs.contains(0));
  }
}

TEST_F(Loading, FailuresLeaveNothingBehind) {
  make(false);
  for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
    const std::size_t tensors = io::open_load_source(bundle(profile)).value().items.size();
    ASSERT_GT(tensors, 3U);
    EXPECT_TRUE(load(bundle(profile), {}, 1, tensors));
    for (std::uint64_t n = 0; n < tensors; ++n) {
      const auto found = load(bundle(profile), {}, n, n);
      ASSERT_FALSE(found) << n;
      EXPECT_EQ(found.error().code, ErrorCode::kCuda);
      EXPECT_NE(found.error().message.find("tensor"), std::string::npos) << found.error().message;
    }
    const auto cancelled = load(bundle(profile), {}, 1, UINT64_MAX, 2);
    ASSERT_FALSE(cancelled);
    EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  }
  EXPECT_EQ(load(folder_ / "nothing", {}, 1).error().code, ErrorCode::kNotFound);
  fs::create_directories(folder_ / "empty");
  EXPECT_EQ(load(folder_ / "empty", {}, 1).error().code, ErrorCode::kBadCheckpoint);
}

/// A damaged bundle gives an error or, where nothing is checked, the same tensors; never a wrong blob.
TEST_F(Loading, DamageIsReported) {
  make(false);
  Random random(8);
  for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
    const auto right = load(bundle(profile), {}, 1);
    ASSERT_TRUE(right);
    const auto source = io::open_load_source(bundle(profile)).value();
    const auto tree = test::read_tree(bundle(profile));
    std::size_t reported = 0;
    for (int round = 0; round < 120; ++round) {
      const io::LoadItem& item = source.items[random.below(source.items.size())];
      if (item.stored != StoredAs::kBlob) continue;
      const std::string& path = source.files[item.file].path;
      std::string bytes = tree.at(path);
      const std::uint64_t at = item.offset + (random.below(3) == 0 ? random.below(300) : random.below(item.size_bytes));
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
      test::write_file(bundle(profile) / path, bytes);
      const auto found = load(bundle(profile), {}, static_cast<std::uint64_t>(round));
      if (found) {
        EXPECT_TRUE(*found == *right) << "byte " << at - item.offset;
      } else {
        ++reported;
        EXPECT_NE(found.error().message.find(source.tensor(item).name), std::string::npos) << found.error().message;
        EXPECT_GE(static_cast<int>(found.error().code), 20) << found.error().message;
      }
      test::write_file(bundle(profile) / path, tree.at(path));
    }
    EXPECT_GT(reported, 40U);
  }
}

/// A whole blob, but of another tensor.
TEST_F(Loading, ABlobOfAnotherShapeIsRefused) {
  make(false);
  for (const Profile profile : {Profile::kRuntime, Profile::kDistribution}) {
    const auto source = io::open_load_source(bundle(profile)).value();
    const auto item = std::find_if(source.items.begin(), source.items.end(),
                                   [](const io::LoadItem& i) { return i.stored == StoredAs::kBlob; });
    ASSERT_NE(item, source.items.end());
    const MatrixShape shape = io::matrix_view(source.tensor(*item).shape);
    const MatrixShape smaller{shape.batch, shape.rows, shape.cols / 2};
    auto tree = test::read_tree(bundle(profile));
    std::string& bytes = tree.at(source.files[item->file].path);
    const auto values = test::make_tensor(smaller, test::Filling::kConstant, 1);
    auto blob =
        profile == Profile::kRuntime ? encode(values, smaller).value() : distribution::encode(values, smaller).value();
    ASSERT_LE(blob.size(), item->size_bytes);
    std::memcpy(bytes.data() + item->offset, blob.data(), blob.size());
    test::write_file(bundle(profile) / source.files[item->file].path, bytes);
    const auto found = load(bundle(profile), {}, 1);
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, ErrorCode::kBadBundle) << found.error().message;
  }
}

}  // namespace
}  // namespace unweight
