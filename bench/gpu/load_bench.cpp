// SPDX-License-Identifier: Apache-2.0
//
// Loading a whole model into device memory: plain safetensors, the runtime bundle and the distribution bundle, in turn,
// in one run.
//
//   load_bench --work FOLDER [--model NAME] [--json FILE] [--commit ID] [--rounds N] [--threads N] [--no-check]
//
// All three are read by the same threads into the same page-locked buffers and copied from there; what differs is what
// there is to read and to do. Inputs are made in FOLDER by the library, unless they lie there from an earlier run: 2.4
// times the model's size. Each way is measured with the files in the system's memory (warm) and, as far as the system
// obeys, without (cold). Before anything is timed every tensor of both bundles is compared with the plain one's, unless
// told otherwise.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <cuda_runtime_api.h>
#include <device_facts.hpp>
#include <device_memory.hpp>
#include <failure.hpp>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <json.hpp>
#include <map>
#include <progress.hpp>
#include <string>
#include <thread>
#include <unistd.h>
#include <unweight/checkpoint.hpp>
#include <unweight/loader.hpp>
#include <vector>

namespace unweight::bench {
namespace {

namespace fs = std::filesystem;

struct Way {
  std::string name;
  fs::path path;
  std::vector<double> warm_s, cold_s;
  LoadReport report;
  std::uint64_t file_bytes = 0;
  std::uint64_t peak_host_bytes = 0;    ///< resident, less what the process had before
  std::uint64_t peak_device_bytes = 0;  ///< in use at most, less what was before
};

/// What a load has delivered; freed at the end.
struct Loaded {
  std::map<std::string, LoadedTensor> tensors;

  Loaded() = default;
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  ~Loaded() {
    for (const auto& [name, tensor] : tensors) {
      if (tensor.stored != StoredAs::kAlias) cudaFree(tensor.data);
    }
  }
};

std::uint64_t device_bytes_in_use() {
  std::size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "memory in use");
  return total_bytes - free_bytes;
}

/// A line of /proc/self/status, in bytes.
std::uint64_t process_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key + ":", 0) == 0) return std::stoull(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

/// Lets the peak of resident memory start again from what it is now.
void reset_peak() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5";
}

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  return files;
}

/// Asks the system to forget the files' contents.
void drop_from_memory(const fs::path& folder) {
  for (const fs::path& path : files_below(folder)) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    (void)::fdatasync(fd);
    (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }
}

LoadReport load(Way& way, Loaded& loaded, unsigned threads) {
  reset_peak();
  const std::uint64_t host_before = process_bytes("VmRSS"), device_before = device_bytes_in_use();
  std::uint64_t device_peak = 0;
  LoadOptions options;
  options.threads = threads;
  options.deliver = [&](const LoadedTensor& tensor) -> Result<void> {
    loaded.tensors[tensor.file + ":" + tensor.name] = tensor;
    device_peak = std::max(device_peak, device_bytes_in_use());
    return {};
  };
  const LoadReport report = value_of(load_to_device(way.path, options));
  way.report = report;
  way.peak_host_bytes = std::max(way.peak_host_bytes, process_bytes("VmHWM") - host_before);
  way.peak_device_bytes = std::max(way.peak_device_bytes, device_peak - std::min(device_peak, device_before));
  return report;
}

std::vector<std::byte> values_of(const LoadedTensor& tensor, std::uint64_t size_bytes) {
  std::vector<std::byte> host(size_bytes);
  if (size_bytes == 0) return host;
  if (!tensor.blob) {
    check(cudaMemcpy(host.data(), tensor.data, size_bytes, cudaMemcpyDeviceToHost), "download");
    return host;
  }
  const DeviceMemory values = allocate(size_bytes);
  check(decode(*tensor.blob, static_cast<std::uint16_t*>(values.get()), tensor.blob->shape().cols, nullptr));
  check(cudaMemcpy(host.data(), values.get(), size_bytes, cudaMemcpyDeviceToHost), "download");
  return host;
}

/// Every tensor of a bundle against that of the plain checkpoint, bit for bit.
void compare(Way& plain_way, Way& way, unsigned threads) {
  Loaded plain, bundle;
  (void)load(plain_way, plain, threads);
  (void)load(way, bundle, threads);
  if (plain.tensors.size() != bundle.tensors.size()) stop(way.name + ": it has another number of tensors");
  for (const auto& [name, tensor] : plain.tensors) {
    const auto found = bundle.tensors.find(name);
    if (found == bundle.tensors.end()) stop(way.name + ": " + name + " is missing");
    if (values_of(tensor, tensor.size_bytes) != values_of(found->second, tensor.size_bytes)) {
      stop(way.name + ": " + name + " differs");
    }
  }
  progress(fmt::format("{}: {} tensors are those of the checkpoint", way.name, plain.tensors.size()));
}

/// Makes what is not there yet.
void make_inputs(const std::string& model, const fs::path& source, const std::vector<Way>& ways) {
  if (!fs::exists(source)) {
    const auto report = value_of(synth_checkpoint(source, {.model = model}));
    progress(fmt::format("wrote {:.2f} GB of {} in {:.1f} s", static_cast<double>(report.bytes) / 1e9, model,
                         report.seconds));
  }
  for (const auto& [way, profile] :
       {std::pair(&ways[1], Profile::kRuntime), std::pair(&ways[2], Profile::kDistribution)}) {
    if (fs::exists(way->path)) continue;
    const auto report = value_of(compress_checkpoint(source, way->path, {.profile = profile, .verify = false}));
    progress(fmt::format("compressed to {:.2f} GB ({}) in {:.1f} s", static_cast<double>(report.bundle_bytes) / 1e9,
                         way->name, report.seconds));
  }
}

