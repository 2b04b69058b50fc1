// SPDX-License-Identifier: Apache-2.0
//
// Full decode on the device against the copy ceiling of the same run.
//
//   decode_bench [--json FILE] [--commit ID] [--rounds N] [SHAPE...]       SHAPE: ROWSxCOLS
//
// Bandwidths count bytes read and written: a copy twice its size, a decode its blob and its values. Every decode is
// checked against the encoder's input before anything is timed.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <copy_kernel.hpp>
#include <cstdint>
#include <cstring>
#include <cuda_runtime_api.h>
#include <device_facts.hpp>
#include <fmt/format.h>
#include <fstream>
#include <graph_timer.hpp>
#include <memory>
#include <string>
#include <support/tensors.hpp>
#include <thread>
#include <unweight/blob.hpp>
#include <unweight/cuda.hpp>
#include <vector>

namespace unweight::bench {
namespace {

constexpr std::size_t kRotatedBytes = 400'000'000;           ///< at least this much between two uses of a buffer
constexpr std::size_t kCeilingBytes = std::size_t{1} << 29;  ///< copied for the ceiling
constexpr double kGraphUs = 3000;                            ///< roughly, a graph's length

[[noreturn]] void stop(const std::string& message) {
  fmt::print(stderr, "decode_bench: {}\n", message);
  std::exit(2);
}

struct FreeDevice {
  void operator()(void* memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, FreeDevice>;

DeviceMemory allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "allocate");
  return DeviceMemory(memory);
}

/// The synthetic recipe, in blocks of rows so that all CPUs take part.
std::vector<std::uint16_t> synthetic(const MatrixShape& shape) {
  constexpr std::uint64_t kBlockRows = 64;
  std::vector<std::uint16_t> values(shape.rows * shape.cols);
  std::atomic<std::uint64_t> next{0};
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < std::max(1U, std::thread::hardware_concurrency()); ++t) {
    threads.emplace_back([&] {
      for (std::uint64_t row = kBlockRows * next++; row < shape.rows; row = kBlockRows * next++) {
        const MatrixShape block{1, std::min(kBlockRows, shape.rows - row), shape.cols};
        const auto part = test::make_tensor(block, test::Filling::kTrained, row);
        std::copy(part.begin(), part.end(), values.begin() + static_cast<std::ptrdiff_t>(row * shape.cols));
      }
    });
  }
  threads.clear();
  return values;
}

/// A blob and the room for its values, on the device.
struct BufferSet {
  DeviceMemory blob_memory;
  DeviceMemory values;
  Result<DeviceBlob> blob;
};

BufferSet make_set(const std::vector<std::byte>& bytes, const std::vector<std::uint16_t>& expected) {
  DeviceMemory memory = allocate(bytes.size());
  DeviceMemory values = allocate(2 * expected.size());
  check(cudaMemcpy(memory.get(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "upload");
  check(cudaMemset(values.get(), 0xa5, 2 * expected.size()), "poison");
  auto blob = DeviceBlob::create(bytes, memory.get());
  if (!blob) stop(blob.error().message);
  const auto done = decode(*blob, static_cast<std::uint16_t*>(values.get()), blob->shape().cols, nullptr);
  if (!done) stop(done.error().message);
  std::vector<std::uint16_t> found(expected.size());
  check(cudaMemcpy(found.data(), values.get(), 2 * found.size(), cudaMemcpyDeviceToHost), "download");
  if (found != expected) stop("the decoded values differ from the encoder's input");
  return {std::move(memory), std::move(values), std::move(blob)};
}

struct Ceiling {
  std::string best;
  double gb_per_s = 0;
  const CopyVariant* kernel = nullptr;  ///< the best of the kernels
  std::vector<std::pair<std::string, Spread>> all;
};

double gb_per_s(std::size_t bytes, double us) { return static_cast<double>(bytes) / us / 1000; }

Ceiling measure_ceiling(int rounds) {
  const DeviceMemory from = allocate(kCeilingBytes), to = allocate(kCeilingBytes);
  check(cudaMemset(from.get(), 0x5a, kCeilingBytes), "fill");
  constexpr int kLaunches = 8;
  std::vector<std::unique_ptr<TimedGraph>> graphs;
  std::vector<std::string> names = {"cudaMemcpyAsync"};
  graphs.push_back(std::make_unique<TimedGraph>(kLaunches, [&](cudaStream_t stream, int) {
    check(cudaMemcpyAsync(to.get(), from.get(), kCeilingBytes, cudaMemcpyDeviceToDevice, stream), "copy");
  }));
  for (const CopyVariant& variant : copy_variants()) {
    names.emplace_back(variant.name);
    graphs.push_back(std::make_unique<TimedGraph>(
        kLaunches, [&](cudaStream_t stream, int) { variant.launch(from.get(), to.get(), kCeilingBytes, stream); }));
  }
  for (int round = 0; round < rounds + 1; ++round) {
    for (auto& graph : graphs) {
      graph->run();
      if (round == 0) graph->clear();
    }
  }
  Ceiling ceiling;
  double best_kernel = 0;
  for (std::size_t i = 0; i < graphs.size(); ++i) {
    const Spread us = spread_of(graphs[i]->samples_us());
    const double rate = gb_per_s(2 * kCeilingBytes, us.median);
    ceiling.all.emplace_back(names[i], us);
    if (rate > ceiling.gb_per_s) {
      ceiling.gb_per_s = rate;
      ceiling.best = names[i];
    }
    if (i > 0 && rate > best_kernel) {
      best_kernel = rate;
      ceiling.kernel = &copy_variants()[i - 1];
    }
  }
  return ceiling;
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
  const auto values = synthetic(shape);
  const auto bytes = encode(values, shape, {.threads = 0});
  if (!bytes) stop(bytes.error().message);
  CaseResult result;
  result.shape = shape;
  result.blob_bytes = bytes->size();
  result.value_bytes = 2 * values.size();
  result.sets = std::max<std::size_t>(2, (kRotatedBytes + result.bytes() - 1) / result.bytes());
  std::vector<BufferSet> sets;
  for (std::size_t i = 0; i < result.sets; ++i) sets.push_back(make_set(*bytes, values));

  const double guess_us = static_cast<double>(result.bytes()) / ceiling.gb_per_s / 1000;
  const int count = static_cast<int>(result.sets);
  const int launches = count * std::max(1, static_cast<int>(kGraphUs / guess_us) / count);
  TimedGraph decodes(launches, [&](cudaStream_t stream, int i) {
    const BufferSet& set = sets[static_cast<std::size_t>(i % count)];
    const auto done = decode(*set.blob, static_cast<std::uint16_t*>(set.values.get()), shape.cols, stream);
    if (!done) stop(done.error().message);
  });
  // A copy that moves as many bytes, between places that rotate like the sets.
  const std::size_t copied = result.bytes() / 2 / 256 * 256;
  const DeviceMemory from = allocate(result.sets * copied), to = allocate(result.sets * copied);
  check(cudaMemset(from.get(), 0x5a, result.sets * copied), "fill");
  TimedGraph copies(launches, [&](cudaStream_t stream, int i) {
    const std::size_t at = static_cast<std::size_t>(i % count) * copied;
    ceiling.kernel->launch(static_cast<std::byte*>(from.get()) + at, static_cast<std::byte*>(to.get()) + at, copied,
                           stream);
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
  for (int i = 0; i < 20; ++i) decodes.run();
  result.clocks = clocks_now();
  return result;
}

std::string json_spread(const Spread& s) {
  return fmt::format(R"({{"median": {:.3f}, "min": {:.3f}, "max": {:.3f}}})", s.median, s.min, s.max);
}

std::string to_json(const std::string& command, const std::string& commit, int rounds, const DeviceFacts& facts,
                    const Ceiling& ceiling, const std::vector<CaseResult>& results) {
  std::string out = fmt::format(
      "{{\n \"command\": \"{}\",\n \"commit\": \"{}\",\n \"device\": \"{}\",\n \"driver\": \"{}\",\n"
      " \"cuda_driver\": \"{}\",\n \"cuda_runtime\": \"{}\",\n \"multiprocessors\": {},\n \"l2_bytes\": {},\n"
      " \"max_clocks\": \"{}\",\n \"rounds\": {},\n \"copy_ceiling\": {{\n  \"best\": \"{}\",\n"
      "  \"gb_per_s\": {:.1f},\n  \"bytes_copied\": {},\n  \"us\": {{",
      command, commit, facts.name, facts.driver, facts.cuda_driver, facts.cuda_runtime, facts.multiprocessors,
      facts.l2_bytes, facts.max_clocks, rounds, ceiling.best, ceiling.gb_per_s, kCeilingBytes);
  for (const auto& [name, us] : ceiling.all) {
    out += fmt::format("{}\n   \"{}\": {}", &us == &ceiling.all.front().second ? "" : ",", name, json_spread(us));
  }
  out += "\n  }\n },\n \"decode\": [";
  for (const CaseResult& r : results) {
    const double rate = gb_per_s(r.bytes(), r.decode_us.median);
    out += fmt::format(
        "{}\n  {{\"rows\": {}, \"cols\": {}, \"bits_per_weight\": {:.4f}, \"blob_bytes\": {}, \"value_bytes\": {}, "
        "\"buffer_sets\": {},\n   \"us\": {}, \"copy_of_as_many_bytes_us\": {},\n   \"gb_per_s\": {:.1f}, "
        "\"of_ceiling\": {:.4f}, \"of_copy_of_as_many_bytes\": {:.4f}, \"clocks_under_load\": \"{}\"}}",
        &r == &results.front() ? "" : ",", r.shape.rows, r.shape.cols,
        8.0 * static_cast<double>(r.blob_bytes) / (static_cast<double>(r.value_bytes) / 2), r.blob_bytes, r.value_bytes,
        r.sets, json_spread(r.decode_us), json_spread(r.copy_us), rate, rate / ceiling.gb_per_s,
        r.copy_us.median / r.decode_us.median, r.clocks);
  }
  return out + "\n ]\n}\n";
}

int run(int argc, char** argv) {
  CLI::App app("Full decode on the device against the copy ceiling of the same run");
  std::string json, commit = "unknown";
  std::vector<std::string> shapes = {"4096x4096", "4096x14336", "28672x4096", "128256x4096"};
  int rounds = 21;
  app.add_option("--json", json, "write the results to this file");
  app.add_option("--commit", commit, "commit to name in the results");
  app.add_option("--rounds", rounds, "replays of each graph")->check(CLI::Range(1, 10000));
  app.add_option("shapes", shapes, "ROWSxCOLS")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  std::string command = "decode_bench";
  for (int i = 1; i < argc; ++i) command += std::string(" ") + argv[i];
  const DeviceFacts facts = device_facts();
  const Ceiling ceiling = measure_ceiling(rounds);
  fmt::print("{}, driver {}, CUDA {}\n\n", facts.name, facts.driver, facts.cuda_runtime);
  for (const auto& [name, us] : ceiling.all) {
    fmt::print("{:45} {:7.1f} GB/s\n", name, gb_per_s(2 * kCeilingBytes, us.median));
  }
  fmt::print("\n{:>14} {:>8} {:>5} {:>26} {:>9} {:>11} {:>16} {:>14}\n", "shape", "bits", "sets",
             "decode us (min..max)", "GB/s", "of ceiling", "same-size copy", "of that copy");
  std::vector<CaseResult> results;
  for (const std::string& text : shapes) {
    MatrixShape shape;
    const std::size_t x = text.find('x');
    if (x == std::string::npos) stop(fmt::format("shape '{}' is not ROWSxCOLS", text));
    shape.rows = std::strtoull(text.c_str(), nullptr, 10);
    shape.cols = std::strtoull(text.c_str() + x + 1, nullptr, 10);
    if (shape.rows * shape.cols == 0) stop(fmt::format("shape '{}' is not ROWSxCOLS", text));
    results.push_back(measure_case(shape, ceiling, rounds));
    const CaseResult& r = results.back();
    const double rate = gb_per_s(r.bytes(), r.decode_us.median);
    fmt::print("{:>14} {:8.4f} {:5} {:8.2f} ({:7.2f}..{:7.2f}) {:9.1f} {:10.1f}% {:13.2f} us {:13.1f}%  {}\n", text,
               8.0 * static_cast<double>(r.blob_bytes) / (static_cast<double>(r.value_bytes) / 2), r.sets,
               r.decode_us.median, r.decode_us.min, r.decode_us.max, rate, 100 * rate / ceiling.gb_per_s,
               r.copy_us.median, 100 * r.copy_us.median / r.decode_us.median, r.clocks);
  }
  if (!json.empty()) {
    std::ofstream file(json);
    file << to_json(command, commit, rounds, facts, ceiling, results);
    if (!file.flush()) stop("cannot write " + json);
  }
  return 0;
}

}  // namespace
}  // namespace unweight::bench

int main(int argc, char** argv) { return unweight::bench::run(argc, argv); }
