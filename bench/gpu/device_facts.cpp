// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>
#include <cuda_runtime_api.h>
#include <device_facts.hpp>
#include <failure.hpp>
#include <fmt/format.h>
#include <thread>

namespace unweight::bench {
namespace {

/// First line of nvidia-smi's answer; empty where it cannot be run.
std::string ask_nvidia_smi(const std::string& fields) {
  const std::string command = "nvidia-smi --id=0 --format=csv,noheader --query-gpu=" + fields + " 2>/dev/null";
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {};
  std::array<char, 256> line{};
  std::string answer = std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr ? line.data() : "";
  if (pclose(pipe) != 0) return {};
  while (!answer.empty() && answer.back() == '\n') answer.pop_back();
  return answer;
}

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

std::string clocks_now() { return ask_nvidia_smi("clocks.sm,clocks.mem,power.draw,temperature.gpu"); }

}  // namespace

DeviceFacts device_facts() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "device properties");
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "driver version");
  check(cudaRuntimeGetVersion(&runtime), "runtime version");
  return {properties.name,
          ask_nvidia_smi("driver_version"),
          version(driver),
          version(runtime),
          properties.multiProcessorCount,
          properties.l2CacheSize,
          ask_nvidia_smi("clocks.max.sm,clocks.max.mem")};
}

std::string clocks_under_load(TimedGraph& graph) {
  const std::jthread load([&](const std::stop_token& enough) {
    while (!enough.stop_requested()) graph.run();
  });
  return clocks_now();
}

}  // namespace unweight::bench
