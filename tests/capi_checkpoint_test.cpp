// SPDX-License-Identifier: Apache-2.0
//
// The C interface of whole checkpoints: every function, what it refuses, and that it does what the C++ functions do.
#include "support/checkpoints.hpp"
#include <cstring>
#include <filesystem>
#include <gtest/gtest.h>
#include <string>
#include <unweight/checkpoint.hpp>
#include <unweight/unweight_checkpoint.h>
#include <vector>

namespace unweight {
namespace {

namespace fs = std::filesystem;
using test::difference;
using test::read_tree;
using test::TempFolder;

void expect_refused(unweight_status status, const std::string& part) {
  EXPECT_EQ(status, UNWEIGHT_INVALID_ARGUMENT) << part;
  EXPECT_NE(std::string(unweight_last_error_message()).find(part), std::string::npos) << unweight_last_error_message();
}

template <class Struct>
Struct sized() {
  Struct made{};
  made.struct_size = sizeof made;
  return made;
}

/// What callbacks saw.
struct Seen {
  int calls = 0;
  std::uint64_t bytes_done = 0, bytes_total = 1;
  std::string current;
  std::vector<std::string> warnings;
  int stop_after = 0;  ///< calls; 0: never
};

int on_progress(const unweight_progress* progress, void* user_data) {
  auto& seen = *static_cast<Seen*>(user_data);
  EXPECT_GE(progress->struct_size, sizeof *progress);
  seen.bytes_done = progress->bytes_done;
  seen.bytes_total = progress->bytes_total;
  seen.current = progress->current;
  return ++seen.calls == seen.stop_after ? 7 : 0;
}

void on_warning(const char* message, void* user_data) { static_cast<Seen*>(user_data)->warnings.emplace_back(message); }

class CCheckpoints : public testing::Test {
 protected:
  CCheckpoints() { test::write_small_checkpoint(folder_ / "source"); }
  [[nodiscard]] std::string at(const char* name) const { return folder_ / name; }

