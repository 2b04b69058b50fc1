// SPDX-License-Identifier: Apache-2.0
//
// A bench without a device: times by a formula, with noise and a clock of its own, the same for the same seed. Legal
// configurations are those of the real kernels, about.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <tune/bench.hpp>
#include <tune/resolve.hpp>
#include <unweight/tune.hpp>

namespace unweight::test {

struct SimulationOptions {
  std::uint64_t seed = 1;
  double noise = 0;             ///< standard deviation of a sample, as a share
  double variation = 0.08;      ///< between configurations, at random but always the same
  double cublas_us_factor = 1;  ///< how slow cuBLAS is
  bool cublas = true;
  double candidate_s = 0.003;  ///< to check and prepare one, besides its samples
  double open_s = 0.5;
  std::string wrong_config{};  ///< describe() of a choice whose output differs from its oracle
};

/// As can_implement() of the real kernels: legal or a reason.
[[nodiscard]] Result<void> simulated_can_implement(std::uint32_t tokens, const MatmulConfig& config);

inline constexpr char kSimulatedGpu[] = "Simulated GPU";

class SimulatedBench final : public tune::Bench {
 public:
  explicit SimulatedBench(const SimulationOptions& options = {}) : options_(options), random_(options.seed) {}

  [[nodiscard]] PlanOrigin origin() const override;
  [[nodiscard]] Result<void> open(const WeightClass& weight, std::uint32_t most_tokens) override;
  [[nodiscard]] std::uint64_t blob_bytes(BlobLayout layout) const override;
  [[nodiscard]] Result<tune::CellCandidates> candidates(std::uint32_t tokens) override;
  [[nodiscard]] Result<double> decode_us() override;
  [[nodiscard]] Result<void> check(const tune::Candidate& candidate, std::uint32_t tokens) override;
  [[nodiscard]] Result<std::unique_ptr<tune::Stopwatch>> prepare(const tune::Candidate& candidate,
                                                                 std::uint32_t tokens) override;
  [[nodiscard]] double now_s() override { return now_s_; }

  /// What a candidate takes without noise.
  [[nodiscard]] double true_us(const tune::Candidate& candidate, std::uint32_t tokens) const;
  /// The fastest choice of all for the present weight.
  [[nodiscard]] double best_us(BlobLayout layout, std::uint32_t tokens, bool dependent);

  /// Extra factors on times, by describe() of the choice: for ties and duels.
  std::map<std::string, double> factors;
  std::uint64_t checks = 0, samples = 0;

 private:
  class SimulatedStopwatch;

  SimulationOptions options_;
  std::mt19937_64 random_;
  WeightClass weight_;
  double now_s_ = 100;
};

/// Rules of a lookup for the simulated GPU.
[[nodiscard]] tune::LookupRules simulated_rules(const WeightClass& weight);

/// A plan of the simulated GPU for a model of two kinds of matrices, with decisions for `options`.
[[nodiscard]] Plan simulated_plan(const MemoryOptions& options = {}, const SimulationOptions& simulation = {});
/// The model of simulated_plan().
[[nodiscard]] ModelMatrices simulated_model();

}  // namespace unweight::test
