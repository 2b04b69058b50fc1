// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fmt/format.h>
#include <json.hpp>
#include <plan_report.hpp>
#include <set>
#include <table.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

using enum Table::Align;

std::string speed_up_text(double ratio) { return ratio > 0 ? fmt::format("{:.2f}", ratio) : "-"; }

// ---- text -----------------------------------------------------------------------------------------------------------

/// "1.43 fused": how many times as fast as cuBLAS, and by what.
std::string cell_text(const Plan& plan, const PlanCell& cell) {
  const auto& list = shown_list(plan, cell);
  if (list.empty()) return "-";
  return fmt::format("{} {}", speed_up_text(speed_up(cell, list.front())), pipeline_name(list.front().choice.pipeline));
}

std::string weights_table(const Plan& plan) {
  const std::vector<std::uint32_t> tokens = all_tokens(plan);
  std::vector<Table::Column> columns = {{"weight", kLeft}, {"bytes", kRight}};
  for (const std::uint32_t number : tokens) columns.push_back({std::to_string(number), kRight});
  Table table(std::move(columns));
  for (const PlanWeight& entry : plan.weights) {
    std::vector<std::string> row = {describe(entry.weight), format_bytes(entry.bytes)};
    for (const std::uint32_t number : tokens) {
      const auto cell = std::ranges::find(entry.cells, number, &PlanCell::tokens);
      row.push_back(cell == entry.cells.end() ? "-" : cell_text(plan, *cell));
    }
    table.add_row(std::move(row));
  }
  return table.text();
}

std::string kinds_table(const Plan& plan, const MemoryReport& memory) {
  std::vector<Table::Column> columns = {{"kind", kLeft}, {"shape", kLeft},  {"matrices", kRight},
                                        {"raw", kRight}, {"bytes", kRight}, {"raw adds", kRight}};
  for (const std::uint32_t tokens : plan.request.batch_sizes)
    columns.push_back({format_count(tokens, "token"), kRight});
  Table table(std::move(columns));
  for (const KindCost& kind : memory.kinds) {
    const std::uint64_t more = kind.raw_bytes - std::min(kind.raw_bytes, kind.compressed_bytes);
    std::vector<std::string> row = {
        printable(kind.kind),   fmt::format("{} x {}", kind.rows, kind.cols), format_count(kind.count),
        format_count(kind.raw), format_bytes(kind.compressed_bytes),          format_bytes(more)};
    for (std::size_t b = 0; b < kind.compressed_us.size(); ++b) {
      row.push_back(fmt::format("{:.1f} us {}, raw {:.1f}, cuBLAS {:.1f}", kind.compressed_us[b],
                                pipeline_name(kind.pipelines[b]), kind.raw_us[b], kind.cublas_us[b]));
    }
    table.add_row(std::move(row));
  }
  return table.text();
}

std::string costs_table(const Plan& plan, const MemoryReport& memory) {
  const bool kv = plan.request.kv_bytes_per_token != 0;
  std::vector<Table::Column> columns = {
      {"", kLeft}, {"matrices", kRight}, {"scratch", kRight}, {"models on GPU", kRight}};
  if (kv) columns.push_back({"tokens of KV cache", kRight});
  for (const std::uint32_t tokens : plan.request.batch_sizes)
    columns.push_back({format_count(tokens, "token"), kRight});
  Table table(std::move(columns));
  const auto add = [&](const char* name, const StepCost& cost) {
    std::vector<std::string> row = {name, format_bytes(cost.matrix_bytes), format_bytes(cost.scratch_bytes),
                                    format_count(cost.models_on_gpu)};
    if (kv) row.push_back(format_count(cost.kv_tokens_on_gpu));
    for (std::size_t b = 0; b < cost.us.size(); ++b) {
      row.push_back(fmt::format("{:.0f} us ({:.2f})", cost.us[b], memory.all_cublas.us[b] / cost.us[b]));
    }
    table.add_row(std::move(row));
  };
  add("all raw, cuBLAS", memory.all_cublas);
  add("all compressed", memory.all_compressed);
  add("this plan", memory.chosen);
  return table.text();
}

