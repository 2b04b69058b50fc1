// SPDX-License-Identifier: Apache-2.0
//
// The synthetic checkpoints: the recipe's statistics, the same bytes everywhere, and the files of the real models.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <codec/checksum.hpp>
#include <filesystem>
#include <gtest/gtest.h>
#include <io/sha256.hpp>
#include <io/synth_plan.hpp>
#include <string>
#include <support/checkpoints.hpp>
#include <unweight/checkpoint.hpp>
#include <vector>

namespace unweight::io {
namespace {

namespace fs = std::filesystem;

std::vector<std::uint16_t> make_values(SynthRecipe recipe, std::uint64_t cols, std::uint64_t count) {
  std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
  synth_values(synth_tensor_key(1, "model.layers.0.mlp.gate_proj.weight"), recipe, cols, 0, values);
  return values;
}

double to_double(std::uint16_t bf16) {
  return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bf16) << 16));
}

struct Moments {
  double mean = 0;
  double deviation = 0;
  double kurtosis = 0;
};

Moments moments_of(const std::vector<std::uint16_t>& values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0;
  for (const std::uint16_t value : values) mean += to_double(value) / n;
  double second = 0;
  double fourth = 0;
  for (const std::uint16_t value : values) {
    const double square = (to_double(value) - mean) * (to_double(value) - mean);
    second += square / n;
    fourth += square * square / n;
  }
  return {mean, std::sqrt(second), fourth / (second * second)};
}

TEST(SynthValues, HaveTheExponentsOfTheRecipe) {
  const auto values = make_values(SynthRecipe::kMatrix, 1024, 4096 * 1024);
  std::array<double, 256> histogram{};
  for (const std::uint16_t value : values) ++histogram[(value >> 7) & 0xff];
  double entropy = 0;
  for (double& count : histogram) {
    count /= static_cast<double>(values.size());
    if (count > 0) entropy -= count * std::log2(count);
  }
  std::ranges::sort(histogram, std::greater<>());
  EXPECT_NEAR(entropy, 2.66, 0.02);
  double top7 = 0;
  for (std::size_t i = 0; i < 7; ++i) top7 += histogram[i];
  EXPECT_NEAR(top7, 0.964, 0.002);
}

TEST(SynthValues, AreNormal) {
  const Moments bias = moments_of(make_values(SynthRecipe::kBias, 1, 1 << 20));
  EXPECT_NEAR(bias.mean, 0, 1e-4);
  EXPECT_NEAR(bias.deviation, 0.02, 1e-4);
  EXPECT_NEAR(bias.kurtosis, 3, 0.03);
  const Moments norm = moments_of(make_values(SynthRecipe::kNorm, 1, 1 << 20));
  EXPECT_NEAR(norm.mean, 1, 1e-3);
  EXPECT_NEAR(norm.deviation, 0.1, 1e-3);
}

TEST(SynthValues, RowsHaveTheirSigma) {
  constexpr std::uint64_t kCols = 1 << 16;
  const std::uint64_t key = synth_tensor_key(1, "w");
  double log_mean = 0;
  double log_square = 0;
  constexpr int kRows = 4096;
  for (std::uint64_t row = 0; row < kRows; ++row) {
    const double n = 2 * std::log2(static_cast<double>(synth_row_sigma(key, row)) / 0.02);
    log_mean += n / kRows;
    log_square += n * n / kRows;
  }
  EXPECT_NEAR(log_mean, 0, 0.06);
  EXPECT_NEAR(log_square, 1, 0.08);
  for (const std::uint64_t row : {std::uint64_t{0}, std::uint64_t{7}}) {
    std::vector<std::uint16_t> values(kCols);
    synth_values(key, SynthRecipe::kMatrix, kCols, row * kCols, values);
    const auto sigma = static_cast<double>(synth_row_sigma(key, row));
    EXPECT_NEAR(moments_of(values).deviation / sigma, 1, 0.015) << "row " << row;
  }
}

// Guards against anything that makes the values depend on compiler, flags or machine: the bytes are fixed for ever.
TEST(SynthValues, AreTheSameOnEveryMachine) {
  const auto checksum = [](const std::vector<std::uint16_t>& values) {
    return codec::xxh3(std::as_bytes(std::span(values)));
  };
  EXPECT_EQ(checksum(make_values(SynthRecipe::kMatrix, 999, 999 * 999)), 2847072073887653781U);
  EXPECT_EQ(checksum(make_values(SynthRecipe::kNorm, 1, 4096)), 6968566395938620810U);
  EXPECT_EQ(checksum(make_values(SynthRecipe::kBias, 1, 4096)), 11313844341269897298U);
}

