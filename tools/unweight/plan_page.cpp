// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <iterator>
#include <page_frame.hpp>
#include <plan_report.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

constexpr char kHeatStyle[] = R"css(
.heat td, .heat th { text-align: center; padding: 6px 8px; cursor: default; }
.heat th:first-child { text-align: left; }
.heat td { border: 2px solid var(--card); border-radius: 6px; color: #14171b; }
.heat small { display: block; font-size: 11px; opacity: 0.8; }
.heat .none { color: var(--soft); }
.h0 { background: #e0705c; } .h1 { background: #f0b49b; } .h2 { background: #e9e4d8; } .h3 { background: #cfe5c8; }
.h4 { background: #9fd2a0; } .h5 { background: #63b984; } .h6 { background: #2f9c72; }
.scale span { display: inline-block; padding: 2px 9px; margin: 0 4px 4px 0; border-radius: 5px; color: #14171b; }
)css";

/// Classes of the heat map, by the speed-up from which they begin.
struct Step {
  double from;
  const char* css_class;
  const char* label;
};
constexpr std::array<Step, 7> kSteps = {{{0, "h0", "below 0.90"},
                                         {0.90, "h1", "0.90 to 0.97"},
                                         {0.97, "h2", "0.97 to 1.03"},
                                         {1.03, "h3", "1.03 to 1.15"},
                                         {1.15, "h4", "1.15 to 1.30"},
                                         {1.30, "h5", "1.30 to 1.45"},
                                         {1.45, "h6", "1.45 and more"}}};

const char* class_of(double ratio) {
  const auto beyond = std::ranges::upper_bound(kSteps, ratio, {}, &Step::from);
  return std::prev(beyond)->css_class;
}

class Page {
 public:
  explicit Page(const PlanView& view) : view_(view), plan_(view.plan) {}

  std::string make() && {
    const std::string title =
        plan_.request.model.empty() ? "Plan for " + safe_markup(plan_.origin.gpu) : safe_markup(plan_.request.model);
    text_ = page_begin(
        title,
        fmt::format("Plan for {} with {} multiprocessors, measured {}. Figures are times as fast as the "
                    "best of cuBLAS on raw weights, in the same run.",
                    safe_markup(plan_.origin.gpu), plan_.origin.multiprocessors, safe_markup(plan_.origin.date)),
        kHeatStyle);
    if (view_.memory) add_tiles(*view_.memory);
    add_heat(BlobLayout::kTiled, true, "Compressed weights, dependent launch");
    add_heat(BlobLayout::kTiled, false, "Compressed weights, isolated");
    add_heat(BlobLayout::kRaw, plan_.request.dependent_launch, "Raw weights");
    if (view_.memory) add_kinds(*view_.memory);
    add_origin();
    return std::move(text_) + page_end({});
  }

 private:
  template <class... Values>
  void add(fmt::format_string<Values...> format, Values&&... values) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Values>(values)...);
  }

  void add_tiles(const MemoryReport& memory) {
    add("<dl class=\"tiles\">\n");
    for (std::size_t b = 0; b < memory.chosen.us.size(); ++b) {
      text_ += page_tile(
          format_count(plan_.request.batch_sizes[b], "token"),
          fmt::format("{:.2f}", memory.all_cublas.us[b] / memory.chosen.us[b]),
          fmt::format("{:.0f} us of matrices a step, cuBLAS {:.0f}", memory.chosen.us[b], memory.all_cublas.us[b]),
          true);
    }
    const auto all = [&](const StepCost& cost) {
      return cost.matrix_bytes + cost.scratch_bytes + plan_.request.other_bytes;
    };
    text_ += page_tile("Memory", format_bytes(all(memory.chosen)),
                       fmt::format("all raw {}, all compressed {}", format_bytes(all(memory.all_cublas)),
                                   format_bytes(all(memory.all_compressed))));
    text_ += page_tile("Models on the GPU", format_count(memory.chosen.models_on_gpu),
                       fmt::format("all raw {}", format_count(memory.all_cublas.models_on_gpu)));
    if (plan_.request.kv_bytes_per_token != 0) {
      text_ +=
          page_tile("Tokens of KV cache", format_magnitude(memory.chosen.kv_tokens_on_gpu),
                    fmt::format("beside one model; all raw {}", format_magnitude(memory.all_cublas.kv_tokens_on_gpu)));
    }
    add("</dl>\n");
  }

  void add_heat(BlobLayout layout, bool dependent, const char* title) {
    const std::vector<std::uint32_t> tokens = all_tokens(plan_);
    const auto is_shown = [&](const PlanWeight& entry) { return entry.weight.layout == layout; };
    if (std::ranges::none_of(plan_.weights, is_shown)) return;
    add("<section>\n<h2>{}</h2>\n<p class=\"scale\">", title);
    for (const Step& step : kSteps) add("<span class=\"{}\">{}</span>", step.css_class, step.label);
    add("</p>\n<div class=\"scroll\"><table class=\"heat\">\n<thead><tr><th>weight</th>");
    for (const std::uint32_t number : tokens) add("<th>{}</th>", number);
    add("</tr></thead>\n<tbody>\n");
    for (const PlanWeight& entry : plan_.weights) {
      if (!is_shown(entry)) continue;
      add("<tr><th>{}</th>", safe_markup(describe(entry.weight)));
      for (const std::uint32_t number : tokens) {
        const auto cell = std::ranges::find(entry.cells, number, &PlanCell::tokens);
        add_cell(cell == entry.cells.end() ? nullptr : &*cell, dependent);
      }
      add("</tr>\n");
    }
    add("</tbody>\n</table></div>\n</section>\n");
  }

  void add_cell(const PlanCell* cell, bool dependent) {
    const std::vector<Measurement>* list = cell == nullptr ? nullptr : dependent ? &cell->dependent : &cell->isolated;
    if (list == nullptr || list->empty()) {
      add("<td class=\"none\">-</td>");
      return;
    }
    const Measurement& first = list->front();
    const double ratio = speed_up(*cell, first);
    std::string title =
        fmt::format("{:.2f} us, cuBLAS {:.2f} us\n{}", first.us, cell->cublas_us, describe(first.choice));
    for (std::size_t i = 1; i < list->size(); ++i) {
      title += fmt::format("\n{:.2f} us: {}", (*list)[i].us, describe((*list)[i].choice));
    }
    add("<td class=\"{}\" title=\"{}\">{}<small>{}</small></td>", ratio > 0 ? class_of(ratio) : "none",
        safe_markup_lines(title), ratio > 0 ? fmt::format("{:.2f}", ratio) : "-", pipeline_name(first.choice.pipeline));
  }

  /// Lines of an attribute.
  static std::string safe_markup_lines(std::string_view text) {
    std::string result;
    while (true) {
      const std::size_t end = text.find('\n');
      result += safe_markup(text.substr(0, end));
      if (end == text.npos) return result;
      result += "&#10;";
      text.remove_prefix(end + 1);
    }
  }

  void add_kinds(const MemoryReport& memory) {
    add("<section>\n<h2>Matrices</h2>\n<p>Objective {}; microseconds of one matrix: compressed, raw, cuBLAS.</p>\n"
        "<div class=\"scroll\"><table>\n<thead><tr><th>kind</th><th>shape</th><th class=\"n\">matrices</th>"
        "<th class=\"n\">kept raw</th><th class=\"n\">compressed</th><th class=\"n\">raw adds</th>",
        objective_name(plan_.request.objective));
    for (const std::uint32_t tokens : plan_.request.batch_sizes)
      add("<th class=\"n\">{}</th>", format_count(tokens, "token"));
    add("</tr></thead>\n<tbody>\n");
    for (const KindCost& kind : memory.kinds) {
      add("<tr><td>{}</td><td>{} x {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>"
          "<td class=\"n\">{}</td>",
          safe_markup(kind.kind), kind.rows, kind.cols, kind.count, kind.raw, format_bytes(kind.compressed_bytes),
          format_bytes(kind.raw_bytes - std::min(kind.raw_bytes, kind.compressed_bytes)));
      for (std::size_t b = 0; b < kind.compressed_us.size(); ++b) {
        add("<td class=\"n\">{:.1f} / {:.1f} / {:.1f}</td>", kind.compressed_us[b], kind.raw_us[b], kind.cublas_us[b]);
      }
      add("</tr>\n");
    }
    add("</tbody>\n</table></div>\n");
    for (const std::string& warning : memory.warnings) add("<p>{}</p>\n", safe_markup(warning));
    add("</section>\n");
  }

  void add_origin() {
    const PlanOrigin& origin = plan_.origin;
    add("<section>\n<h2>Origin</h2>\n<p>Driver {}, CUDA {}, cuBLASLt {}, unweight {}, kernels "
        "{}.<br/>{}</p>\n</section>\n",
        safe_markup(origin.driver), safe_markup(origin.cuda), origin.cublaslt, safe_markup(origin.library),
        safe_markup(origin.kernels), safe_markup(origin.command));
  }

  const PlanView& view_;
  const Plan& plan_;
  std::string text_;
};

}  // namespace

std::string plan_page(const PlanView& view) { return Page(view).make(); }

}  // namespace unweight::cli
