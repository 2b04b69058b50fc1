// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <json.hpp>
#include <matmul_report.hpp>
#include <shapes.hpp>

namespace unweight::bench {
namespace {

struct TargetRow {
  MatrixShape shape;
  Target few, medium, many, few_dependent;  ///< 1 to 16, 32 and 64 tokens; 1 to 16 with dependent launch
  std::array<Target, 6> large;              ///< of kLargeTokens
};

/// Numbers of tokens from which on the targets apply, up to the next.
constexpr std::array<std::uint32_t, 6> kLargeTokens = {128, 256, 512, 1024, 2048, 8192};

constexpr std::array<Target, 6> kTallLarge = {
    {{1.27, 1.33}, {1.06, 1.15}, {0.90, 1.00}, {0.95, 0.98}, {0.93, 0.97}, {0.95, 0.98}}};
constexpr std::array<Target, 6> kWideLarge = {
    {{1.07, 1.15}, {1.04, 1.10}, {0.85, 1.00}, {0.93, 0.98}, {0.94, 0.97}, {0.95, 0.98}}};
constexpr std::array<Target, 6> kSmallLarge = {
    {{0.90, 1.05}, {0.80, 1.00}, {0.80, 0.97}, {0.90, 0.97}, {0.94, 0.97}, {0.95, 0.98}}};

constexpr TargetRow large_matrix(std::uint64_t rows, std::uint64_t cols, const std::array<Target, 6>& large) {
  return {{1, rows, cols}, {1.40, 1.46}, {1.38, 1.45}, {1.35, 1.42}, {1.47, 1.52}, large};
}

constexpr std::array<TargetRow, 7> kTargets = {{
    large_matrix(28672, 4096, kTallLarge),
    large_matrix(128256, 4096, kTallLarge),
    large_matrix(57344, 8192, kTallLarge),
    large_matrix(8192, 28672, kWideLarge),
    {{1, 4096, 14336}, {1.41, 1.46}, {1.40, 1.44}, {1.20, 1.32}, {1.50, 1.56}, kWideLarge},
    {{1, 6144, 4096}, {1.30, 1.38}, {1.23, 1.30}, {1.05, 1.20}, {1.44, 1.50}, kSmallLarge},
    {{1, 4096, 4096}, {1.21, 1.38}, {1.16, 1.25}, {1.00, 1.15}, {1.42, 1.55}, kSmallLarge},
}};

const char* verdict(double ratio, const Target& target) {
  return ratio >= target.aim ? "aim met" : ratio >= target.floor ? "met" : "short";
}

/// "1.42 (1.40/1.46 met)"
std::string judged(double ratio, const std::optional<Target>& target) {
  if (!target) return fmt::format("{:.2f}", ratio);
  return fmt::format("{:.2f} ({:.2f}/{:.2f} {})", ratio, target->floor, target->aim, verdict(ratio, *target));
}

std::string json_target(double ratio, const std::optional<Target>& target) {
  if (!target) return "null";
  return fmt::format(R"({{"floor": {:.2f}, "aim": {:.2f}, "met": {}, "aim_met": {}}})", target->floor, target->aim,
                     ratio >= target->floor, ratio >= target->aim);
}

std::string json_config(const MatmulConfig& c) {
  return fmt::format(R"({{"strips": {}, "stages": {}, "split": {}, "dependent_launch": {}, "warpgroup": {}}})",
                     c.strips, c.stages, c.split, c.dependent_launch, c.warpgroup);
}

std::string json_timed(const char* name, const Timed<MatmulConfig>& timed, const MatmulCell& cell) {
  return fmt::format("    \"{}\": {{\"config\": {}, \"us\": {}, \"speed_up\": {:.4f}}},\n", name,
                     json_config(timed.what), json_spread(timed.us), speed_up(cell.cublas, timed));
}

std::string json_cell(const MatmulCase& result, const MatmulCell& cell, const MatmulCeilings& ceilings, bool sweep) {
  const double ratio = cell.cublas.us.median / cell.ours_us(), dependent = speed_up(cell.cublas, cell.ours_dependent);
  const double rate = gb_per_s(result.blob_bytes, cell.ours.us.median);
  std::string out = fmt::format("   {{\"tokens\": {},\n    \"cublas\": {{\"algorithm\": {}, \"us\": {}}},\n",
                                cell.tokens, json_string(cell.cublas.what), json_spread(cell.cublas.us));
  out += json_timed("ours", cell.ours, cell) + json_timed("ours_dependent", cell.ours_dependent, cell);
  out += json_timed("chosen", cell.chosen, cell) + json_timed("chosen_dependent", cell.chosen_dependent, cell);
  out += json_timed("raw", cell.raw, cell);
  for (const auto& [name, timed] : {std::pair("decoded", &cell.decoded), std::pair("overlapped", &cell.overlapped)}) {
    if (!*timed) continue;
    out += fmt::format("    \"{}\": {{\"algorithm\": {}, \"us\": {}, \"speed_up\": {:.4f}}},\n", name,
                       json_string((*timed)->what), json_spread((*timed)->us),
                       cell.cublas.us.median / (*timed)->us.median);
  }
  out += fmt::format(
      "    \"target\": {}, \"target_dependent\": {},\n    \"speed_up_over_best_bf16\": {:.4f}, "
      "\"gb_per_s\": {:.1f}, \"of_read_ceiling\": {:.4f},\n    \"relative_error\": {:.3g}, "
      "\"cublas_relative_error\": {:.3g}, \"bitwise_equal_to_raw\": true,\n    \"candidates\": {}, "
      "\"candidates_refused\": {}, \"cublas_algorithms\": {}, \"cublas_wrong\": [",
      json_target(ratio, target_of(result.shape, cell.tokens, false)),
      json_target(dependent, target_of(result.shape, cell.tokens, true)),
      std::min(cell.raw.us.median, cell.cublas.us.median) / cell.ours.us.median, rate, rate / ceilings.read.gb_per_s(),
      cell.relative_error, cell.cublas_relative_error, cell.screened.size(), cell.candidates_refused,
      cell.cublas_screened.size());
  const char* comma = "";
  for (const std::string& name : cell.cublas_wrong) {
    out += comma + json_string(name);
    comma = ", ";
  }
  out += "]";
  if (sweep) {
    out += ",\n    \"screened\": [";
    comma = "\n     ";
    for (const ScreenedConfig& s : cell.screened) {
      out +=
          fmt::format("{}{{\"raw\": {}, \"config\": {}, \"us\": {:.3f}}}", comma, s.raw, json_config(s.config), s.us);
      comma = ",\n     ";
    }
    out += "],\n    \"cublas_screened\": [";
    comma = "\n     ";
    for (const auto& [name, us] : cell.cublas_screened) {
      out += fmt::format("{}{{\"algorithm\": {}, \"us\": {:.3f}}}", comma, json_string(name), us);
      comma = ",\n     ";
    }
    out += "]";
  }
  return out + "}";
}

}  // namespace

std::optional<Target> target_of(const MatrixShape& shape, std::uint32_t tokens, bool dependent_launch) {
  const auto row = std::find_if(kTargets.begin(), kTargets.end(),
                                [&](const TargetRow& candidate) { return candidate.shape == shape; });
  if (row == kTargets.end() || tokens == 0) return std::nullopt;
  if (tokens <= 16) return dependent_launch ? row->few_dependent : row->few;
  if (tokens >= kLargeTokens.front() && !dependent_launch) {
    const auto beyond = std::upper_bound(kLargeTokens.begin(), kLargeTokens.end(), tokens);
    return row->large[static_cast<std::size_t>(beyond - kLargeTokens.begin()) - 1];
  }
  if (dependent_launch || (tokens != 32 && tokens != 64)) return std::nullopt;
  return tokens == 32 ? row->medium : row->many;
}

std::string config_name(const MatmulConfig& config) {
  return fmt::format("{}/{}{}{}", config.strips, config.stages, config.split ? "s" : "", config.warpgroup ? "w" : "");
}

std::string matmul_table(const MatmulCase& r, const MatmulCeilings& ceilings) {
  std::string out = fmt::format(
      "\n{} x {}: {:.4f} bits a weight, {:.1f} MB x {} copies, cuBLAS {:.1f} MB x {}; {:.1f} s, of which {:.1f} s to "
      "make; clocks {}\n",
      r.shape.rows, r.shape.cols, r.bits_per_weight(), static_cast<double>(r.blob_bytes) / 1e6, r.copies,
      static_cast<double>(r.raw_bytes) / 1e6, r.raw_copies, r.seconds, r.preparation_s, r.clocks);
  out += fmt::format("{:>3} {:>8} {:>8} {:>5} {:<25} {:>8} {:>5} {:<25} {:>12} {:>12} {:>15} {:>9} {:>6} {:>7}  {}\n",
                     "M", "cuBLAS", "ours us", "", "ratio", "PDL us", "", "ratio", "chosen", "with PDL", "raw us",
                     "raw/ours", "GB/s", "of read", "cuBLAS algorithm");
  for (const MatmulCell& c : r.cells) {
    const double ratio = c.cublas.us.median / c.ours_us(), dependent = speed_up(c.cublas, c.ours_dependent);
    const double rate = gb_per_s(r.blob_bytes, c.ours.us.median);
    const auto chosen = [&](const Timed<MatmulConfig>& timed) {
      return fmt::format("{:.2f} {}", speed_up(c.cublas, timed), config_name(timed.what));
    };
    out += fmt::format(
        "{:>3} {:8.2f} {:8.2f} {:>5} {:<25} {:8.2f} {:>5} {:<25} {:>12} {:>12} {:>15} {:9.2f} {:6.0f} {:6.1f}%  {}\n",
        c.tokens, c.cublas.us.median, c.ours.us.median, config_name(c.ours.what),
        judged(ratio, target_of(r.shape, c.tokens, false)), c.ours_dependent.us.median,
        config_name(c.ours_dependent.what), judged(dependent, target_of(r.shape, c.tokens, true)), chosen(c.chosen),
        chosen(c.chosen_dependent), fmt::format("{:.2f} ({:.2f})", c.raw.us.median, speed_up(c.cublas, c.raw)),
        speed_up(c.raw, c.ours), rate, 100 * rate / ceilings.read.gb_per_s(), c.cublas.what);
    for (const auto& [name, timed] : {std::pair("decoded before", &c.decoded), std::pair("meanwhile", &c.overlapped)}) {
      if (!*timed) continue;
      out += fmt::format("    {}, {}: {:.2f} us, {:.3f}\n", name, (*timed)->what, (*timed)->us.median,
                         c.cublas.us.median / (*timed)->us.median);
    }
  }
  return out;
}

std::string target_summary(const std::vector<MatmulCase>& results) {
  std::size_t all = 0, met = 0, aims = 0;
  std::string missed;
  for (const MatmulCase& r : results) {
    for (const MatmulCell& c : r.cells) {
      for (const bool dependent : {false, true}) {
        const auto target = target_of(r.shape, c.tokens, dependent);
        if (!target) continue;
        const double ratio = dependent ? speed_up(c.cublas, c.ours_dependent) : c.cublas.us.median / c.ours_us();
        ++all;
        if (ratio >= target->floor) ++met;
        if (ratio >= target->aim) ++aims;
        if (ratio >= target->floor) continue;
        missed += fmt::format("\n  {} M={}{}: {:.3f} < {:.2f}", to_string(r.shape), c.tokens,
                              dependent ? " with PDL" : "", ratio, target->floor);
      }
    }
  }
  return fmt::format("targets: {} of {} met, {} aims met{}\n", met, all, aims, missed);
}

std::string matmul_json(const std::string& origin, const std::string& cublas, const MatmulCeilings& ceilings,
                        const MatmulBenchOptions& options, const std::vector<MatmulCase>& results) {
  std::string out = fmt::format(
      "{{\n{},\n \"cublas\": {},\n \"baseline\": \"best of cublasGemmEx and {} cublasLt heuristics, {} MiB "
      "workspace\",\n \"weights\": \"synthetic: row sigma 0.02 * 2^(0.5 n), every row its own\",\n \"quick\": {},\n "
      "\"sweep\": {},\n \"read_ceiling\": {},\n \"copy_ceiling\": {},\n \"empty_kernel_us\": {},\n \"matmul\": [",
      origin, json_string(cublas), CublasBaseline::kHeuristics, CublasBaseline::kWorkspaceBytes >> 20, options.quick,
      options.sweep, json_ceiling(ceilings.read), json_ceiling(ceilings.copy), json_spread(ceilings.empty_kernel_us));
  const char* comma = "\n";
  for (const MatmulCase& r : results) {
    out += fmt::format(
        "{}  {{\"rows\": {}, \"cols\": {}, \"bits_per_weight\": {:.4f}, \"blob_bytes\": {}, \"copies\": {}, "
        "\"dense_copies\": {}, \"clocks_under_load\": {}, \"preparation_s\": {:.2f}, \"seconds\": {:.2f},\n   "
        "\"cells\": [\n",
        comma, r.shape.rows, r.shape.cols, r.bits_per_weight(), r.blob_bytes, r.copies, r.raw_copies,
        json_string(r.clocks), r.preparation_s, r.seconds);
    for (const MatmulCell& cell : r.cells) {
      if (&cell != &r.cells.front()) out += ",\n";
      out += json_cell(r, cell, ceilings, options.sweep);
    }
    out += "]}";
    comma = ",\n";
  }
  return out + "\n ]\n}\n";
}

}  // namespace unweight::bench
