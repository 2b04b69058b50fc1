// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <functional>
#include <iterator>
#include <numeric>
#include <page_charts.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

constexpr double kUncompressedBits = 16;

/// Where the plot lies in the drawing.
struct Frame {
  double width;
  double height;
  double left;
  double right;
  double top;
  double bottom;

  [[nodiscard]] double plot_width() const { return width - left - right; }
  [[nodiscard]] double plot_height() const { return height - top - bottom; }
};

/// A range of values and where its ticks are.
struct Axis {
  double low;
  double high;
  double step;

  /// 0 at low, 1 at high.
  [[nodiscard]] double position(double value) const { return (value - low) / (high - low); }
};

/// Rounds the range outwards to multiples of a step of 1, 2 or 5 times a power of ten, about `ticks` of them.
Axis nice_axis(double low, double high, int ticks) {
  const double span = std::max(high - low, 1e-3);
  const double rough = span / ticks;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double factor = rough / power;
  const double step = power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10);
  return {std::floor(low / step) * step, std::ceil(high / step) * step, step};
}

class Svg {
 public:
  Svg(const Frame& frame, std::string_view css_class, std::string_view label) {
    add(R"(<svg class="{}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">)",
        css_class, frame.width, frame.height, escape_markup(label));
    text_ += '\n';
  }

  template <class... Values>
  void add(fmt::format_string<Values...> format, Values&&... values) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Values>(values)...);
  }

  void line(std::string_view css_class, double x1, double y1, double x2, double y2) {
    add(R"(<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>)", css_class, x1, y1, x2, y2);
    text_ += '\n';
  }

  void label(std::string_view css_class, double x, double y, std::string_view content) {
    add(R"(<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>)", css_class, x, y, escape_markup(content));
    text_ += '\n';
  }

  void bar(std::string_view css_class, double x, double y, double width, double height, std::string_view title) {
    add(R"(<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">)", css_class, x, y, width, height);
    add("<title>{}</title></rect>\n", escape_markup(title));
  }

  [[nodiscard]] std::string finish() && {
    text_ += "</svg>\n";
    return std::move(text_);
  }

 private:
  std::string text_;
};

/// As many decimals as the step needs.
std::string tick_text(double value, double step) {
  const int digits = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  return fmt::format("{:.{}f}", value, digits);
}

/// The smallest of 1, 2, 5, 10, 20, ... that leaves at most `most` of `count` labels.
std::size_t label_step(std::size_t count, std::size_t most) {
  for (std::size_t power = 1;; power *= 10) {
    for (const std::size_t digit : {1U, 2U, 5U}) {
      if (count / (digit * power) <= most) return digit * power;
    }
  }
}

bool is_series(const KindSummary& kind) {
  const auto drawn = std::ranges::count_if(kind.layer_bits, [](const auto& bits) { return bits.has_value(); });
  return kind.totals.blobs > 0 && drawn > 0;
}

/// The marks of one kind: a line through consecutive layers, and a dot with its value for each.
void draw_series(Svg& svg, const Frame& frame, const Axis& y_axis, const KindSummary& kind, std::size_t colour,
                 std::size_t layers) {
  const double step = layers > 1 ? frame.plot_width() / static_cast<double>(layers - 1) : 0;
  std::string path;
  std::string dots;
  bool pen_down = false;
  for (std::size_t layer = 0; layer < kind.layer_bits.size(); ++layer) {
    const auto& bits = kind.layer_bits[layer];
    if (!bits) {
      pen_down = false;
      continue;
    }
    const double x = frame.left + (layers > 1 ? static_cast<double>(layer) * step : frame.plot_width() / 2);
    const double y = frame.top + frame.plot_height() * (1 - y_axis.position(*bits));
    path += fmt::format("{}{:.1f},{:.1f}", pen_down ? " L" : " M", x, y);
    pen_down = true;
    dots += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="2.6"><title>{}, layer {}: {:.3f} bits/weight</title>)", x,
                        y, escape_markup(printable(kind.kind)), layer, *bits);
    dots += "</circle>\n";
  }
  svg.add("<g class=\"series s{}\"><path d=\"{}\"/>\n{}</g>\n", colour, path.substr(1), dots);
}

}  // namespace

