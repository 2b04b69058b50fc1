// SPDX-License-Identifier: Apache-2.0
//
// A parallel loop over independent chunks. Threads live for one call; a chunk should be worth 50 us or more.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace unweight::codec {

/// Turns an option's 0 into the number of logical CPUs.
[[nodiscard]] inline unsigned resolve_threads(unsigned threads) noexcept {
  return threads != 0 ? threads : std::max(1U, std::thread::hardware_concurrency());
}

/// Calls `body(chunk)` for every chunk in [0, chunks), on up to `threads` threads of which the caller is one, in no
/// particular order. The first exception of a body is rethrown here after all threads have stopped. When the system
/// refuses to start a thread, those that run do the work.
template <class Body>
void parallel_for(unsigned threads, std::uint64_t chunks, const Body& body) {
  const auto workers = static_cast<unsigned>(std::min<std::uint64_t>(resolve_threads(threads), chunks));
  if (workers <= 1) {
    for (std::uint64_t chunk = 0; chunk < chunks; ++chunk) body(chunk);
    return;
  }
  std::atomic<std::uint64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      for (std::uint64_t chunk = next++; chunk < chunks; chunk = next++) body(chunk);
    } catch (...) {
      next = chunks;
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> pool;
    pool.reserve(workers - 1);
    for (unsigned i = 1; i < workers; ++i) {
      try {
        pool.emplace_back(work);
      } catch (const std::system_error&) {
        break;
      }
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace unweight::codec
