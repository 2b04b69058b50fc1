// SPDX-License-Identifier: Apache-2.0
//
// Whole checkpoints: into a bundle and back, byte for byte; what the bundle looks like to other tools; what is refused.
#include "support/checkpoints.hpp"
#include <algorithm>
#include <gtest/gtest.h>
#include <io/bundle.hpp>
#include <io/json_document.hpp>
#include <io/paths.hpp>
#include <io/plan.hpp>
#include <io/safetensors_file.hpp>
#include <io/sha256.hpp>
#include <sys/resource.h>
#include <unistd.h>
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
using test::TensorData;
using test::write_file;

void expect_error(const auto& result, ErrorCode code, std::string_view message) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(message), std::string::npos) << result.error().message;
}

SafetensorsHeader header_of(const fs::path& path) {
  const auto file = io::File::open(path);
  EXPECT_TRUE(file.has_value());
  auto header = io::read_safetensors_header(*file);
  EXPECT_TRUE(header.has_value()) << header.error().message;
  return *std::move(header);
}

const TensorEntry* find(const SafetensorsHeader& header, std::string_view name) {
  const auto at = std::find_if(header.tensors.begin(), header.tensors.end(),
                               [&](const TensorEntry& entry) { return entry.name == name; });
  return at != header.tensors.end() ? &*at : nullptr;
}

/// Compresses, verifies against the source and restores; the restored tree must be the source's.
CompressReport round_trip(const fs::path& source, const fs::path& folder) {
  const auto compressed = compress_checkpoint(source, folder / "bundle");
  EXPECT_TRUE(compressed.has_value()) << compressed.error().message;
  if (!compressed) return {};
  EXPECT_TRUE(compressed->finished);
  const auto verified = verify_bundle(folder / "bundle", {.threads = 0, .against = source, .progress = {}});
  EXPECT_TRUE(verified.has_value()) << verified.error().message;
  const auto restored = decompress_bundle(folder / "bundle", folder / "restored");
  EXPECT_TRUE(restored.has_value()) << restored.error().message;
  if (fs::is_directory(source)) {
    EXPECT_EQ(difference(read_tree(source), read_tree(folder / "restored")), "");
  } else {
    EXPECT_EQ(test::read_file(source), test::read_file(folder / "restored" / source.filename()));
  }
  EXPECT_FALSE(fs::exists(folder / "bundle.partial"));
  EXPECT_FALSE(fs::exists(folder / "restored.partial"));
  return *compressed;
}

// ---- round trips
// ------------------------------------------------------------------------------------------------------

TEST(Container, MixedCheckpointRoundTrips) {
  const TempFolder folder;
  test::write_mixed_checkpoint(folder / "source");
  const test::Tree before = read_tree(folder / "source");
  const CompressReport report = round_trip(folder / "source", folder.path());
  EXPECT_EQ(difference(before, read_tree(folder / "source")), "");
  EXPECT_EQ(report.tensors_alias, 1U);
  EXPECT_GT(report.tensors_blob, 4U);
  EXPECT_EQ(report.tensors, report.tensors_blob + report.tensors_raw + report.tensors_alias);
  EXPECT_TRUE(report.verified);
  EXPECT_TRUE(report.warnings.empty());
  std::uint64_t bytes = 0;
  for (const auto& [name, text] : read_tree(folder / "bundle")) bytes += text.size();
  EXPECT_EQ(report.bundle_bytes, bytes);
}

TEST(Container, SingleFileRoundTrips) {
  const TempFolder folder;
  write_file(folder / "one.safetensors",
             make_safetensors({bf16_tensor("w", {100, 200}, Filling::kTrained, 1)}, {{"format", "pt"}}));
  round_trip(folder / "one.safetensors", folder.path());
  EXPECT_EQ(read_tree(folder / "restored").size(), 1U);
  // A relative path without a folder.
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  EXPECT_TRUE(compress_checkpoint("one.safetensors", "other").has_value());
  fs::current_path(before);
  EXPECT_EQ(difference(read_tree(folder / "bundle"), read_tree(folder / "other")), "");
}

TEST(Container, EmptyFolderRoundTrips) {
  const TempFolder folder;
  fs::create_directories(folder / "source");
  round_trip(folder / "source", folder.path());
}

