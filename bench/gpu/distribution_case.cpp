// SPDX-License-Identifier: Apache-2.0
#include <copy_kernel.hpp>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <device_facts.hpp>
#include <device_memory.hpp>
#include <distribution_case.hpp>
#include <failure.hpp>
#include <fmt/format.h>
#include <json.hpp>
#include <shapes.hpp>
#include <synthetic.hpp>
#include <unweight/distribution.hpp>
#include <unweight/distribution_cuda.hpp>

namespace unweight::bench {
namespace {

/// A blob and room for what is made of it, on the device.
struct BufferSet {
  DeviceMemory blob_memory;
  DeviceMemory values, workspace, runtime, outcome, status;
  distribution::DeviceBlob blob;

  [[nodiscard]] distribution::TranscodeOutcome* outcome_at() const {
    return static_cast<distribution::TranscodeOutcome*>(outcome.get());
  }
  void decode(cudaStream_t stream) const {
    check(distribution::decode(blob, static_cast<std::uint16_t*>(values.get()), blob.shape().cols,
                               static_cast<distribution::DeviceStatus*>(status.get()), stream));
  }
  void plan(cudaStream_t stream) const {
    check(distribution::plan_transcode(blob, workspace.get(), {}, outcome_at(), stream));
  }
  void finish(std::size_t capacity_bytes, cudaStream_t stream) const {
    check(
        distribution::finish_transcode(blob, workspace.get(), {}, runtime.get(), capacity_bytes, outcome_at(), stream));
  }
};

/// Poisoned, and checked: the values and the runtime blob that come out are those of the CPU.
BufferSet make_set(DeviceMemory memory, const std::vector<std::byte>& bytes, const std::vector<std::uint16_t>& values,
                   const std::vector<std::byte>& runtime) {
  const auto blob = value_of(distribution::DeviceBlob::create(bytes, memory.get()));
  BufferSet set{std::move(memory),
                allocate(2 * values.size()),
                allocate(value_of(distribution::transcode_workspace_bytes(blob))),
                allocate(runtime.size()),
                allocate(sizeof(distribution::TranscodeOutcome)),
                allocate(sizeof(distribution::DeviceStatus)),
                blob};
  check(cudaMemset(set.values.get(), 0xa5, 2 * values.size()), "poison");
  check(cudaMemset(set.runtime.get(), 0xa5, runtime.size()), "poison");
  check(cudaMemset(set.status.get(), 0, sizeof(distribution::DeviceStatus)), "clear");
  set.decode(nullptr);
  set.plan(nullptr);
  set.finish(runtime.size(), nullptr);
  check(distribution::check(download<distribution::DeviceStatus>(set.status, 1)[0]));
  check(distribution::check(download<distribution::TranscodeOutcome>(set.outcome, 1)[0].status));
  if (download<std::uint16_t>(set.values, values.size()) != values) stop("the decoded values differ");
  if (download<std::byte>(set.runtime, runtime.size()) != runtime) stop("the runtime blob differs from the CPU's");
  return set;
}

}  // namespace

DistributionResult measure_distribution(const MatrixShape& shape, const Ceiling& ceiling, int rounds) {
  const auto values = synthetic_weights(shape);
  const auto bytes = value_of(distribution::encode(values, shape, {.threads = 0}));
  const auto runtime = value_of(encode(values, shape, {.threads = 0}));
  DistributionResult result;
  result.shape = shape;
  result.blob_bytes = bytes.size();
  result.runtime_bytes = runtime.size();
  result.value_bytes = 2 * values.size();
  const std::size_t moved = result.blob_bytes + result.value_bytes;
  result.sets = rotation_count(moved);
  std::vector<BufferSet> sets;
  for (DeviceMemory& memory : upload_copies(bytes, result.sets)) {
    sets.push_back(make_set(std::move(memory), bytes, values, runtime));
  }
  result.workspace_bytes = value_of(distribution::transcode_workspace_bytes(sets.front().blob));

  const auto turn = [&](int i) -> const BufferSet& { return sets[static_cast<std::size_t>(i) % result.sets]; };
  const int launches = launches_for(static_cast<double>(moved) / 1'000'000, result.sets);
  TimedGraph decodes(launches, [&](cudaStream_t stream, int i) { turn(i).decode(stream); });
  TimedGraph plans(launches, [&](cudaStream_t stream, int i) { turn(i).plan(stream); });
  TimedGraph finishes(launches, [&](cudaStream_t stream, int i) { turn(i).finish(runtime.size(), stream); });
  TimedGraph transcodes(launches, [&](cudaStream_t stream, int i) {
    turn(i).plan(stream);
    turn(i).finish(runtime.size(), stream);
  });
  const std::size_t copied = moved / 2 / 256 * 256;
  const DeviceMemory from = allocate(result.sets * copied), to = allocate(result.sets * copied);
  check(cudaMemset(from.get(), 0x5a, result.sets * copied), "fill");
  const CopyVariant& kernel = best_copy_kernel(ceiling);
  TimedGraph copies(launches, [&](cudaStream_t stream, int i) {
    const std::size_t at = static_cast<std::size_t>(i) % result.sets * copied;
    kernel.launch(static_cast<std::byte*>(from.get()) + at, static_cast<std::byte*>(to.get()) + at, copied, stream);
  });
  for (int round = 0; round < rounds + 2; ++round) {
    for (TimedGraph* graph : {&decodes, &plans, &finishes, &transcodes, &copies}) {
      graph->run();
      if (round == 1) graph->clear();
    }
  }
  result.decode_us = spread_of(decodes.samples_us());
  result.plan_us = spread_of(plans.samples_us());
  result.finish_us = spread_of(finishes.samples_us());
  result.transcode_us = spread_of(transcodes.samples_us());
  result.copy_us = spread_of(copies.samples_us());
  result.clocks = clocks_under_load(decodes);
  return result;
}

std::string distribution_json(const std::vector<DistributionResult>& results, const Ceiling& ceiling) {
  std::string out = " \"distribution\": [";
  for (const DistributionResult& r : results) {
    const std::size_t moved = r.blob_bytes + r.value_bytes;
    out += fmt::format(
        "{}\n  {{\"rows\": {}, \"cols\": {}, \"bits_per_weight\": {:.4f}, \"blob_bytes\": {}, \"runtime_bytes\": {}, "
        "\"value_bytes\": {}, \"workspace_bytes\": {}, \"buffer_sets\": {},\n   \"decode_us\": {}, "
        "\"decode_gb_per_s_of_bf16\": {:.1f}, \"decode_gb_per_s_moved\": {:.1f}, \"decode_of_copy_ceiling\": {:.4f},\n"
        "   \"copy_of_as_many_bytes_us\": {},\n   \"transcode_us\": {}, \"plan_us\": {}, \"finish_us\": {}, "
        "\"transcode_gb_per_s_of_bf16\": {:.1f}, \"clocks_under_load\": \"{}\"}}",
        &r == &results.front() ? "" : ",", r.shape.rows, r.shape.cols,
        8.0 * static_cast<double>(r.blob_bytes) / (static_cast<double>(r.value_bytes) / 2), r.blob_bytes,
        r.runtime_bytes, r.value_bytes, r.workspace_bytes, r.sets, json_spread(r.decode_us),
        gb_per_s(r.value_bytes, r.decode_us.median), gb_per_s(moved, r.decode_us.median),
        gb_per_s(moved, r.decode_us.median) / ceiling.gb_per_s(), json_spread(r.copy_us), json_spread(r.transcode_us),
        json_spread(r.plan_us), json_spread(r.finish_us), gb_per_s(r.value_bytes, r.transcode_us.median), r.clocks);
  }
  return out + "\n ]";
}

std::string distribution_head() {
  return fmt::format("\n{:>14} {:>8} {:>5} {:>26} {:>10} {:>11} {:>28} {:>10} {:>18}\n", "shape", "bits", "sets",
                     "decode us (min..max)", "BF16 GB/s", "of ceiling", "transcode us (min..max)", "BF16 GB/s",
                     "halves, us");
}

std::string distribution_line(const DistributionResult& r, const Ceiling& ceiling) {
  return fmt::format(
      "{:>14} {:8.4f} {:5} {:8.2f} ({:7.2f}..{:7.2f}) {:10.1f} {:10.1f}% {:10.2f} ({:7.2f}..{:7.2f}) {:10.1f} {:8.1f} "
      "+ "
      "{:.1f}  {}\n",
      to_string(r.shape), 8.0 * static_cast<double>(r.blob_bytes) / (static_cast<double>(r.value_bytes) / 2), r.sets,
      r.decode_us.median, r.decode_us.min, r.decode_us.max, gb_per_s(r.value_bytes, r.decode_us.median),
      100 * gb_per_s(r.blob_bytes + r.value_bytes, r.decode_us.median) / ceiling.gb_per_s(), r.transcode_us.median,
      r.transcode_us.min, r.transcode_us.max, gb_per_s(r.value_bytes, r.transcode_us.median), r.plan_us.median,
      r.finish_us.median, r.clocks);
}

}  // namespace unweight::bench