TEST(SynthValues, AnyPartIsAPartOfTheWhole) {
  constexpr std::uint64_t kCols = 37;
  const auto whole = make_values(SynthRecipe::kMatrix, kCols, kCols * 11);
  const std::uint64_t key = synth_tensor_key(1, "model.layers.0.mlp.gate_proj.weight");
  for (std::size_t begin = 0; begin < whole.size(); ++begin) {
    for (std::size_t count = 0; count <= whole.size() - begin; count += 1 + count / 3) {
      std::vector<std::uint16_t> part(count);
      synth_values(key, SynthRecipe::kMatrix, kCols, begin, part);
      ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(begin)))
          << begin << " + " << count;
    }
  }
}

TEST(SynthValues, DependOnSeedAndName) {
  EXPECT_NE(synth_tensor_key(1, "a"), synth_tensor_key(2, "a"));
  EXPECT_NE(synth_tensor_key(1, "a"), synth_tensor_key(1, "b"));
  EXPECT_NE(synth_tensor_key(1, "ab"), synth_tensor_key(1, "ba"));
  EXPECT_NE(synth_tensor_key(1, ""), synth_tensor_key(1, std::string(1, '\0')));
}

SynthPlan plan_of(std::string_view name) {
  const auto models = synth_model_table();
  const auto model = std::ranges::find(models, name, &SynthModel::name);
  EXPECT_NE(model, models.end()) << name;
  return make_synth_plan(*model);
}

std::uint64_t parameters_of(const SynthPlan& plan) {
  std::uint64_t bytes = 0;
  for (const SynthFile& file : plan.weights) {
    for (const SynthTensor& tensor : file.tensors) bytes += tensor.entry.size_bytes();
  }
  return bytes / 2;
}

std::string text_hash(const SynthPlan& plan, std::string_view path) {
  for (const auto& [name, text] : plan.texts) {
    if (name == path) return sha256_of(std::as_bytes(std::span(text))).value_or("no hash");
  }
  return "missing";
}

struct PublishedModel {
  std::string_view name;
  std::size_t tensors;
  std::uint64_t parameters;  ///< stored ones
  std::size_t files;
  std::vector<std::uint64_t> first_file_sizes;
  std::string_view index_sha256;   ///< empty: not compared
  std::string_view config_sha256;  ///< empty: not compared
};

