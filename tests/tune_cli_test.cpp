// SPDX-License-Identifier: Apache-2.0
//
// `unweight tune` and `unweight plan` as their users run them. What needs a GPU is played by a script in its place,
// which gives the plan of a simulated device.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <simdjson.h>
#include <sstream>
#include <string>
#include <support/checkpoints.hpp>
#include <support/markup.hpp>
#include <support/process.hpp>
#include <support/simulated_bench.hpp>
#include <unweight/checkpoint.hpp>
#include <unweight/plan.hpp>
#include <unweight/tune.hpp>
#include <vector>

namespace unweight::test {
namespace {

namespace fs = std::filesystem;

// ---- which matrices a model has -------------------------------------------------------------------------------------

const PlanMatrices& kind_of(const ModelMatrices& model, const std::string& kind) {
  const auto found = std::ranges::find(model.matrices, kind, &PlanMatrices::kind);
  EXPECT_NE(found, model.matrices.end()) << kind;
  return *found;
}

TEST(ModelMatrices, OfAKnownModel) {
  const auto model = known_model_matrices("llama-3.1-8b", Merging::kMerged);
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_EQ(model->matrices.size(), 5U);
  const auto expect = [&](const char* kind, std::uint64_t rows, std::uint64_t cols, std::size_t count) {
    const PlanMatrices& found = kind_of(*model, kind);
    EXPECT_EQ(found.rows, rows) << kind;
    EXPECT_EQ(found.cols, cols) << kind;
    EXPECT_EQ(found.names.size(), count) << kind;
    EXPECT_EQ(found.exceptions, ExceptionClass::kUsual);
    EXPECT_NEAR(static_cast<double>(found.compressed_bytes) / static_cast<double>(rows * cols), 11.25 / 8, 0.001);
  };
  expect("qkv_proj", 6144, 4096, 32);
  expect("o_proj", 4096, 4096, 32);
  expect("gate_up_proj", 28672, 4096, 32);
  expect("down_proj", 4096, 14336, 32);
  expect("lm_head", 128256, 4096, 1);
  EXPECT_EQ(kind_of(*model, "qkv_proj").names[7], "model.layers.7.self_attn.qkv_proj.weight");
  EXPECT_EQ(model->kv_bytes_per_token, 32U * 2 * 8 * 128 * 2);
  EXPECT_GE(model->other_bytes, 2U * 128256 * 4096);  // the embedding
  EXPECT_EQ(weight_classes(*model).size(), 5U);
  const auto separate = known_model_matrices("llama-3.1-8b", Merging::kSeparate);
  EXPECT_EQ(kind_of(*separate, "k_proj").rows, 1024U);
  EXPECT_EQ(kind_of(*separate, "up_proj").rows, 14336U);
  EXPECT_EQ(weight_classes(*separate).size(), 5U);
  const auto unknown = known_model_matrices("llama-9", Merging::kMerged);
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("qwen3-0.6b"), std::string::npos);
}

TEST(ModelMatrices, AnEmbeddingThatServesAsOutputMultiplies) {
  const auto model = known_model_matrices("qwen3-0.6b", Merging::kMerged);
  ASSERT_TRUE(model);
  EXPECT_EQ(kind_of(*model, "lm_head").rows, 151936U);  // stored as a duplicate
  const auto gemma = known_model_matrices("gemma-2-2b-it", Merging::kMerged);
  EXPECT_EQ(kind_of(*gemma, "embed_tokens").rows, 256000U);  // not stored
  EXPECT_GE(gemma->other_bytes, 2U * 256000 * 2304);         // and still looked up
}

TEST(ModelMatrices, OfCheckpointsAndBundles) {
  const TempFolder folder;
  ASSERT_TRUE(synth_checkpoint(folder / "model", {.model = "tiny-llama-test"}));
  ASSERT_TRUE(compress_checkpoint(folder / "model", folder / "bundle"));
  const auto plain = model_matrices(folder / "model", Merging::kMerged);
  ASSERT_TRUE(plain) << plain.error().message;
  const auto bundle = model_matrices(folder / "bundle", Merging::kMerged);
  ASSERT_TRUE(bundle) << bundle.error().message;
  ASSERT_EQ(plain->matrices.size(), bundle->matrices.size());
  for (std::size_t i = 0; i < plain->matrices.size(); ++i) {
    const PlanMatrices &a = plain->matrices[i], &b = bundle->matrices[i];
    EXPECT_EQ(a.names, b.names);
    EXPECT_EQ(a.rows, b.rows);
    EXPECT_EQ(a.raw_bytes, b.raw_bytes);
    EXPECT_EQ(b.exceptions, ExceptionClass::kUsual);
    // Small blobs have their padding; the estimate is for large ones.
    EXPECT_NEAR(static_cast<double>(b.compressed_bytes) / static_cast<double>(a.compressed_bytes), 1, 0.05) << a.kind;
  }
  EXPECT_EQ(plain->kv_bytes_per_token, known_model_matrices("tiny-llama-test", Merging::kMerged)->kv_bytes_per_token);
  EXPECT_GT(plain->kv_bytes_per_token, 0U);
  ASSERT_TRUE(compress_checkpoint(folder / "model", folder / "small", {.profile = Profile::kDistribution}));
  const auto small = model_matrices(folder / "small", Merging::kMerged);
  ASSERT_FALSE(small);
  EXPECT_NE(small.error().message.find("transcode"), std::string::npos);
  EXPECT_EQ(model_matrices(folder / "none", Merging::kMerged).error().code, ErrorCode::kNotFound);
}

TEST(ModelMatrices, MergesOnlyWhatFits) {
  const TempFolder folder;
  write_file(folder / "x.safetensors",
             make_safetensors({bf16_tensor("l.0.q_proj.weight", {128, 64}, Filling::kTrained, 1),
                               bf16_tensor("l.0.k_proj.weight", {64, 64}, Filling::kTrained, 2),
                               bf16_tensor("l.0.v_proj.weight", {64, 128}, Filling::kTrained, 3),
                               bf16_tensor("l.1.gate_proj.weight", {128, 64}, Filling::kTrained, 4),
                               bf16_tensor("experts.w", {3, 64, 64}, Filling::kTrained, 5),
                               bf16_tensor("norm.weight", {64}, Filling::kTrained, 6)}));
  const auto model = model_matrices(folder / "x.safetensors", Merging::kMerged);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(kind_of(*model, "qkv_proj").rows, 192U);
  EXPECT_EQ(kind_of(*model, "v_proj").cols, 128U);     // of another width
  EXPECT_EQ(kind_of(*model, "gate_proj").rows, 128U);  // alone
  EXPECT_EQ(kind_of(*model, "w").names, (std::vector<std::string>{"experts.w[0]", "experts.w[1]", "experts.w[2]"}));
  EXPECT_EQ(model->other_bytes, 128U);
  EXPECT_EQ(model->kv_bytes_per_token, 0U);
}

// ---- the commands ---------------------------------------------------------------------------------------------------

class TuneCli : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(write_plan(simulated_plan(), folder_ / "plan.json"));
    MemoryOptions memory;
    memory.objective = Objective::kMemory;
    ASSERT_TRUE(write_plan(simulated_plan(memory, {.seed = 2, .cublas_us_factor = 0.5}), folder_ / "other.json"));
  }

  [[nodiscard]] ProcessOutcome run(std::vector<std::string> arguments,
                                   const fs::path& program = UNWEIGHT_CLI_PATH) const {
    return run_process({program.native(), std::move(arguments), folder_.path(), {}, {}, -1});
  }

  std::string succeed(std::vector<std::string> arguments) const {
    const ProcessOutcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  }

  [[nodiscard]] simdjson::dom::element parse(const std::string& text) {
    EXPECT_EQ(std::ranges::count(text, '\n'), 1) << "not one line";
    simdjson::dom::element document;
    EXPECT_EQ(parser_.parse(text).get(document), simdjson::SUCCESS) << text;
    return document;
  }

  /// The tool's copy in a place of its own, with a script in the place of tune_device.
  [[nodiscard]] fs::path tool_with_device(const std::string& script) const {
    const fs::path bin = folder_ / "bin", libexec = folder_ / "libexec/unweight";
    fs::create_directories(bin);
    fs::create_directories(libexec);
    fs::copy_file(UNWEIGHT_CLI_PATH, bin / "unweight", fs::copy_options::overwrite_existing);
    std::ofstream(libexec / "tune_device") << "#!/bin/sh\n" << script;
    fs::permissions(libexec / "tune_device", fs::perms::owner_all);
    return bin / "unweight";
  }

  TempFolder folder_;
  simdjson::dom::parser parser_;
};

