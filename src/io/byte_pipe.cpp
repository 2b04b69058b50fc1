// SPDX-License-Identifier: Apache-2.0
#include <io/byte_pipe.hpp>
#include <io/try.hpp>
#include <system_error>
#include <utility>

namespace unweight::io {
namespace {

/// One being filled, one being consumed, one between them.
constexpr std::size_t kBuffers = 3;

}  // namespace

BytePipe::BytePipe(Consumer consumer) : consumer_(std::move(consumer)) {
  try {
    thread_ = std::jthread([this](const std::stop_token& stop) { consume_all(stop); });
  } catch (const std::system_error&) {
    // No thread to be had: give() does the work.
  }
}

BytePipe::~BytePipe() = default;  // the thread is asked to stop and joined first: it is the last member

Result<Buffer> BytePipe::take(std::size_t size_bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return under_way_ < kBuffers || error_; });
  if (error_) return tl::unexpected(*error_);
  ++under_way_;
  Buffer buffer;
  if (!empty_.empty()) {
    buffer = std::move(empty_.back());
    empty_.pop_back();
  }
  lock.unlock();
  if (buffer.size_bytes() < size_bytes) {
    buffer = Buffer();  // first give back the small one
    buffer = Buffer(size_bytes);
  }
  return buffer;
}

Result<void> BytePipe::give(Buffer buffer, std::size_t size_bytes) {
  Piece piece{std::move(buffer), size_bytes};
  if (!thread_.joinable()) {
    auto done = consume(piece);
    --under_way_;
    empty_.push_back(std::move(piece.buffer));
    return done;
  }
  const std::lock_guard lock(mutex_);
  if (error_) return tl::unexpected(*error_);
  full_.push_back(std::move(piece));
  changed_.notify_all();
  return {};
}

Result<void> BytePipe::close() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return under_way_ == 0 || error_; });
  if (error_) return tl::unexpected(*error_);
  return {};
}

void BytePipe::consume_all(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !full_.empty(); }) && !stop.stop_requested()) {
    Piece piece = std::move(full_.front());
    full_.pop_front();
    lock.unlock();
    auto done = consume(piece);
    lock.lock();
    --under_way_;
    empty_.push_back(std::move(piece.buffer));
    if (!done) error_ = std::move(done).error();
    changed_.notify_all();
    if (error_) return;
  }
}

Result<void> BytePipe::consume(const Piece& piece) {
  return guarded([&] { return consumer_(piece.buffer.bytes().first(piece.size_bytes)); });
}

}  // namespace unweight::io