TEST(Container, LinksOfAHubSnapshotAreFollowed) {
  const TempFolder folder;
  write_file(folder / "blobs/abc", make_safetensors({bf16_tensor("w", {64, 64}, Filling::kTrained, 1)}));
  fs::create_directories(folder / "snapshot");
  fs::create_symlink("../blobs/abc", folder / "snapshot/model.safetensors");
  round_trip(folder / "snapshot", folder.path());
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(folder / "restored/model.safetensors")));
}

TEST(Container, ResultDoesNotDependOnThreads) {
  const TempFolder folder;
  test::write_mixed_checkpoint(folder / "source");
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "a", {.threads = 1}).has_value());
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "b", {.threads = 7}).has_value());
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "c", {.threads = 2, .verify = false}).has_value());
  EXPECT_EQ(difference(read_tree(folder / "a"), read_tree(folder / "b")), "");
  EXPECT_EQ(difference(read_tree(folder / "a"), read_tree(folder / "c")), "");
}

TEST(Container, SharesGiveTheSameBundle) {
  const TempFolder folder;
  test::write_mixed_checkpoint(folder / "source");
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "single").has_value());
  const test::Tree single = read_tree(folder / "single");
  io::testing::set_min_segment_bytes(1);
  for (const std::uint32_t count : {2U, 3U, 5U, 40U}) {
    const fs::path out = folder / ("shared" + std::to_string(count));
    std::vector<std::uint32_t> order(count);
    for (std::uint32_t i = 0; i < count; ++i) order[i] = count - 1 - i;
    for (const std::uint32_t share : order) {
      expect_error(finish_compress(folder / "source", out),
                   share == count - 1 ? ErrorCode::kNotFound : ErrorCode::kBadCheckpoint,
                   share == count - 1 ? "nothing to finish" : "not done yet: share");
      const auto report =
          compress_checkpoint(folder / "source", out, {.threads = 2, .shard_index = share, .shard_count = count});
      ASSERT_TRUE(report.has_value()) << report.error().message;
      EXPECT_FALSE(report->finished);
      EXPECT_FALSE(fs::exists(out));
    }
    const auto report = finish_compress(folder / "source", out);
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_TRUE(report->finished);
    EXPECT_EQ(difference(single, read_tree(out)), "") << count;
    EXPECT_FALSE(fs::exists(io::partial_path(out)));
  }
  io::testing::set_min_segment_bytes(0);
}

// ---- what a bundle looks like
// -----------------------------------------------------------------------------------------

TEST(Container, FilesAreStillSafetensors) {
  const TempFolder folder;
  test::write_mixed_checkpoint(folder / "source");
  round_trip(folder / "source", folder.path());
  const SafetensorsHeader header = header_of(folder / "bundle/model-00001-of-00002.safetensors");
  EXPECT_EQ(header.metadata, (test::Metadata{{"format", "pt"}, {"unweight", "1"}}));
  EXPECT_EQ(header.data_begin % 128, 0U);

  const TensorEntry* blob = find(header, "model.embed_tokens.weight");
  ASSERT_NE(blob, nullptr);
  EXPECT_EQ(blob->dtype, Dtype::kU8);
  EXPECT_EQ(blob->shape, (std::vector<std::uint64_t>{blob->size_bytes()}));
  EXPECT_LT(blob->size_bytes(), 250U * 96 * 2);
  const TensorEntry* noise = find(header, "layers.0.noise.weight");
  ASSERT_NE(noise, nullptr);
  EXPECT_EQ(noise->dtype, Dtype::kBF16);
  EXPECT_EQ(noise->shape, (std::vector<std::uint64_t>{80, 96}));
  for (const TensorEntry& entry : header.tensors) {
    if (entry.dtype == Dtype::kU8 && entry.name != "layers.0.odd.weight") {
      EXPECT_EQ(entry.begin % 128, 0U) << entry.name;
    }
  }
  // The duplicate is not stored, other dtypes are as they were.
  const SafetensorsHeader second = header_of(folder / "bundle/model-00002-of-00002.safetensors");
  EXPECT_EQ(find(second, "lm_head.weight"), nullptr);
  ASSERT_NE(find(second, "dtype.F6_E3M2"), nullptr);
  EXPECT_EQ(find(second, "dtype.F6_E3M2")->dtype, Dtype::kF6E3M2);
  EXPECT_EQ(second.metadata, (test::Metadata{{"format", "pt"}, {"note", "\"ü\n"}, {"unweight", "1"}}));
}