void expect_one_line(const ProcessOutcome& outcome, int exit_code, std::string_view part) {
  EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("unweight: ")) << outcome.err;
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
}

/// Copies the file after --out from plan.json, and notes its arguments.
constexpr char kWorkingDevice[] = R"sh(
printf '%s\n' "$@" > arguments
while [ "$1" != --out ]; do shift; done
cp plan.json "$2"
echo "progress 1 2 4096 x 4096, tiled"
echo "warning no time was left"
echo "refusal strips=3"
echo "summary 12.5 345 67"
)sh";

TEST_F(TuneCli, RefusesWrongArgumentsWithOneLineAndExitCode1) {
  struct Case {
    std::vector<std::string> arguments;
    const char* part;
  };
  const std::vector<Case> cases = {
      {{"tune", "-o", "x"}, "one of MODEL, --known-model and --shapes"},
      {{"tune", "m", "--shapes", "64x64", "-o", "x"}, "exclude each other"},
      {{"tune", "m"}, "--output is required"},
      {{"tune", "--shapes", "64", "-o", "x"}, "--shapes 64 is not ROWSxCOLS"},
      {{"tune", "--shapes", "64x64:0", "-o", "x"}, "--shapes 64x64:0"},
      {{"tune", "--shapes", "0x64", "-o", "x"}, "--shapes 0x64"},
      {{"tune", "--shapes", "64x64", "--batch-sizes", "0", "-o", "x"}, "--batch-sizes"},
      {{"tune", "--shapes", "64x64", "--tokens", "65537", "-o", "x"}, "--tokens"},
      {{"tune", "--shapes", "64x64", "--objective", "speed", "-o", "x"}, "none of latency, memory, balanced"},
      {{"tune", "--shapes", "64x64", "--memory-budget", "24G", "-o", "x"}, "24G is not a size"},
      {{"tune", "--shapes", "64x64", "--memory-budget", "-1GB", "-o", "x"}, "-1GB is not a size"},
      {{"tune", "--shapes", "64x64", "--seconds", "-1", "-o", "x"}, "--seconds"},
      {{"tune", "--shapes", "64x64", "-o", "x", "--report", "x.txt"}, ".html"},
      {{"tune", "--known-model", "llama-9", "-o", "x"}, "llama-3.1-8b"},
      {{"plan"}, "ACTION is required"},
      {{"plan", "dance", "plan.json"}, "none of show, explain, diff, table"},
      {{"plan", "show"}, "PLAN is required"},
      {{"plan", "diff", "plan.json"}, "OTHER is required"},
      {{"plan", "show", "plan.json", "other.json"}, "OTHER is for diff"},
      {{"plan", "explain", "plan.json"}, "--shape is required"},
      {{"plan", "explain", "plan.json", "--shape", "64x64:2"}, "64x64:2 is not ROWSxCOLS"},
      {{"plan", "show", "plan.json", "--tokens", "3"}, "are for explain"},
      {{"plan", "table", "plan.json", "--report", "x.html"}, "--report is for show"},
  };
  for (const Case& test : cases) expect_one_line(run(test.arguments), 1, test.part);
}