  TempFolder folder_;
};

TEST_F(CCheckpoints, CompressVerifyDecompress) {
  Seen seen;
  auto options = sized<unweight_compress_options>();
  options.threads = 2;
  options.progress = on_progress;
  options.warning = on_warning;
  options.user_data = &seen;
  auto report = sized<unweight_compress_report>();
  ASSERT_EQ(unweight_compress_checkpoint(at("source").c_str(), at("bundle").c_str(), &options, &report), UNWEIGHT_OK)
      << unweight_last_error_message();
  const auto same = compress_checkpoint(at("source"), at("same"));
  ASSERT_TRUE(same);
  EXPECT_EQ(difference(read_tree(at("bundle")), read_tree(at("same"))), "");
  EXPECT_EQ(report.struct_size, sizeof report);
  EXPECT_EQ(report.source_bytes, same->source_bytes);
  EXPECT_EQ(report.bundle_bytes, same->bundle_bytes);
  EXPECT_EQ(report.tensors, same->tensors);
  EXPECT_EQ(report.tensors_blob, same->tensors_blob);
  EXPECT_EQ(report.tensors_raw, same->tensors_raw);
  EXPECT_EQ(report.tensors_alias, same->tensors_alias);
  EXPECT_EQ(report.blob_value_bytes, same->blob_value_bytes);
  EXPECT_EQ(report.blob_bytes, same->blob_bytes);
  EXPECT_EQ(report.bytes_resumed, 0U);
  EXPECT_GT(report.peak_memory_bytes, 0U);
  EXPECT_GT(report.seconds, 0);
  EXPECT_EQ(report.profile, UNWEIGHT_PROFILE_RUNTIME);
  EXPECT_EQ(report.finished, 1U);
  EXPECT_EQ(report.verified, 1U);
  EXPECT_EQ(seen.warnings, same->warnings);
  EXPECT_GT(seen.calls, 0);
  EXPECT_EQ(seen.bytes_done, seen.bytes_total);
  EXPECT_FALSE(seen.current.empty());

  auto checked = sized<unweight_restore_report>();
  ASSERT_EQ(unweight_verify_bundle(at("bundle").c_str(), at("source").c_str(), nullptr, &checked), UNWEIGHT_OK)
      << unweight_last_error_message();
  EXPECT_EQ(checked.tensors, report.tensors);
  EXPECT_EQ(checked.bytes, report.source_bytes);
  ASSERT_EQ(unweight_verify_bundle(at("bundle").c_str(), nullptr, nullptr, nullptr), UNWEIGHT_OK);

  Seen restoring;
  auto restore = sized<unweight_restore_options>();
  restore.progress = on_progress;
  restore.user_data = &restoring;
  ASSERT_EQ(unweight_decompress_bundle(at("bundle").c_str(), at("restored").c_str(), &restore, &checked), UNWEIGHT_OK);
  EXPECT_EQ(difference(read_tree(at("source")), read_tree(at("restored"))), "");
  EXPECT_EQ(checked.files, read_tree(at("source")).size());
  EXPECT_GT(restoring.calls, 0);

  EXPECT_EQ(unweight_decompress_bundle(at("bundle").c_str(), at("restored").c_str(), nullptr, nullptr),
            UNWEIGHT_EXISTS);
  EXPECT_EQ(unweight_decompress_bundle(at("source").c_str(), at("other").c_str(), nullptr, nullptr),
            UNWEIGHT_BAD_BUNDLE);
  EXPECT_EQ(unweight_compress_checkpoint(at("none").c_str(), at("other").c_str(), nullptr, nullptr),
            UNWEIGHT_NOT_FOUND);
  test::write_file(at("source") + "/extra", "1");
  EXPECT_EQ(unweight_verify_bundle(at("bundle").c_str(), at("source").c_str(), nullptr, nullptr),
            UNWEIGHT_NOT_IDENTICAL);
}

TEST_F(CCheckpoints, SharesAndTranscoding) {
  auto options = sized<unweight_compress_options>();
  auto report = sized<unweight_compress_report>();
  options.shard_count = 2;
  for (options.shard_index = 0; options.shard_index < 2; ++options.shard_index) {
    ASSERT_EQ(unweight_compress_checkpoint(at("source").c_str(), at("shared").c_str(), &options, &report), UNWEIGHT_OK)
        << unweight_last_error_message();
    EXPECT_EQ(report.finished, 0U);
  }
  options.shard_index = 0;
  ASSERT_EQ(unweight_finish_compress(at("source").c_str(), at("shared").c_str(), &options, &report), UNWEIGHT_OK)
      << unweight_last_error_message();
  EXPECT_EQ(report.finished, 1U);
  ASSERT_TRUE(compress_checkpoint(at("source"), at("bundle")));
  EXPECT_EQ(difference(read_tree(at("shared")), read_tree(at("bundle"))), "");

  options = sized<unweight_compress_options>();
  options.profile = UNWEIGHT_PROFILE_DISTRIBUTION;
  ASSERT_EQ(unweight_transcode_bundle(at("bundle").c_str(), at("small").c_str(), &options, &report), UNWEIGHT_OK)
      << unweight_last_error_message();
  EXPECT_EQ(report.profile, UNWEIGHT_PROFILE_DISTRIBUTION);
  ASSERT_EQ(unweight_verify_bundle(at("small").c_str(), at("source").c_str(), nullptr, nullptr), UNWEIGHT_OK);
  EXPECT_EQ(unweight_transcode_bundle(at("small").c_str(), at("again").c_str(), &options, nullptr),
            UNWEIGHT_INVALID_ARGUMENT);
  options.shard_count = 2;
  expect_refused(unweight_transcode_bundle(at("bundle").c_str(), at("again").c_str(), &options, nullptr),
                 "shard_count = 2");
}

TEST_F(CCheckpoints, CancelledAndContinued) {
  Seen seen;
  seen.stop_after = 1;
  auto options = sized<unweight_compress_options>();
  options.progress = on_progress;
  options.user_data = &seen;
  EXPECT_EQ(unweight_compress_checkpoint(at("source").c_str(), at("bundle").c_str(), &options, nullptr),
            UNWEIGHT_CANCELLED);
  EXPECT_FALSE(fs::exists(at("bundle")));
  options.progress = nullptr;
  ASSERT_EQ(unweight_compress_checkpoint(at("source").c_str(), at("bundle").c_str(), &options, nullptr), UNWEIGHT_OK);
}

TEST_F(CCheckpoints, Inspection) {
  ASSERT_TRUE(compress_checkpoint(at("source"), at("bundle")));
  for (const char* name : {"source", "bundle"}) {
    const auto expected = inspect_path(at(name));
    ASSERT_TRUE(expected);
    unweight_inspection* inspection = nullptr;
    ASSERT_EQ(unweight_inspect_path(at(name).c_str(), nullptr, &inspection), UNWEIGHT_OK)
        << unweight_last_error_message();
    auto summary = sized<unweight_inspect_summary>();
    ASSERT_EQ(unweight_inspection_summary(inspection, &summary), UNWEIGHT_OK);
    EXPECT_EQ(summary.tensors, expected->tensors.size());
    EXPECT_EQ(summary.is_bundle, expected->is_bundle ? 1U : 0U);
    EXPECT_EQ(summary.source_bytes, expected->source_bytes);
    EXPECT_EQ(summary.stored_bytes, expected->stored_bytes);
    for (std::size_t i = 0; i < expected->tensors.size(); ++i) {
      const TensorReport& wanted = expected->tensors[i];
      auto tensor = sized<unweight_tensor_report>();
      ASSERT_EQ(unweight_inspection_tensor(inspection, i, &tensor), UNWEIGHT_OK);
      EXPECT_EQ(tensor.file, wanted.file);
      EXPECT_EQ(tensor.name, wanted.name);
      EXPECT_EQ(std::string(tensor.dtype), dtype_name(wanted.dtype));
      EXPECT_EQ(std::vector(tensor.shape, tensor.shape + tensor.rank), wanted.shape);
      EXPECT_EQ(tensor.alias_of, wanted.alias_of);
      EXPECT_EQ(tensor.source_bytes, wanted.source_bytes);
      EXPECT_EQ(tensor.stored_bytes, wanted.stored_bytes);
      EXPECT_EQ(tensor.exception_count, wanted.exception_count);
      EXPECT_EQ(tensor.bits_per_weight, wanted.bits_per_weight);
      EXPECT_EQ(tensor.exponent_entropy_bits, wanted.exponent_entropy_bits);
      EXPECT_EQ(tensor.stored, static_cast<std::uint32_t>(wanted.stored));
      EXPECT_EQ(tensor.palette_count, wanted.palette_count);
    }
    auto tensor = sized<unweight_tensor_report>();
    expect_refused(unweight_inspection_tensor(inspection, summary.tensors, &tensor), "below the number of tensors");
    tensor.struct_size = 103;
    expect_refused(unweight_inspection_tensor(inspection, 0, &tensor), "struct_size = 103");
    summary.struct_size = 39;
    expect_refused(unweight_inspection_summary(inspection, &summary), "struct_size = 39");
    unweight_inspection_destroy(inspection);
  }
  auto options = sized<unweight_inspect_options>();
  options.headers_only = 1;
  unweight_inspection* inspection = nullptr;
  ASSERT_EQ(unweight_inspect_path(at("bundle").c_str(), &options, &inspection), UNWEIGHT_OK);
  auto tensor = sized<unweight_tensor_report>();
  ASSERT_EQ(unweight_inspection_tensor(inspection, 0, &tensor), UNWEIGHT_OK);
  EXPECT_EQ(tensor.exponent_entropy_bits, 0);
  unweight_inspection_destroy(inspection);
  unweight_inspection_destroy(nullptr);
}

TEST_F(CCheckpoints, RefusesBadArguments) {
  const std::string source = at("source"), out = at("out");
  auto options = sized<unweight_compress_options>();
  auto report = sized<unweight_compress_report>();
  expect_refused(unweight_compress_checkpoint(nullptr, out.c_str(), nullptr, nullptr), "source is NULL");
  expect_refused(unweight_compress_checkpoint(source.c_str(), "", nullptr, nullptr), "out is empty");
  expect_refused(unweight_transcode_bundle(nullptr, out.c_str(), nullptr, nullptr), "bundle is NULL");
  expect_refused(unweight_finish_compress("", out.c_str(), nullptr, nullptr), "source is empty");
  report.struct_size = 111;
  expect_refused(unweight_compress_checkpoint(source.c_str(), out.c_str(), nullptr, &report), "struct_size = 111");
  options.struct_size = 55;
  expect_refused(unweight_compress_checkpoint(source.c_str(), out.c_str(), &options, nullptr), "struct_size = 55");
  options = sized<unweight_compress_options>();
  options.profile = 2;
  expect_refused(unweight_compress_checkpoint(source.c_str(), out.c_str(), &options, nullptr), "profile = 2");
  options.profile = 0;
  options.no_verify = 2;
  expect_refused(unweight_compress_checkpoint(source.c_str(), out.c_str(), &options, nullptr), "no_verify = 2");
  options.no_verify = 0;
  options.reserved = 1;
  expect_refused(unweight_compress_checkpoint(source.c_str(), out.c_str(), &options, nullptr), "reserved = 1");
  options.reserved = 0;
  options.shard_index = 3;
  EXPECT_EQ(unweight_compress_checkpoint(source.c_str(), out.c_str(), &options, nullptr), UNWEIGHT_INVALID_ARGUMENT);

  expect_refused(unweight_decompress_bundle(nullptr, out.c_str(), nullptr, nullptr), "bundle is NULL");
  expect_refused(unweight_verify_bundle(source.c_str(), "", nullptr, nullptr), "against is empty");
  auto restore = sized<unweight_restore_options>();
  restore.reserved = 4;
  expect_refused(unweight_verify_bundle(source.c_str(), nullptr, &restore, nullptr), "reserved = 4");
  auto restored = sized<unweight_restore_report>();
  restored.struct_size = 47;
  expect_refused(unweight_decompress_bundle(source.c_str(), out.c_str(), nullptr, &restored), "struct_size = 47");

  unweight_inspection* inspection = nullptr;
  expect_refused(unweight_inspect_path(source.c_str(), nullptr, nullptr), "inspection is NULL");
  expect_refused(unweight_inspect_path(nullptr, nullptr, &inspection), "path is NULL");
  auto look = sized<unweight_inspect_options>();
  look.headers_only = 5;
  expect_refused(unweight_inspect_path(source.c_str(), &look, &inspection), "headers_only = 5");
  EXPECT_EQ(inspection, nullptr);
  auto summary = sized<unweight_inspect_summary>();
  expect_refused(unweight_inspection_summary(nullptr, &summary), "inspection is NULL");
  EXPECT_FALSE(fs::exists(out));
}

/// Callers of the first release, compiled with smaller structures than a later one has, and of a later one.
TEST_F(CCheckpoints, StructuresGrow) {
  struct Later {
    unweight_compress_options known;
    std::uint64_t unknown;
  } later{sized<unweight_compress_options>(), 0};
  later.known.struct_size = sizeof later;
  struct LaterReport {
    unweight_compress_report known;
    std::uint64_t unknown;
  } report{sized<unweight_compress_report>(), 77};
  report.known.struct_size = sizeof report;
  later.unknown = 1;
  expect_refused(unweight_compress_checkpoint(at("source").c_str(), at("bundle").c_str(), &later.known, nullptr),
                 "options");
  later.unknown = 0;
  ASSERT_EQ(unweight_compress_checkpoint(at("source").c_str(), at("bundle").c_str(), &later.known, &report.known),
            UNWEIGHT_OK)
      << unweight_last_error_message();
  EXPECT_EQ(report.known.struct_size, sizeof report.known);
  EXPECT_EQ(report.unknown, 77U);
}

}  // namespace
}  // namespace unweight
