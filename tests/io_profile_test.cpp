// SPDX-License-Identifier: Apache-2.0
//
// Bundles of both profiles: each restores the source byte for byte, and either becomes the other, with the bytes that
// compressing the source gives, whatever interrupts it on the way.
#include "support/checkpoints.hpp"
#include <atomic>
#include <csignal>
#include <cstdio>
#include <gtest/gtest.h>
#include <io/bundle.hpp>
#include <io/file.hpp>
#include <io/paths.hpp>
#include <io/plan.hpp>
#include <sys/wait.h>
#include <unistd.h>
#include <unweight/checkpoint.hpp>
#include <unweight/distribution.hpp>

namespace unweight {
namespace {

namespace fs = std::filesystem;
using test::difference;
using test::read_file;
using test::read_tree;
using test::TempFolder;
using test::write_file;

constexpr Profile kProfiles[] = {Profile::kRuntime, Profile::kDistribution};

Profile other(Profile profile) { return profile == Profile::kRuntime ? Profile::kDistribution : Profile::kRuntime; }

std::string name_of(Profile profile) { return std::string(profile_name(profile)); }

void expect_error(const auto& result, ErrorCode code, std::string_view message) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(message), std::string::npos) << result.error().message;
}

/// A source and its bundles of both profiles, by name.
class Profiles : public ::testing::Test {
 protected:
  void make_bundles(bool mixed) {
    if (mixed) {
      test::write_mixed_checkpoint(source_);
    } else {
      test::write_small_checkpoint(source_);
    }
    for (const Profile profile : kProfiles) {
      const auto report = compress_checkpoint(source_, folder_ / name_of(profile), {.profile = profile});
      ASSERT_TRUE(report.has_value()) << report.error().message;
      EXPECT_EQ(report->profile, profile);
      EXPECT_GT(report->tensors_blob, 0U);
    }
  }

  [[nodiscard]] test::Tree bundle(Profile profile) const { return read_tree(folder_ / name_of(profile)); }

  TempFolder folder_;
  fs::path source_ = folder_ / "source";
};

TEST_F(Profiles, BothRestoreTheSource) {
  make_bundles(true);
  for (const Profile profile : kProfiles) {
    SCOPED_TRACE(name_of(profile));
    const fs::path path = folder_ / name_of(profile);
    const auto verified = verify_bundle(path, {.threads = 2, .against = source_, .progress = {}});
    ASSERT_TRUE(verified.has_value()) << verified.error().message;
    EXPECT_TRUE(verified->compared_with_source);
    const fs::path restored = folder_ / (name_of(profile) + "-restored");
    const auto decompressed = decompress_bundle(path, restored, {.threads = 2});
    ASSERT_TRUE(decompressed.has_value()) << decompressed.error().message;
    EXPECT_EQ(difference(read_tree(source_), read_tree(restored)), "");
  }
}

TEST_F(Profiles, TellThemselvesApart) {
  make_bundles(true);
  const test::Tree runtime = bundle(Profile::kRuntime), distribution = bundle(Profile::kDistribution);
  const std::string manifest(io::kManifestPath);
  EXPECT_NE(runtime.at(manifest).find("\"container_version\": 1,"), std::string::npos);
  EXPECT_EQ(runtime.at(manifest).find("\"profile\""), std::string::npos);
  EXPECT_NE(distribution.at(manifest).find("\"container_version\": 2,"), std::string::npos);
  EXPECT_NE(distribution.at(manifest).find("\"profile\": \"distribution\""), std::string::npos);
  EXPECT_NE(distribution.at("config.json").find("\"container_version\": 2, \"profile\": \"distribution\""),
            std::string::npos);
  EXPECT_EQ(io::open_bundle(folder_ / "runtime")->manifest.profile, Profile::kRuntime);
  EXPECT_EQ(io::open_bundle(folder_ / "distribution")->manifest.profile, Profile::kDistribution);
}

