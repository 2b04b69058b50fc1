// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <inspect_report.hpp>
#include <iterator>
#include <page_charts.hpp>
#include <page_frame.hpp>
#include <page_style.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

std::string page_name(const std::filesystem::path& path) {
  const std::filesystem::path clean = path.has_filename() ? path : path.parent_path();
  const std::string name = clean.filename().native();
  return name.empty() || name == "." ? path.native() : name;
}

class Page {
 public:
  explicit Page(const Inspection& inspection)
      : arguments_(inspection.arguments),
        report_(inspection.report),
        summary_(inspection.summary),
        sizes_known_(inspection.sizes_known()) {}

  std::string make() && {
    add_head();
    add_tiles();
    add_layers();
    add_kinds();
    add_exponents();
    add_tensors();
    return std::move(text_) + page_end(kPageScript);
  }

 private:
  template <class... Values>
  void add(fmt::format_string<Values...> format, Values&&... values) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Values>(values)...);
  }

  void add_head() {
    text_ +=
        page_begin(safe_markup(page_name(arguments_.path)),
                   fmt::format("{}: {}",
                               report_.is_bundle ? "Compressed bundle"
                               : sizes_known_ ? "Checkpoint, not compressed yet: sizes are what compression would give"
                                              : "Checkpoint, not compressed: sizes are its own",
                               safe_markup(arguments_.path.native())));
  }

  void add_tile(std::string_view title, std::string_view value, std::string_view note, bool lead = false) {
    text_ += page_tile(title, value, note, lead);
  }

  void add_tiles() {
    const Totals& totals = summary_.totals;
    add("<dl class=\"tiles\">\n");
    if (sizes_known_) {
      add_tile(
          report_.is_bundle ? "Stored size" : "Compressed size",
          format_percent(report_.stored_bytes, report_.source_bytes),
          fmt::format("{} of {}, all files", format_bytes(report_.stored_bytes), format_bytes(report_.source_bytes)),
          true);
    } else {
      add_tile("Size", format_bytes(report_.source_bytes), "all files", true);
    }
    if (const auto bits = totals.bits_per_weight()) {
      add_tile("Bits/weight", fmt::format("{:.3f}", *bits), "all stored tensors, everything counted");
    }
    if (const auto entropy = entropy_of(totals.exponents)) {
      add_tile("Exponent entropy", fmt::format("{:.3f}", *entropy),
               fmt::format("bits; floor of exponent coding {:.3f}", 8 + *entropy));
      add_tile("Top 8 exponents", fmt::format("{:.2f}%", 100 * top8_share(totals.exponents)),
               "of the weights have one of the 8 most frequent");
    }
    add_tile("Weights", format_magnitude(totals.elements),
             fmt::format("{} in {}", format_count(totals.elements), format_count(totals.tensors, "tensor")));
    if (sizes_known_)
      add_tile("Tensors compressed", format_count(totals.blobs),
               fmt::format("{} raw, {}", format_count(totals.tensors - totals.blobs - totals.aliases),
                           format_count(totals.aliases, "duplicate")));
    add("</dl>\n");
  }

  void add_layers() {
    if (summary_.layers < 2) return;
    const std::string chart = layer_chart(summary_);
    if (chart.empty()) return;
    add("<section>\n<h2>Bits per weight by layer</h2>\n<p>One line for each kind of tensor; the number in the legend "
        "is the kind's average. The vertical axis does not begin at 0.</p>\n<div class=\"wide\">{}</div></section>\n",
        chart);
  }

  void add_kinds() {
    if (summary_.kinds.empty()) return;
    add("<section>\n<h2>Bits per weight by kind of tensor</h2>\n<p><i class=\"key\"></i>compressed &#160; "
        "<i class=\"key raw\"></i>raw");
    if (entropy_of(summary_.totals.exponents)) {
      add(" &#160; <i class=\"key floor\"></i>floor of exponent coding: 8 bits of sign and mantissa, and the entropy "
          "of the exponent");
    }
    add("</p>\n<div class=\"wide\">{}</div></section>\n", kind_chart(summary_));
  }

  void add_exponents() {
    if (!entropy_of(summary_.totals.exponents)) return;
    add("<section>\n<h2>Exponents</h2>\n<p>How often each exponent occurs in the BF16 tensors. "
        "<i class=\"key\"></i>the 8 most frequent &#160; <i class=\"key raw\"></i>all others</p>\n");
    add("<div class=\"wide\">{}</div><div class=\"grid-of-charts\">\n",
        histogram_chart(summary_.totals.exponents, HistogramSize::kLarge));
    for (const KindSummary& kind : summary_.kinds) {
      const auto entropy = entropy_of(kind.totals.exponents);
      if (!entropy) continue;
      add("<figure><figcaption>{}<small>entropy {:.3f} bits, 8 cover {:.2f}%</small></figcaption>\n{}</figure>\n",
          safe_markup(kind.kind), *entropy, 100 * top8_share(kind.totals.exponents),
          histogram_chart(kind.totals.exponents, HistogramSize::kSmall));
    }
    add("</div>\n</section>\n");
  }

  void add_tensors() {
    add("<section>\n<h2>Tensors</h2>\n<p>Click on a title to sort.</p>\n"
        "<input id=\"filter\" type=\"search\" placeholder=\"Filter by name\" aria-label=\"Filter by name\"/>\n"
        "<div class=\"scroll\"><table id=\"tensors\">\n<thead><tr><th>tensor</th><th>shape</th><th>dtype</th>"
        "<th class=\"n\">size</th><th class=\"n\">bits/weight</th><th class=\"n\">entropy</th>"
        "<th class=\"n\">palettes</th><th class=\"n\">exceptions</th><th>stored</th><th>file</th></tr></thead>\n"
        "<tbody>\n");
    for (const TensorReport& tensor : report_.tensors) add_tensor(tensor);
    add("</tbody>\n</table></div>\n</section>\n");
  }

  void add_number(bool present, double value, std::string_view text) {
    if (present) {
      add("<td class=\"n\" data-v=\"{}\">{}</td>", value, text);
    } else {
      add("<td class=\"n\" data-v=\"-1\">-</td>");
    }
  }

  void add_tensor(const TensorReport& tensor) {
    const bool blob = tensor.stored == StoredAs::kBlob;
    const bool alias = tensor.stored == StoredAs::kAlias;
    const bool histogram = tensor.dtype == Dtype::kBF16 && arguments_.histograms;
    const std::uint64_t elements = element_count(tensor);
    add("<tr><td>{}</td>", safe_markup(tensor.name));
    add("<td data-v=\"{}\">{}</td><td>{}</td>", elements, format_shape(tensor.shape), dtype_name(tensor.dtype));
    add_number(true, static_cast<double>(tensor.source_bytes), format_bytes(tensor.source_bytes));
    add_number(!alias, tensor.bits_per_weight, fmt::format("{:.3f}", tensor.bits_per_weight));
    add_number(histogram, tensor.exponent_entropy_bits, fmt::format("{:.3f}", tensor.exponent_entropy_bits));
    add_number(blob && tensor.palette_count > 0, tensor.palette_count, format_count(tensor.palette_count));
    add_number(blob, elements == 0 ? 0 : static_cast<double>(tensor.exception_count) / static_cast<double>(elements),
               format_percent(tensor.exception_count, elements, 2));
    add("<td>{}</td><td>{}</td></tr>\n",
        alias ? fmt::format("alias of {}", safe_markup(tensor.alias_of)) : std::string(stored_name(tensor.stored)),
        safe_markup(tensor.file));
  }

  const InspectArguments& arguments_;
  const InspectReport& report_;
  const TensorSummary& summary_;
  const bool sizes_known_;
  std::string text_;
};

}  // namespace

std::string inspection_page(const Inspection& inspection) { return Page(inspection).make(); }

}  // namespace unweight::cli