TEST_F(TuneCli, WithoutADeviceThereIsExitCode3) {
  const fs::path tool = tool_with_device(kWorkingDevice);
  fs::remove(folder_ / "libexec/unweight/tune_device");
  expect_one_line(run({"tune", "--shapes", "4096x4096", "-o", "x.json"}, tool), 3, "built without its CUDA part");
  const fs::path broken = tool_with_device("echo 'error 50 device: no driver'; exit 3\n");
  expect_one_line(run({"tune", "--shapes", "4096x4096", "-o", "x.json"}, broken), 3, "device: no driver");
  const fs::path silent = tool_with_device("exit 3\n");
  expect_one_line(run({"tune", "--shapes", "4096x4096", "-o", "x.json"}, silent), 3, "ended with status 3");
  const fs::path killed = tool_with_device("kill -9 $$\n");
  expect_one_line(run({"tune", "--shapes", "4096x4096", "-o", "x.json"}, killed), 2, "ended with status 137");
  const fs::path wrong = tool_with_device("echo 'error 34 a kernel is wrong'; exit 2\n");
  expect_one_line(run({"tune", "--shapes", "4096x4096", "-o", "x.json"}, wrong), 2, "a kernel is wrong");
  EXPECT_FALSE(fs::exists(folder_ / "x.json"));
  for (const auto& entry : fs::directory_iterator(folder_.path())) {
    EXPECT_EQ(entry.path().native().find("measured"), std::string::npos) << entry.path();
  }
}