TEST_F(Profiles, InspectSaysWhatTheyHold) {
  make_bundles(true);
  for (const bool histograms : {true, false}) {
    const auto runtime = inspect_path(folder_ / "runtime", {.threads = 2, .histograms = histograms, .progress = {}});
    const auto found = inspect_path(folder_ / "distribution", {.threads = 2, .histograms = histograms, .progress = {}});
    ASSERT_TRUE(runtime.has_value() && found.has_value());
    EXPECT_EQ(runtime->profile, Profile::kRuntime);
    EXPECT_EQ(found->profile, Profile::kDistribution);
    EXPECT_LT(found->stored_bytes, runtime->stored_bytes);
    ASSERT_EQ(found->tensors.size(), runtime->tensors.size());
    for (std::size_t i = 0; i < found->tensors.size(); ++i) {
      const TensorReport &a = runtime->tensors[i], &b = found->tensors[i];
      EXPECT_EQ(a.name, b.name);
      EXPECT_EQ(a.exponent_histogram, b.exponent_histogram) << a.name;
      EXPECT_EQ(b.block_count > 0, b.stored == StoredAs::kBlob) << b.name;
      EXPECT_EQ(b.palette_count, 0U);
    }
  }
}

TEST_F(Profiles, TranscodingGivesTheBytesOfCompressing) {
  make_bundles(true);
  for (const Profile profile : kProfiles) {
    for (const unsigned threads : {1U, 3U}) {
      const fs::path out = folder_ / ("from-" + name_of(other(profile)) + std::to_string(threads));
      const auto report = transcode_bundle(folder_ / name_of(other(profile)), out,
                                           {.profile = profile, .threads = threads, .verify = threads == 1});
      ASSERT_TRUE(report.has_value()) << report.error().message;
      EXPECT_EQ(difference(bundle(profile), read_tree(out)), "") << name_of(profile);
      EXPECT_TRUE(report->finished);
      EXPECT_EQ(report->profile, profile);
      EXPECT_EQ(report->verified, threads == 1);
      EXPECT_EQ(report->tensors, report->tensors_blob + report->tensors_raw + report->tensors_alias);
      EXPECT_FALSE(fs::exists(io::partial_path(out)));
    }
  }
}

TEST_F(Profiles, ASingleFileGoesBothWays) {
  const fs::path file = folder_ / "one.safetensors";
  write_file(file, test::make_safetensors({test::bf16_tensor("w", {100, 200}, test::Filling::kTrained, 1),
                                           test::bf16_tensor("noise", {80, 80}, test::Filling::kUniformBits, 2)},
                                          {{"format", "pt"}}));
  for (const Profile profile : kProfiles) {
    ASSERT_TRUE(compress_checkpoint(file, folder_ / name_of(profile), {.profile = profile}).has_value());
  }
  for (const Profile profile : kProfiles) {
    const fs::path out = folder_ / ("again-" + name_of(profile));
    const auto report = transcode_bundle(folder_ / name_of(other(profile)), out, {.profile = profile});
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_EQ(difference(bundle(profile), read_tree(out)), "");
  }
}

TEST_F(Profiles, SharesOfOneProfileAreNotThoseOfTheOther) {
  test::write_small_checkpoint(source_);
  io::testing::set_min_segment_bytes(1);
  const fs::path out = folder_ / "out";
  const auto share = [&](std::uint32_t index, Profile profile) {
    return compress_checkpoint(source_, out,
                               {.profile = profile, .threads = 1, .shard_index = index, .shard_count = 2});
  };
  ASSERT_TRUE(share(0, Profile::kDistribution).has_value());
  expect_error(share(1, Profile::kRuntime), ErrorCode::kSourceChanged, "compress-distribution");
  ASSERT_TRUE(share(1, Profile::kDistribution).has_value());
  const auto finished = finish_compress(source_, out);
  ASSERT_TRUE(finished.has_value()) << finished.error().message;
  EXPECT_EQ(finished->profile, Profile::kDistribution);
  io::testing::set_min_segment_bytes(0);
  ASSERT_TRUE(compress_checkpoint(source_, folder_ / "whole", {.profile = Profile::kDistribution}).has_value());
  EXPECT_EQ(difference(read_tree(folder_ / "whole"), read_tree(out)), "");
}

