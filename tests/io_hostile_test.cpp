// SPDX-License-Identifier: Apache-2.0
//
// Bundles that are damaged, or made to do damage: every byte flipped, every file cut, and manifests that lie. Each
// either restores the identical source or fails with a proper error, and writes nothing outside of its output.
#include "support/checkpoints.hpp"
#include <functional>
#include <gtest/gtest.h>
#include <io/bundle.hpp>
#include <io/file.hpp>
#include <io/manifest.hpp>
#include <io/paths.hpp>
#include <io/sha256.hpp>
#include <optional>
#include <unweight/checkpoint.hpp>

namespace unweight {
namespace {

namespace fs = std::filesystem;
using test::bf16_tensor;
using test::difference;
using test::Filling;
using test::make_safetensors;
using test::read_tree;
using test::TempFolder;
using test::Tree;
using test::write_file;

/// A bundle of a few kilobytes that has everything: a blob, a raw tensor, an alias, kept and copied files.
class HostileBundle : public ::testing::Test {
 protected:
  void SetUp() override {
    test::TensorData blob = bf16_tensor("w", {64, 64}, Filling::kTrained, 1);
    test::TensorData twin = blob;
    twin.name = "twin";
    write_file(source_ / "model.safetensors",
               make_safetensors({blob, bf16_tensor("norm", {16}, Filling::kTrained, 2)}, {{"format", "pt"}}));
    write_file(source_ / "other/extra.safetensors", make_safetensors({twin}));
    write_file(source_ / "config.json", "{\"a\": 1}");
    write_file(source_ / "notes.txt", "some notes");
    fs::create_directories(source_ / "empty");
    const auto report = compress_checkpoint(source_, bundle_);
    ASSERT_TRUE(report.has_value()) << report.error().message;
    ASSERT_EQ(report->tensors_blob, 1U);
    ASSERT_EQ(report->tensors_alias, 1U);
    source_tree_ = read_tree(source_);
    manifest_ = test::read_file(bundle_ / io::kManifestPath);
  }

  /// Error of verify, or of decompress when verify finds nothing; nothing when the source came back identical.
  std::optional<Error> outcome(bool restore_anyway = true) {
    const auto verified = verify_bundle(bundle_, {.threads = 1});
    if (!verified && !restore_anyway) return verified.error();
    fs::remove_all(folder_ / "restored");
    const auto restored = decompress_bundle(bundle_, folder_ / "restored", {.threads = 1});
    fs::remove_all(io::partial_path(folder_ / "restored"));
    if (!restored) {
      EXPECT_FALSE(fs::exists(folder_ / "restored"));
      EXPECT_FALSE(verified.has_value()) << "verify passes, but: " << restored.error().message;
    } else {
      EXPECT_EQ(difference(source_tree_, read_tree(folder_ / "restored")), "");
    }
    if (!verified) {
      EXPECT_EQ(verified.error().message.find('\n'), std::string::npos) << verified.error().message;
      EXPECT_NE(verified.error().code, ErrorCode::kInternal) << verified.error().message;
      return verified.error();
    }
    return std::nullopt;
  }

  /// Replaces the first occurrence of `from` in the manifest and expects an error.
  void expect_bad_manifest(std::string_view from, std::string_view to, ErrorCode code, std::string_view message) {
    std::string text = manifest_;
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    write_file(bundle_ / io::kManifestPath, text);
    write_file(bundle_ / io::kManifestDigestPath, io::make_manifest_digest(text).value());
    const auto error = outcome();
    ASSERT_TRUE(error.has_value()) << to;
    EXPECT_EQ(error->code, code) << error->message;
    EXPECT_NE(error->message.find(message), std::string::npos) << error->message;
    EXPECT_EQ(difference(source_tree_, read_tree(source_)), "");
  }

