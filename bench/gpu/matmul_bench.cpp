// SPDX-License-Identifier: Apache-2.0
//
// Multiplication with compressed weights, for few tokens, against cuBLAS.
//
//   matmul_bench [--json FILE] [--svg FILE] [--commit ID] [--rounds N] [--tokens 1,8,...] [--all] [--sweep] [--quick]
//                [SHAPE...]                                                             SHAPE: ROWSxCOLS
//
// Everything in one run: what memory gives at most, the best of cublasGemmEx() and cublasLt's proposals, and this
// library's kernel with every configuration, with and without dependent launch. Weights take turns, so that each launch
// finds its own in memory and not in the cache. Nothing is timed that is wrong: Y must equal, to the bit, Y by the same
// kernel from uncompressed weights, and that must agree with float64. Exits 2 where it does not, 3 without a device.
#include <CLI/CLI.hpp>
#include <baseline_cublas.hpp>
#include <ceilings.hpp>
#include <cstdio>
#include <device_facts.hpp>
#include <fmt/format.h>
#include <json.hpp>
#include <matmul_case.hpp>
#include <matmul_report.hpp>
#include <progress.hpp>
#include <shapes.hpp>
#include <string>
#include <vector>

namespace unweight::bench {
namespace {

/// Of Llama 3.1, 8B and 70B; --all adds small ones and a large vocabulary.
const std::vector<std::string> kShapes = {"4096x4096",   "6144x4096",  "4096x14336", "28672x4096",
                                          "128256x4096", "57344x8192", "8192x28672"};
const std::vector<std::string> kMoreShapes = {"14336x4096", "1024x4096", "2048x2048", "152064x3584"};
const std::vector<std::string> kQuickShapes = {"4096x4096", "28672x4096", "4096x14336"};

int run(int argc, char** argv) {
  CLI::App app("Multiplication with compressed weights against cuBLAS");
  std::string json, svg, commit = "unknown";
  std::vector<std::string> names;
  MatmulBenchOptions options;
  bool more = false;
  app.add_option("--json", json, "write the results to this file");
  app.add_option("--svg", svg, "write a picture of the speed-ups to this file");
  app.add_option("--commit", commit, "commit to name in the results");
  const CLI::Option* rounds =
      app.add_option("--rounds", options.rounds, "replays of each finalist's graph (21; --quick: 7)")
          ->check(CLI::Range(1, 10000));
  app.add_option("--tokens", options.tokens, "numbers of tokens")
      ->delimiter(',')
      ->allow_extra_args(false)  // shapes may follow
      ->check(CLI::Range(1U, kMaxMatmulTokens))
      ->capture_default_str();
  app.add_flag("--all", more, "more default shapes");
  app.add_flag("--sweep", options.sweep, "more candidates, raw mode at its best, and all screened times in the JSON");
  app.add_flag("--quick", options.quick, "fewer default shapes, candidates and rounds");
  app.add_option("shapes", names, "ROWSxCOLS");
  CLI11_PARSE(app, argc, argv);
  if (options.quick && rounds->count() == 0) options.rounds = 7;
  if (names.empty()) {
    names = options.quick ? kQuickShapes : kShapes;
    if (more) names.insert(names.end(), kMoreShapes.begin(), kMoreShapes.end());
  }
  std::vector<MatrixShape> shapes;
  for (const std::string& name : names) shapes.push_back(parse_shape(name));

  const DeviceFacts facts = device_facts();
  const CublasBaseline cublas;
  progress("measuring ceilings");
  const int ceiling_rounds = options.quick ? 5 : 11;
  const MatmulCeilings ceilings{read_ceiling(ceiling_rounds, static_cast<unsigned>(facts.multiprocessors)),
                                copy_ceiling(ceiling_rounds), empty_kernel_us(ceiling_rounds)};
  fmt::print("{}, driver {}, CUDA {}, cuBLAS {}\n\nread\n{}copy\n{}empty kernel in a graph: {:.2f} us\n", facts.name,
             facts.driver, facts.cuda_runtime, cublas.version(), ceiling_table(ceilings.read),
             ceiling_table(ceilings.copy), ceilings.empty_kernel_us.median);
  fmt::print(
      "\nTimes are medians of {} interleaved replays. Configurations are strips/stages, s: split, w: warpgroups. "
      "Ratios are to the "
      "best of cuBLAS,\nwhich never has dependent launch (PDL); in brackets floor/aim of the target. chosen: by "
      "choose_matmul_config(). raw: the same\nkernel on uncompressed weights, in brackets its ratio. GB/s: compressed "
      "bytes, without PDL.\n",
      options.rounds);

  std::vector<MatmulCase> results;
  for (const MatrixShape& shape : shapes) {
    results.push_back(measure_matmul(shape, options, cublas, ceilings.read.gb_per_s()));
    fmt::print("{}", matmul_table(results.back(), ceilings));
    std::fflush(stdout);
    // After each shape, so that a run that is cut short leaves what it has.
    if (!json.empty()) {
      const std::string origin = json_origin(command_line(argc, argv), commit, options.rounds, facts);
      write_file(json, matmul_json(origin, cublas.version(), ceilings, options, results));
    }
    if (!svg.empty()) write_file(svg, matmul_svg(facts.name, results));
  }
  fmt::print("\n{}", target_summary(results));
  progress("done");
  return 0;
}

}  // namespace
}  // namespace unweight::bench

int main(int argc, char** argv) { return unweight::bench::run(argc, argv); }