std::string facts_table(const PlanView& view) {
  const PlanOrigin& origin = view.plan.origin;
  const PlanRequest& request = view.plan.request;
  Table table({{}, {}});
  table.add_row({"GPU", fmt::format("{}, {} multiprocessors, {}", printable(origin.gpu), origin.multiprocessors,
                                    format_bytes(origin.memory_bytes))});
  table.add_row({"software", fmt::format("driver {}, CUDA {}, cuBLASLt {}, unweight {}, kernels {}",
                                         printable(origin.driver), printable(origin.cuda), origin.cublaslt,
                                         printable(origin.library), printable(origin.kernels))});
  table.add_row({"measured", fmt::format("{}: {}", printable(origin.date), printable(origin.command))});
  if (view.memory) {
    table.add_row(
        {"for", fmt::format("{}, batch sizes {}, budget {}, {} dependent launch", objective_name(request.objective),
                            fmt::join(request.batch_sizes, ", "),
                            request.memory_budget_bytes == 0 ? "the GPU" : format_bytes(request.memory_budget_bytes),
                            request.dependent_launch ? "with" : "without")});
  }
  if (view.measuring.timed != 0) {
    table.add_row(
        {"tuning", fmt::format("{}, {} timed, {} refused", format_seconds(view.measuring.seconds),
                               format_count(view.measuring.timed, "candidate"), format_count(view.measuring.refused))});
  }
  if (!view.file.empty()) table.add_row({"plan", printable(view.file.native())});
  if (!view.report.empty()) table.add_row({"report", printable(view.report.native())});
  return table.text();
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

void add_numbers(Json& json, std::string_view name, const std::vector<double>& numbers) {
  json.key(name);
  json.begin_array();
  for (const double number : numbers) json.value(number);
  json.end_array();
}

void add_texts(Json& json, std::string_view name, const std::vector<std::string>& texts) {
  json.key(name);
  json.begin_array();
  for (const std::string& text : texts) json.value(text);
  json.end_array();
}

void add_cost(Json& json, std::string_view name, const StepCost& cost) {
  json.key(name);
  json.begin_object();
  json.member("matrix_bytes", cost.matrix_bytes);
  json.member("scratch_bytes", cost.scratch_bytes);
  json.member("models_on_gpu", cost.models_on_gpu);
  json.member("kv_tokens_on_gpu", cost.kv_tokens_on_gpu);
  add_numbers(json, "us", cost.us);
  json.end_object();
}

void add_memory(Json& json, const MemoryReport& memory) {
  json.key("costs");
  json.begin_object();
  add_cost(json, "all_cublas", memory.all_cublas);
  add_cost(json, "all_compressed", memory.all_compressed);
  add_cost(json, "chosen", memory.chosen);
  json.end_object();
  json.member("optimal", memory.optimal);
  json.key("kinds");
  json.begin_array();
  for (const KindCost& kind : memory.kinds) {
    json.begin_object();
    json.member("kind", kind.kind);
    json.member("rows", kind.rows);
    json.member("cols", kind.cols);
    json.member("count", kind.count);
    json.member("raw", kind.raw);
    json.member("compressed_bytes", kind.compressed_bytes);
    json.member("raw_bytes", kind.raw_bytes);
    add_numbers(json, "compressed_us", kind.compressed_us);
    add_numbers(json, "raw_us", kind.raw_us);
    add_numbers(json, "cublas_us", kind.cublas_us);
    json.end_object();
  }
  json.end_array();
}

void add_cells(Json& json, const Plan& plan) {
  json.key("cells");
  json.begin_array();
  for (const PlanWeight& entry : plan.weights) {
    for (const PlanCell& cell : entry.cells) {
      for (const auto& [dependent, list] : {std::pair(false, &cell.isolated), std::pair(true, &cell.dependent)}) {
        if (list->empty()) continue;
        const Measurement& first = list->front();
        json.begin_object();
        json.member("rows", entry.weight.rows);
        json.member("cols", entry.weight.cols);
        json.member("layout", layout_name(entry.weight.layout));
        json.member("exceptions", exception_class_name(entry.weight.exceptions));
        json.member("tokens", cell.tokens);
        json.member("dependent_launch", dependent);
        json.member("pipeline", pipeline_name(first.choice.pipeline));
        json.member("choice", describe(first.choice));
        json.member("us", first.us);
        json.member("cublas_us", cell.cublas_us);
        json.member("speed_up", speed_up(cell, first));
        json.end_object();
      }
    }
  }
  json.end_array();
}

}  // namespace

std::vector<std::uint32_t> all_tokens(const Plan& plan) {
  std::set<std::uint32_t> tokens;
  for (const PlanWeight& entry : plan.weights) {
    for (const PlanCell& cell : entry.cells) tokens.insert(cell.tokens);
  }
  return {tokens.begin(), tokens.end()};
}

const std::vector<Measurement>& shown_list(const Plan& plan, const PlanCell& cell) {
  const auto& wanted = plan.request.dependent_launch ? cell.dependent : cell.isolated;
  const auto& other = plan.request.dependent_launch ? cell.isolated : cell.dependent;
  return wanted.empty() ? other : wanted;
}

std::string plan_summary(const PlanView& view) {
  std::string text = weights_table(view.plan) + "\n";
  if (view.memory) text += kinds_table(view.plan, *view.memory) + "\n" + costs_table(view.plan, *view.memory) + "\n";
  text += facts_table(view);
  text +=
      "\nNumbers of weights are times as fast as the best of cuBLAS on raw weights, those of costs in brackets, too.\n";
  return text;
}

std::string plan_json(const PlanView& view) {
  const PlanOrigin& origin = view.plan.origin;
  const PlanRequest& request = view.plan.request;
  Json json;
  json.begin_object();
  json.member("plan", view.file.native());
  if (!view.report.empty()) json.member("report", view.report.native());
  json.member("gpu", origin.gpu);
  json.member("multiprocessors", origin.multiprocessors);
  json.member("library", origin.library);
  json.member("kernels", origin.kernels);
  json.member("date", origin.date);
  json.member("model", request.model);
  json.member("objective", objective_name(request.objective));
  json.key("batch_sizes");
  json.begin_array();
  for (const std::uint32_t tokens : request.batch_sizes) json.value(tokens);
  json.end_array();
  json.member("memory_budget_bytes", request.memory_budget_bytes);
  json.member("seconds", view.measuring.seconds);
  json.member("candidates_timed", view.measuring.timed);
  json.member("candidates_refused", view.measuring.refused);
  add_texts(json, "refusals", view.measuring.refusals);
  std::vector<std::string> warnings = view.measuring.warnings;
  if (view.memory) {
    warnings.insert(warnings.end(), view.memory->warnings.begin(), view.memory->warnings.end());
    add_memory(json, *view.memory);
  }
  add_texts(json, "warnings", warnings);
  add_cells(json, view.plan);
  json.end_object();
  return json.text();
}

}  // namespace unweight::cli
