// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <tune/choice.hpp>
#include <tune/resolve.hpp>
#include <tune/tables.hpp>
#include <tune/tuner.hpp>
#include <utility>

namespace unweight::tune {
namespace {

void add_h100([[maybe_unused]] TableBuilder& table) {
#include <tune/tables/h100.inc>
}

void add_h200_llama_3_1_8b([[maybe_unused]] TableBuilder& table) {
#include <tune/tables/h200_llama_3_1_8b.inc>
}

void add_h200([[maybe_unused]] TableBuilder& table){
#include <tune/tables/h200.inc>
}

/// Text from a plan file, harmless in a literal and in a comment of C++.
std::string harmless(std::string_view text) {
  std::string result;
  for (const char c : text) result += c < ' ' || c > '~' || c == '"' || c == '\\' ? '?' : c;
  return result;
}

/// Members that have their defaults are left out.
std::string config_lines(const MatmulConfig& config) {
  constexpr MatmulConfig kDefaults;
  std::string text;
  for (const ConfigMember& member : kConfigMembers) {
    const std::uint32_t value = member.get(config);
    if (value == member.get(kDefaults)) continue;
    if (!text.empty()) text += ", ";
    text += fmt::format(".{} = {}", member.name,
                        member.flag == nullptr ? std::to_string(value)
                        : value != 0           ? "true"
                                               : "false");
  }
  return "{" + text + "}";
}

std::string choice_lines(const Choice& choice) {
  if (choice.pipeline == Pipeline::kFused) return fmt::format("table.fused({})", config_lines(choice.config));
  std::string words;
  if (!choice.algorithm.first_proposal()) {
    for (const std::uint64_t word : choice.algorithm.words)
      words += fmt::format("{}{:#x}", words.empty() ? "" : ", ", word);
    words = "{" + words + "}";
  }
  return fmt::format("table.{}({{{}}})", pipeline_name(choice.pipeline), words);
}

const Measurement& chosen(const PlanCell& cell, bool dependent) { return list_of(cell, dependent).front(); }

/// For callers of dependent launches, who add that to any configuration: the choice without, where none that was
/// measured with it is as fast.
const Measurement& best_dependent(const PlanCell& cell) {
  const Measurement &dependent = chosen(cell, true), &isolated = chosen(cell, false);
  return clearly_slower(dependent, isolated) ? isolated : dependent;
}

/// Whether twice as many tokens took less time: there was none to find as good a choice here. Where a cell is missing
/// its neighbour's choice is taken.
bool is_beaten_by(const PlanCell& cell, const PlanCell& next) {
  const auto sum = [](const PlanCell& of) { return chosen(of, false).us + best_dependent(of).us; };
  constexpr double kClearly = 1.03;
  return next.tokens == 2 * cell.tokens && sum(cell) > kClearly * sum(next);
}

}  // namespace

std::span<const Plan> builtin_plans() {
  static const std::vector<Plan> plans = [] {
    TableBuilder table;
    add_h100(table);
    add_h200_llama_3_1_8b(table);
    add_h200(table);
    return std::move(table).finish();
  }();
  return plans;
}

void TableBuilder::plan(std::string_view gpu, std::uint32_t multiprocessors, std::uint64_t cublaslt,
                        std::string_view library, std::string_view kernels) {
  Plan& plan = plans_.emplace_back();
  plan.origin.gpu = gpu;
  plan.origin.multiprocessors = multiprocessors;
  plan.origin.cublaslt = cublaslt;
  plan.origin.library = library;
  plan.origin.kernels = kernels;
}

void TableBuilder::weight(std::uint64_t rows, std::uint64_t cols, BlobLayout layout, ExceptionClass exceptions) {
  plans_.back().weights.push_back({{rows, cols, layout, exceptions}, 0, {}});
}

void TableBuilder::cell(std::uint32_t tokens, const Choice& isolated, const Choice& dependent) {
  plans_.back().weights.back().cells.push_back({tokens, 0, {{isolated, 0, 0}}, {{dependent, 0, 0}}});
}

}  // namespace unweight::tune

namespace unweight {

std::string plan_table_text(const Plan& plan) {
  const PlanOrigin& origin = plan.origin;
  std::string text = fmt::format(
      "// SPDX-License-Identifier: Apache-2.0\n//\n// Made by `unweight plan table`; do not edit. Measured {} on {} "
      "with driver {}:\n"
      "// {}\n// clang-format off\n",
      tune::harmless(origin.date), tune::harmless(origin.gpu), tune::harmless(origin.driver),
      tune::harmless(origin.command));
  text +=
      fmt::format("table.plan(\"{}\", {}, {}, \"{}\", \"{}\");\n", tune::harmless(origin.gpu), origin.multiprocessors,
                  origin.cublaslt, tune::harmless(origin.library), tune::harmless(origin.kernels));
  for (const PlanWeight& entry : plan.weights) {
    constexpr std::string_view kLayouts[] = {"kRaw", "kTiled"}, kClasses[] = {"kUsual", "kMany", "kDense"};
    text += fmt::format("table.weight({}, {}, BlobLayout::{}, ExceptionClass::{});\n", entry.weight.rows,
                        entry.weight.cols, kLayouts[static_cast<std::size_t>(entry.weight.layout)],
                        kClasses[static_cast<std::size_t>(entry.weight.exceptions)]);
    for (std::size_t i = 0; i < entry.cells.size(); ++i) {
      const PlanCell& cell = entry.cells[i];
      if (i + 1 < entry.cells.size() && tune::is_beaten_by(cell, entry.cells[i + 1])) continue;
      text +=
          fmt::format("table.cell({}, {},\n  {});\n", cell.tokens, tune::choice_lines(tune::chosen(cell, false).choice),
                      tune::choice_lines(tune::best_dependent(cell).choice));
    }
  }
  return text + "// clang-format on\n";
}

}  // namespace unweight
