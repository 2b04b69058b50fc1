// SPDX-License-Identifier: Apache-2.0
//
// The command line tool, run as its users run it: results, exit codes, JSON, help and its examples, reports.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <map>
#include <simdjson.h>
#include <sstream>
#include <string>
#include <support/checkpoints.hpp>
#include <support/markup.hpp>
#include <support/process.hpp>
#include <unweight/version.h>
#include <vector>

namespace unweight::test {
namespace {

namespace fs = std::filesystem;

/// Those that share options; `bench` passes all of its arguments on.
constexpr std::array kCommands = {"compress", "finish", "decompress", "verify", "transcode", "inspect", "synth"};

class Cli : public ::testing::Test {
 protected:
  [[nodiscard]] ProcessOutcome run(std::vector<std::string> arguments,
                                   std::vector<std::string> environment = {}) const {
    return run_process({UNWEIGHT_CLI_PATH, std::move(arguments), folder_.path(), std::move(environment), {}, -1});
  }

  /// Runs a command line that must succeed, and returns what it printed.
  std::string succeed(std::vector<std::string> arguments) const {
    const ProcessOutcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << arguments.front() << ": " << outcome.err;
    EXPECT_EQ(outcome.err, "");
    return outcome.out;
  }

  void make_checkpoint(const char* name = "model") const {
    succeed({"synth", "--quiet", "--model", "tiny-llama-test", name});
  }
  void make_bundle() const {
    make_checkpoint();
    succeed({"compress", "--quiet", "model", "bundle"});
  }

  [[nodiscard]] simdjson::dom::element parse(const std::string& text) {
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << "not one line";
    simdjson::dom::element document;
    EXPECT_EQ(parser_.parse(text).get(document), simdjson::SUCCESS) << text;
    return document;
  }

