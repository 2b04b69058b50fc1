// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <commands.hpp>
#include <fmt/format.h>
#include <json.hpp>
#include <plan_report.hpp>
#include <report_file.hpp>
#include <table.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

using enum Table::Align;

// ---- show -----------------------------------------------------------------------------------------------------------

int show(const PlanArguments& arguments, Plan plan) {
  PlanView view;
  view.plan = std::move(plan);
  view.file = arguments.file;
  view.report = arguments.report;
  if (!view.plan.matrices.empty()) {
    auto memory = memory_report(view.plan);
    if (!memory) return print_error(memory.error(), arguments.mode);
    view.memory = *std::move(memory);
  }
  auto report_file = ReportFile::open(arguments.report);
  if (!report_file) return print_error(report_file.error(), arguments.mode);
  if (!arguments.report.empty()) {
    if (const auto written = report_file->write(plan_page(view)); !written) {
      return print_error(written.error(), arguments.mode);
    }
  }
  return print_outcome(
      arguments.mode, [&] { return plan_json(view); }, [&] { return plan_summary(view); });
}

// ---- explain --------------------------------------------------------------------------------------------------------

/// One choice that was measured, and the cell that it stands in.
struct Explained {
  const PlanWeight* entry;
  const PlanCell* cell;
  bool dependent;
  std::size_t place;
  const Measurement* measured;
};

Result<std::vector<Explained>> explained(const PlanArguments& arguments, const Plan& plan) {
  std::vector<Explained> all;
  for (const PlanWeight& entry : plan.weights) {
    if (entry.weight.rows != arguments.shape->rows || entry.weight.cols != arguments.shape->cols) continue;
    std::vector<const PlanCell*> cells;
    if (arguments.tokens != 0) {
      if (const PlanCell* cell = nearest_cell(entry, arguments.tokens)) cells.push_back(cell);
    } else {
      for (const PlanCell& cell : entry.cells) cells.push_back(&cell);
    }
    for (const PlanCell* cell : cells) {
      for (const auto& [dependent, list] : {std::pair(false, &cell->isolated), std::pair(true, &cell->dependent)}) {
        for (std::size_t i = 0; i < list->size(); ++i) all.push_back({&entry, cell, dependent, i, &(*list)[i]});
      }
    }
  }
  if (!all.empty()) return all;
  return fail(ErrorCode::kNotFound,
              fmt::format("{}: nothing for {} x {}{}: tables, then rules of the library are used",
                          arguments.file.native(), arguments.shape->rows, arguments.shape->cols,
                          arguments.tokens == 0 ? "" : fmt::format(", {} tokens", arguments.tokens)));
}

std::string explain_text(const PlanArguments& arguments, const std::vector<Explained>& all) {
  Table table({{"us", kRight}, {"noise", kRight}, {"of cuBLAS", kRight}, {"", kLeft}, {"choice", kLeft}});
  for (const Explained& one : all) {
    if (one.place == 0) {
      std::string section = fmt::format("{}, up to {} tokens, {}", describe(one.entry->weight), one.cell->tokens,
                                        one.dependent ? "dependent launch" : "isolated");
      if (arguments.tokens != 0 && token_bucket(arguments.tokens) != token_bucket(one.cell->tokens)) {
        section += fmt::format(": the nearest cell for {} tokens", arguments.tokens);
      }
      table.add_section(section + fmt::format("; cuBLAS {:.2f} us", one.cell->cublas_us));
    }
    const Measurement& measured = *one.measured;
    table.add_row({fmt::format("{:.2f}", measured.us), fmt::format("{:.2f}%", 100 * measured.noise),
                   fmt::format("{:.3f}", speed_up(*one.cell, measured)), one.place == 0 ? "chosen" : "",
                   describe(measured.choice)});
  }
  return table.text();
}

