// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <ceilings.hpp>
#include <cuda_runtime_api.h>
#include <device_memory.hpp>
#include <failure.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <json.hpp>
#include <layer_case.hpp>
#include <map>
#include <memory>
#include <shapes.hpp>
#include <span>
#include <synthetic.hpp>
#include <unweight/distribution.hpp>
#include <unweight/distribution_cuda.hpp>

namespace unweight::bench {
namespace {

/// A shape's blobs, as the CPU makes them.
struct EncodedShape {
  std::vector<std::byte> blob, runtime;

  static EncodedShape of(const MatrixShape& shape) {
    const auto values = synthetic_weights(shape);
    return {value_of(distribution::encode(values, shape, {.threads = 0})),
            value_of(encode(values, shape, {.threads = 0}))};
  }
};

/// A matrix on the device, and room for its runtime blob.
struct LayerMatrix {
  const EncodedShape* encoded;
  DeviceMemory blob_memory, runtime, outcome;
  distribution::DeviceBlob blob;

  static LayerMatrix of(const EncodedShape& encoded) {
    DeviceMemory memory = std::move(upload_copies(encoded.blob, 1).front());
    const auto blob = value_of(distribution::DeviceBlob::create(encoded.blob, memory.get()));
    return {&encoded, std::move(memory), allocate(encoded.runtime.size()),
            allocate(sizeof(distribution::TranscodeOutcome)), blob};
  }

  void transcode(void* workspace, cudaStream_t stream) const {
    check(distribution::transcode(blob, workspace, {}, runtime.get(), encoded->runtime.size(),
                                  static_cast<distribution::TranscodeOutcome*>(outcome.get()), stream));
  }
  void poison() const { check(cudaMemset(runtime.get(), 0xa5, encoded->runtime.size()), "poison"); }
  void compare() const {
    check(distribution::check(download<distribution::TranscodeOutcome>(outcome, 1)[0].status));
    if (download<std::byte>(runtime, encoded->runtime.size()) != encoded->runtime) {
      stop("the runtime blob of a layer's matrix differs from the CPU's");
    }
  }
};

/// Streams that begin with a given one and end before it goes on, each with a workspace. The first is that one.
class Branches {
 public:
  Branches(std::size_t count, std::size_t workspace_bytes) {
    check(cudaEventCreateWithFlags(&begun_, cudaEventDisableTiming), "create an event");
    for (std::size_t i = 0; i < count; ++i) {
      workspaces_.push_back(allocate(workspace_bytes));
      if (i == 0) continue;
      check(cudaStreamCreateWithFlags(&streams_.emplace_back(), cudaStreamNonBlocking), "create a stream");
      check(cudaEventCreateWithFlags(&ended_.emplace_back(), cudaEventDisableTiming), "create an event");
    }
  }
  Branches(const Branches&) = delete;
  Branches& operator=(const Branches&) = delete;
  ~Branches() {
    for (cudaStream_t stream : streams_) cudaStreamDestroy(stream);
    for (cudaEvent_t event : ended_) cudaEventDestroy(event);
    cudaEventDestroy(begun_);
  }

  /// Transcodes the matrices in their order, each on the stream with the fewest values so far.
  void transcode(std::span<const LayerMatrix> matrices, cudaStream_t first) const {
    check(cudaEventRecord(begun_, first), "record");
    for (cudaStream_t stream : streams_) check(cudaStreamWaitEvent(stream, begun_, 0), "wait");
    std::vector<std::size_t> loads(workspaces_.size());
    for (const LayerMatrix& matrix : matrices) {
      const auto least = static_cast<std::size_t>(std::ranges::min_element(loads) - loads.begin());
      loads[least] += matrix.encoded->runtime.size();
      matrix.transcode(workspaces_[least].get(), least == 0 ? first : streams_[least - 1]);
    }
    for (std::size_t i = 0; i < streams_.size(); ++i) {
      check(cudaEventRecord(ended_[i], streams_[i]), "record");
      check(cudaStreamWaitEvent(first, ended_[i], 0), "wait");
    }
  }