// Sizes and hashes of the published files.
TEST(SynthModels, FilesAreThoseOfThePublishedCheckpoints) {
  const std::vector<PublishedModel> published = {
      {"llama-3.1-8b",
       291,
       8'030'261'248,
       4,
       {4976698672, 4999802720, 4915916176, 1168138808},
       "146776fce3f6db1103aa6f249e65ee5544c5923ce6f971b092eee79aa6e5d37b",
       ""},
      {"llama-3.1-70b", 723, 70'553'706'496, 30, {4584408808, 4664167376, 4999711704}, "", ""},
      {"mistral-7b-v0.3",
       291,
       7'248'023'552,
       3,
       {4949453792, 4999819336, 4546807800},
       "e489ba553b87cde188d921b1a8283c2e0b9d33d635b88147d96ff0fcd6250016",
       "affafc6478ec0fd07a32f0ca57aa2fc57743f4d17d6730f86a96ac24d1507f99"},
      {"qwen2.5-7b", 339, 7'615'616'512, 4, {3945441440, 3864726352, 3864726424, 3556377672}, "", ""},
      {"qwen3-0.6b",
       311,
       751'632'384,
       1,
       {1503300328},
       "",
       "660db3b73d788119c04535e48cf9be5f55bc3100841a718637ae695b442f27dd"},
      {"gemma-2-2b-it", 288, 2'614'341'888, 2, {4988025760, 240691728}, "", ""},
  };
  for (const PublishedModel& expected : published) {
    SCOPED_TRACE(expected.name);
    const SynthPlan plan = plan_of(expected.name);
    std::size_t tensors = 0;
    for (const SynthFile& file : plan.weights) tensors += file.tensors.size();
    EXPECT_EQ(tensors, expected.tensors);
    EXPECT_EQ(parameters_of(plan), expected.parameters);
    ASSERT_EQ(plan.weights.size(), expected.files);
    for (std::size_t i = 0; i < expected.first_file_sizes.size(); ++i) {
      EXPECT_EQ(plan.weights[i].size_bytes(), expected.first_file_sizes[i]) << plan.weights[i].path;
    }
    if (!expected.index_sha256.empty()) {
      EXPECT_EQ(text_hash(plan, "model.safetensors.index.json"), expected.index_sha256);
    }
    if (!expected.config_sha256.empty()) {
      EXPECT_EQ(text_hash(plan, "config.json"), expected.config_sha256);
    }
  }
}

TEST(SynthModels, HeadersParse) {
  for (const SynthModel& model : synth_model_table()) {
    for (const SynthFile& file : make_synth_plan(model).weights) {
      const auto header = parse_safetensors_header(std::string_view(file.header).substr(8), file.size_bytes());
      ASSERT_TRUE(header) << model.name << " " << file.path << ": " << header.error().message;
      EXPECT_EQ(header->tensors.size(), file.tensors.size());
      EXPECT_EQ(header->data_begin % 8, 0U);
    }
  }
}

TEST(SynthModels, TiedHeadIsADuplicateOfTheEmbedding) {
  const SynthPlan plan = plan_of("qwen3-0.6b");
  const auto& tensors = plan.weights.front().tensors;
  const auto head = std::ranges::find(tensors, "lm_head.weight", [](const auto& t) { return t.entry.name; });
  ASSERT_NE(head, tensors.end());
  EXPECT_EQ(head->values_of, "model.embed_tokens.weight");
}

SynthOptions tiny(std::uint64_t seed = 1, unsigned threads = 1) {
  SynthOptions options;
  options.model = "tiny-llama-test";
  options.seed = seed;
  options.threads = threads;
  return options;
}

TEST(SynthCheckpoint, IsTheSameForAnyNumberOfThreads) {
  const test::TempFolder folder;
  const auto report = synth_checkpoint(folder / "a", tiny(1, 1));
  ASSERT_TRUE(report) << report.error().message;
  ASSERT_TRUE(synth_checkpoint(folder / "b/", tiny(1, 5)));
  ASSERT_TRUE(synth_checkpoint(folder / "c", tiny(2, 2)));
  const auto a = test::read_tree(folder / "a");
  EXPECT_EQ(a, test::read_tree(folder / "b"));
  EXPECT_NE(a, test::read_tree(folder / "c"));
  EXPECT_EQ(report->files, a.size());
  std::uint64_t bytes = 0;
  for (const auto& [name, text] : a) bytes += text.size();
  EXPECT_EQ(report->bytes, bytes);
  EXPECT_EQ(report->tensors, 21U);
  EXPECT_FALSE(fs::exists(folder / "a.partial"));
}

TEST(SynthCheckpoint, RefusesAnExistingOutput) {
  const test::TempFolder folder;
  test::write_file(folder / "file", "kept");
  const auto report = synth_checkpoint(folder / "file", tiny());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kExists);
  EXPECT_EQ(test::read_file(folder / "file"), "kept");
}

TEST(SynthCheckpoint, RefusesAWorkFolderOfSomethingElse) {
  const test::TempFolder folder;
  test::write_file(folder / "out.partial" / "precious", "kept");
  const auto report = synth_checkpoint(folder / "out", tiny());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kExists);
  EXPECT_NE(report.error().message.find("precious"), std::string::npos) << report.error().message;
  EXPECT_EQ(test::read_file(folder / "out.partial" / "precious"), "kept");
}

TEST(SynthCheckpoint, ReplacesWhatAnInterruptedRunLeft) {
  const test::TempFolder folder;
  ASSERT_TRUE(synth_checkpoint(folder / "whole", tiny()));
  test::write_file(folder / "out.partial" / "config.json", std::string(100'000, 'x'));
  ASSERT_TRUE(synth_checkpoint(folder / "out", tiny()));
  EXPECT_EQ(test::read_tree(folder / "out"), test::read_tree(folder / "whole"));
}

TEST(SynthCheckpoint, StopsWhenTheCallbackSaysSo) {
  const test::TempFolder folder;
  SynthOptions options = tiny();
  options.progress = [](const Progress&) { return false; };
  const auto report = synth_checkpoint(folder / "out", options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(SynthCheckpoint, TellsTheWholeAtTheEnd) {
  const test::TempFolder folder;
  SynthOptions options = tiny();
  Progress last;
  options.progress = [&](const Progress& progress) {
    EXPECT_LE(progress.bytes_done, progress.bytes_total);
    last = progress;
    return true;
  };
  const auto report = synth_checkpoint(folder / "out", options);
  ASSERT_TRUE(report);
  EXPECT_EQ(last.bytes_done, report->bytes);
  EXPECT_EQ(last.bytes_total, report->bytes);
  EXPECT_EQ(last.tensors_done, report->tensors);
}

TEST(SynthCheckpoint, NamesTheKnownModels) {
  const test::TempFolder folder;
  SynthOptions options;
  options.model = "llama-9";
  const auto report = synth_checkpoint(folder / "out", options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(report.error().message.find("llama-3.1-8b"), std::string::npos);
}

TEST(SynthCheckpoint, ReportsAMissingParentFolder) {
  const test::TempFolder folder;
  const auto report = synth_checkpoint(folder / "no" / "such" / "out", tiny());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace unweight::io
