// SPDX-License-Identifier: Apache-2.0
//
// A source file, as a stream of bytes, from a bundle.
#pragma once

#include <cstdint>
#include <functional>
#include <io/bundle.hpp>
#include <io/byte_pipe.hpp>
#include <io/work_control.hpp>
#include <string>
#include <unweight/result.hpp>

namespace unweight::io {

/// Streams file number `file` of the source into `pipe`. Checks the checksums of every blob on the way, and that the
/// stream is as long as the manifest says; the digest is the caller's to check. `threads` is asked before each tensor,
/// `tensor_done` told after it.
/// Errors name the tensor.
[[nodiscard]] Result<void> restore_file(const Bundle& bundle, std::size_t file, BytePipe& pipe, MemoryBudget& budget,
                                        const std::function<unsigned()>& threads, WorkControl& control,
                                        const std::function<void(const std::string& tensor)>& tensor_done);

/// SHA-256 of file number `file` of the source, restored on one thread without being written.
[[nodiscard]] Result<std::string> restored_digest(const Bundle& bundle, std::size_t file, WorkControl& control);

/// What blobs in memory may hold together, unless one alone needs more.
inline constexpr std::uint64_t kRestoreMemoryBytes = std::uint64_t{256} << 20;

/// The largest blob or kRestoreMemoryBytes, whichever is more.
[[nodiscard]] std::uint64_t restore_memory_bytes(const Bundle& bundle) noexcept;

/// Restores or checks all files, several at a time: `make_consumer` is called for each file, by the thread that works
/// on it, and `complete` after its stream has ended and its digest was found to be right. Files for which `is_done` is
/// true are left out.
struct RestoreSteps {
  std::function<Result<bool>(std::size_t file)> is_done;
  std::function<Result<BytePipe::Consumer>(std::size_t file)> make_consumer;
  std::function<Result<void>(std::size_t file)> complete;
};
[[nodiscard]] Result<void> restore_all(const Bundle& bundle, unsigned threads, const RestoreSteps& steps,
                                       WorkControl& control);

}  // namespace unweight::io
