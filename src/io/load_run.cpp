// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <codec/distribution_open.hpp>
#include <codec/open.hpp>
#include <cstring>
#include <deque>
#include <fmt/format.h>
#include <io/load_run.hpp>
#include <io/matrix_view.hpp>
#include <io/piece_reader.hpp>
#include <io/try.hpp>
#include <optional>
#include <utility>

namespace unweight::io {
namespace {

constexpr std::uint64_t kStagingAlignment = 256;
constexpr std::uint64_t kLeastSlabBytes = std::uint64_t{16} << 20;

std::uint64_t aligned(std::uint64_t size_bytes) { return format::align_up(size_bytes, kStagingAlignment); }

/// Places in the ring that distribution blobs lie in until they are transcoded: first in, first out.
class Staging {
 public:
  explicit Staging(std::uint64_t size_bytes) : size_(size_bytes) {}

  /// Offset of a free range, if there is one.
  std::optional<std::uint64_t> take(std::uint64_t size_bytes) {
    const std::uint64_t wanted = aligned(size_bytes);
    if (ranges_.empty()) head_ = 0;
    std::uint64_t at = head_;
    const std::uint64_t tail = ranges_.empty() ? size_ : ranges_.front().first;
    if (ranges_.empty() || head_ > tail) {  // free: from the head to the end, and before the tail
      if (size_ - head_ < wanted) {
        if (ranges_.empty() || tail < wanted) return std::nullopt;
        at = 0;
      }
    } else if (tail - head_ < wanted) {
      return std::nullopt;
    }
    ranges_.emplace_back(at, wanted);
    head_ = at + wanted;
    return at;
  }
  void give_back() { ranges_.pop_front(); }

 private:
  std::uint64_t size_;
  std::uint64_t head_ = 0;
  std::deque<std::pair<std::uint64_t, std::uint64_t>> ranges_;  ///< taken: offset, size
};

/// Bytes of a blob that the host keeps as they go by.
struct KeptRange {
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes;

  void keep(std::uint64_t piece_offset, std::span<const std::byte> piece) {
    const std::uint64_t begin = std::max(offset, piece_offset);
    const std::uint64_t end = std::min(offset + bytes.size(), piece_offset + piece.size());
    if (begin >= end) return;
    std::memcpy(bytes.data() + (begin - offset), piece.data() + (begin - piece_offset),
                static_cast<std::size_t>(end - begin));
  }
};

/// An item on its way.
struct Load {
  std::size_t item = 0;
  std::byte* data = nullptr;  ///< what will be delivered
  std::uint64_t size_bytes = 0;
  std::byte* copied_to = nullptr;
  bool is_read = false;                                  ///< all of its copies are enqueued
  std::uint64_t copy = 0;                                ///< the last of them
  bool is_staged = false;                                ///< in the ring
  std::array<std::byte, format::kHeaderBytes> header{};  ///< of a blob
  KeptRange kept;                                        ///< of a blob: its tables, or all up to the stream
  std::unique_ptr<Transcoding> transcoding;
  bool is_finishing = false;
};

class LoadRun {
 public:
  LoadRun(const LoadSource& source, const LoadLimits& limits, LoadDevice& device, LoadSink& sink)
      : source_(source), limits_(limits), device_(device), sink_(sink), pieces_(cut_pieces(source.items)) {}
  LoadRun(const LoadRun&) = delete;
  LoadRun& operator=(const LoadRun&) = delete;
  /// After a failure: nothing may still be written to memory that is given back.
  ~LoadRun() {
    if (loads_.empty()) return;
    if (last_copy_) (void)device_.is_copied(*last_copy_, true);
    for (Load& load : loads_) {
      load.transcoding.reset();
      if (load.data != nullptr) sink_.release(load.data, load.size_bytes);
    }
  }

