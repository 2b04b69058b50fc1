// SPDX-License-Identifier: Apache-2.0
//
// The multiplication of one matrix with several numbers of tokens, against cuBLAS: candidates are checked, screened,
// and the best timed in interleaved rounds.
#pragma once

#include <algorithm>
#include <baseline_cublas.hpp>
#include <cstddef>
#include <cstdint>
#include <graph_timer.hpp>
#include <optional>
#include <string>
#include <unweight/cuda.hpp>
#include <vector>

namespace unweight::bench {

struct MatmulBenchOptions {
  std::vector<std::uint32_t> tokens = {1, 8, 16, 32, 64};
  int rounds = 21;
  bool quick = false;  ///< fewer candidates, screened once
  bool sweep = false;  ///< all depths of the ring, and raw mode has its own best configuration
};

template <class What>
struct Timed {
  What what;
  Spread us;
};

/// What a configuration took in screening: a few replays, not interleaved.
struct ScreenedConfig {
  MatmulConfig config;
  bool raw = false;
  double us = 0;
};

/// Results for one number of tokens.
struct MatmulCell {
  std::uint32_t tokens = 0;
  Timed<std::string> cublas;                     ///< the best algorithm
  Timed<MatmulConfig> ours, ours_dependent;      ///< best configurations without and with dependent launch
  Timed<MatmulConfig> chosen, chosen_dependent;  ///< choose_matmul_config()'s
  Timed<MatmulConfig> raw;                       ///< the same kernel fed with uncompressed values
  /// For more than 64 tokens: decode() to memory, then the best algorithm on that.
  std::optional<Timed<std::string>> decoded;
  /// Likewise, but the next matrix is decoded while this one is multiplied on fewer multiprocessors.
  std::optional<Timed<std::string>> overlapped;
  double relative_error = 0, cublas_relative_error = 0;         ///< against float64
  std::vector<std::pair<std::string, double>> cublas_screened;  ///< all algorithms that are right, us
  std::vector<std::string> cublas_wrong;                        ///< refused or wrong, not timed
  std::vector<ScreenedConfig> screened;
  std::size_t candidates_refused = 0;  ///< by can_implement()

  /// Of the fastest way from compressed weights.
  [[nodiscard]] double ours_us() const {
    double best = ours.us.median;
    if (decoded) best = std::min(best, decoded->us.median);
    if (overlapped) best = std::min(best, overlapped->us.median);
    return best;
  }
};

struct MatmulCase {
  MatrixShape shape;
  std::size_t blob_bytes = 0, raw_bytes = 0;
  std::size_t copies = 0, raw_copies = 0;
  std::string clocks;  ///< under load
  double preparation_s = 0, seconds = 0;
  std::vector<MatmulCell> cells;

  [[nodiscard]] double bits_per_weight() const {
    return 8.0 * static_cast<double>(blob_bytes) / static_cast<double>(shape.rows * shape.cols);
  }
};

/// Ends the program when a result is wrong. `read_gb_per_s` is what memory gives at most.
[[nodiscard]] MatmulCase measure_matmul(const MatrixShape& shape, const MatmulBenchOptions& options,
                                        const CublasBaseline& cublas, double read_gb_per_s);

}  // namespace unweight::bench