  void flip_every_byte(std::size_t stride) {
    std::size_t harmless = 0, refused = 0;
    for (const auto& [name, bytes] : read_tree(bundle_)) {
      for (std::size_t i = 0; i < bytes.size(); i += stride) {
        std::string damaged = bytes;
        damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
        write_file(bundle_ / name, damaged);
        const bool refuses = outcome(i % 16 == 0).has_value();
        ++(refuses ? refused : harmless);
        // What no one needs for restoring is the padding and the metadata of a bundle's header.
        if (!refuses) {
          EXPECT_TRUE(name.ends_with(".safetensors")) << name << " byte " << i;
        }
        ASSERT_FALSE(HasFatalFailure());
      }
      write_file(bundle_ / name, bytes);
    }
    EXPECT_GT(refused, 10 * harmless);
    EXPECT_FALSE(outcome().has_value());
  }

  void cut_every_file(std::size_t stride) {
    for (const auto& [name, bytes] : read_tree(bundle_)) {
      for (std::size_t size = 0; size < bytes.size(); size += stride) {
        write_file(bundle_ / name, std::string_view(bytes).substr(0, size));
        EXPECT_TRUE(outcome(size % 16 == 0).has_value()) << name << " cut to " << size;
      }
      write_file(bundle_ / name, bytes + "x");
      EXPECT_TRUE(outcome().has_value()) << name << " with a byte more";
      fs::remove(bundle_ / name);
      EXPECT_TRUE(outcome().has_value()) << name << " missing";
      write_file(bundle_ / name, bytes);
    }
    EXPECT_FALSE(outcome().has_value());
  }

