// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <functional>
#include <matmul_report.hpp>

namespace unweight::bench {
namespace {

constexpr double kPanelWidth = 270, kPanelHeight = 210;  ///< with its margins
constexpr double kLeft = 42, kRight = 12, kTop = 30, kBottom = 38;
constexpr double kHeading = 64;
constexpr std::size_t kColumns = 4;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else {
      out += c;
    }
  }
  return out;
}

/// The range of speed-ups that all panels show, in tenths.
struct Range {
  double low = 0.9, high = 1.6;
};

Range range_of(const std::vector<MatmulCase>& results) {
  Range range;
  for (const MatmulCase& r : results) {
    for (const MatmulCell& c : r.cells) {
      for (const double ratio : {speed_up(c.cublas, c.ours), speed_up(c.cublas, c.ours_dependent)}) {
        range.low = std::min(range.low, std::floor(10 * ratio) / 10);
        range.high = std::max(range.high, std::ceil(10 * ratio) / 10);
      }
    }
  }
  return range;
}

class Panel {
 public:
  Panel(const MatmulCase& result, const Range& range, double left, double top)
      : result_(result), range_(range), left_(left + kLeft), top_(top + kTop) {}

  [[nodiscard]] std::string draw() const {
    std::string out = fmt::format("<text class=\"title\" x=\"{:.1f}\" y=\"{:.1f}\">{} x {}</text>\n", left_, top_ - 10,
                                  result_.shape.rows, result_.shape.cols);
    const double step = range_.high - range_.low > 1.2 ? 0.5 : 0.2;
    for (double tick = std::ceil(range_.low / step) * step; tick < range_.high + 0.01; tick += step) {
      out += fmt::format("<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>\n", left_,
                         left_ + kWidth, y(tick), y(tick));
      out += fmt::format("<text class=\"tick\" text-anchor=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{:.1f}</text>\n",
                         left_ - 6, y(tick) + 4, tick);
    }
    out += fmt::format("<line class=\"one\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>\n", left_,
                       left_ + kWidth, y(1), y(1));
    for (std::size_t i = 0; i < result_.cells.size(); ++i) {
      out += fmt::format("<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x(i),
                         top_ + kHeight + 15, result_.cells[i].tokens);
      if (const auto target = target_of(result_.shape, result_.cells[i].tokens, false)) {
        out += fmt::format("<line class=\"target\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>\n",
                           x(i) - 9, x(i) + 9, y(target->floor), y(target->floor));
      }
    }
    out += fmt::format("<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">tokens (M)</text>\n",
                       left_ + kWidth / 2, top_ + kHeight + 31);
    out += line("plain", [](const MatmulCell& c) { return speed_up(c.cublas, c.ours); });
    out += line("pdl", [](const MatmulCell& c) { return speed_up(c.cublas, c.ours_dependent); });
    return out;
  }

 private:
  static constexpr double kWidth = kPanelWidth - kLeft - kRight, kHeight = kPanelHeight - kTop - kBottom;

  /// Numbers of tokens at equal distances.
  [[nodiscard]] double x(std::size_t cell) const {
    return left_ + kWidth * (static_cast<double>(cell) + 0.5) / static_cast<double>(result_.cells.size());
  }
  [[nodiscard]] double y(double ratio) const {
    return top_ + kHeight * (range_.high - ratio) / (range_.high - range_.low);
  }

  [[nodiscard]] std::string line(const char* style, const std::function<double(const MatmulCell&)>& ratio) const {
    std::string points, dots;
    for (std::size_t i = 0; i < result_.cells.size(); ++i) {
      const double value = ratio(result_.cells[i]);
      points += fmt::format("{}{:.1f},{:.1f}", i == 0 ? "" : " ", x(i), y(value));
      dots +=
          fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"><title>M={}: {:.2f}</title></circle>\n",
                      style, x(i), y(value), result_.cells[i].tokens, value);
    }
    return fmt::format("<polyline class=\"{}\" points=\"{}\"/>\n{}", style, points, dots);
  }

  const MatmulCase& result_;
  Range range_;
  double left_, top_;
};

std::string legend(double x, const char* style, const char* text) {
  return fmt::format(
      "<line class=\"{}\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"46\" y2=\"46\"/><text class=\"tick\" x=\"{:.1f}\" "
      "y=\"50\">{}</text>\n",
      style, x, x + 24, x + 30, text);
}

}  // namespace

std::string matmul_svg(const std::string& device, const std::vector<MatmulCase>& results) {
  const std::size_t columns = std::clamp<std::size_t>(results.size(), 3, kColumns);
  const std::size_t rows = (results.size() + columns - 1) / columns;
  const double width = kPanelWidth * static_cast<double>(columns);
  const double height = kHeading + kPanelHeight * static_cast<double>(rows);
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "font-family=\"sans-serif\">\n<style>\n"
      ".head{{font-size:16px;font-weight:bold}} .title{{font-size:13px;font-weight:bold}} .tick{{font-size:11px;"
      "fill:#444}}\n.grid{{stroke:#ddd}} .one{{stroke:#444;stroke-dasharray:5 3}} "
      ".target{{stroke:#999;stroke-width:2}}\n"
      "polyline{{fill:none;stroke-width:2}} .plain{{stroke:#1f6fb4}} .pdl{{stroke:#d4690b}}\n"
      "circle.plain{{fill:#1f6fb4}} circle.pdl{{fill:#d4690b}}\n</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
      "<text class=\"head\" x=\"16\" y=\"26\">Speed-up over the best of cuBLAS, {2}</text>\n",
      width, height, escaped(device));
  out += legend(16, "plain", "unweight") + legend(126, "pdl", "with dependent launch (PDL)");
  out += legend(336, "one", "cuBLAS") + legend(436, "target", "target, without PDL");
  const Range range = range_of(results);
  for (std::size_t i = 0; i < results.size(); ++i) {
    out += Panel(results[i], range, kPanelWidth * static_cast<double>(i % columns),
                 kHeading + kPanelHeight * static_cast<double>(i / columns))
               .draw();
  }
  return out + "</svg>\n";
}

}  // namespace unweight::bench
