// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <tune/choice.hpp>
#include <tune/cost_model.hpp>
#include <tune/resolve.hpp>
#include <utility>

namespace unweight::tune {
namespace {

tl::unexpected<Error> refuse(const std::string& where, const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, where + ": " + why);
}

class Resolver {
 public:
  Resolver(const LookupSources& sources, const LookupRules& rules) : sources_(sources), rules_(rules) {}

  Result<ChoiceTable> run() {
    std::vector<std::pair<const PlanWeight*, ChoiceSource>> entries;
    if (sources_.plan != nullptr) {
      if (const PlanWeight* entry = entry_of(*sources_.plan, "plan")) {
        if (auto ok = check_entry(*entry); !ok) return tl::unexpected(ok.error());
        entries.emplace_back(entry, ChoiceSource::kPlan);
      }
    }
    for (const Plan& table : sources_.builtin) {
      if (table.origin.gpu != rules_.device.gpu) continue;
      if (const PlanWeight* entry = entry_of(table, "built-in table")) {
        entries.emplace_back(entry, ChoiceSource::kBuiltinTable);
      }
    }
    for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
      auto config = fused_config(bucket);
      if (!config) return tl::unexpected(config.error());
      table_.fused[bucket] = config->first;
      table_.buckets[bucket] = modelled(bucket, *config);
      // The last one asked has the last word.
      for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) take(bucket, *entry->first, entry->second);
    }
    for (const TokenChoice& override_choice : sources_.overrides) {
      if (auto ok = take_override(override_choice); !ok) return tl::unexpected(ok.error());
    }
    return std::move(table_);
  }

 private:
  /// Whether the pipeline exists for this weight and caller, and, if so, is legal.
  [[nodiscard]] bool available(const Choice& choice) const {
    switch (choice.pipeline) {
      case Pipeline::kFused:
        return true;
      case Pipeline::kDecoded:
        return rules_.cublaslt != 0 && rules_.scratch && rules_.weight.layout == BlobLayout::kTiled;
      case Pipeline::kRaw:
        return rules_.cublaslt != 0 && rules_.weight.layout == BlobLayout::kRaw;
    }
    return false;
  }

  /// What is wrong with a choice for a bucket of a weight of this layout, whatever the caller allows.
  [[nodiscard]] Result<void> legal(const Choice& choice, std::uint32_t bucket) const {
    const bool tiled = rules_.weight.layout == BlobLayout::kTiled;
    if (choice.pipeline == Pipeline::kFused) return legal_in_bucket(bucket, choice.config, rules_.can_implement);
    if (choice.pipeline == (tiled ? Pipeline::kDecoded : Pipeline::kRaw)) return {};
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("pipeline {} is not for {} weights", pipeline_name(choice.pipeline),
                            layout_name(rules_.weight.layout)));
  }

  /// The plan's entry for the weight, if the plan is for this device; one for another class of exceptions is better
  /// than none.
  const PlanWeight* entry_of(const Plan& plan, const char* what) {
    if (auto suits = plan_suits(plan, rules_.device); !suits) {
      table_.notes.push_back(fmt::format("{} not used: {}", what, suits.error().message));
      return nullptr;
    }
    if (const PlanWeight* exact = plan.find(rules_.weight)) return note_algorithms(plan, *exact, what);
    const auto near = std::ranges::find_if(plan.weights, [&](const PlanWeight& entry) {
      return WeightClass{entry.weight.rows, entry.weight.cols, entry.weight.layout, rules_.weight.exceptions} ==
             rules_.weight;
    });
    if (near == plan.weights.end()) {
      if (&plan != sources_.plan) return nullptr;  // a built-in table has the shapes of some models
      table_.notes.push_back(fmt::format("{} has no entry for {}", what, describe(rules_.weight)));
      return nullptr;
    }
    table_.notes.push_back(
        fmt::format("{} has no entry for {}, but for {}", what, describe(rules_.weight), describe(near->weight)));
    return note_algorithms(plan, *near, what);
  }

  static bool names_algorithms(const PlanWeight& entry) {
    const auto has_words = [](const Measurement& m) { return !m.choice.algorithm.first_proposal(); };
    return std::ranges::any_of(entry.cells, [&](const PlanCell& cell) {
      return std::ranges::any_of(cell.isolated, has_words) || std::ranges::any_of(cell.dependent, has_words);
    });
  }

  const PlanWeight* note_algorithms(const Plan& plan, const PlanWeight& entry, const char* what) {
    const bool same = plan.origin.cublaslt == rules_.cublaslt || rules_.cublaslt == kAnyCublaslt;
    if (rules_.cublaslt == 0 || same || !names_algorithms(entry)) return &entry;
    foreign_algorithms_.push_back(&entry);
    table_.notes.push_back(
        fmt::format("{}: algorithms of cuBLASLt {} are not those of {}: its first proposals are used", what,
                    plan.origin.cublaslt, rules_.cublaslt));
    return &entry;
  }

  /// Every choice of the caller's plan for this weight must be legal where it stands.
  [[nodiscard]] Result<void> check_entry(const PlanWeight& entry) const {
    for (const PlanCell& cell : entry.cells) {
      for (const auto& [list, name] :
           {std::pair(&cell.isolated, "isolated"), std::pair(&cell.dependent, "dependent")}) {
        for (std::size_t i = 0; i < list->size(); ++i) {
          auto ok = legal((*list)[i].choice, token_bucket(cell.tokens));
          if (ok) continue;
          return refuse(fmt::format("plan: {}, {} tokens, {}[{}]", describe(entry.weight), cell.tokens, name, i),
                        ok.error().message);
        }
      }
    }
    return {};
  }

  void take(std::uint32_t bucket, const PlanWeight& entry, ChoiceSource source) {
    for (const PlanCell* cell : near_cells(entry.cells, bucket)) {
      for (const Measurement& measured : list_of(*cell, rules_.dependent_launch)) {
        if (!available(measured.choice) || !legal(measured.choice, bucket)) continue;
        Choice choice = measured.choice;
        choice.config.dependent_launch = rules_.dependent_launch;
        if (std::ranges::find(foreign_algorithms_, &entry) != foreign_algorithms_.end()) choice.algorithm = {};
        table_.buckets[bucket] = {choice, source, cell->tokens};
        return;
      }
    }
  }

  [[nodiscard]] Result<void> take_override(const TokenChoice& wanted) {
    const std::string where = fmt::format("override for {} tokens", wanted.tokens);
    if (wanted.tokens == 0 || wanted.tokens > kMaxMatmulTokens) {
      return refuse(where, fmt::format("the number must be 1 to {}", kMaxMatmulTokens));
    }
    const std::uint32_t bucket = token_bucket(wanted.tokens);
    if (auto ok = legal(wanted.choice, bucket); !ok) return refuse(where, ok.error().message);
    if (!available(wanted.choice)) {
      return refuse(where, fmt::format("pipeline {} needs {}", pipeline_name(wanted.choice.pipeline),
                                       rules_.cublaslt == 0 ? "cuBLASLt and extents that suit it" : "a scratch"));
    }
    table_.buckets[bucket] = {wanted.choice, ChoiceSource::kOverride, bucket_tokens(bucket)};
    return {};
  }

  /// A configuration by the library's rules; where that is not legal in all of the bucket, any that is.
  [[nodiscard]] Result<std::pair<MatmulConfig, ChoiceSource>> fused_config(std::uint32_t bucket) const {
    auto chosen = rules_.choose_config(bucket_tokens(bucket));
    if (!chosen) return tl::unexpected(chosen.error());
    chosen->dependent_launch = rules_.dependent_launch;
    if (legal_in_bucket(bucket, *chosen, rules_.can_implement)) return std::pair(*chosen, ChoiceSource::kCostModel);
    const ConfigCandidates all = config_candidates(bucket, rules_.dependent_launch, rules_.can_implement);
    if (!all.legal.empty()) return std::pair(all.legal.front(), ChoiceSource::kFallback);
    return refuse(describe(rules_.weight),
                  fmt::format("no configuration for {} tokens: {}", bucket_tokens(bucket), all.refused.front().reason));
  }

  [[nodiscard]] ResolvedChoice modelled(std::uint32_t bucket,
                                        const std::pair<MatmulConfig, ChoiceSource>& fused) const {
    const Pipeline pipeline = model_pipeline(rules_.weight.layout, bucket, rules_.scratch, rules_.cublaslt != 0);
    const ChoiceSource source = pipeline == Pipeline::kFused ? fused.second : ChoiceSource::kCostModel;
    return {{pipeline, fused.first, {}}, source, 0};
  }

  const LookupSources& sources_;
  const LookupRules& rules_;
  std::vector<const PlanWeight*> foreign_algorithms_;
  ChoiceTable table_;
};

}  // namespace