TEST(Container, IndexAndConfigFitTheBundle) {
  const TempFolder folder;
  test::write_mixed_checkpoint(folder / "source");
  round_trip(folder / "source", folder.path());
  const auto index = io::JsonDocument::parse(test::read_file(folder / "bundle/model.safetensors.index.json"));
  ASSERT_TRUE(index.has_value());
  std::uint64_t total = 0, parameters = 0;
  ASSERT_EQ(index->root()["metadata"]["total_size"].get(total), simdjson::SUCCESS);
  ASSERT_EQ(index->root()["metadata"]["total_parameters"].get(parameters), simdjson::SUCCESS);
  EXPECT_EQ(parameters, 77U);
  const SafetensorsHeader first = header_of(folder / "bundle/model-00001-of-00002.safetensors");
  const SafetensorsHeader second = header_of(folder / "bundle/model-00002-of-00002.safetensors");
  EXPECT_EQ(total, first.data_bytes + second.data_bytes);
  simdjson::dom::object map;
  ASSERT_EQ(index->root()["weight_map"].get(map), simdjson::SUCCESS);
  EXPECT_EQ(map.size(), first.tensors.size() + second.tensors.size());
  for (const auto entry : map) {
    std::string_view file;
    ASSERT_EQ(entry.value.get(file), simdjson::SUCCESS);
    EXPECT_NE(find(file == "model-00001-of-00002.safetensors" ? first : second, entry.key), nullptr) << entry.key;
  }

  const std::string config = test::read_file(folder / "bundle/config.json");
  EXPECT_EQ(config,
            "{\n    \"quantization_config\": {\"quant_method\": \"unweight\", \"format_version\": 1, "
            "\"container_version\": 1, \"manifest\": \"unweight/manifest.json\"},"
            "\n    \"model_type\": \"llama\",\n    \"torch_dtype\":\"bfloat16\"\n}\n");
  EXPECT_EQ(test::read_file(folder / "bundle/unweight/source/config.json"),
            test::read_file(folder / "source/config.json"));
}

TEST(Container, ForeignConfigsAreLeftAlone) {
  for (const std::string_view config :
       {std::string_view(R"({"quantization_config": {"quant_method": "x"}})"), std::string_view("[1]"),
        std::string_view("{\"eps\": NaN}"), std::string_view("\xef\xbb\xbf{}"), std::string_view("")}) {
    const TempFolder folder;
    write_file(folder / "source/config.json", config);
    write_file(folder / "source/sub/config.json", "{}");  // only the one at the top counts
    const CompressReport report = round_trip(folder / "source", folder.path());
    ASSERT_EQ(report.warnings.size(), 1U) << config;
    EXPECT_NE(report.warnings[0].find("config.json"), std::string::npos);
    EXPECT_EQ(test::read_file(folder / "bundle/config.json"), config);
    EXPECT_EQ(test::read_file(folder / "bundle/sub/config.json"), "{}");
  }
}

TEST(Container, TwoSetsOfFilesAreStoredOnce) {
  // As Mistral publishes its models: the same tensors under other names in one consolidated file.
  const TempFolder folder;
  std::vector<TensorData> consolidated;
  for (std::uint64_t i = 0; i < 4; ++i) {
    const TensorData tensor = bf16_tensor("model.layers." + std::to_string(i), {128, 128}, Filling::kTrained, i);
    write_file(folder / ("source/model-0000" + std::to_string(i) + ".safetensors"), make_safetensors({tensor}));
    consolidated.push_back(tensor);
    consolidated.back().name = "layers." + std::to_string(i);
  }
  consolidated.push_back(bf16_tensor("other", {128, 128}, Filling::kTrained, 99));
  write_file(folder / "source/consolidated.safetensors", make_safetensors(consolidated));
  const CompressReport report = round_trip(folder / "source", folder.path());
  EXPECT_EQ(report.tensors_alias, 4U);
  EXPECT_EQ(report.tensors_blob, 5U);
  // The set that loaders look for holds the data.
  EXPECT_EQ(header_of(folder / "bundle/consolidated.safetensors").tensors.size(), 1U);
  EXPECT_EQ(header_of(folder / "bundle/model-00003.safetensors").tensors.size(), 1U);
}

