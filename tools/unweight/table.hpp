// SPDX-License-Identifier: Apache-2.0
//
// Plain text tables.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace unweight::cli {

/// Columns as wide as their widest cell, two spaces apart. Cells must be printable text on one line.
class Table {
 public:
  enum class Align : std::uint8_t { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  /// A table without titles has no title line.
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// One cell a column.
  void add_row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  /// A line across the columns.
  void add_section(std::string text) { rows_.push_back({std::move(text)}); }

  /// All lines, each with its newline, without trailing spaces.
  [[nodiscard]] std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;  ///< a row of one cell is a section where there are more columns
};

}  // namespace unweight::cli