std::vector<const PlanCell*> near_cells(const std::vector<PlanCell>& cells, std::uint32_t bucket) {
  const auto place = [](const PlanCell* cell) { return static_cast<int>(token_bucket(cell->tokens)); };
  const int wanted = static_cast<int>(bucket);
  std::vector<const PlanCell*> sorted;
  bool below = false, above = false;
  for (const PlanCell& cell : cells) {
    sorted.push_back(&cell);
    below = below || place(&cell) < wanted;
    above = above || place(&cell) > wanted;
  }
  if (!(below && above)) {
    std::erase_if(sorted,
                  [&](const PlanCell* cell) { return std::abs(place(cell) - wanted) > static_cast<int>(kReach); });
  }
  std::ranges::sort(sorted, [&](const PlanCell* a, const PlanCell* b) {
    const int a_distance = std::abs(place(a) - wanted), b_distance = std::abs(place(b) - wanted);
    return a_distance != b_distance ? a_distance < b_distance : place(a) > place(b);
  });
  return sorted;
}

Result<ChoiceTable> resolve(const LookupSources& sources, const LookupRules& rules) {
  return Resolver(sources, rules).run();
}

}  // namespace unweight::tune

namespace unweight {

const PlanCell* nearest_cell(const PlanWeight& entry, std::uint32_t tokens) {
  const auto cells = tune::near_cells(entry.cells, token_bucket(tokens));
  return cells.empty() ? nullptr : cells.front();
}

}  // namespace unweight
