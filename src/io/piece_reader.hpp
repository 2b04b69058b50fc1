// SPDX-License-Identifier: Apache-2.0
//
// Reads the bytes of a loader's tensors ahead, piece by piece in their order, into a fixed set of buffers: bounded
// memory, however large the model.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <io/load_source.hpp>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

/// Bytes of an item that are read at a time.
struct LoadPiece {
  std::size_t item = 0;      ///< index into LoadSource::items
  std::uint64_t offset = 0;  ///< from the item's first byte
  std::uint64_t size_bytes = 0;
};

/// Bytes of a piece, whole chunks of the payload checksum; the first of an item has a blob's header, too.
inline constexpr std::uint64_t kPieceBytes = std::uint64_t{8} << 20;
inline constexpr std::uint64_t kMostPieceBytes = kPieceBytes + 256;

[[nodiscard]] std::vector<LoadPiece> cut_pieces(std::span<const LoadItem> items);

class PieceReader {
 public:
  /// @param buffers   of kMostPieceBytes each, two or more; kept until the reader is gone
  /// @param checksum  whether chunks of runtime blobs are hashed on the way
  PieceReader(const LoadSource& source, std::span<const LoadPiece> pieces, std::span<std::byte* const> buffers,
              unsigned threads, bool checksum);
  PieceReader(const PieceReader&) = delete;
  PieceReader& operator=(const PieceReader&) = delete;
  ~PieceReader();

  /// Waits for a piece; its bytes stay until release(). To be called for one piece after the other.
  [[nodiscard]] Result<std::span<const std::byte>> wait(std::size_t piece);
  /// Gives a piece's buffer back. In the order of the pieces.
  void release(std::size_t piece);

  /// The payload checksum of a runtime blob all of whose pieces have come.
  [[nodiscard]] std::uint64_t payload_checksum(std::size_t item) const;

 private:
  void read_pieces();
  [[nodiscard]] Result<void> read(const LoadPiece& piece, std::byte* buffer);
  [[nodiscard]] bool is_hashed(std::size_t item) const;

  const LoadSource& source_;
  std::span<const LoadPiece> pieces_;
  std::span<std::byte* const> buffers_;
  bool checksum_;
  std::vector<std::vector<std::uint64_t>> chunks_;  ///< by item: hashes of a runtime blob's payload

  std::mutex mutex_;
  std::condition_variable changed_;
  static constexpr std::size_t kNone = SIZE_MAX;
  std::vector<std::size_t> filled_;  ///< by buffer: the piece that it holds, or kNone
  std::size_t next_ = 0;             ///< piece that is read next
  std::size_t released_ = 0;         ///< pieces whose buffers have been given back
  std::optional<Error> error_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;  ///< last: they use all the others
};

}  // namespace unweight::io