TEST_F(Profiles, TranscodingRefusesWhatItCannotDo) {
  make_bundles(false);
  expect_error(transcode_bundle(folder_ / "runtime", folder_ / "out", {.profile = Profile::kRuntime}),
               ErrorCode::kInvalidArgument, "has the profile 'runtime' already");
  expect_error(transcode_bundle(source_, folder_ / "out", {.profile = Profile::kRuntime}), ErrorCode::kBadBundle,
               "is not a bundle");
  expect_error(transcode_bundle(folder_ / "runtime", folder_ / "distribution", {.profile = Profile::kDistribution}),
               ErrorCode::kExists, "distribution");
  expect_error(compress_checkpoint(folder_ / "distribution", folder_ / "out"), ErrorCode::kBadCheckpoint,
               "compressed already");
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

// One byte of every file in turn: nothing that is damaged is carried over.
TEST_F(Profiles, TranscodingReportsDamage) {
  make_bundles(true);
  for (const Profile profile : kProfiles) {
    const fs::path bundle_path = folder_ / name_of(profile);
    const test::Tree original = bundle(profile);
    for (const auto& [path, bytes] : original) {
      // Files that the bundle has changed are made anew.
      const bool remade = original.contains(io::kept_path(path));
      if (bytes.empty() || path.ends_with('/') || remade) continue;
      std::string damaged = bytes;
      damaged[damaged.size() - 1 - damaged.size() / 3] ^= 1;
      write_file(bundle_path / path, damaged);
      const auto result = transcode_bundle(bundle_path, folder_ / "out", {.profile = other(profile)});
      EXPECT_FALSE(result.has_value()) << name_of(profile) << " " << path;
      EXPECT_FALSE(fs::exists(folder_ / "out")) << path;
      fs::remove_all(io::partial_path(folder_ / "out"));
      write_file(bundle_path / path, bytes);
    }
  }
}

TEST_F(Profiles, BlobsOfTheOtherFormAreRefused) {
  make_bundles(false);
  // A runtime bundle that says it is one of the distribution profile.
  const fs::path path = folder_ / "runtime";
  for (const auto& [name, bytes] : bundle(Profile::kDistribution)) {
    if (name.starts_with("unweight/") || name == "config.json") write_file(path / name, bytes);
  }
  EXPECT_FALSE(verify_bundle(path).has_value());
  EXPECT_FALSE(decompress_bundle(path, folder_ / "restored").has_value());
  EXPECT_FALSE(transcode_bundle(path, folder_ / "out", {.profile = Profile::kRuntime}).has_value());
}

// ---- interruptions --------------------------------------------------------------------------------------------------

std::atomic<int> g_operations_left{0};

/// As a power cut would: no destructor, no buffer flushed.
void die_when_due(const char*) {
  if (--g_operations_left < 0) ::kill(::getpid(), SIGKILL);
}

TEST_F(Profiles, TranscodingContinuesAfterEveryInterruption) {
  make_bundles(false);
  const int step = test::kSanitized ? 13 : 2;
  for (const Profile profile : kProfiles) {
    const auto transcode = [&] {
      return transcode_bundle(folder_ / name_of(other(profile)), folder_ / "out", {.profile = profile, .threads = 1});
    };
    bool done = false;
    for (int operations = 0; !done; operations += step) {
      const int status = test::run_in_child([&] {
        g_operations_left = operations;
        io::testing::set_fault_hook(die_when_due);
        return transcode().has_value() ? 0 : 1;
      });
      done = WIFEXITED(status);
      ASSERT_TRUE(!done || WEXITSTATUS(status) == 0) << "before change " << operations;
      if (!done) {
        const auto continued = transcode();
        ASSERT_TRUE(continued.has_value()) << operations << ": " << continued.error().message;
      }
      ASSERT_EQ(difference(bundle(profile), read_tree(folder_ / "out")), "") << "change " << operations;
      ASSERT_FALSE(fs::exists(io::partial_path(folder_ / "out"))) << "change " << operations;
      fs::remove_all(folder_ / "out");
    }
  }
}

TEST_F(Profiles, AnotherRunsWorkFolderIsRefused) {
  make_bundles(false);
  // Stopped at its first word.
  const auto stopped = transcode_bundle(
      folder_ / "runtime", folder_ / "out",
      {.profile = Profile::kDistribution, .threads = 1, .verify = true, .progress = [](const Progress&) {
         return false;
       }});
  ASSERT_FALSE(stopped.has_value());
  ASSERT_EQ(stopped.error().code, ErrorCode::kCancelled);
  if (!fs::exists(io::partial_path(folder_ / "out"))) GTEST_SKIP() << "stopped before there was a work folder";
  expect_error(compress_checkpoint(source_, folder_ / "out", {.profile = Profile::kDistribution}),
               ErrorCode::kSourceChanged, "transcode-distribution");
  const auto continued = transcode_bundle(folder_ / "runtime", folder_ / "out", {.profile = Profile::kDistribution});
  ASSERT_TRUE(continued.has_value()) << continued.error().message;
  EXPECT_EQ(difference(bundle(Profile::kDistribution), read_tree(folder_ / "out")), "");
}

}  // namespace
}  // namespace unweight
