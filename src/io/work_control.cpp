// SPDX-License-Identifier: Apache-2.0
#include <io/try.hpp>
#include <io/work_control.hpp>
#include <sys/resource.h>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace unweight::io {
namespace {

constexpr std::chrono::milliseconds kReportInterval{100};

}  // namespace

// ---- WorkControl ----------------------------------------------------------------------------------------------------

void WorkControl::set_totals(std::uint64_t bytes, std::uint64_t tensors) {
  const std::lock_guard lock(mutex_);
  progress_.bytes_total = bytes;
  progress_.tensors_total = tensors;
}

void WorkControl::add_resumed(std::uint64_t bytes, std::uint64_t tensors) {
  std::unique_lock lock(mutex_);
  progress_.bytes_done += bytes;
  progress_.bytes_resumed += bytes;
  progress_.tensors_done += tensors;
  report_if_due(lock);
}

void WorkControl::add_bytes(std::uint64_t bytes) {
  std::unique_lock lock(mutex_);
  progress_.bytes_done += bytes;
  report_if_due(lock);
}

void WorkControl::add_tensor(const std::string& name) {
  std::unique_lock lock(mutex_);
  progress_.tensors_done += 1;
  progress_.current = name;
  report_if_due(lock);
}

void WorkControl::set_current(const std::string& name) {
  const std::lock_guard lock(mutex_);
  progress_.current = name;
}

void WorkControl::tick() {
  std::unique_lock lock(mutex_);
  report_if_due(lock);
}

std::uint64_t WorkControl::resumed_bytes() const {
  const std::lock_guard lock(mutex_);
  return progress_.bytes_resumed;
}

void WorkControl::report_end() {
  std::unique_lock lock(mutex_);
  report(lock);
}

void WorkControl::report_if_due(std::unique_lock<std::mutex>& lock) {
  if (std::chrono::steady_clock::now() >= next_report_) report(lock);
}

void WorkControl::report(std::unique_lock<std::mutex>& lock) {
  if (!callback_) return;
  next_report_ = std::chrono::steady_clock::now() + kReportInterval;
  const Progress snapshot = progress_;
  lock.unlock();
  bool go_on = true;
  {
    // Not under mutex_: a slow terminal must not hold up the workers.
    const std::lock_guard callback_lock(callback_mutex_);
    go_on = callback_(snapshot);
  }
  if (!go_on) stop({ErrorCode::kCancelled, "stopped on request; the same call continues where this one ended"});
}

void WorkControl::stop(Error error) {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
  stopped_.store(true, std::memory_order_relaxed);
}

Result<void> WorkControl::outcome() const {
  const std::lock_guard lock(mutex_);
  if (error_) return tl::unexpected(*error_);
  return {};
}

// ---- MemoryBudget ---------------------------------------------------------------------------------------------------

MemoryBudget::Lease::Lease(Lease&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

MemoryBudget::Lease& MemoryBudget::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    shrink(0);
    budget_ = std::exchange(other.budget_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void MemoryBudget::Lease::shrink(std::uint64_t bytes) noexcept {
  if (budget_ == nullptr || bytes >= bytes_) return;
  {
    const std::lock_guard lock(budget_->mutex_);
    budget_->used_bytes_ -= bytes_ - bytes;
  }
  bytes_ = bytes;
  budget_->changed_.notify_all();
}

MemoryBudget::Lease MemoryBudget::acquire(std::uint64_t bytes) {
  std::unique_lock lock(mutex_);
  // Polls for stop: whoever stops the operation does not know who waits here.
  while (used_bytes_ != 0 && (bytes > limit_bytes_ || used_bytes_ > limit_bytes_ - bytes)) {
    if (control_.stopped()) return {};
    changed_.wait_for(lock, std::chrono::milliseconds(50));
  }
  used_bytes_ += bytes;
  return {*this, bytes};
}

// ---- threads --------------------------------------------------------------------------------------------------------

void run_workers(unsigned workers, WorkControl& control, const std::function<Result<void>(unsigned worker)>& body) {
  const auto run = [&](unsigned worker) {
    auto done = guarded([&] { return body(worker); });
    if (!done) control.stop(std::move(done).error());
  };
  std::vector<std::jthread> threads;
  threads.reserve(workers);
  for (unsigned worker = 1; worker < workers; ++worker) {
    try {
      threads.emplace_back(run, worker);
    } catch (const std::system_error&) {
      // The system grants no more threads. Bodies take work from a common list, so those that run do it all.
      break;
    }
  }
  run(0);
}

std::uint64_t peak_memory_bytes() noexcept {
  struct rusage usage {};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace unweight::io
