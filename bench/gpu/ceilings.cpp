// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <ceilings.hpp>
#include <device_memory.hpp>
#include <failure.hpp>
#include <fmt/format.h>
#include <json.hpp>
#include <memory>
#include <read_kernel.hpp>

namespace unweight::bench {
namespace {

constexpr std::size_t kCopiedBytes = std::size_t{1} << 29;
constexpr std::size_t kReadBytes = std::size_t{1} << 30;
static_assert(kReadBytes % kReadGranularity == 0);

/// A way to move the bytes, captured, with the others to be run in turn.
struct Contestant {
  std::string name;
  std::unique_ptr<TimedGraph> graph;
};

Ceiling compete(std::size_t bytes, std::vector<Contestant> contestants, int rounds) {
  for (int round = 0; round < rounds + 1; ++round) {
    for (Contestant& contestant : contestants) {
      contestant.graph->run();
      if (round == 0) contestant.graph->clear();
    }
  }
  Ceiling ceiling;
  ceiling.bytes = bytes;
  for (const Contestant& contestant : contestants) {
    ceiling.ways.push_back({contestant.name, spread_of(contestant.graph->samples_us())});
  }
  return ceiling;
}

DeviceMemory filled(std::size_t bytes) {
  DeviceMemory memory = allocate(bytes);
  check(cudaMemset(memory.get(), 0x5a, bytes), "fill");
  return memory;
}

}  // namespace

const Ceiling::Way& Ceiling::best() const {
  return *std::min_element(ways.begin(), ways.end(),
                           [](const Way& a, const Way& b) { return a.us.median < b.us.median; });
}

Ceiling copy_ceiling(int rounds) {
  constexpr int kLaunches = 8;
  const DeviceMemory from = filled(kCopiedBytes), to = filled(kCopiedBytes);
  std::vector<Contestant> all;
  all.push_back({"cudaMemcpyAsync", std::make_unique<TimedGraph>(kLaunches, [&](cudaStream_t stream, int) {
                   check(cudaMemcpyAsync(to.get(), from.get(), kCopiedBytes, cudaMemcpyDeviceToDevice, stream), "copy");
                 })});
  for (const CopyVariant& variant : copy_variants()) {
    all.push_back({variant.name, std::make_unique<TimedGraph>(kLaunches, [&](cudaStream_t stream, int) {
                     variant.launch(from.get(), to.get(), kCopiedBytes, stream);
                   })});
  }
  return compete(2 * kCopiedBytes, std::move(all), rounds);
}

const CopyVariant& best_copy_kernel(const Ceiling& copies) {
  const auto kernels = copies.ways.begin() + 1;
  const auto best = std::min_element(kernels, copies.ways.end(), [](const Ceiling::Way& a, const Ceiling::Way& b) {
    return a.us.median < b.us.median;
  });
  return copy_variants()[static_cast<std::size_t>(best - kernels)];
}

Ceiling read_ceiling(int rounds, unsigned multiprocessors) {
  constexpr int kLaunches = 8;
  const DeviceMemory from = filled(kReadBytes);
  std::vector<Contestant> all;
  for (const ReadVariant& variant : read_variants()) {
    variant.launch(from.get(), kReadBytes, multiprocessors, nullptr);  // loads the kernel, which capture may forbid
    check(cudaDeviceSynchronize(), "launch a read kernel");
    all.push_back({variant.name, std::make_unique<TimedGraph>(kLaunches, [&](cudaStream_t stream, int) {
                     variant.launch(from.get(), kReadBytes, multiprocessors, stream);
                     check(cudaGetLastError(), "launch a read kernel");
                   })});
  }
  return compete(kReadBytes, std::move(all), rounds);
}

Spread empty_kernel_us(int rounds) {
  TimedGraph graph(1000, [](cudaStream_t stream, int) { launch_empty_kernel(stream); });
  graph.run();
  graph.clear();
  for (int round = 0; round < rounds; ++round) graph.run();
  return spread_of(graph.samples_us());
}

std::string json_ceiling(const Ceiling& ceiling) {
  std::string out = fmt::format("{{\n  \"best\": {},\n  \"gb_per_s\": {:.1f},\n  \"bytes_moved\": {},\n  \"us\": {{",
                                json_string(ceiling.best().name), ceiling.gb_per_s(), ceiling.bytes);
  const char* comma = "";
  for (const Ceiling::Way& way : ceiling.ways) {
    out += fmt::format("{}\n   {}: {}", comma, json_string(way.name), json_spread(way.us));
    comma = ",";
  }
  return out + "\n  }\n }";
}

std::string ceiling_table(const Ceiling& ceiling) {
  std::string out;
  for (const Ceiling::Way& way : ceiling.ways) {
    out += fmt::format("{:45} {:7.1f} GB/s\n", way.name, gb_per_s(ceiling.bytes, way.us.median));
  }
  return out;
}

}  // namespace unweight::bench