TEST(Container, NearDuplicatesAreToldApart) {
  // Equal in every sampled piece, different in one bit elsewhere.
  const TempFolder folder;
  TensorData a = bf16_tensor("a", {256, 256}, Filling::kTrained, 1);
  std::vector<TensorData> tensors = {a};
  for (std::size_t i = 0; i < 12; ++i) {
    TensorData other = a;
    other.name = "b" + std::to_string(i);
    other.bytes[5000 + i] = static_cast<char>(other.bytes[5000 + i] ^ 1);
    tensors.push_back(other);
    other.name = "c" + std::to_string(i);
    tensors.push_back(other);
  }
  TensorData same = a;
  same.name = "same";
  tensors.push_back(same);
  TensorData shape = a;  // the same bytes in another shape are another tensor
  shape.name = "shape";
  shape.shape = {128, 512};
  tensors.push_back(shape);
  write_file(folder / "source/model.safetensors", make_safetensors(tensors));
  const CompressReport report = round_trip(folder / "source", folder.path());
  EXPECT_GE(report.tensors_alias, 1U + 7U);  // only so many equal samples are compared with each other
  EXPECT_LE(report.tensors_alias, 1U + 12U);
}

// ---- refusals
// ---------------------------------------------------------------------------------------------------------

TEST(Container, RefusesBadSources) {
  const TempFolder folder;
  expect_error(compress_checkpoint(folder / "none", folder / "out"), ErrorCode::kNotFound, "none");

  write_file(folder / "junk/model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
  expect_error(compress_checkpoint(folder / "junk", folder / "out"), ErrorCode::kBadSafetensors, "model.safetensors");

  write_file(folder / "reserved/unweight/x", "x");
  expect_error(compress_checkpoint(folder / "reserved", folder / "out"), ErrorCode::kBadCheckpoint, "reserved");
  fs::create_directories(folder / "reserved2/unweight");
  expect_error(compress_checkpoint(folder / "reserved2", folder / "out"), ErrorCode::kBadCheckpoint, "reserved");

  const auto index = [&](const char* name, std::string_view file) {
    write_file(folder / name / "model.safetensors.index.json",
               "{\"weight_map\":{\"t\":\"" + std::string(file) + "\"}}");
    return compress_checkpoint(folder / name, folder / "out");
  };
  expect_error(index("i1", "gone.safetensors"), ErrorCode::kBadCheckpoint, "'gone.safetensors', which is missing");
  expect_error(index("i2", "../i1/x.safetensors"), ErrorCode::kBadCheckpoint, "'..'");
  expect_error(index("i3", "/etc/passwd"), ErrorCode::kBadCheckpoint, "absolute");
  write_file(folder / "i4/a.safetensors", make_safetensors({bf16_tensor("u", {4, 4}, Filling::kTrained, 1)}));
  expect_error(index("i4", "a.safetensors"), ErrorCode::kBadCheckpoint, "holds tensor 't', but it does not");
  write_file(folder / "i5/a.txt", "x");
  expect_error(index("i5", "a.txt"), ErrorCode::kBadCheckpoint, "not a safetensors file");
  write_file(folder / "i6/model.safetensors.index.json", "{");
  expect_error(compress_checkpoint(folder / "i6", folder / "out"), ErrorCode::kBadJson, "index.json");

  EXPECT_FALSE(fs::exists(folder / "out"));
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(Container, MessagesStayOnOneLine) {
  const TempFolder folder;
  write_file(folder / "source/line\nbreak\x7f.safetensors", "junk, longer than eight bytes");
  expect_error(compress_checkpoint(folder / "source", folder / "out"), ErrorCode::kBadSafetensors,
               "line\\x0abreak\\x7f.safetensors");
}

TEST(Container, RefusesABundleAsSource) {
  const TempFolder folder;
  test::write_small_checkpoint(folder / "source");
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "bundle").has_value());
  expect_error(compress_checkpoint(folder / "bundle", folder / "twice"), ErrorCode::kBadCheckpoint,
               "compressed already");
  expect_error(compress_checkpoint(folder / "bundle/model-00001-of-00002.safetensors", folder / "twice"),
               ErrorCode::kBadCheckpoint, "compressed already");
}

