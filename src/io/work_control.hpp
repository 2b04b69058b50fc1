// SPDX-License-Identifier: Apache-2.0
//
// What the threads of one operation share: progress and cancellation, the first error, and a memory budget.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>

namespace unweight::io {

/// Counts finished work and tells the caller's callback, at most ten times a second and from one thread at a time.
/// Holds the reason to stop: the first error, or the callback's wish. Thread-safe.
class WorkControl {
 public:
  explicit WorkControl(const ProgressCallback& callback) : callback_(callback) {}

  void set_totals(std::uint64_t bytes, std::uint64_t tensors);
  void add_resumed(std::uint64_t bytes, std::uint64_t tensors);
  void add_bytes(std::uint64_t bytes);
  void add_tensor(const std::string& name);
  void set_current(const std::string& name);
  /// Lets the callback run when it is due, so that long steps without countable bytes can be cancelled too.
  void tick();
  [[nodiscard]] std::uint64_t resumed_bytes() const;
  /// The last report, with everything done.
  void report_end();

  /// Keeps the first error only.
  void stop(Error error);
  [[nodiscard]] bool stopped() const noexcept { return stopped_.load(std::memory_order_relaxed); }
  /// Success, or why the operation stopped.
  [[nodiscard]] Result<void> outcome() const;

 private:
  void report(std::unique_lock<std::mutex>& lock);
  void report_if_due(std::unique_lock<std::mutex>& lock);

  const ProgressCallback& callback_;
  mutable std::mutex mutex_;
  std::mutex callback_mutex_;
  Progress progress_;
  std::chrono::steady_clock::time_point next_report_{};
  std::optional<Error> error_;
  std::atomic<bool> stopped_{false};
};

/// Admits work while the bytes in flight stay within a limit; one piece of work is always admitted, however large.
class MemoryBudget {
 public:
  MemoryBudget(std::uint64_t limit_bytes, const WorkControl& control) : limit_bytes_(limit_bytes), control_(control) {}

  /// Bytes held until the object goes away or gives some back.
  class Lease {
   public:
    Lease() = default;
    Lease(MemoryBudget& budget, std::uint64_t bytes) : budget_(&budget), bytes_(bytes) {}
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&& other) noexcept;
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { shrink(0); }
    /// Gives back all but `bytes`.
    void shrink(std::uint64_t bytes) noexcept;

   private:
    MemoryBudget* budget_ = nullptr;
    std::uint64_t bytes_ = 0;
  };

  /// Waits until `bytes` fit. Returns an empty lease when the operation stopped meanwhile.
  [[nodiscard]] Lease acquire(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t limit_bytes() const noexcept { return limit_bytes_; }

 private:
  const std::uint64_t limit_bytes_;
  const WorkControl& control_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t used_bytes_ = 0;
};

/// Runs `body(worker)` on `workers` threads and waits for all. Errors and exceptions of a body stop the operation.
void run_workers(unsigned workers, WorkControl& control, const std::function<Result<void>(unsigned worker)>& body);

/// Peak resident set of this process so far.
[[nodiscard]] std::uint64_t peak_memory_bytes() noexcept;

/// Wall-clock seconds since it was made.
class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace unweight::io
