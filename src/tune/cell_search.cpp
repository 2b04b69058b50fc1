// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <initializer_list>
#include <optional>
#include <tune/cell_search.hpp>
#include <tune/choice.hpp>
#include <tune/statistics.hpp>
#include <tune/tuner.hpp>
#include <tuple>
#include <utility>

namespace unweight::tune {
namespace {

constexpr std::size_t kMostAlive = 8;   ///< runners of a group after exploring
constexpr std::size_t kMostListed = 6;  ///< measurements of a cell's list
constexpr int kRounds = 7, kLeastRounds = 3;
constexpr std::size_t kDecodedAlgorithms = 3;

/// A candidate that was found to be right.
struct Runner {
  Candidate candidate;
  std::unique_ptr<Stopwatch> watch;
  std::vector<double> samples;  ///< of the last rounds
  double us = 0;                ///< at first the least of two samples, at the end the median
  bool pinned = false;          ///< an incumbent: not to be dropped
};

/// Runners that compete, best first.
using Group = std::vector<Runner>;

/// Configurations that differ in matters of degree.
struct Family {
  MatmulConfig key;
  std::vector<Candidate> members;

  [[nodiscard]] const Candidate& middle() const { return members[(members.size() - 1) / 2]; }
};

MatmulConfig family_key(MatmulConfig config) {
  for (const ConfigMember& member : kConfigMembers) {
    if (member.role != MemberRole::kFamily) member.set(config, member.values.front());
  }
  return config;
}

std::vector<Family> families_of(const std::vector<Candidate>& candidates, BlobLayout layout) {
  std::vector<Family> families;
  for (const Candidate& candidate : candidates) {
    if (candidate.layout != layout || candidate.choice.pipeline != Pipeline::kFused) continue;
    const MatmulConfig key = family_key(candidate.choice.config);
    auto family = std::ranges::find_if(families, [&](const Family& other) { return same_config(other.key, key); });
    if (family == families.end()) family = families.insert(families.end(), Family{key, {}});
    family->members.push_back(candidate);
  }
  return families;
}

Candidate with_launch(Candidate candidate, bool dependent) {
  candidate.choice.config.dependent_launch = dependent;
  return candidate;
}

/// Best first; pinned ones stay.
void keep_best(Group& group, std::size_t most, double within) {
  std::ranges::stable_sort(group, {}, &Runner::us);
  if (group.empty()) return;
  const double limit = within * group.front().us;
  std::size_t place = 0;
  std::erase_if(group, [&](const Runner& runner) { return (place++ >= most || runner.us > limit) && !runner.pinned; });
}

class CellSearch {
 public:
  CellSearch(Bench& bench, std::uint32_t tokens, const SearchLimits& limits, SearchCounts& counts)
      : bench_(bench), tokens_(tokens), limits_(limits), counts_(counts) {}

  Result<CellPair> run(const CellPair& incumbents, const CellPair& neighbour) {
    auto all = bench_.candidates(tokens_);
    if (!all) return tl::unexpected(all.error());
    for (RefusedCandidate& refused : all->refused) refuse(refused.candidate, refused.reason);
    all_ = std::move(*all);
    if (auto done = try_first(tiled_isolated_, neighbour.tiled.isolated, BlobLayout::kTiled); !done) {
      return tl::unexpected(done.error());
    }
    for (const auto step : {&CellSearch::search_cublas, &CellSearch::search_tiled, &CellSearch::search_decoded,
                            &CellSearch::search_raw}) {
      if (auto done = (this->*step)(); !done) return tl::unexpected(done.error());
    }
    if (auto done = add_incumbents(incumbents); !done) return tl::unexpected(done.error());
    if (auto done = last_rounds(); !done) return tl::unexpected(done.error());
    return result(incumbents);
  }

 private:
  [[nodiscard]] bool late() { return limits_.deadline_s > 0 && bench_.now_s() >= limits_.deadline_s; }
  [[nodiscard]] double within(double factor) const { return limits_.exhaustive ? 1e300 : factor; }

  void refuse(const Candidate& candidate, const std::string& reason) {
    ++counts_.refused;
    counts_.refusals.try_emplace(reason, fmt::format("{} weights, {} tokens: {}", layout_name(candidate.layout),
                                                     tokens_, describe(candidate.choice)));
  }