TEST_F(TuneCli, MeasuresDecidesAndWrites) {
  const fs::path tool = tool_with_device(kWorkingDevice);
  const ProcessOutcome outcome = run({"tune", "--shapes", "4096x4096:3,4096x14336:3", "--batch-sizes", "1,24",
                                      "--tokens", "1,2,64", "--seconds", "7", "-o", "new.json", "--report", "new.html"},
                                     tool);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("warning: no time was left"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.out.find("345 candidates timed, 67 refused"), std::string::npos) << outcome.out;
  const std::string arguments = read_file(folder_ / "arguments");
  for (const char* part : {"--weights\n4096x4096:usual,4096x14336:usual\n", "--tokens\n1,2,64,1,24\n", "--seconds\n7\n",
                           "--command\nunweight tune --shapes 4096x4096:3"}) {
    EXPECT_NE(arguments.find(part), std::string::npos) << arguments;
  }
  EXPECT_EQ(arguments.find("--incumbent"), std::string::npos);
  const auto plan = read_plan(folder_ / "new.json");
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->request.batch_sizes, (std::vector<std::uint32_t>{1, 24}));
  EXPECT_EQ(plan->matrices[0].names.size(), 3U);
  EXPECT_EQ(markup_error(read_file(folder_ / "new.html")), "");
  // Again: what is there is the incumbent.
  EXPECT_EQ(run({"tune", "--shapes", "4096x4096,4096x14336", "-q", "-o", "new.json"}, tool).out, "");
  EXPECT_NE(read_file(folder_ / "arguments").find("--incumbent\nnew.json\n"), std::string::npos);
  EXPECT_NE(read_file(folder_ / "arguments").find("--tokens\n1,2,4,8,16,32,64,128,256,512,1024,2048,4096,1,8,32\n"),
            std::string::npos);
  // What is there and is no plan is not overwritten.
  write_file(folder_ / "new.json", "{");
  expect_one_line(run({"tune", "--shapes", "4096x4096", "-o", "new.json"}, tool), 2, "new.json");
  EXPECT_EQ(read_file(folder_ / "new.json"), "{");
}

