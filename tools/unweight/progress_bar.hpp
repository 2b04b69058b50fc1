// SPDX-License-Identifier: Apache-2.0
//
// A line on standard error that shows how far the work is, where standard error is a terminal.
#pragma once

#include <chrono>
#include <output.hpp>
#include <string>
#include <unweight/checkpoint.hpp>

namespace unweight::cli {

class ProgressBar {
 public:
  /// `verb` begins the line: "compress". Shows nothing unless `mode` is kNormal and standard error is a terminal.
  ProgressBar(std::string verb, OutputMode mode);
  /// Removes the line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// For the library's calls: draws, and asks to stop when a signal came. Refers to this object.
  [[nodiscard]] ProgressCallback callback();

  /// For work that is counted in steps: draws.
  void show(double fraction, const std::string& current);

  /// The line at `seconds` after the start in `columns` columns; `unicode` allows block characters.
  [[nodiscard]] static std::string line(const std::string& verb, const Progress& progress, double seconds,
                                        std::size_t columns, bool unicode);

 private:
  void draw(const std::string& text);

  std::string verb_;
  bool shown_ = false;
  bool unicode_ = false;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace unweight::cli