std::string explain_json(const std::vector<Explained>& all) {
  Json json;
  json.begin_object();
  json.key("choices");
  json.begin_array();
  for (const Explained& one : all) {
    json.begin_object();
    json.member("layout", layout_name(one.entry->weight.layout));
    json.member("exceptions", exception_class_name(one.entry->weight.exceptions));
    json.member("tokens", one.cell->tokens);
    json.member("dependent_launch", one.dependent);
    json.member("chosen", one.place == 0);
    json.member("pipeline", pipeline_name(one.measured->choice.pipeline));
    json.member("choice", describe(one.measured->choice));
    json.member("us", one.measured->us);
    json.member("noise", one.measured->noise);
    json.member("cublas_us", one.cell->cublas_us);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return json.text();
}

int explain(const PlanArguments& arguments, const Plan& plan) {
  const auto all = explained(arguments, plan);
  if (!all) return print_error(all.error(), arguments.mode);
  return print_outcome(
      arguments.mode, [&] { return explain_json(*all); }, [&] { return explain_text(arguments, *all); });
}

// ---- diff -----------------------------------------------------------------------------------------------------------

struct Difference {
  std::string where, before, after;
};

void compare_lists(const std::string& where, const std::vector<Measurement>& a, const std::vector<Measurement>& b,
                   std::vector<Difference>& differences) {
  const auto shown = [](const std::vector<Measurement>& list) {
    return list.empty() ? std::string("nothing")
                        : fmt::format("{} ({:.2f} us)", describe(list.front().choice), list.front().us);
  };
  const bool same = a.empty() == b.empty() && (a.empty() || a.front().choice == b.front().choice);
  if (!same) differences.push_back({where, shown(a), shown(b)});
}

void compare_weights(const Plan& a, const Plan& b, bool only_missing, std::vector<Difference>& differences) {
  const PlanCell kNothing;
  for (const PlanWeight& entry : a.weights) {
    const PlanWeight* other = b.find(entry.weight);
    for (const PlanCell& cell : entry.cells) {
      const PlanCell* match = nullptr;
      if (other != nullptr) {
        const auto found = std::ranges::find(other->cells, cell.tokens, &PlanCell::tokens);
        if (found != other->cells.end()) match = &*found;
      }
      if (only_missing && match != nullptr) continue;
      const PlanCell& theirs = match != nullptr ? *match : kNothing;
      const PlanCell &before = only_missing ? theirs : cell, &after = only_missing ? cell : theirs;
      const std::string where = fmt::format("{}, {} tokens", describe(entry.weight), cell.tokens);
      compare_lists(where + ", isolated", before.isolated, after.isolated, differences);
      compare_lists(where + ", dependent", before.dependent, after.dependent, differences);
    }
  }
}

std::vector<Difference> differences_of(const Plan& a, const Plan& b) {
  std::vector<Difference> differences;
  const auto compare = [&](const char* what, const std::string& before, const std::string& after) {
    if (before != after) differences.push_back({what, printable(before), printable(after)});
  };
  compare("GPU", a.origin.gpu, b.origin.gpu);
  compare("multiprocessors", std::to_string(a.origin.multiprocessors), std::to_string(b.origin.multiprocessors));
  compare("cuBLASLt", std::to_string(a.origin.cublaslt), std::to_string(b.origin.cublaslt));
  compare("library", a.origin.library, b.origin.library);
  compare("kernels", a.origin.kernels, b.origin.kernels);
  compare("objective", std::string(objective_name(a.request.objective)),
          std::string(objective_name(b.request.objective)));
  for (const PlanMatrices& equal : a.matrices) {
    const auto same = std::ranges::find_if(b.matrices, [&](const PlanMatrices& other) {
      return other.kind == equal.kind && other.rows == equal.rows && other.cols == equal.cols &&
             other.exceptions == equal.exceptions;
    });
    if (same == b.matrices.end()) continue;
    const std::string where = fmt::format("{} kept raw", printable(equal.kind));
    compare(where.c_str(), std::to_string(equal.raw), std::to_string(same->raw));
  }
  compare_weights(a, b, false, differences);
  compare_weights(b, a, true, differences);
  return differences;
}

std::string diff_text(const std::vector<Difference>& differences) {
  if (differences.empty()) return "no difference\n";
  std::string text;
  for (const Difference& difference : differences) {
    text += fmt::format("{}\n  - {}\n  + {}\n", difference.where, difference.before, difference.after);
  }
  return text;
}

std::string diff_json(const std::vector<Difference>& differences) {
  Json json;
  json.begin_object();
  json.key("differences");
  json.begin_array();
  for (const Difference& difference : differences) {
    json.begin_object();
    json.member("where", difference.where);
    json.member("before", difference.before);
    json.member("after", difference.after);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return json.text();
}

int diff(const PlanArguments& arguments, const Plan& plan) {
  const auto other = read_plan(arguments.other);
  if (!other) return print_error(other.error(), arguments.mode);
  const std::vector<Difference> differences = differences_of(plan, *other);
  return print_outcome(
      arguments.mode, [&] { return diff_json(differences); }, [&] { return diff_text(differences); });
}

// ---- table ----------------------------------------------------------------------------------------------------------

int table(const PlanArguments& arguments, const Plan& plan) {
  const auto as_json = [&] {
    Json json;
    json.begin_object();
    json.member("table", plan_table_text(plan));
    json.end_object();
    return json.text();
  };
  return print_outcome(arguments.mode, as_json, [&] { return plan_table_text(plan); });
}

}  // namespace

int run(const PlanArguments& arguments) {
  auto plan = read_plan(arguments.file);
  if (!plan) return print_error(plan.error(), arguments.mode);
  switch (arguments.action) {
    case PlanAction::kShow:
      return show(arguments, *std::move(plan));
    case PlanAction::kExplain:
      return explain(arguments, *plan);
    case PlanAction::kDiff:
      return diff(arguments, *plan);
    case PlanAction::kTable:
      return table(arguments, *plan);
  }
  return print_error({ErrorCode::kInternal, "plan: an action that is none"}, arguments.mode);
}

}  // namespace unweight::cli