std::string json_of(const Way& way) {
  const auto seconds = [](const std::vector<double>& samples) {
    return samples.empty() ? std::string("null") : json_spread(spread_of(samples));
  };
  return fmt::format(
      "\n  {{\"name\": {}, \"file_bytes\": {}, \"tensors\": {}, \"tensors_blob\": {}, \"stored_bytes\": {}, "
      "\"loaded_bytes\": {},\n   \"warm_s\": {}, \"cold_s\": {},\n   \"host_buffer_bytes\": {}, \"peak_host_bytes\": "
      "{}, \"device_extra_bytes\": {}, \"peak_device_bytes\": {}}}",
      json_string(way.name), way.file_bytes, way.report.tensors, way.report.tensors_blob, way.report.stored_bytes,
      way.report.loaded_bytes, seconds(way.warm_s), seconds(way.cold_s), way.report.host_buffer_bytes,
      way.peak_host_bytes, way.report.device_extra_bytes, way.peak_device_bytes);
}

void print(const Way& way, double value_bytes) {
  const auto gb = [](std::uint64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  const double warm = spread_of(way.warm_s).median, cold = spread_of(way.cold_s).median;
  fmt::print("{:>14} {:8.2f} {:8.2f} {:8.2f} {:8.1f} {:8.2f} {:8.1f} {:12.3f} {:12.3f} {:12.3f}\n", way.name,
             gb(way.file_bytes), gb(way.report.loaded_bytes), warm, value_bytes / warm / 1e9, cold,
             value_bytes / cold / 1e9, gb(way.peak_host_bytes), gb(way.report.device_extra_bytes),
             gb(way.peak_device_bytes - std::min(way.peak_device_bytes, way.report.loaded_bytes)));
}

int run(int argc, char** argv) {
  CLI::App app("Loads a model as plain safetensors and as bundles of both profiles into device memory");
  std::string work, model = "llama-3.1-8b", json, commit = "unknown";
  int rounds = 3;
  unsigned threads = std::clamp(std::thread::hardware_concurrency() / 2, 1U, 8U);
  bool no_check = false;
  app.add_option("--work", work, "folder for the inputs, 2.4 times the model's size")->required();
  app.add_option("--model", model, "as unweight synth --list says")->capture_default_str();
  app.add_option("--json", json, "write the results to this file");
  app.add_option("--commit", commit, "commit to name in the results");
  app.add_option("--rounds", rounds, "loads of each kind, warm and cold")->check(CLI::Range(1, 100));
  app.add_option("--threads", threads, "that read files")->check(CLI::Range(1, 64))->capture_default_str();
  app.add_flag("--no-check", no_check, "do not compare the tensors first");
  CLI11_PARSE(app, argc, argv);

  const DeviceFacts facts = device_facts();
  fs::create_directories(work);
  const fs::path source = fs::path(work) / model;
  std::vector<Way> ways(3);
  ways[0].name = "safetensors";
  ways[0].path = source;
  ways[1].name = "runtime";
  ways[1].path = fs::path(work) / (model + "-runtime");
  ways[2].name = "distribution";
  ways[2].path = fs::path(work) / (model + "-distribution");
  make_inputs(model, source, ways);
  for (Way& way : ways) {
    for (const fs::path& path : files_below(way.path)) way.file_bytes += fs::file_size(path);
  }
  if (!no_check) {
    compare(ways[0], ways[1], threads);
    compare(ways[0], ways[2], threads);
  }
  for (Way& way : ways) way.peak_host_bytes = way.peak_device_bytes = 0;
  for (int round = 0; round < rounds; ++round) {
    for (Way& way : ways) {
      for (const bool cold : {true, false}) {  // what was read cold is warm after that
        if (cold) drop_from_memory(way.path);
        Loaded loaded;
        const LoadReport report = load(way, loaded, threads);
        (cold ? way.cold_s : way.warm_s).push_back(report.seconds);
        progress(fmt::format("{} {}: {:.2f} s", way.name, cold ? "cold" : "warm", report.seconds));
      }
    }
  }

  fmt::print("{}, driver {}, {} threads read\n", facts.name, facts.driver, threads);
  fmt::print("{:>14} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>12} {:>12} {:>12}\n", "", "files", "loaded", "warm s",
             "GB/s", "cold s", "GB/s", "host GB", "device extra", "and measured");
  for (const Way& way : ways) print(way, static_cast<double>(ways[0].report.loaded_bytes));
  fmt::print("GB/s are bytes of the checkpoint's tensors; extra device memory is what is used beside the tensors.\n");
  if (!json.empty()) {
    std::string out = fmt::format("{{\n{},\n \"model\": {}, \"threads\": {}, \"checked\": {},\n \"loads\": [",
                                  json_origin(command_line(argc, argv), commit, rounds, facts), json_string(model),
                                  threads, no_check ? "false" : "true");
    for (const Way& way : ways) out += (&way == &ways.front() ? "" : ",") + json_of(way);
    write_file(json, out + "\n ]\n}\n");
  }
  return 0;
}

}  // namespace
}  // namespace unweight::bench

int main(int argc, char** argv) { return unweight::bench::run(argc, argv); }