std::string escape_markup(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string layer_chart(const TensorSummary& summary) {
  std::vector<const KindSummary*> series;
  double low = kUncompressedBits;
  double high = 0;
  for (const KindSummary& kind : summary.kinds) {
    if (!is_series(kind) || series.size() == kSeriesColours) continue;
    series.push_back(&kind);
    for (const auto& bits : kind.layer_bits) {
      if (!bits) continue;
      low = std::min(low, *bits);
      high = std::max(high, *bits);
    }
  }
  if (series.empty()) return {};

  const Frame frame{1080, 360, 52, 14, 12, 42};
  const double margin = std::max(0.01, 0.05 * (high - low));
  const Axis y_axis = nice_axis(low - margin, high + margin, 6);
  Svg svg(frame, "chart", "Bits per weight by layer and kind of tensor");
  for (int i = 0; y_axis.low + i * y_axis.step <= y_axis.high + y_axis.step / 2; ++i) {
    const double value = y_axis.low + i * y_axis.step;
    const double y = frame.top + frame.plot_height() * (1 - y_axis.position(value));
    svg.line("grid", frame.left, y, frame.width - frame.right, y);
    svg.label("tick end", frame.left - 8, y + 4, tick_text(value, y_axis.step));
  }
  const std::size_t every = label_step(summary.layers, 20);
  for (std::size_t layer = 0; layer < summary.layers; layer += every) {
    const double share =
        summary.layers > 1 ? static_cast<double>(layer) / static_cast<double>(summary.layers - 1) : 0.5;
    svg.label("tick middle", frame.left + share * frame.plot_width(), frame.height - frame.bottom + 18,
              std::to_string(layer));
  }
  svg.label("axis middle", frame.left + frame.plot_width() / 2, frame.height - 6, "layer");
  std::string legend = "<ul class=\"legend\">\n";
  for (std::size_t i = 0; i < series.size(); ++i) {
    draw_series(svg, frame, y_axis, *series[i], i, summary.layers);
    legend += fmt::format("<li><i class=\"swatch s{}\"></i>{} <b>{:.3f}</b></li>\n", i,
                          escape_markup(printable(series[i]->kind)), series[i]->totals.bits_per_weight().value_or(0));
  }
  return std::move(svg).finish() + legend + "</ul>\n";
}

std::string kind_chart(const TensorSummary& summary) {
  constexpr double kRow = 28;
  constexpr double kBar = 16;
  const auto rows = static_cast<double>(summary.kinds.size());
  const Frame frame{1080, kRow * rows + 34, 230, 190, 4, 30};
  Svg svg(frame, "chart", "Bits per weight by kind of tensor");
  for (int bits = 0; bits <= 16; bits += 2) {
    const double x = frame.left + frame.plot_width() * bits / kUncompressedBits;
    svg.line("grid", x, frame.top, x, frame.height - frame.bottom);
    svg.label("tick middle", x, frame.height - frame.bottom + 18, std::to_string(bits));
  }
  double y = frame.top;
  for (const KindSummary& kind : summary.kinds) {
    const Totals& totals = kind.totals;
    const auto bits = totals.bits_per_weight();
    const std::string name = printable(kind.kind);
    const double middle = y + kRow / 2;
    svg.label("name end", frame.left - 10, middle + 4, shorten_front(name, 32, kEllipsis));
    if (bits) {
      svg.bar(totals.blobs > 0 ? "bar" : "bar raw", frame.left, middle - kBar / 2,
              frame.plot_width() * std::min(*bits / kUncompressedBits, 1.0), kBar,
              fmt::format("{}: {} in {}, {:.3f} bits/weight", name, format_bytes(totals.source_bytes),
                          format_count(totals.tensors, "tensor"), *bits));
    }
    if (const auto entropy = entropy_of(totals.exponents); entropy && totals.blobs > 0) {
      const double x = frame.left + frame.plot_width() * (8 + *entropy) / kUncompressedBits;
      svg.line("floor", x, middle - kBar / 2 - 3, x, middle + kBar / 2 + 3);
    }
    svg.label("value", frame.width - frame.right + 12, middle + 4,
              bits ? fmt::format("{:.3f}   {}", *bits, format_bytes(totals.source_bytes))
                   : fmt::format("duplicate   {}", format_bytes(totals.source_bytes)));
    y += kRow;
  }
  return std::move(svg).finish();
}

double top8_share(const ExponentHistogram& histogram) {
  ExponentHistogram sorted = histogram;
  std::ranges::sort(sorted, std::greater());
  const std::uint64_t total = std::accumulate(sorted.begin(), sorted.end(), std::uint64_t{0});
  const std::uint64_t top = std::accumulate(sorted.begin(), sorted.begin() + 8, std::uint64_t{0});
  return total == 0 ? 0 : static_cast<double>(top) / static_cast<double>(total);
}

std::string histogram_chart(const ExponentHistogram& histogram, HistogramSize size) {
  const std::uint64_t total = std::accumulate(histogram.begin(), histogram.end(), std::uint64_t{0});
  if (total == 0) return {};
  const auto share = [&](std::size_t exponent) {
    return static_cast<double>(histogram[exponent]) / static_cast<double>(total);
  };
  // Exponents rarer than this would be lower than a line is wide.
  constexpr double kVisible = 2e-5;
  std::size_t first = 0;
  std::size_t last = histogram.size() - 1;
  while (share(first) < kVisible) ++first;
  while (share(last) < kVisible) --last;
  // Two bars as wide as the chart would look like much more than they are.
  constexpr std::size_t kFewestSlots = 16;
  while (last - first + 1 < kFewestSlots) {
    if (first > 0) --first;
    if (last + 1 < histogram.size()) ++last;
  }
  ExponentHistogram sorted = histogram;
  std::ranges::sort(sorted, std::greater());
  const std::uint64_t eighth = std::max<std::uint64_t>(sorted[7], 1);

  const bool large = size == HistogramSize::kLarge;
  const Frame frame = large ? Frame{1080, 300, 52, 14, 12, 42} : Frame{320, 130, 6, 6, 6, 20};
  const Axis y_axis =
      nice_axis(0, 100 * share(static_cast<std::size_t>(std::ranges::max_element(histogram) - histogram.begin())), 5);
  Svg svg(frame, large ? "chart" : "chart small", "Histogram of exponents");
  for (int i = 0; large && i * y_axis.step <= y_axis.high + y_axis.step / 2; ++i) {
    const double y = frame.top + frame.plot_height() * (1 - y_axis.position(i * y_axis.step));
    svg.line("grid", frame.left, y, frame.width - frame.right, y);
    svg.label("tick end", frame.left - 8, y + 4, tick_text(i * y_axis.step, y_axis.step) + "%");
  }
  const double slot = frame.plot_width() / static_cast<double>(last - first + 1);
  const std::size_t every = label_step(last - first + 1, large ? 30 : 8);
  for (std::size_t exponent = first; exponent <= last; ++exponent) {
    const double x = frame.left + slot * static_cast<double>(exponent - first);
    const double height = frame.plot_height() * y_axis.position(100 * share(exponent));
    // Exponent 0 stands for zeros and subnormal numbers.
    const int power = static_cast<int>(exponent) - 127;
    svg.bar(histogram[exponent] >= eighth ? "bar" : "bar raw", x + slot * 0.08, frame.height - frame.bottom - height,
            slot * 0.84, height,
            fmt::format("2^{}: {:.3f}%, {} weights", power, 100 * share(exponent), format_count(histogram[exponent])));
    if (power % static_cast<int>(every) == 0) {
      svg.label("tick middle", x + slot / 2, frame.height - frame.bottom + (large ? 18 : 14), std::to_string(power));
    }
  }
  svg.line("axis-line", frame.left, frame.height - frame.bottom, frame.width - frame.right,
           frame.height - frame.bottom);
  if (large) svg.label("axis middle", frame.left + frame.plot_width() / 2, frame.height - 6, "exponent (power of two)");
  return std::move(svg).finish();
}

}  // namespace unweight::cli
