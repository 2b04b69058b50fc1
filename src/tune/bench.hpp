// SPDX-License-Identifier: Apache-2.0
//
// What the tuner needs of a device: candidates, whether they are right, and how long they take. The device itself is
// behind pipelines/device_bench.cpp, a simulated one behind the tests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unweight/blob.hpp>
#include <unweight/plan.hpp>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::tune {

/// One way to multiply one weight.
struct Candidate {
  BlobLayout layout = BlobLayout::kTiled;  ///< of the weight
  Choice choice;
  bool baseline = false;  ///< cublasGemmEx(), to compare with; not a choice

  friend bool operator==(const Candidate&, const Candidate&) = default;
};

struct RefusedCandidate {
  Candidate candidate;
  std::string reason;
};

/// All that exist for a cell. Fused ones are without dependent launch.
struct CellCandidates {
  std::vector<Candidate> legal;
  std::vector<RefusedCandidate> refused;
};

/// A candidate, ready to be timed. Lives as long as the bench has its weight.
class Stopwatch {
 public:
  Stopwatch() = default;
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  virtual ~Stopwatch() = default;
  /// Microseconds of one multiplication, the mean over one replay of a graph of many with cold weights.
  [[nodiscard]] virtual Result<double> sample_us() = 0;
};

class Bench {
 public:
  Bench() = default;
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  virtual ~Bench() = default;

  /// Everything but the command.
  [[nodiscard]] virtual PlanOrigin origin() const = 0;
  /// Makes a weight of that shape in both layouts, in place of the one before, and room for so many tokens.
  [[nodiscard]] virtual Result<void> open(const WeightClass& weight, std::uint32_t most_tokens) = 0;
  /// Size of the present weight's blob.
  [[nodiscard]] virtual std::uint64_t blob_bytes(BlobLayout layout) const = 0;
  [[nodiscard]] virtual Result<CellCandidates> candidates(std::uint32_t tokens) = 0;
  /// Microseconds that decoding the present weight to memory takes.
  [[nodiscard]] virtual Result<double> decode_us() = 0;
  /// Runs the candidate and compares with its oracle: the same kernel, or cuBLASLt's same algorithm, on the original
  /// weights. kNotIdentical where a bit differs; kInvalidArgument where there is nothing to compare with, or a foreign
  /// algorithm does not work: such candidates are left out.
  [[nodiscard]] virtual Result<void> check(const Candidate& candidate, std::uint32_t tokens) = 0;
  /// After check().
  [[nodiscard]] virtual Result<std::unique_ptr<Stopwatch>> prepare(const Candidate& candidate,
                                                                   std::uint32_t tokens) = 0;
  /// Seconds since some moment.
  [[nodiscard]] virtual double now_s() = 0;
};

}  // namespace unweight::tune
