// SPDX-License-Identifier: Apache-2.0
//
// Full decode on the device against the copy ceiling of the same run.
//
//   decode_bench [--form FORM] [--json FILE] [--commit ID] [--rounds N] [SHAPE...]       SHAPE: ROWSxCOLS
//
// FORM is runtime or distribution; of the latter, transcoding to the runtime form is measured, too, of each matrix and
// of the matrices of a layer, on one stream and on several. Bandwidths count bytes read and written: a copy twice its
// size, a decode its blob and its values; those said to be of BF16 count the values alone. Everything is checked
// against the CPU before it is timed.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ceilings.hpp>
#include <copy_kernel.hpp>
#include <cstdint>
#include <cstdio>
#include <cuda_runtime_api.h>
#include <device_facts.hpp>
#include <device_memory.hpp>
#include <distribution_case.hpp>
#include <failure.hpp>
#include <fmt/format.h>
#include <graph_timer.hpp>
#include <json.hpp>
#include <layer_case.hpp>
#include <shapes.hpp>
#include <string>
#include <synthetic.hpp>
#include <unweight/blob.hpp>
#include <unweight/cuda.hpp>
#include <vector>

namespace unweight::bench {
namespace {

/// A blob and the room for its values, on the device.
struct BufferSet {
  DeviceMemory blob_memory;
  DeviceMemory values;
  DeviceBlob blob;
};

BufferSet make_set(DeviceMemory memory, const std::vector<std::byte>& bytes,
                   const std::vector<std::uint16_t>& expected) {
  DeviceMemory values = allocate(2 * expected.size());
  check(cudaMemset(values.get(), 0xa5, 2 * expected.size()), "poison");
  const DeviceBlob blob = value_of(DeviceBlob::create(bytes, memory.get()));
  check(decode(blob, static_cast<std::uint16_t*>(values.get()), blob.shape().cols, nullptr));
  std::vector<std::uint16_t> found(expected.size());
  check(cudaMemcpy(found.data(), values.get(), 2 * found.size(), cudaMemcpyDeviceToHost), "download");
  if (found != expected) stop("the decoded values differ from the encoder's input");
  return {std::move(memory), std::move(values), blob};
}

struct CaseResult {
  MatrixShape shape;
  std::size_t blob_bytes = 0, value_bytes = 0;
  std::size_t sets = 0;
  Spread decode_us, copy_us;
  std::string clocks;