  /// Checks and times a candidate; nothing where it cannot be used. It joins the group if it is near the best there.
  Result<std::optional<double>> add(Group& group, const Candidate& candidate, bool pinned = false) {
    const auto same = std::ranges::find(group, candidate, &Runner::candidate);
    if (same != group.end()) {
      same->pinned = same->pinned || pinned;
      return same->us;
    }
    if (auto checked = bench_.check(candidate, tokens_); !checked) {
      if (checked.error().code != ErrorCode::kInvalidArgument) return tl::unexpected(checked.error());
      refuse(candidate, checked.error().message);
      return std::nullopt;
    }
    auto watch = bench_.prepare(candidate, tokens_);
    if (!watch) return tl::unexpected(watch.error());
    Runner runner{candidate, std::move(*watch), {}, 0, pinned};
    for (int sample = 0; sample < 3; ++sample) {
      auto us = runner.watch->sample_us();
      if (!us) return tl::unexpected(us.error());
      if (sample == 1 || (sample == 2 && *us < runner.us)) runner.us = *us;  // the first one warms up
    }
    ++counts_.timed;
    const double us = runner.us;
    group.push_back(std::move(runner));
    keep_best(group, kMostAlive, within(kDropBeyond));
    return us;
  }

  /// The first fused choice of a list, if it is legal here: what is best for half as many tokens is seldom bad, however
  /// little time there is.
  Result<void> try_first(Group& group, const std::vector<Measurement>& list, BlobLayout layout) {
    const auto first =
        std::ranges::find(list, Pipeline::kFused, [](const Measurement& m) { return m.choice.pipeline; });
    if (first == list.end()) return {};
    const auto legal = std::ranges::find_if(all_.legal, [&](const Candidate& candidate) {
      return candidate.layout == layout && candidate.choice == first->choice;
    });
    if (legal == all_.legal.end()) return {};
    auto us = add(group, *legal);
    return us ? Result<void>() : tl::unexpected(us.error());
  }

  /// The best of the same configurations without dependent launch.
  Result<void> try_first_dependent(Group& group, const Group& isolated) {
    if (isolated.empty()) return {};
    auto us = add(group, with_launch(isolated.front().candidate, true));
    return us ? Result<void>() : tl::unexpected(us.error());
  }

  /// The baseline, and cuBLASLt's algorithms on raw weights.
  Result<void> search_cublas() {
    for (const Candidate& candidate : all_.legal) {
      if (candidate.layout != BlobLayout::kRaw || candidate.choice.pipeline != Pipeline::kRaw) continue;
      // Without the baseline nothing could be said about cuBLAS: it goes first.
      if (!cublas_.empty() && late()) break;
      if (auto us = add(cublas_, candidate); !us) return tl::unexpected(us.error());
    }
    return {};
  }

  /// The middle of each family, then all of those that are near the best. `times` has what the middles took.
  Result<void> search_fused(Group& group, const std::vector<Family>& families, bool dependent,
                            std::vector<double>* times = nullptr) {
    std::vector<double> middles;
    double best = 1e300;
    for (const Family& family : families) {
      double taken = 1e300;
      if (group.empty() || !late()) {
        auto us = add(group, with_launch(family.middle(), dependent));
        if (!us) return tl::unexpected(us.error());
        taken = us->value_or(taken);
      }
      middles.push_back(taken);
      best = std::min(best, taken);
    }
    for (std::size_t i = 0; i < families.size(); ++i) {
      if (middles[i] > within(kExpandWithin) * best) continue;
      for (const Candidate& member : families[i].members) {
        if (late()) break;
        if (auto us = add(group, with_launch(member, dependent)); !us) return tl::unexpected(us.error());
      }
    }
    if (times != nullptr) *times = std::move(middles);
    return {};
  }