  TempFolder folder_;
  simdjson::dom::parser parser_;
};

void expect_one_line(const ProcessOutcome& outcome, int exit_code, std::string_view part) {
  EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("unweight: ")) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
}

// ---- usage ----------------------------------------------------------------------------------------------------------

TEST_F(Cli, RefusesWrongArgumentsWithOneLineAndExitCode1) {
  struct Case {
    std::vector<std::string> arguments;
    const char* part;
  };
  const std::vector<Case> cases = {
      {{}, "a command is required"},
      {{"squeeze"}, "no command 'squeeze'"},
      {{"--fast"}, "no option '--fast'"},
      {{"compress"}, "SOURCE is required"},
      {{"compress", "a"}, "OUT is required"},
      {{"compress", "a", "b", "c"}, "not expected: c"},
      {{"compress", "--level", "9", "a", "b"}, "--level"},
      {{"compress", "--shard", "2/2", "a", "b"}, "numbered from 0"},
      {{"compress", "--shard", "0/0", "a", "b"}, "numbered from 0"},
      {{"compress", "--shard", "-1/2", "a", "b"}, "numbered from 0"},
      {{"compress", "--shard", "1", "a", "b"}, "i/n"},
      {{"compress", "--shard", "1/2x", "a", "b"}, "i/n"},
      {{"compress", "--shard", "0/65537", "a", "b"}, "65536"},
      {{"compress", "--profile", "small", "a", "b"}, "--profile small"},
      {{"transcode", "a", "b"}, "--profile is required"},
      {{"transcode", "a", "--profile", "runtime"}, "OUT is required"},
      {{"compress", "--threads", "-1", "a", "b"}, "--threads"},
      {{"compress", "--threads", "4097", "a", "b"}, "--threads"},
      {{"compress", "--threads", "many", "a", "b"}, "--threads"},
      {{"verify"}, "BUNDLE is required"},
      {{"decompress", "a"}, "OUT is required"},
      {{"inspect"}, "PATH is required"},
      {{"inspect", "a", "--report", "b.txt"}, ".html"},
      {{"synth"}, "--model is required"},
      {{"synth", "--model", "tiny-llama-test"}, "OUT is required"},
      {{"synth", "--model", "llama-9", "a"}, "llama-3.1-8b"},
      {{"synth", "--model", "tiny-llama-test", "--seed", "-1", "a"}, "--seed"},
  };
  for (const Case& test : cases) {
    const ProcessOutcome outcome = run(test.arguments);
    expect_one_line(outcome, 1, test.part);
    EXPECT_EQ(outcome.out, "");
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

/// The tool's copy in a place of its own finds no benchmark; then one that shows its arguments.
TEST_F(Cli, BenchRunsTheBenchmarkBesideIt) {
  const fs::path bin = folder_.path() / "a" / "b" / "bin", libexec = folder_.path() / "a" / "b" / "libexec/unweight";
  fs::create_directories(bin);
  fs::create_directories(libexec);
  fs::copy_file(UNWEIGHT_CLI_PATH, bin / "unweight");
  const auto bench = [&](std::vector<std::string> arguments) {
    return run_process({(bin / "unweight").string(), std::move(arguments), folder_.path(), {}, {}, -1});
  };
  expect_one_line(bench({"bench", "--quick"}), 2, "without its GPU benchmark");
  std::ofstream(libexec / "matmul_bench") << "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 3\n";
  fs::permissions(libexec / "matmul_bench", fs::perms::owner_all);
  const ProcessOutcome outcome = bench({"bench", "--json", "a b", "--quick", "4096x4096", "--", "-h"});
  EXPECT_EQ(outcome.exit_code, 3) << outcome.err;
  EXPECT_EQ(outcome.out, "<--json><a b><--quick><4096x4096><--><-h>");
}

TEST_F(Cli, RefusesAnExistingOutputWithExitCode1) {
  make_bundle();
  expect_one_line(run({"compress", "model", "bundle"}), 1, "bundle");
  expect_one_line(run({"decompress", "bundle", "model"}), 1, "model");
  expect_one_line(run({"synth", "--model", "tiny-llama-test", "model"}), 1, "model");
}

TEST_F(Cli, ReportsBadDataWithExitCode2) {
  make_bundle();
  for (const char* command : {"verify", "inspect"}) expect_one_line(run({command, "missing"}), 2, "missing");
  for (const char* command : {"compress", "decompress", "finish"}) {
    expect_one_line(run({command, "missing", "out"}), 2, "missing");
  }
  expect_one_line(run({"verify", "model"}), 2, "model");  // no bundle
  std::string bytes = read_file(folder_ / "bundle/model-00001-of-00003.safetensors");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_file(folder_ / "bundle/model-00001-of-00003.safetensors", bytes);
  expect_one_line(run({"verify", "bundle"}), 2, "model-00001-of-00003.safetensors");
  expect_one_line(run({"decompress", "bundle", "out"}), 2, "model-00001-of-00003.safetensors");
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(Cli, FullOutputDeviceIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  const ProcessOutcome outcome =
      run_process({UNWEIGHT_CLI_PATH, {"synth", "--list"}, folder_.path(), {}, "/dev/full", -1});
  expect_one_line(outcome, 2, "standard output");
}

TEST_F(Cli, FileSizeLimitIsAnErrorLikeAFullDisk) {
  const ProcessOutcome outcome =
      run_process({"sh",
                   {"-c", "ulimit -f 1000; exec \"$0\" synth --quiet --model tiny-llama-test out", UNWEIGHT_CLI_PATH},
                   folder_.path(),
                   {},
                   {},
                   -1});
  expect_one_line(outcome, 2, "out.partial");
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

// ---- results --------------------------------------------------------------------------------------------------------

TEST_F(Cli, RoundTrip) {
  make_checkpoint();
  const std::string compressed = succeed({"compress", "model", "bundle", "--threads", "2"});
  EXPECT_NE(compressed.find("bits/weight"), std::string::npos) << compressed;
  const std::string verified = succeed({"verify", "bundle", "--against", "model"});
  EXPECT_NE(verified.find("bit for bit"), std::string::npos) << verified;
  const std::string restored = succeed({"decompress", "bundle", "back"});
  EXPECT_NE(restored.find("SHA-256"), std::string::npos) << restored;
  EXPECT_EQ(read_tree(folder_ / "model"), read_tree(folder_ / "back"));
}

TEST_F(Cli, SharesGiveTheSameBundle) {
  make_bundle();
  for (const char* share : {"1/3", "0/3", "2/3"}) {
    const std::string text = succeed({"compress", "model", "joined", "--shard", share});
    EXPECT_NE(text.find("unweight finish model joined"), std::string::npos) << text;
    EXPECT_FALSE(fs::exists(folder_ / "joined"));
  }
  succeed({"finish", "model", "joined"});
  EXPECT_EQ(read_tree(folder_ / "bundle"), read_tree(folder_ / "joined"));
}

TEST_F(Cli, QuietPrintsNothing) {
  make_checkpoint();
  EXPECT_EQ(succeed({"compress", "-q", "model", "bundle"}), "");
  EXPECT_EQ(succeed({"verify", "--quiet", "bundle"}), "");
  EXPECT_EQ(succeed({"inspect", "--quiet", "bundle"}), "");
  EXPECT_EQ(succeed({"decompress", "--quiet", "bundle", "back"}), "");
}

TEST_F(Cli, JsonHasTheFields) {
  const auto synth = parse(succeed({"synth", "--json", "--model", "tiny-llama-test", "--seed", "7", "model"}));
  EXPECT_EQ(std::string_view(synth["model"]), "tiny-llama-test");
  EXPECT_EQ(std::uint64_t(synth["seed"]), 7U);
  EXPECT_EQ(std::uint64_t(synth["tensors"]), 21U);
  const std::uint64_t bytes = synth["bytes"];

  const auto compress = parse(succeed({"compress", "--json", "--no-verify", "model", "bundle"}));
  EXPECT_EQ(std::uint64_t(compress["source_bytes"]), bytes);
  EXPECT_EQ(std::uint64_t(compress["tensors"]), 21U);
  EXPECT_TRUE(bool(compress["finished"]));
  EXPECT_FALSE(bool(compress["verified"]));
  EXPECT_LT(double(compress["bits_per_weight"]), 11.42);
  EXPECT_EQ(compress["warnings"].get_array().size(), 0U);

  const auto verify = parse(succeed({"verify", "--json", "bundle", "--against", "model"}));
  EXPECT_TRUE(bool(verify["compared_with_source"]));
  EXPECT_EQ(std::uint64_t(verify["bytes"]), bytes);

  const auto inspect = parse(succeed({"inspect", "--json", "bundle"}));
  EXPECT_TRUE(bool(inspect["is_bundle"]));
  ASSERT_EQ(inspect["tensors"].get_array().size(), 21U);
  const auto tensor = inspect["tensors"].at(0);
  EXPECT_EQ(std::string_view(tensor["name"]), "model.embed_tokens.weight");
  EXPECT_EQ(std::string_view(tensor["kind"]), "embed_tokens");
  EXPECT_EQ(std::string_view(tensor["stored"]), "blob");
  EXPECT_EQ(tensor["exponent_histogram"].get_array().size(), 256U);
  EXPECT_NEAR(double(tensor["exponent_entropy_bits"]), 2.66, 0.05);
  std::uint64_t counted = 0;
  for (const auto count : tensor["exponent_histogram"]) counted += std::uint64_t(count);
  EXPECT_EQ(counted, 2000U * 256U);

  const auto headers = parse(succeed({"inspect", "--json", "--no-histograms", "bundle"}));
  EXPECT_NE(headers["tensors"].at(0)["exponent_histogram"].error(), simdjson::SUCCESS);

  const auto decompress = parse(succeed({"decompress", "--json", "bundle", "back"}));
  EXPECT_EQ(std::uint64_t(decompress["bytes"]), bytes);
  EXPECT_GE(parse(succeed({"synth", "--list", "--json"}))["models"].get_array().size(), 7U);
}

TEST_F(Cli, JsonErrorsAreObjectsToo) {
  const ProcessOutcome usage = run({"compress", "--json"});
  EXPECT_EQ(usage.exit_code, 1);
  EXPECT_EQ(std::uint64_t(parse(usage.out)["error"]["code"]), 10U);
  const ProcessOutcome missing = run({"compress", "--json", "mis\"sing\xff", "out"});
  EXPECT_EQ(missing.exit_code, 2);
  const auto error = parse(missing.out)["error"];
  EXPECT_EQ(std::uint64_t(error["code"]), 43U);
  EXPECT_EQ(std::string_view(error["name"]), "not found");
  EXPECT_NE(std::string_view(error["message"]).find("mis\"sing\xef\xbf\xbd"), std::string_view::npos);
}

TEST_F(Cli, ThreadsComeFromTheEnvironment) {
  make_checkpoint();
  const ProcessOutcome outcome = run({"compress", "model", "bundle"}, {"UNWEIGHT_THREADS=many"});
  expect_one_line(outcome, 1, "many");
  EXPECT_EQ(run({"compress", "model", "bundle"}, {"UNWEIGHT_THREADS=1"}).exit_code, 0);
}

TEST_F(Cli, ProfilesGoBothWays) {
  make_bundle();
  succeed({"compress", "--quiet", "--profile", "distribution", "model", "small"});
  EXPECT_NE(succeed({"transcode", "bundle", "small-2", "--profile", "distribution"}).find("distribution"),
            std::string::npos);
  EXPECT_EQ(difference(read_tree(folder_ / "small"), read_tree(folder_ / "small-2")), "");
  const auto report = parse(succeed({"transcode", "--json", "--profile", "runtime", "small", "bundle-2"}));
  EXPECT_EQ(std::string_view(report["profile"]), "runtime");
  EXPECT_EQ(difference(read_tree(folder_ / "bundle"), read_tree(folder_ / "bundle-2")), "");
  succeed({"verify", "small", "--against", "model"});
  succeed({"decompress", "small", "restored"});
  EXPECT_EQ(difference(read_tree(folder_ / "model"), read_tree(folder_ / "restored")), "");
  const auto inspection = parse(succeed({"inspect", "--json", "small"}));
  EXPECT_EQ(std::string_view(inspection["profile"]), "distribution");
  succeed({"inspect", "small", "--report", "small.html"});
  expect_one_line(run({"transcode", "small", "out", "--profile", "distribution"}), 1, "already");
}

// ---- help -----------------------------------------------------------------------------------------------------------

TEST_F(Cli, HelpIsComplete) {
  EXPECT_EQ(succeed({"--version"}), "unweight " UNWEIGHT_VERSION_STRING "\n");
  const std::string main_help = succeed({"--help"});
  EXPECT_EQ(main_help, succeed({"-h"}));
  for (const std::string part : {"Usage:", "Exit codes:", "Environment:", "Examples:"}) {
    EXPECT_NE(main_help.find(part), std::string::npos) << part;
  }
  for (const char* command : kCommands) {
    EXPECT_NE(main_help.find(std::string("\n  ") + command), std::string::npos) << command;
    const std::string help = succeed({command, "--help"});
    for (const std::string& part : {std::string("Usage:\n  unweight ") + command, std::string("Examples:"),
                                    std::string("--threads"), std::string("--json"), std::string("--help")}) {
      EXPECT_NE(help.find(part), std::string::npos) << command << ": " << part;
    }
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << command << ": " << line;
  }
  EXPECT_NE(main_help.find("\n  bench"), std::string::npos);
  EXPECT_NE(succeed({"bench", "--help"}).find("--quick"), std::string::npos);
}

std::vector<std::string> examples_of(const std::string& help) {
  std::vector<std::string> examples;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("  $ ")) examples.push_back(line.substr(4));
  }
  return examples;
}

// The checkpoint that the examples speak of is the tiny one here. Commands that make something find it removed, and
// commands that read something find it made.
TEST_F(Cli, EveryExampleInTheHelpWorks) {
  make_checkpoint("Llama-3.1-8B");
  succeed({"compress", "--quiet", "Llama-3.1-8B", "Llama-3.1-8B-unweight"});
  const std::string path = "PATH=" + fs::path(UNWEIGHT_CLI_PATH).parent_path().native() + ":" + std::getenv("PATH");
  std::size_t count = 0;
  std::vector<std::string> pages = {succeed({"--help"})};
  for (const char* command : kCommands) pages.push_back(succeed({command, "--help"}));
  for (const std::string& page : pages) {
    for (const std::string& example : examples_of(page)) {
      SCOPED_TRACE(example);
      if (example.starts_with("unweight compress") || example.starts_with("unweight finish")) {
        fs::remove_all(folder_ / "Llama-3.1-8B-unweight");
      }
      if (example.find("Llama-3.1-8B-small") != std::string::npos &&
          !example.starts_with("unweight transcode Llama-3.1-8B-small")) {
        fs::remove_all(folder_ / "Llama-3.1-8B-small");
      }
      if (example == "unweight finish Llama-3.1-8B Llama-3.1-8B-unweight") {
        for (const char* share : {"0/2", "1/2"}) {
          succeed({"compress", "-q", "--shard", share, "Llama-3.1-8B", "Llama-3.1-8B-unweight"});
        }
      }
      for (const char* output : {"restored", "Llama-3.1-8B-restored", "tiny"}) fs::remove_all(folder_ / output);
      const ProcessOutcome outcome = run_process({"sh", {"-c", example}, folder_.path(), {path}, {}, -1});
      EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
      EXPECT_NE(outcome.out, "");
      ++count;
    }
  }
  EXPECT_GE(count, 15U);
}

// ---- reports --------------------------------------------------------------------------------------------------------

TEST_F(Cli, ReportIsASelfContainedWellFormedPage) {
  make_bundle();
  for (const std::string path : {"bundle", "model"}) {
    for (const bool histograms : {true, false}) {
      std::vector<std::string> arguments = {"inspect", path, "--report", "report.html"};
      if (!histograms) arguments.emplace_back("--no-histograms");
      succeed(arguments);
      const std::string page = read_file(folder_ / "report.html");
      EXPECT_EQ(markup_error(page), "") << path << histograms;
      for (const char* outside : {"src=", "href=", "url(", "@import", "https://"}) {
        EXPECT_EQ(page.find(outside), std::string::npos) << outside;
      }
      EXPECT_EQ(page.find("Exponents</h2>") != std::string::npos, histograms);
      const bool compression_known = path == "bundle" || histograms;
      EXPECT_EQ(page.find("down_proj, layer 1") != std::string::npos, compression_known);
    }
  }
  for (const auto& entry : fs::directory_iterator(folder_.path())) {
    EXPECT_EQ(entry.path().native().find(".partial"), std::string::npos) << entry.path();
  }
}

TEST_F(Cli, ReportIsNotWrittenWhereItCannotBe) {
  make_checkpoint();
  expect_one_line(run({"inspect", "model", "--report", "no/such/folder/report.html"}), 2, "no/such/folder");
  fs::create_directory(folder_ / "folder.html");
  expect_one_line(run({"inspect", "model", "--report", "folder.html"}), 1, "is a folder");
  write_file(folder_ / "old.html", "kept");
  expect_one_line(run({"inspect", "missing", "--report", "old.html"}), 2, "missing");
  EXPECT_EQ(read_file(folder_ / "old.html"), "kept");
}

TEST_F(Cli, NamesFromFilesCannotDoHarm) {
  const std::string evil = "layers.0.<script>alert(1)</script>&\"'\x1b[2J\n\xe2\x80\xae.weight";
  write_file(folder_ / "evil.safetensors", make_safetensors({bf16_tensor(evil, {64, 128}, Filling::kTrained, 1),
                                                             bf16_tensor("", {0}, Filling::kZeros, 1)}));
  const std::string text = succeed({"inspect", "evil.safetensors", "--report", "evil.html"});
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find("\xe2\x80\xae"), std::string::npos);
  const std::string page = read_file(folder_ / "evil.html");
  EXPECT_EQ(markup_error(page), "");
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  const auto document = parse(succeed({"inspect", "--json", "evil.safetensors"}));
  bool found = false;
  for (const auto tensor : document["tensors"]) found = found || std::string_view(tensor["name"]) == evil;
  EXPECT_TRUE(found);
}

TEST_F(Cli, KindsComeFromNames) {
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"embeddings.word_embeddings.weight", "word_embeddings"},
      {"encoder.layer.0.attention.self.query.weight", "query"},
      {"encoder.layer.0.attention.self.query.bias", "query.bias"},
      {"encoder.layer.0.attention.output.dense.weight", "attention.output.dense"},
      {"encoder.layer.0.output.dense.weight", "output.dense"},
      {"encoder.layer.0.intermediate.dense.weight", "intermediate.dense"},
      {"layers.11.mlp.experts.0.up_proj.weight", "experts.up_proj"},
      {"layers.11.mlp.experts.127.up_proj.weight", "experts.up_proj"},
      {"layers.11.mlp.shared_expert.up_proj.weight", "shared_expert.up_proj"},
      {"99999999999999999999.weight", "99999999999999999999"},
      {"weight", "weight"},
      {"..", ".."},
  };
  std::vector<TensorData> tensors;
  for (const auto& [name, kind] : expected) tensors.push_back(random_tensor(name, Dtype::kF16, {2}, 1));
  write_file(folder_ / "names.safetensors", make_safetensors(tensors));
  const auto document = parse(succeed({"inspect", "--json", "names.safetensors"}));
  std::map<std::string, std::string> kinds;
  for (const auto tensor : document["tensors"]) {
    kinds[std::string(std::string_view(tensor["name"]))] = std::string_view(tensor["kind"]);
  }
  for (const auto& [name, kind] : expected) EXPECT_EQ(kinds[name], kind) << name;
}

TEST_F(Cli, InspectsACheckpointWithABitOfEverything) {
  write_mixed_checkpoint(folder_ / "mixed");
  succeed({"compress", "-q", "mixed", "bundle"});
  for (const std::string path : {"mixed", "bundle"}) {
    EXPECT_NE(succeed({"inspect", path, "--report", "mixed.html"}), "");
    EXPECT_EQ(markup_error(read_file(folder_ / "mixed.html")), "");
    static_cast<void>(parse(succeed({"inspect", "--json", path})));
  }
}

}  // namespace
}  // namespace unweight::test