  Result<LoadTotals> run() {
    UNWEIGHT_TRY(make_room());
    std::vector<std::byte*> buffers(std::max<std::size_t>(
        2,
        std::min<std::size_t>(static_cast<std::size_t>(limits_.host_buffer_bytes / kMostPieceBytes), pieces_.size())));
    for (std::byte*& buffer : buffers) {
      UNWEIGHT_ASSIGN(buffer, device_.allocate_host(kMostPieceBytes));
      totals_.host_buffer_bytes += kMostPieceBytes;
    }
    PieceReader reader(source_, pieces_, buffers, std::max(1U, limits_.threads), limits_.verify);
    std::deque<std::pair<std::size_t, std::uint64_t>> copying;  // piece, copy
    const auto release_copied = [&](std::size_t most) -> Result<void> {
      while (!copying.empty()) {
        UNWEIGHT_ASSIGN(const bool done, device_.is_copied(copying.front().second, copying.size() > most));
        if (!done) break;
        reader.release(copying.front().first);
        copying.pop_front();
      }
      return {};
    };
    std::size_t piece = 0;
    for (std::size_t item = 0; item < source_.items.size(); ++item) {
      UNWEIGHT_TRY(begin(item));
      for (; piece < pieces_.size() && pieces_[piece].item == item; ++piece) {
        UNWEIGHT_ASSIGN(const std::span<const std::byte> bytes, reader.wait(piece));
        UNWEIGHT_TRY(within(item, take(pieces_[piece].offset, bytes)));
        copying.emplace_back(piece, *last_copy_);
        UNWEIGHT_TRY(release_copied(buffers.size() / 2));
        UNWEIGHT_TRY(advance(false));
      }
      UNWEIGHT_TRY(within(item, end(reader)));
    }
    while (!loads_.empty()) UNWEIGHT_TRY(advance(true));
    UNWEIGHT_TRY(release_copied(0));
    return totals_;
  }

 private:
  [[nodiscard]] bool is_transcoded(const LoadItem& item) const {
    return item.stored == StoredAs::kBlob && source_.profile == Profile::kDistribution;
  }

  template <class T>
  Result<T> within(std::size_t item, Result<T> result) const {
    if (!result) return fail_within(source_.name_of(source_.items[item]), std::move(result).error());
    return result;
  }

  /// The ring and the workspace, if there is something to transcode.
  Result<void> make_room() {
    std::uint64_t largest = 0, total = 0, most_values = 0, most_group = 0;
    for (const LoadItem& item : source_.items) {
      if (!is_transcoded(item)) continue;
      const TensorEntry& tensor = source_.tensor(item);
      const MatrixShape shape = matrix_view(tensor.shape);
      largest = std::max(largest, aligned(item.size_bytes));
      total += aligned(item.size_bytes);
      most_values = std::max(most_values, tensor.size_bytes());
      const auto blocks = format::distribution::cut_blocks(shape.batch, shape.rows, shape.cols);
      most_group = std::max(most_group, std::uint64_t{blocks.group_rows} * shape.cols * sizeof(std::uint16_t));
    }
    if (total == 0) return {};
    const std::uint64_t allowed = limits_.device_bytes == 0 ? most_values : limits_.device_bytes;
    const std::uint64_t ring =
        std::min(total, std::max(largest, allowed * 2 / 3 / kStagingAlignment * kStagingAlignment));
    const std::uint64_t least_slab = std::max(kLeastSlabBytes, most_group);
    slab_bytes_ = std::max(allowed - std::min(allowed, ring), least_slab);
    UNWEIGHT_ASSIGN(std::uint64_t workspace, workspace_bytes());
    if (ring + workspace > allowed) {  // there is more in a workspace than the slab
      slab_bytes_ = std::max(slab_bytes_ - std::min(slab_bytes_, ring + workspace - allowed), least_slab);
      UNWEIGHT_ASSIGN(workspace, workspace_bytes());
    }
    UNWEIGHT_ASSIGN(ring_, device_.allocate(ring));
    UNWEIGHT_ASSIGN(workspace_, device_.allocate(workspace));
    staging_ = Staging(ring);
    totals_.device_extra_bytes = ring + workspace;
    return {};
  }