  Result<void> search_tiled() {
    std::vector<Family> families = families_of(all_.legal, BlobLayout::kTiled);
    std::vector<double> times;
    if (auto done = search_fused(tiled_isolated_, families, false, &times); !done) return done;
    // Dependent launch hides the ends of a kernel, which makes another order, but not another world.
    const double best = times.empty() ? 0 : *std::ranges::min_element(times);
    std::vector<Family> near;
    for (std::size_t i = 0; i < families.size(); ++i) {
      if (times[i] <= within(kDropBeyond) * best) near.push_back(std::move(families[i]));
    }
    if (auto done = try_first_dependent(tiled_dependent_, tiled_isolated_); !done) return done;
    return search_fused(tiled_dependent_, near, true);
  }

  /// With the algorithms that are best on raw weights, where the sum of both parts is no worse than the fused kernel.
  Result<void> search_decoded() {
    if (cublas_.empty()) return {};
    if (!tiled_isolated_.empty() && !limits_.exhaustive) {
      auto decode_us = bench_.decode_us();
      if (!decode_us) return tl::unexpected(decode_us.error());
      if (cublas_.front().us + *decode_us > kDropBeyond * tiled_isolated_.front().us) return {};
    }
    std::size_t tried = 0;
    for (std::size_t i = 0; i < cublas_.size() && tried < kDecodedAlgorithms; ++i) {
      if (cublas_[i].candidate.baseline || (tried > 0 && late())) continue;
      Candidate candidate{BlobLayout::kTiled, cublas_[i].candidate.choice, false};
      candidate.choice.pipeline = Pipeline::kDecoded;
      if (auto us = add(decoded_, candidate); !us) return tl::unexpected(us.error());
      ++tried;
    }
    return {};
  }

  /// The fused kernel on raw weights, in the families that suit tiled ones.
  Result<void> search_raw() {
    const std::vector<Family> families = families_of(all_.legal, BlobLayout::kRaw);
    for (const auto& [group, tiled, dependent] :
         {std::tuple(&raw_isolated_, &tiled_isolated_, false), std::tuple(&raw_dependent_, &tiled_dependent_, true)}) {
      std::vector<Family> chosen;
      for (const Family& family : families) {
        const bool wanted =
            limits_.exhaustive || tiled->empty() || std::ranges::any_of(*tiled, [&](const Runner& runner) {
              return same_config(family_key(runner.candidate.choice.config), family.key);
            });
        if (wanted) chosen.push_back(family);
      }
      if (dependent) {
        if (auto done = try_first_dependent(*group, raw_isolated_); !done) return done;
      }
      if (auto done = search_fused(*group, chosen, dependent); !done) return done;
      // Where cuBLAS is far ahead there is nothing to choose.
      if (!cublas_.empty() && !group->empty() && !limits_.exhaustive &&
          group->front().us > kDropBeyond * cublas_.front().us) {
        keep_best(*group, 1, 1);
      }
    }
    return {};
  }

  /// The first of each list.
  Result<void> add_incumbents(const CellPair& incumbents) {
    const auto add_first = [&](const std::vector<Measurement>& list, BlobLayout layout, bool dependent,
                               Group& fused) -> Result<void> {
      if (list.empty()) return {};
      Candidate candidate{layout, list.front().choice, false};
      candidate = with_launch(candidate, dependent && candidate.choice.pipeline == Pipeline::kFused);
      const bool is_fused = candidate.choice.pipeline == Pipeline::kFused;
      Group& group = is_fused ? fused : layout == BlobLayout::kTiled ? decoded_ : cublas_;
      auto us = add(group, candidate, true);
      return us ? Result<void>() : tl::unexpected(us.error());
    };
    if (auto ok = add_first(incumbents.tiled.isolated, BlobLayout::kTiled, false, tiled_isolated_); !ok) return ok;
    if (auto ok = add_first(incumbents.tiled.dependent, BlobLayout::kTiled, true, tiled_dependent_); !ok) return ok;
    if (auto ok = add_first(incumbents.raw.isolated, BlobLayout::kRaw, false, raw_isolated_); !ok) return ok;
    return add_first(incumbents.raw.dependent, BlobLayout::kRaw, true, raw_dependent_);
  }