 private:
  std::vector<DeviceMemory> workspaces_;
  std::vector<cudaStream_t> streams_;  ///< but the first
  std::vector<cudaEvent_t> ended_;
  cudaEvent_t begun_{};
};

}  // namespace

LayerResult measure_layer(int rounds) {
  constexpr int kLayers = 3;  // in a graph; they lie in memory once, and are larger than any cache
  LayerResult result;
  result.name = "Llama-3.1-8B";
  const MatrixShape attention{1, 4096, 4096}, keys{1, 1024, 4096}, up{1, 14336, 4096}, down{1, 4096, 14336};
  result.shapes = {attention, keys, keys, attention, up, up, down};
  std::map<std::string, EncodedShape> encoded;
  std::vector<LayerMatrix> matrices;
  std::size_t workspace_bytes = 0;
  for (const MatrixShape& shape : result.shapes) {
    const std::string name = to_string(shape);
    if (!encoded.contains(name)) encoded.emplace(name, EncodedShape::of(shape));
    const LayerMatrix& matrix = matrices.emplace_back(LayerMatrix::of(encoded.at(name)));
    workspace_bytes = std::max(workspace_bytes, value_of(distribution::transcode_workspace_bytes(matrix.blob)));
    result.blob_bytes += matrix.encoded->blob.size();
    result.runtime_bytes += matrix.encoded->runtime.size();
    result.value_bytes += 2 * shape.rows * shape.cols;
  }
  struct TimedWay {
    std::size_t streams;
    std::unique_ptr<Branches> branches;
    std::unique_ptr<TimedGraph> graph;
  };
  std::vector<TimedWay> ways;
  for (const std::size_t streams : {1U, 2U, 4U}) {
    auto branches = std::make_unique<Branches>(streams, workspace_bytes);
    auto graph =
        std::make_unique<TimedGraph>(kLayers, [&](cudaStream_t stream, int) { branches->transcode(matrices, stream); });
    for (const LayerMatrix& matrix : matrices) matrix.poison();
    check(cudaDeviceSynchronize(), "poison");
    graph->run();
    for (const LayerMatrix& matrix : matrices) matrix.compare();
    graph->clear();
    ways.push_back({streams, std::move(branches), std::move(graph)});
  }
  for (int round = 0; round < rounds; ++round) {
    for (TimedWay& way : ways) way.graph->run();
  }
  for (const TimedWay& way : ways) result.ways.push_back({way.streams, spread_of(way.graph->samples_us())});
  return result;
}

std::string layer_json(const LayerResult& r) {
  std::vector<std::string> shapes;
  for (const MatrixShape& shape : r.shapes) shapes.push_back(fmt::format("\"{}\"", to_string(shape)));
  std::string out = fmt::format(
      " \"layer\": {{\"name\": \"{}\", \"matrices\": [{}],\n  \"blob_bytes\": {}, \"runtime_bytes\": {}, "
      "\"value_bytes\": {},\n  \"transcode\": [",
      r.name, fmt::join(shapes, ", "), r.blob_bytes, r.runtime_bytes, r.value_bytes);
  for (const LayerResult::Way& way : r.ways) {
    out += fmt::format("{}\n   {{\"streams\": {}, \"us\": {}, \"gb_per_s_of_bf16\": {:.1f}}}",
                       &way == &r.ways.front() ? "" : ",", way.streams, json_spread(way.us),
                       gb_per_s(r.value_bytes, way.us.median));
  }
  return out + "\n  ]}";
}

std::string layer_table(const LayerResult& r) {
  std::string out =
      fmt::format("\nTranscoding a layer of {}, {} matrices, {:.0f} MB of BF16\n{:>9} {:>28} {:>11}\n", r.name,
                  r.shapes.size(), static_cast<double>(r.value_bytes) / 1e6, "streams", "us (min..max)", "BF16 GB/s");
  for (const LayerResult::Way& way : r.ways) {
    out += fmt::format("{:>9} {:10.1f} ({:7.1f}..{:7.1f}) {:11.1f}\n", way.streams, way.us.median, way.us.min,
                       way.us.max, gb_per_s(r.value_bytes, way.us.median));
  }
  return out;
}

}  // namespace unweight::bench