  /// What the tensors need of it at most.
  Result<std::uint64_t> workspace_bytes() {
    std::uint64_t most = 0;
    for (const LoadItem& item : source_.items) {
      if (!is_transcoded(item)) continue;
      UNWEIGHT_ASSIGN(const std::uint64_t needed,
                      device_.workspace_bytes(matrix_view(source_.tensor(item).shape), slab_bytes(item)));
      most = std::max(most, needed);
    }
    return most;
  }

  /// 0 where the workspace holds the whole tensor.
  [[nodiscard]] std::uint64_t slab_bytes(const LoadItem& item) const {
    const TensorEntry& tensor = source_.tensor(item);
    const MatrixShape shape = matrix_view(tensor.shape);
    const std::uint64_t padded = shape.batch * format::align_up(shape.rows, format::kTileRows) * shape.cols * 2;
    return padded <= slab_bytes_ ? 0 : slab_bytes_;
  }

  /// Makes room for an item, after waiting for earlier ones if there is none.
  Result<void> begin(std::size_t number) {
    const LoadItem& item = source_.items[number];
    Load load;
    load.item = number;
    if (is_transcoded(item)) {
      std::optional<std::uint64_t> at = staging_.take(item.size_bytes);
      for (; !at; at = staging_.take(item.size_bytes)) UNWEIGHT_TRY(advance(true));
      load.is_staged = true;
      load.copied_to = ring_ + *at;
    } else {
      load.size_bytes = item.size_bytes;
      UNWEIGHT_ASSIGN(load.data, within(number, sink_.allocate(item, item.size_bytes)));
      load.copied_to = load.data;
    }
    loads_.push_back(std::move(load));
    return {};
  }

  /// The next bytes of the item that was begun last.
  Result<void> take(std::uint64_t offset, std::span<const std::byte> bytes) {
    Load& load = loads_.back();
    const LoadItem& item = source_.items[load.item];
    if (item.stored == StoredAs::kBlob) {
      if (offset == 0) UNWEIGHT_TRY(read_header(load, bytes));
      load.kept.keep(offset, bytes);
    }
    UNWEIGHT_TRY(device_.copy(load.copied_to + offset, bytes));
    UNWEIGHT_ASSIGN(load.copy, device_.latest_copy());
    last_copy_ = load.copy;
    totals_.stored_bytes += bytes.size();
    return {};
  }

  /// Learns from a blob's first bytes which ones the host needs.
  Result<void> read_header(Load& load, std::span<const std::byte> bytes) const {
    const LoadItem& item = source_.items[load.item];
    std::uint64_t size = 0;
    if (is_transcoded(item)) {
      UNWEIGHT_ASSIGN(size, codec::distribution::front_bytes(bytes));
    } else {
      UNWEIGHT_ASSIGN(const format::ByteRange range, codec::tables_range(bytes));
      load.kept.offset = range.offset;
      size = range.size;
    }
    std::memcpy(load.header.data(), bytes.data(), load.header.size());
    // No header makes the host allocate more than the file holds.
    if (load.kept.offset > item.size_bytes || size > item.size_bytes - load.kept.offset) {
      return fail(ErrorCode::kTruncated, fmt::format("blob: its tables end at byte {} of {} stored",
                                                     load.kept.offset + size, item.size_bytes));
    }
    load.kept.bytes.resize(static_cast<std::size_t>(size));
    return {};
  }

  /// All bytes of the item that was begun last are on their way.
  Result<void> end(const PieceReader& reader) {
    Load& load = loads_.back();
    const LoadItem& item = source_.items[load.item];
    load.is_read = true;
    if (item.stored != StoredAs::kBlob) return {};
    if (is_transcoded(item)) {
      UNWEIGHT_ASSIGN(const auto front, codec::distribution::open_front(load.kept.bytes));
      return check_shape(item, front.header());
    }
    UNWEIGHT_ASSIGN(const auto tables, codec::open_tables(load.header, load.kept.bytes));
    UNWEIGHT_TRY(check_shape(item, tables.header()));
    load.kept = {};
    if (!limits_.verify) return {};
    const std::uint64_t computed = reader.payload_checksum(load.item), stored = tables.header().payload_checksum;
    if (computed == stored) return {};
    return fail(ErrorCode::kChecksumMismatch,
                fmt::format("blob payload: stored checksum {:016x}, computed {:016x}", stored, computed));
  }

