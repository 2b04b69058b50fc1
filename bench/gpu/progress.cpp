// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdio>
#include <fmt/format.h>
#include <progress.hpp>

namespace unweight::bench {
namespace {

using Clock = std::chrono::steady_clock;
const Clock::time_point kBegin = Clock::now();

}  // namespace

double elapsed_s() { return std::chrono::duration<double>(Clock::now() - kBegin).count(); }

void progress(const std::string& text) { fmt::print(stderr, "[{:6.1f} s] {}\n", elapsed_s(), text); }

}  // namespace unweight::bench
