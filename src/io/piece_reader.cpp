// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <codec/checksum.hpp>
#include <codec/tile_kernels.hpp>
#include <format/layout.hpp>
#include <io/piece_reader.hpp>
#include <io/try.hpp>
#include <utility>

namespace unweight::io {

static_assert(kPieceBytes % codec::kPayloadChunkBytes == 0 && kMostPieceBytes == kPieceBytes + format::kHeaderBytes);

std::vector<LoadPiece> cut_pieces(std::span<const LoadItem> items) {
  std::vector<LoadPiece> pieces;
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (std::uint64_t offset = 0; offset < items[i].size_bytes;) {
      const std::uint64_t size = std::min(items[i].size_bytes - offset, offset == 0 ? kMostPieceBytes : kPieceBytes);
      pieces.push_back({i, offset, size});
      offset += size;
    }
  }
  return pieces;
}

PieceReader::PieceReader(const LoadSource& source, std::span<const LoadPiece> pieces,
                         std::span<std::byte* const> buffers, unsigned threads, bool checksum)
    : source_(source),
      pieces_(pieces),
      buffers_(buffers),
      checksum_(checksum),
      chunks_(source.items.size()),
      filled_(buffers.size(), kNone) {
  for (std::size_t i = 0; i < source.items.size(); ++i) {
    const std::uint64_t size = source.items[i].size_bytes;
    if (!is_hashed(i) || size <= format::kHeaderBytes) continue;
    chunks_[i].resize(
        static_cast<std::size_t>(format::ceil_div(size - format::kHeaderBytes, codec::kPayloadChunkBytes)));
  }
  for (unsigned t = 0; t < threads; ++t) threads_.emplace_back([this] { read_pieces(); });
}

PieceReader::~PieceReader() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool PieceReader::is_hashed(std::size_t item) const {
  return checksum_ && source_.is_bundle && source_.profile == Profile::kRuntime &&
         source_.items[item].stored == StoredAs::kBlob;
}

void PieceReader::read_pieces() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock,
                  [&] { return stopped_ || error_ || next_ == pieces_.size() || next_ < released_ + buffers_.size(); });
    if (stopped_ || error_ || next_ == pieces_.size()) return;
    const std::size_t piece = next_++;
    lock.unlock();
    auto done = guarded([&] { return read(pieces_[piece], buffers_[piece % buffers_.size()]); });
    lock.lock();
    if (done) {
      filled_[piece % buffers_.size()] = piece;
    } else if (!error_) {
      error_ = std::move(done).error();
    }
    changed_.notify_all();
  }
}

Result<void> PieceReader::read(const LoadPiece& piece, std::byte* buffer) {
  const LoadItem& item = source_.items[piece.item];
  const std::span<std::byte> bytes(buffer, static_cast<std::size_t>(piece.size_bytes));
  UNWEIGHT_TRY(source_.files[item.file].file.read(item.offset + piece.offset, bytes));
  if (!is_hashed(piece.item)) return {};
  // Other threads hash other chunks.
  const std::uint64_t skipped = piece.offset == 0 ? std::min<std::uint64_t>(format::kHeaderBytes, bytes.size()) : 0;
  std::uint64_t chunk = piece.offset == 0 ? 0 : (piece.offset - format::kHeaderBytes) / codec::kPayloadChunkBytes;
  for (auto rest = bytes.subspan(static_cast<std::size_t>(skipped)); !rest.empty(); ++chunk) {
    const std::size_t size = std::min<std::size_t>(rest.size(), codec::kPayloadChunkBytes);
    chunks_[piece.item][static_cast<std::size_t>(chunk)] = codec::tile_kernels().xxh3(rest.data(), size);
    rest = rest.subspan(size);
  }
  return {};
}

Result<std::span<const std::byte>> PieceReader::wait(std::size_t piece) {
  std::unique_lock lock(mutex_);
  const std::size_t slot = piece % buffers_.size();
  changed_.wait(lock, [&] { return error_ || filled_[slot] == piece; });
  if (error_) return tl::unexpected(*error_);
  return std::span<const std::byte>(buffers_[slot], static_cast<std::size_t>(pieces_[piece].size_bytes));
}

void PieceReader::release(std::size_t piece) {
  {
    const std::lock_guard lock(mutex_);
    filled_[piece % buffers_.size()] = kNone;
    released_ = piece + 1;
  }
  changed_.notify_all();
}

std::uint64_t PieceReader::payload_checksum(std::size_t item) const { return codec::combine_chunks(chunks_[item]); }

}  // namespace unweight::io
