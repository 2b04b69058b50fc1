// SPDX-License-Identifier: Apache-2.0
//
// A stream of buffers from one thread to another: decoding goes on while what was decoded is hashed and written.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <io/buffer.hpp>
#include <io/work_control.hpp>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

/// The consumer runs on a thread of the pipe and sees the buffers in the order in which they were given.
class BytePipe {
 public:
  using Consumer = std::function<Result<void>(std::span<const std::byte> bytes)>;

  explicit BytePipe(Consumer consumer);
  BytePipe(const BytePipe&) = delete;
  BytePipe& operator=(const BytePipe&) = delete;
  /// Drops what was not consumed yet.
  ~BytePipe();

  /// A buffer of at least `size_bytes`; waits while too many are under way. Fails with the consumer's error.
  [[nodiscard]] Result<Buffer> take(std::size_t size_bytes);
  /// Sends the first `size_bytes` of a buffer. Fails with the consumer's error.
  [[nodiscard]] Result<void> give(Buffer buffer, std::size_t size_bytes);
  /// Waits until everything has been consumed.
  [[nodiscard]] Result<void> close();

 private:
  struct Piece {
    Buffer buffer;
    std::size_t size_bytes;
  };

  void consume_all(const std::stop_token& stop);
  Result<void> consume(const Piece& piece);

  Consumer consumer_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Piece> full_;
  std::vector<Buffer> empty_;
  std::size_t under_way_ = 0;  ///< buffers taken and not yet consumed
  std::optional<Error> error_;
  std::jthread thread_;  ///< none when the system grants no thread: then give() consumes
};

}  // namespace unweight::io