  /// The best of each group in turns, so that all see the same clocks and temperatures.
  Result<void> last_rounds() {
    keep_best(cublas_, limits_.exhaustive ? 4 : 3, kDropBeyond);
    for (Group* group : {&tiled_isolated_, &tiled_dependent_})
      keep_best(*group, limits_.exhaustive ? 8 : 3, kDropBeyond);
    for (Group* group : {&decoded_, &raw_isolated_, &raw_dependent_}) keep_best(*group, 2, kDropBeyond);
    std::vector<Runner*> all;
    for (Group* group : groups()) {
      for (Runner& runner : *group) all.push_back(&runner);
    }
    for (int round = 0; round < kRounds; ++round) {
      if (round >= kLeastRounds && late()) break;
      for (std::size_t i = 0; i < all.size(); ++i) {
        Runner& runner = *all[(i + static_cast<std::size_t>(round)) % all.size()];
        auto us = runner.watch->sample_us();
        if (!us) return tl::unexpected(us.error());
        runner.samples.push_back(*us);
      }
    }
    for (Runner* runner : all) runner->us = median(runner->samples);
    return {};
  }

  [[nodiscard]] std::array<Group*, 6> groups() {
    return {&cublas_, &tiled_isolated_, &tiled_dependent_, &decoded_, &raw_isolated_, &raw_dependent_};
  }

  /// From the best on; the incumbent stays first unless the best is faster by more than the noise.
  static std::vector<Measurement> listed(std::initializer_list<const Group*> groups,
                                         const std::vector<Measurement>& incumbents) {
    std::vector<Measurement> list;
    for (const Group* group : groups) {
      for (const Runner& runner : *group) {
        if (!runner.candidate.baseline) list.push_back({runner.candidate.choice, runner.us, noise_of(runner.samples)});
      }
    }
    std::ranges::stable_sort(list, {}, &Measurement::us);
    if (!incumbents.empty()) {
      const auto incumbent = std::ranges::find(list, incumbents.front().choice, &Measurement::choice);
      if (incumbent != list.end() && !clearly_slower(*incumbent, list.front())) {
        std::rotate(list.begin(), incumbent, incumbent + 1);
      }
    }
    drop_surplus(list);
    return list;
  }

  /// Keeps kMostListed, among them the best of each pipeline.
  static void drop_surplus(std::vector<Measurement>& list) {
    while (list.size() > kMostListed) {
      std::size_t drop = list.size() - 1;
      const auto only = [&](std::size_t i) {
        return std::ranges::count(list, list[i].choice.pipeline,
                                  [](const Measurement& m) { return m.choice.pipeline; }) == 1;
      };
      while (drop > 1 && only(drop)) --drop;
      list.erase(list.begin() + static_cast<std::ptrdiff_t>(drop));
    }
  }

  Result<CellPair> result(const CellPair& incumbents) {
    CellPair pair;
    std::ranges::stable_sort(cublas_, {}, &Runner::us);
    const double cublas_us = cublas_.empty() ? 0 : cublas_.front().us;
    for (PlanCell* cell : {&pair.tiled, &pair.raw}) {
      cell->tokens = tokens_;
      cell->cublas_us = cublas_us;
    }
    pair.tiled.isolated = listed({&tiled_isolated_, &decoded_}, incumbents.tiled.isolated);
    pair.tiled.dependent = listed({&tiled_dependent_, &decoded_}, incumbents.tiled.dependent);
    pair.raw.isolated = listed({&raw_isolated_, &cublas_}, incumbents.raw.isolated);
    pair.raw.dependent = listed({&raw_dependent_, &cublas_}, incumbents.raw.dependent);
    if (pair.tiled.isolated.empty()) {
      return fail(ErrorCode::kInvalidArgument, fmt::format("tune: no candidate for {} tokens", tokens_));
    }
    return pair;
  }

  Bench& bench_;
  std::uint32_t tokens_;
  SearchLimits limits_;
  SearchCounts& counts_;
  CellCandidates all_;
  Group cublas_, tiled_isolated_, tiled_dependent_, decoded_, raw_isolated_, raw_dependent_;
};

}  // namespace

Result<CellPair> search_cell(Bench& bench, std::uint32_t tokens, const CellPair& incumbents, const CellPair& neighbour,
                             const SearchLimits& limits, SearchCounts& counts) {
  return CellSearch(bench, tokens, limits, counts).run(incumbents, neighbour);
}

}  // namespace unweight::tune
