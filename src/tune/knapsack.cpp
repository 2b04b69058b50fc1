// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tune/knapsack.hpp>

namespace unweight::tune {
namespace {

class Search {
 public:
  Search(std::span<const KnapsackKind> kinds, std::uint64_t most_nodes)
      : kinds_(kinds), most_nodes_(most_nodes), taken_(kinds.size()) {
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      if (kinds[i].gain > 0 && kinds[i].count > 0) order_.push_back(i);
    }
    // What gains most by the byte goes first, so that the first solution found is a good one.
    std::ranges::stable_sort(order_, [&](std::size_t a, std::size_t b) {
      return kinds[a].gain * static_cast<double>(kinds[b].bytes) > kinds[b].gain * static_cast<double>(kinds[a].bytes);
    });
  }

  KnapsackResult run(std::uint64_t capacity) {
    best_.taken.resize(kinds_.size());
    descend(0, capacity, 0);
    return best_;
  }

 private:
  [[nodiscard]] std::uint64_t most_of(const KnapsackKind& kind, std::uint64_t capacity) const {
    return kind.bytes == 0 ? kind.count : std::min(kind.count, capacity / kind.bytes);
  }

  /// What the kinds from `place` on could gain if items could be cut.
  [[nodiscard]] double bound(std::size_t place, std::uint64_t capacity) const {
    double gain = 0;
    for (; place < order_.size(); ++place) {
      const KnapsackKind& kind = kinds_[order_[place]];
      const std::uint64_t whole = most_of(kind, capacity);
      gain += kind.gain * static_cast<double>(whole);
      capacity -= whole * kind.bytes;
      if (whole < kind.count) return gain + kind.gain * static_cast<double>(capacity) / static_cast<double>(kind.bytes);
    }
    return gain;
  }

  void descend(std::size_t place, std::uint64_t capacity, double gain) {
    if (gain > best_.gain) {
      best_.gain = gain;
      best_.taken = taken_;
    }
    if (place == order_.size()) return;
    const std::size_t number = order_[place];
    const KnapsackKind& kind = kinds_[number];
    for (std::uint64_t count = most_of(kind, capacity) + 1; count-- > 0;) {
      if (++nodes_ > most_nodes_) {
        best_.optimal = false;
        break;
      }
      const double so_far = gain + kind.gain * static_cast<double>(count);
      const std::uint64_t left = capacity - count * kind.bytes;
      if (so_far + bound(place + 1, left) <= best_.gain) break;  // fewer of this kind cannot be better either
      taken_[number] = count;
      descend(place + 1, left, so_far);
    }
    taken_[number] = 0;
  }

  std::span<const KnapsackKind> kinds_;
  std::uint64_t most_nodes_, nodes_ = 0;
  std::vector<std::size_t> order_;
  std::vector<std::uint64_t> taken_;
  KnapsackResult best_;
};

}  // namespace

KnapsackResult fill_knapsack(std::span<const KnapsackKind> kinds, std::uint64_t capacity, std::uint64_t most_nodes) {
  return Search(kinds, most_nodes).run(capacity);
}

}  // namespace unweight::tune