  /// Whether a blob is of the tensor that it stands for.
  template <class Header>
  Result<void> check_shape(const LoadItem& item, const Header& header) const {
    const MatrixShape wanted = matrix_view(source_.tensor(item).shape);
    if (header.blob_bytes != item.size_bytes) {
      return fail(ErrorCode::kBadBundle,
                  fmt::format("{} stored bytes hold a blob of {} bytes", item.size_bytes, header.blob_bytes));
    }
    if (MatrixShape{header.batch, header.rows, header.cols} == wanted) return {};
    return fail(ErrorCode::kBadBundle, fmt::format("its blob holds {} x {} x {} values, not {} x {} x {}", header.batch,
                                                   header.rows, header.cols, wanted.batch, wanted.rows, wanted.cols));
  }

  /// Goes on with what is done. With `wait`, at least one step of the oldest load, all of whose copies are enqueued.
  Result<void> advance(bool wait) {
    while (!loads_.empty() && loads_.front().is_read) {
      const std::size_t item = loads_.front().item;
      UNWEIGHT_ASSIGN(const bool moved, within(item, step(loads_.front(), wait)));
      if (!moved || wait) break;
    }
    return {};
  }

  /// One step of a load; false where it has to wait.
  Result<bool> step(Load& load, bool wait) {
    UNWEIGHT_ASSIGN(const bool copied, device_.is_copied(load.copy, wait));
    if (!copied) return false;
    if (!load.is_staged) {
      UNWEIGHT_TRY(deliver(load, load.header));
      return true;
    }
    if (!load.transcoding) {
      UNWEIGHT_ASSIGN(load.transcoding, device_.transcode(load.kept.bytes, load.copied_to, workspace_,
                                                          slab_bytes(source_.items[load.item])));
      return true;
    }
    if (!load.is_finishing) {
      UNWEIGHT_ASSIGN(const bool planned, load.transcoding->is_planned(wait));
      if (!planned) return false;
      UNWEIGHT_ASSIGN(load.size_bytes, load.transcoding->blob_bytes());
      UNWEIGHT_ASSIGN(load.data, sink_.allocate(source_.items[load.item], load.size_bytes));
      UNWEIGHT_TRY(load.transcoding->finish(load.data));
      load.is_finishing = true;
      return true;
    }
    UNWEIGHT_ASSIGN(const bool finished, load.transcoding->is_finished(wait));
    if (!finished) return false;
    UNWEIGHT_ASSIGN(const auto header, load.transcoding->header());
    staging_.give_back();
    UNWEIGHT_TRY(deliver(load, header));
    return true;
  }

  Result<void> deliver(Load& load, std::span<const std::byte> header) {
    const LoadItem& item = source_.items[load.item];
    if (item.stored != StoredAs::kBlob) header = {};
    totals_.loaded_bytes += load.size_bytes;
    UNWEIGHT_TRY(sink_.deliver(item, std::exchange(load.data, nullptr), load.size_bytes, header));
    loads_.pop_front();
    return {};
  }

  const LoadSource& source_;
  const LoadLimits& limits_;
  LoadDevice& device_;
  LoadSink& sink_;
  std::vector<LoadPiece> pieces_;
  std::deque<Load> loads_;  ///< in the order of the items; all but the last one are read
  std::optional<std::uint64_t> last_copy_;
  Staging staging_{0};
  std::byte* ring_ = nullptr;
  std::byte* workspace_ = nullptr;
  std::uint64_t slab_bytes_ = 0;
  LoadTotals totals_;
};

}  // namespace

Result<LoadTotals> load(const LoadSource& source, const LoadLimits& limits, LoadDevice& device, LoadSink& sink) {
  return LoadRun(source, limits, device, sink).run();
}

}  // namespace unweight::io
