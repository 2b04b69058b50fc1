// SPDX-License-Identifier: Apache-2.0
//
// What the device can do at most, measured in the same run as what is compared with it.
#pragma once

#include <copy_kernel.hpp>
#include <cstddef>
#include <graph_timer.hpp>
#include <string>
#include <vector>

namespace unweight::bench {

[[nodiscard]] inline double gb_per_s(std::size_t bytes, double us) { return static_cast<double>(bytes) / us / 1000; }

/// A bandwidth, found by trying several ways to move the same bytes.
struct Ceiling {
  struct Way {
    std::string name;
    Spread us;
  };
  std::size_t bytes = 0;  ///< moved by one launch: a copy counts what it reads and what it writes
  std::vector<Way> ways;

  [[nodiscard]] const Way& best() const;  ///< by the median
  [[nodiscard]] double gb_per_s() const { return bench::gb_per_s(bytes, best().us.median); }
};

/// cudaMemcpyAsync(), then copy_variants() in their order.
[[nodiscard]] Ceiling copy_ceiling(int rounds);
[[nodiscard]] const CopyVariant& best_copy_kernel(const Ceiling& copies);

/// read_variants() over 1 GiB.
[[nodiscard]] Ceiling read_ceiling(int rounds, unsigned multiprocessors);

/// A launch of a kernel that does nothing, in a graph.
[[nodiscard]] Spread empty_kernel_us(int rounds);

/// For a results file.
[[nodiscard]] std::string json_ceiling(const Ceiling& ceiling);
/// For people: a line a way.
[[nodiscard]] std::string ceiling_table(const Ceiling& ceiling);

}  // namespace unweight::bench