TEST(Container, RefusesExistingAndNestedOutputs) {
  const TempFolder folder;
  test::write_small_checkpoint(folder / "source");
  write_file(folder / "taken/file", "precious");
  fs::create_directories(folder / "empty");
  fs::create_symlink("nowhere", folder / "dangling");
  for (const char* name : {"taken", "empty", "dangling"}) {
    expect_error(compress_checkpoint(folder / "source", folder / name), ErrorCode::kExists, "exists already");
  }
  EXPECT_EQ(test::read_file(folder / "taken/file"), "precious");
  expect_error(compress_checkpoint(folder / "source", folder / "source/out"), ErrorCode::kInvalidArgument, "inside");
  expect_error(compress_checkpoint(folder / "source", folder / "no/such/out"), ErrorCode::kNotFound, "no/such");
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "bundle").has_value());
  expect_error(decompress_bundle(folder / "bundle", folder / "taken"), ErrorCode::kExists, "exists already");
  expect_error(decompress_bundle(folder / "bundle", folder / "bundle/x"), ErrorCode::kInvalidArgument, "inside");
  expect_error(decompress_bundle(folder / "source", folder / "x"), ErrorCode::kBadBundle, "not a bundle");
  expect_error(verify_bundle(folder / "source"), ErrorCode::kBadBundle, "not a bundle");
  expect_error(compress_checkpoint(folder / "source", folder / "y", {.shard_index = 3, .shard_count = 3}),
               ErrorCode::kInvalidArgument, "shard 3 of 3");
}

TEST(Container, UnreadableShardIsOneClearError) {
  const TempFolder folder;
  test::write_small_checkpoint(folder / "source");
  if (::geteuid() == 0) {
    // Permissions do not bind root: take a folder in place of the file's target instead.
    fs::remove(folder / "source/model-00002-of-00002.safetensors");
    fs::create_symlink("/proc/self/mem", folder / "source/model-00002-of-00002.safetensors");
    expect_error(compress_checkpoint(folder / "source", folder / "out"), ErrorCode::kBadSafetensors, "model-00002");
  } else {
    fs::permissions(folder / "source/model-00002-of-00002.safetensors", fs::perms::none);
    expect_error(compress_checkpoint(folder / "source", folder / "out"), ErrorCode::kIo, "model-00002");
  }
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(Container, VerifyFindsEveryDifferenceToASource) {
  const TempFolder folder;
  test::write_small_checkpoint(folder / "source");
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "bundle").has_value());
  const auto against = [&](const fs::path& source) {
    return verify_bundle(folder / "bundle", {.threads = 2, .against = source, .progress = {}});
  };
  ASSERT_TRUE(against(folder / "source").has_value());
  const auto changed = [&](const std::function<void(const fs::path&)>& change) {
    fs::remove_all(folder / "changed");
    fs::copy(folder / "source", folder / "changed", fs::copy_options::recursive);
    change(folder / "changed");
    return against(folder / "changed");
  };
  const std::string shard = "model-00001-of-00002.safetensors";
  expect_error(changed([](const fs::path& root) { fs::remove(root / "tokenizer.json"); }), ErrorCode::kNotIdentical,
               "lacks the file 'tokenizer.json'");
  expect_error(changed([](const fs::path& root) { write_file(root / "more", "x"); }), ErrorCode::kNotIdentical,
               "more' is not in the bundle");
  expect_error(changed([&](const fs::path& root) { fs::resize_file(root / shard, fs::file_size(root / shard) + 1); }),
               ErrorCode::kNotIdentical, shard);
  for (const std::uint64_t at : {0U, 20U, 40000U}) {
    expect_error(changed([&](const fs::path& root) {
                   std::string bytes = test::read_file(root / shard);
                   bytes[at] = static_cast<char>(bytes[at] ^ 1);
                   write_file(root / shard, bytes);
                 }),
                 ErrorCode::kNotIdentical, "differs from the bundle at byte " + std::to_string(at));
  }
}