TEST_F(TuneCli, DecidesFromAPlanWithoutADevice) {
  const std::string text = succeed({"tune", "--from", "plan.json", "--objective", "memory", "-o", "small.json"});
  for (const char* part : {"o_proj", "all raw, cuBLAS", "this plan", "models on GPU", "tokens of KV cache"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(read_plan(folder_ / "small.json")->request.objective, Objective::kMemory);
  const auto json =
      parse(succeed({"tune", "--from", "plan.json", "--json", "--memory-budget", "1.5GiB", "-o", "x.json"}));
  EXPECT_EQ(std::uint64_t(json["memory_budget_bytes"]), 1610612736U);
  EXPECT_EQ(json["kinds"].get_array().size(), 2U);
  EXPECT_GT(std::uint64_t(json["costs"]["chosen"]["matrix_bytes"]), 0U);
  EXPECT_GT(double(json["costs"]["all_cublas"]["us"].at(0)), 0);
  EXPECT_GT(json["cells"].get_array().size(), 40U);
  expect_one_line(run({"tune", "--from", "plan.json", "--memory-budget", "1MB", "-o", "x.json"}), 1,
                  "budget of 1000000");
  expect_one_line(run({"tune", "--from", "none.json", "-o", "x.json"}), 2, "none.json");
  expect_one_line(run({"tune", "--from", "plan.json", "--shapes", "64x64", "-o", "x.json"}), 1, "no entry for 64 x 64");
}

TEST_F(TuneCli, ShowsPlans) {
  const std::string text = succeed({"plan", "show", "plan.json"});
  for (const char* part :
       {"4096 x 14336, tiled", "4096 x 4096, raw", "Simulated GPU, 132 multiprocessors", "balanced"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  const auto json = parse(succeed({"plan", "show", "--json", "plan.json"}));
  EXPECT_EQ(std::string_view(json["gpu"]), "Simulated GPU");
  EXPECT_EQ(std::string_view(json["objective"]), "balanced");
  write_file(folder_ / "bad.json", "{\"unweight_plan\": 1}");
  expect_one_line(run({"plan", "show", "bad.json"}), 2, "'gpu' is missing");
}

TEST_F(TuneCli, ExplainsChoices) {
  const std::string text = succeed({"plan", "explain", "plan.json", "--shape", "4096x4096", "--tokens", "12"});
  EXPECT_NE(text.find("4096 x 4096, tiled, up to 16 tokens, dependent launch; cuBLAS"), std::string::npos) << text;
  EXPECT_NE(text.find("chosen  fused, strips"), std::string::npos) << text;
  const std::string near = succeed({"plan", "explain", "plan.json", "--shape", "4096x4096", "--tokens", "8192"});
  EXPECT_NE(near.find("the nearest cell for 8192 tokens"), std::string::npos) << near;
  const auto json = parse(succeed({"plan", "explain", "--json", "plan.json", "--shape", "4096x4096"}));
  EXPECT_GT(json["choices"].get_array().size(), 100U);
  expect_one_line(run({"plan", "explain", "plan.json", "--shape", "64x64"}), 2, "nothing for 64 x 64");
  expect_one_line(run({"plan", "explain", "plan.json", "--shape", "4096x4096", "--tokens", "65536"}), 2,
                  "65536 tokens");
}

TEST_F(TuneCli, ComparesPlans) {
  EXPECT_EQ(succeed({"plan", "diff", "plan.json", "plan.json"}), "no difference\n");
  const std::string text = succeed({"plan", "diff", "plan.json", "other.json"});
  EXPECT_NE(text.find("objective\n  - balanced\n  + memory\n"), std::string::npos) << text;
  EXPECT_NE(text.find(" us)"), std::string::npos);
  Plan fewer = read_plan(folder_ / "plan.json").value();
  fewer.weights.pop_back();
  ASSERT_TRUE(write_plan(fewer, folder_ / "fewer.json"));
  EXPECT_NE(succeed({"plan", "diff", "plan.json", "fewer.json"}).find("  + nothing\n"), std::string::npos);
  EXPECT_NE(succeed({"plan", "diff", "fewer.json", "plan.json"}).find("  - nothing\n"), std::string::npos);
  EXPECT_GT(parse(succeed({"plan", "diff", "--json", "plan.json", "other.json"}))["differences"].get_array().size(),
            1U);
}

TEST_F(TuneCli, MakesTables) {
  const std::string text = succeed({"plan", "table", "plan.json"});
  EXPECT_EQ(text, plan_table_text(read_plan(folder_ / "plan.json").value()));
  EXPECT_TRUE(text.starts_with("// SPDX-License-Identifier: Apache-2.0\n"));
}

TEST_F(TuneCli, ReportIsASelfContainedWellFormedPage) {
  Plan evil = read_plan(folder_ / "plan.json").value();
  evil.request.model = "<script>alert(1)</script>&\"'\x1b[2J";
  evil.origin.gpu = "<b>\n";
  evil.matrices[0].kind = "</td>&";
  ASSERT_TRUE(write_plan(evil, folder_ / "evil.json"));
  for (const char* name : {"plan", "other", "evil"}) {
    const std::string file = std::string(name) + ".json";
    succeed({"plan", "show", file, "--report", "report.html"});
    const std::string page = read_file(folder_ / "report.html");
    EXPECT_EQ(markup_error(page), "") << name;
    for (const char* outside : {"src=", "href=", "url(", "@import", "https://", "<script"}) {
      EXPECT_EQ(page.find(outside), std::string::npos) << outside;
    }
    EXPECT_NE(page.find("class=\"heat\""), std::string::npos);
    EXPECT_NE(page.find("<small>fused</small>"), std::string::npos);
  }
}

TEST_F(TuneCli, HelpIsCompleteAndItsExamplesWork) {
  const std::string path = "PATH=" + fs::path(UNWEIGHT_CLI_PATH).parent_path().native() + ":" + std::getenv("PATH");
  std::size_t count = 0;
  for (const char* command : {"tune", "plan"}) {
    const std::string help = succeed({command, "--help"});
    for (const std::string& part : {std::string("Usage:\n  unweight ") + command, std::string("Examples:"),
                                    std::string("--json"), std::string("--help")}) {
      EXPECT_NE(help.find(part), std::string::npos) << command << ": " << part;
    }
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(line.size(), 110U) << command << ": " << line;
      if (!line.starts_with("  $ ")) continue;
      const std::string example = line.substr(4);
      const ProcessOutcome outcome = run_process({"sh", {"-c", example}, folder_.path(), {path}, {}, -1});
      EXPECT_EQ(outcome.exit_code, 0) << example << ": " << outcome.err;
      EXPECT_NE(outcome.out, "");
      ++count;
    }
  }
  EXPECT_GE(count, 7U);
}

}  // namespace
}  // namespace unweight::test
