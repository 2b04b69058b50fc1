// SPDX-License-Identifier: Apache-2.0
#include <codec/decode.hpp>
#include <codec/open.hpp>
#include <codec/out_of_memory.hpp>
#include <codec/parallel.hpp>
#include <new>

namespace unweight {
namespace {

using namespace format;

BlobInfo describe(const BlobView& blob) {
  const Header& h = blob.header();
  BlobInfo info;
  info.shape = {h.batch, h.rows, h.cols};
  info.layout = static_cast<BlobLayout>(h.layout);
  info.version_major = h.version_major;
  info.version_minor = h.version_minor;
  info.blob_bytes = h.blob_bytes;
  info.value_bytes = 2 * blob.values();
  info.palette_count = h.palette_count;
  info.content_checksum = h.content_checksum;
  if (blob.layout() == Layout::kTiled) {
    info.tile_count = blob.geometry().tiles;
    for (std::uint64_t tile = 0; tile < info.tile_count; ++tile) {
      const std::uint32_t units = blob.exception_units(tile);
      if (units == kEscapedTileUnits) {
        ++info.escaped_tiles;
      } else {
        info.exception_count += units;
      }
    }
  }
  if (blob.values() != 0) {
    info.bits_per_weight = 8.0 * static_cast<double>(h.blob_bytes) / static_cast<double>(blob.values());
  }
  return info;
}

}  // namespace

Result<BlobInfo> inspect(std::span<const std::byte> blob) try {
  const auto view = codec::open_blob(blob);
  if (!view) return tl::unexpected(view.error());
  return describe(*view);
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("inspecting a blob of {} bytes", blob.size());
}

Result<BlobInfo> verify_blob(std::span<const std::byte> blob, const DecodeOptions& options) try {
  const auto view = codec::open_blob(blob);
  if (!view) return tl::unexpected(view.error());
  if (auto ok = codec::check_payload(*view, options.threads); !ok) return tl::unexpected(ok.error());
  std::vector<std::uint16_t> values(static_cast<std::size_t>(view->values()));
  DecodeOptions checked = options;
  checked.verify_checksums = true;
  if (auto ok = codec::decode_with(codec::tile_kernels(), *view, values, checked); !ok) {
    return tl::unexpected(ok.error());
  }
  return describe(*view);
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("verifying a blob of {} bytes", blob.size());
}

}  // namespace unweight