TEST(Container, CallbackSeesProgressAndCanCancel) {
  const TempFolder folder;
  test::write_mixed_checkpoint(folder / "source");
  std::uint64_t total = 0;
  for (const auto& [name, bytes] : read_tree(folder / "source")) total += bytes.size();
  Progress last;
  CompressOptions options;
  options.progress = [&](const Progress& progress) {
    last = progress;
    return true;
  };
  const auto done = compress_checkpoint(folder / "source", folder / "a", options);
  ASSERT_TRUE(done.has_value()) << done.error().message;
  EXPECT_EQ(last.bytes_total, total);
  EXPECT_EQ(last.bytes_done, total);
  EXPECT_EQ(last.tensors_done, last.tensors_total);
  EXPECT_EQ(last.tensors_total, done->tensors_blob + done->tensors_raw);

  options.progress = [](const Progress&) { return false; };
  expect_error(compress_checkpoint(folder / "source", folder / "b", options), ErrorCode::kCancelled, "stopped");
  EXPECT_FALSE(fs::exists(folder / "b"));
  options.progress = {};
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "b", options).has_value());
  EXPECT_EQ(difference(read_tree(folder / "a"), read_tree(folder / "b")), "");

  Progress restored;
  ASSERT_TRUE(decompress_bundle(folder / "a", folder / "r",
                                {.threads = 2,
                                 .progress =
                                     [&](const Progress& progress) {
                                       restored = progress;
                                       return true;
                                     }})
                  .has_value());
  EXPECT_EQ(restored.bytes_done, total);
  expect_error(
      verify_bundle(folder / "a", {.threads = 1, .against = {}, .progress = [](const Progress&) { return false; }}),
      ErrorCode::kCancelled, "stopped");
}

// ---- inspect
// ----------------------------------------------------------------------------------------------------------

TEST(Inspect, CheckpointAndBundleAgree) {
  const TempFolder folder;
  test::write_mixed_checkpoint(folder / "source");
  const auto plain = inspect_path(folder / "source");
  ASSERT_TRUE(plain.has_value()) << plain.error().message;
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "bundle").has_value());
  const auto bundle = inspect_path(folder / "bundle");
  ASSERT_TRUE(bundle.has_value()) << bundle.error().message;
  const auto headers_only = inspect_path(folder / "bundle", {.threads = 1, .histograms = false, .progress = {}});
  ASSERT_TRUE(headers_only.has_value()) << headers_only.error().message;
  EXPECT_FALSE(plain->is_bundle);
  EXPECT_TRUE(bundle->is_bundle);
  EXPECT_EQ(plain->source_bytes, bundle->source_bytes);
  ASSERT_EQ(plain->tensors.size(), bundle->tensors.size());
  for (std::size_t i = 0; i < plain->tensors.size(); ++i) {
    const TensorReport& a = plain->tensors[i];
    const TensorReport& b = bundle->tensors[i];
    const TensorReport& c = headers_only->tensors[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.file, b.file);
    EXPECT_EQ(a.dtype, b.dtype);
    EXPECT_EQ(a.shape, b.shape);
    EXPECT_EQ(a.stored, b.stored) << a.name;
    EXPECT_EQ(a.alias_of, b.alias_of);
    EXPECT_EQ(a.stored_bytes, b.stored_bytes) << a.name;
    EXPECT_EQ(a.exponent_histogram, b.exponent_histogram) << a.name;
    EXPECT_EQ(a.exponent_entropy_bits, b.exponent_entropy_bits);
    EXPECT_EQ(a.palette_count, b.palette_count);
    EXPECT_EQ(a.exception_count, b.exception_count);
    EXPECT_EQ(c.stored, b.stored);
    EXPECT_EQ(c.stored_bytes, b.stored_bytes);
    EXPECT_EQ(c.palette_count, b.palette_count);
    EXPECT_EQ(c.exception_count, b.exception_count);
    EXPECT_EQ(c.tile_count, b.tile_count);
    EXPECT_EQ(c.exponent_entropy_bits, 0.0);
  }
  const auto embedding = std::find_if(plain->tensors.begin(), plain->tensors.end(), [](const TensorReport& tensor) {
    return tensor.name == "model.embed_tokens.weight";
  });
  ASSERT_NE(embedding, plain->tensors.end());
  EXPECT_NEAR(embedding->exponent_entropy_bits, 2.66, 0.2);
  EXPECT_EQ(inspect_path(folder / "none").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace unweight
