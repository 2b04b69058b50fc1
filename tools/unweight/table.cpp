// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <table.hpp>
#include <text.hpp>

namespace unweight::cli {

std::string Table::text() const {
  const auto is_section = [&](const std::vector<std::string>& row) { return row.size() < columns_.size(); };
  std::vector<std::size_t> widths;
  bool titled = false;
  for (const Column& column : columns_) {
    widths.push_back(display_width(column.title));
    titled = titled || !column.title.empty();
  }
  for (const auto& row : rows_) {
    if (is_section(row)) continue;
    for (std::size_t i = 0; i < columns_.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }

  std::string out;
  const auto end_line = [&] {
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  };
  const auto add_cell = [&](std::size_t column, std::string_view cell) {
    if (column > 0) out += "  ";
    const std::string padding(widths[column] - display_width(cell), ' ');
    if (columns_[column].align == Align::kRight) out += padding;
    out += cell;
    if (columns_[column].align == Align::kLeft) out += padding;
  };

  if (titled) {
    for (std::size_t i = 0; i < columns_.size(); ++i) add_cell(i, columns_[i].title);
    end_line();
    for (std::size_t i = 0; i < columns_.size(); ++i) add_cell(i, std::string(widths[i], '-'));
    end_line();
  }
  for (const auto& row : rows_) {
    if (is_section(row)) {
      out += row.front();
    } else {
      for (std::size_t i = 0; i < columns_.size(); ++i) add_cell(i, row[i]);
    }
    end_line();
  }
  return out;
}

}  // namespace unweight::cli