  [[nodiscard]] std::size_t bytes() const { return blob_bytes + value_bytes; }
};

CaseResult measure_case(const MatrixShape& shape, const Ceiling& ceiling, int rounds) {
  const auto values = synthetic_weights(shape);
  const auto bytes = value_of(encode(values, shape, {.threads = 0}));
  CaseResult result;
  result.shape = shape;
  result.blob_bytes = bytes.size();
  result.value_bytes = 2 * values.size();
  result.sets = rotation_count(result.bytes());
  std::vector<BufferSet> sets;
  for (DeviceMemory& memory : upload_copies(bytes, result.sets)) {
    sets.push_back(make_set(std::move(memory), bytes, values));
  }

  const double guess_us = static_cast<double>(result.bytes()) / ceiling.gb_per_s() / 1000;
  const int launches = launches_for(guess_us, result.sets);
  const auto turn = [&](int i) { return static_cast<std::size_t>(i) % result.sets; };
  TimedGraph decodes(launches, [&](cudaStream_t stream, int i) {
    const BufferSet& set = sets[turn(i)];
    check(decode(set.blob, static_cast<std::uint16_t*>(set.values.get()), shape.cols, stream));
  });
  // A copy that moves as many bytes, between places that rotate like the sets.
  const std::size_t copied = result.bytes() / 2 / 256 * 256;
  const DeviceMemory from = allocate(result.sets * copied), to = allocate(result.sets * copied);
  check(cudaMemset(from.get(), 0x5a, result.sets * copied), "fill");
  const CopyVariant& kernel = best_copy_kernel(ceiling);
  TimedGraph copies(launches, [&](cudaStream_t stream, int i) {
    const std::size_t at = turn(i) * copied;
    kernel.launch(static_cast<std::byte*>(from.get()) + at, static_cast<std::byte*>(to.get()) + at, copied, stream);
  });
  for (int round = 0; round < rounds + 2; ++round) {
    decodes.run();
    copies.run();
    if (round == 1) {
      decodes.clear();
      copies.clear();
    }
  }
  result.decode_us = spread_of(decodes.samples_us());
  result.copy_us = spread_of(copies.samples_us());
  result.clocks = clocks_under_load(decodes);
  return result;
}

std::string to_json(const std::string& origin, const Ceiling& ceiling, const std::vector<CaseResult>& results) {
  std::string out = fmt::format("{{\n{},\n \"copy_ceiling\": {},\n \"decode\": [", origin, json_ceiling(ceiling));
  for (const CaseResult& r : results) {
    const double rate = gb_per_s(r.bytes(), r.decode_us.median);
    out += fmt::format(
        "{}\n  {{\"rows\": {}, \"cols\": {}, \"bits_per_weight\": {:.4f}, \"blob_bytes\": {}, \"value_bytes\": {}, "
        "\"buffer_sets\": {},\n   \"us\": {}, \"copy_of_as_many_bytes_us\": {},\n   \"gb_per_s\": {:.1f}, "
        "\"of_ceiling\": {:.4f}, \"of_copy_of_as_many_bytes\": {:.4f}, \"clocks_under_load\": \"{}\"}}",
        &r == &results.front() ? "" : ",", r.shape.rows, r.shape.cols,
        8.0 * static_cast<double>(r.blob_bytes) / (static_cast<double>(r.value_bytes) / 2), r.blob_bytes, r.value_bytes,
        r.sets, json_spread(r.decode_us), json_spread(r.copy_us), rate, rate / ceiling.gb_per_s(),
        r.copy_us.median / r.decode_us.median, r.clocks);
  }
  return out + "\n ]\n}\n";
}

int run(int argc, char** argv) {
  CLI::App app("Full decode on the device against the copy ceiling of the same run");
  std::string json, commit = "unknown", form = "runtime";
  std::vector<std::string> shapes = {"4096x4096", "4096x14336", "28672x4096", "128256x4096"};
  int rounds = 21;
  app.add_option("--form", form, "runtime or distribution")
      ->check(CLI::IsMember({"runtime", "distribution"}))
      ->capture_default_str();
  app.add_option("--json", json, "write the results to this file");
  app.add_option("--commit", commit, "commit to name in the results");
  app.add_option("--rounds", rounds, "replays of each graph")->check(CLI::Range(1, 10000));
  app.add_option("shapes", shapes, "ROWSxCOLS")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const DeviceFacts facts = device_facts();
  const Ceiling ceiling = copy_ceiling(rounds);
  fmt::print("{}, driver {}, CUDA {}\n\n{}", facts.name, facts.driver, facts.cuda_runtime, ceiling_table(ceiling));
  const std::string origin = json_origin(command_line(argc, argv), commit, rounds, facts);
  if (form == "distribution") {
    fmt::print("{}", distribution_head());
    std::vector<DistributionResult> results;
    for (const std::string& text : shapes) {
      results.push_back(measure_distribution(parse_shape(text), ceiling, rounds));
      fmt::print("{}", distribution_line(results.back(), ceiling));
      std::fflush(stdout);
    }
    const LayerResult layer = measure_layer(rounds);
    fmt::print("{}", layer_table(layer));
    if (!json.empty()) {
      write_file(json, fmt::format("{{\n{},\n \"copy_ceiling\": {},\n{},\n{}\n}}\n", origin, json_ceiling(ceiling),
                                   distribution_json(results, ceiling), layer_json(layer)));
    }
    return 0;
  }
  fmt::print("\n{:>14} {:>8} {:>5} {:>26} {:>9} {:>11} {:>16} {:>14}\n", "shape", "bits", "sets",
             "decode us (min..max)", "GB/s", "of ceiling", "same-size copy", "of that copy");
  std::vector<CaseResult> results;
  for (const std::string& text : shapes) {
    results.push_back(measure_case(parse_shape(text), ceiling, rounds));
    const CaseResult& r = results.back();
    const double rate = gb_per_s(r.bytes(), r.decode_us.median);
    fmt::print("{:>14} {:8.4f} {:5} {:8.2f} ({:7.2f}..{:7.2f}) {:9.1f} {:10.1f}% {:13.2f} us {:13.1f}%  {}\n", text,
               8.0 * static_cast<double>(r.blob_bytes) / (static_cast<double>(r.value_bytes) / 2), r.sets,
               r.decode_us.median, r.decode_us.min, r.decode_us.max, rate, 100 * rate / ceiling.gb_per_s(),
               r.copy_us.median, 100 * r.copy_us.median / r.decode_us.median, r.clocks);
  }
  if (!json.empty()) {
    write_file(json, to_json(origin, ceiling, results));
  }
  return 0;
}

}  // namespace
}  // namespace unweight::bench

int main(int argc, char** argv) { return unweight::bench::run(argc, argv); }