  TempFolder folder_;
  fs::path source_ = folder_ / "source";
  fs::path bundle_ = folder_ / "bundle";
  Tree source_tree_;
  std::string manifest_;
};

class HostileBundleSlow : public HostileBundle {};

TEST_F(HostileBundle, SomeFlippedBytes) { flip_every_byte(31); }
TEST_F(HostileBundle, SomeCuts) { cut_every_file(97); }
TEST_F(HostileBundleSlow, EveryFlippedByte) { flip_every_byte(1); }
TEST_F(HostileBundleSlow, EveryCut) { cut_every_file(1); }

// ---- manifests that lie
// -------------------------------------------------------------------------------------------------

TEST_F(HostileBundle, PathsThatLeaveTheOutput) {
  for (const std::string_view path : {"../escaped.txt", "/tmp/escaped.txt", "a/../../escaped.txt", "./notes.txt",
                                      "a//notes.txt", "notes.txt/", "", "n\\u0000tes"}) {
    expect_bad_manifest("\"notes.txt\"", "\"" + std::string(path) + "\"", ErrorCode::kBadBundle, "the path");
  }
  EXPECT_FALSE(fs::exists(folder_ / "escaped.txt"));
  expect_bad_manifest("\"empty\"", "\"../escaped\"", ErrorCode::kBadBundle, "the empty folder");
  expect_bad_manifest("\"empty\"", "\"unweight/x\"", ErrorCode::kBadBundle, "reserved");
  EXPECT_FALSE(fs::exists(folder_ / "escaped"));
}

TEST_F(HostileBundle, PathsThatCollide) {
  expect_bad_manifest("\"notes.txt\"", "\"model.safetensors\"", ErrorCode::kBadBundle, "out of order or occurs twice");
  expect_bad_manifest("\"config.json\"", "\"zzz\"", ErrorCode::kBadBundle, "out of order");
  expect_bad_manifest("\"notes.txt\"", "\"model.safetensors/x\"", ErrorCode::kBadBundle, "is also a folder");
  expect_bad_manifest("\"empty\"", "\"other\"", ErrorCode::kBadBundle, "is not empty");
  expect_bad_manifest("\"empty\"", "\"notes.txt\"", ErrorCode::kBadBundle, "is not empty");
  expect_bad_manifest("\"notes.txt\"", "\"notes.txt\", \"path\": \"b\"", ErrorCode::kBadJson, "'path' occurs twice");
  expect_bad_manifest("\"other/extra.safetensors\"", "\"unweight/manifest.json\"", ErrorCode::kBadBundle, "reserved");
}

TEST_F(HostileBundle, NumbersAndDigests) {
  expect_bad_manifest("\"size\": 10", "\"size\": 11", ErrorCode::kBadBundle, "has 10 bytes, the manifest says 11");
  expect_bad_manifest("\"size\": 10", "\"size\": -10", ErrorCode::kBadJson, "'size' is not an integer");
  expect_bad_manifest("\"size\": 10", "\"size\": 18446744073709551616", ErrorCode::kBadJson, "not valid JSON");
  expect_bad_manifest("\"size\": 10", "\"size\": NaN", ErrorCode::kBadJson, "not valid JSON");
  expect_bad_manifest("\"sha256\": \"", "\"sha256\": \"0", ErrorCode::kBadBundle, "not a SHA-256");
  const std::string digest = io::sha256_of(io::bytes_of("some notes")).value();
  expect_bad_manifest(digest, std::string(64, '0'), ErrorCode::kNotIdentical, "SHA-256");
  for (const std::string_view size : {"9223372036854775807", "18446744073709551615"}) {
    const auto model = std::to_string(source_tree_.at("model.safetensors").size());
    expect_bad_manifest("\"size\": " + model, "\"size\": " + std::string(size), ErrorCode::kBadSafetensors,
                        "bytes of data");
  }
}

TEST_F(HostileBundle, VersionsAndKinds) {
  expect_bad_manifest("\"container_version\": 1", "\"container_version\": 3", ErrorCode::kUnsupportedVersion,
                      "container_version 3 is not supported");
  expect_bad_manifest("\"restore\": \"copied\"", "\"restore\": \"linked\"", ErrorCode::kBadBundle,
                      "'linked' is unknown");
  expect_bad_manifest("\"source\": \"folder\"", "\"source\": \"file\"", ErrorCode::kBadBundle,
                      "the source was one file");
  expect_bad_manifest("\"source\": \"folder\"", "\"source\": \"url\"", ErrorCode::kBadBundle, "'url' is unknown");
  expect_bad_manifest("\"files\"", "\"fyles\"", ErrorCode::kBadJson, "'files' is missing");
  expect_bad_manifest("{", "[", ErrorCode::kBadJson, "not valid JSON");
  // A file of another kind than it is.
  expect_bad_manifest("\"restore\": \"copied\"", "\"restore\": \"safetensors\", \"aliases\": []", ErrorCode::kNotFound,
                      "notes.txt.header");
  expect_bad_manifest("\"restore\": \"kept\"", "\"restore\": \"copied\"", ErrorCode::kBadBundle, "config.json");
}

TEST_F(HostileBundle, Aliases) {
  const std::string alias = R"({"tensor": "twin", "original_file": "model.safetensors", "original_tensor": "w"})";
  const auto with = [&](const char* tensor, const char* file, const char* original) {
    return std::string("{\"tensor\": \"") + tensor + "\", \"original_file\": \"" + file +
           "\", \"original_tensor\": \"" + original + "\"}";
  };
  const char* other = "other/extra.safetensors";
  expect_bad_manifest(alias, with("none", "model.safetensors", "w"), ErrorCode::kBadBundle, "'twin' is missing");
  expect_bad_manifest(alias, alias + ", " + with("none", "model.safetensors", "w"), ErrorCode::kBadBundle,
                      "is no tensor of that file");
  expect_bad_manifest(alias, alias + ", " + alias, ErrorCode::kBadBundle, "two aliases for tensor 'twin'");
  expect_bad_manifest(alias, with("twin", "model.safetensors", "none"), ErrorCode::kBadBundle, "'none', which is no");
  expect_bad_manifest(alias, with("twin", "model.safetensors", "norm"), ErrorCode::kBadBundle,
                      "another dtype or shape");
  expect_bad_manifest(alias, with("twin", other, "twin"), ErrorCode::kBadBundle, "has an alias as its original");
  expect_bad_manifest(alias, with("twin", "notes.txt", "w"), ErrorCode::kBadBundle, "no safetensors file");
  expect_bad_manifest(alias, with("twin", "../x.safetensors", "w"), ErrorCode::kBadBundle, "no safetensors file");
}

// ---- files that lie
// -----------------------------------------------------------------------------------------------------

TEST_F(HostileBundle, StoredTensorsOfAnotherKind) {
  const fs::path path = bundle_ / "model.safetensors";
  const std::string original = test::read_file(path);
  const std::string blob = original.substr(original.find("UNWEIGHT"));
  const test::Metadata mark = {{"unweight", "1"}};
  const auto expect = [&](const std::vector<test::TensorData>& tensors, const test::Metadata& metadata, ErrorCode code,
                          std::string_view message) {
    write_file(path, make_safetensors(tensors, metadata));
    const auto error = outcome();
    ASSERT_TRUE(error.has_value());
    EXPECT_EQ(error->code, code) << error->message;
    EXPECT_NE(error->message.find(message), std::string::npos) << error->message;
  };
  const test::TensorData norm = bf16_tensor("norm", {16}, Filling::kTrained, 2);
  const auto u8 = [](std::string name, std::string bytes) {
    const std::uint64_t size = bytes.size();
    return test::TensorData{std::move(name), Dtype::kU8, {size}, std::move(bytes)};
  };
  const std::string exact = blob.substr(0, blob.size() - 32);  // without norm's bytes
  expect({u8("w", exact), norm}, {}, ErrorCode::kBadBundle, "metadata lacks");
  expect({u8("w", exact), norm}, {{"unweight", "2"}}, ErrorCode::kBadBundle, "metadata lacks");
  expect({norm}, mark, ErrorCode::kBadBundle, "'w' is missing");
  expect({u8("w", exact), norm, u8("more", "x")}, mark, ErrorCode::kBadBundle, "tensors that the source does not");
  expect({u8("w", exact), u8("norm", norm.bytes)}, mark, ErrorCode::kBadBundle, "'norm' is stored as neither");
  expect({u8("w", ""), norm}, mark, ErrorCode::kTruncated, "'w'");
  expect({u8("w", exact + std::string(128, '\0')), norm}, mark, ErrorCode::kBadBundle, "hold a blob of");
  expect({u8("w", exact.substr(0, exact.size() - 128)), norm}, mark, ErrorCode::kTruncated, "'w'");
  // A sound blob of another tensor.
  const auto values = test::make_tensor({1, 64, 128}, Filling::kTrained, 9);
  const auto other = encode(values, {1, 64, 128}).value();
  expect({u8("w", std::string(reinterpret_cast<const char*>(other.data()), other.size())), norm}, mark,
         ErrorCode::kBadBundle, "not 8192");
  const auto same_shape = test::make_tensor({1, 64, 64}, Filling::kTrained, 9);
  const auto swapped = encode(same_shape, {1, 64, 64}).value();
  expect({u8("w", std::string(reinterpret_cast<const char*>(swapped.data()), swapped.size())), norm}, mark,
         ErrorCode::kNotIdentical, "SHA-256");
}

TEST_F(HostileBundle, LinksAreReadButNotCycles) {
  // The cache of the Hub keeps bundles as links too.
  fs::rename(bundle_ / "model.safetensors", folder_ / "blob");
  fs::create_symlink("../blob", bundle_ / "model.safetensors");
  EXPECT_FALSE(outcome().has_value());
  fs::remove(bundle_ / "notes.txt");
  fs::create_symlink("notes.txt", bundle_ / "notes.txt");
  EXPECT_TRUE(outcome().has_value());
  fs::remove(bundle_ / "notes.txt");
  fs::create_directories(bundle_ / "notes.txt");
  EXPECT_TRUE(outcome().has_value());
}

}  // namespace
}  // namespace unweight
