// SPDX-License-Identifier: Apache-2.0
//
// What a blob of the distribution form holds, whether it is whole, and the way to the runtime form and back.
#include <codec/distribution_decode.hpp>
#include <codec/distribution_open.hpp>
#include <codec/out_of_memory.hpp>
#include <cstring>
#include <memory>
#include <new>

namespace unweight::distribution {
namespace {

using format::distribution::View;
namespace codec_distribution = codec::distribution;

Info describe(const View& blob) {
  const auto& h = blob.header();
  Info info;
  info.shape = {h.batch, h.rows, h.cols};
  info.layout = static_cast<Layout>(h.layout);
  info.version_major = h.version_major;
  info.version_minor = h.version_minor;
  info.blob_bytes = h.blob_bytes;
  info.value_bytes = 2 * blob.values();
  info.class_count = h.class_count;
  info.scale_count = h.scale_count;
  info.content_checksum = h.content_checksum;
  info.block_count = blob.blocks().count;
  for (std::uint64_t block = 0; block < info.block_count; ++block) info.escape_count += blob.escape_count(block);
  if (blob.values() != 0) {
    info.bits_per_weight = 8.0 * static_cast<double>(h.blob_bytes) / static_cast<double>(blob.values());
  }
  return info;
}

/// A tensor's values without the cost of clearing them first.
struct Values {
  explicit Values(std::uint64_t size)
      : memory(std::make_unique_for_overwrite<std::uint16_t[]>(static_cast<std::size_t>(size))),
        span(memory.get(), static_cast<std::size_t>(size)) {}
  std::unique_ptr<std::uint16_t[]> memory;
  std::span<std::uint16_t> span;
};

}  // namespace

bool is_blob(std::span<const std::byte> bytes) noexcept {
  return bytes.size() >= sizeof format::distribution::kMagic &&
         std::memcmp(bytes.data(), format::distribution::kMagic, sizeof format::distribution::kMagic) == 0;
}

Result<Info> inspect(std::span<const std::byte> blob) try {
  const auto view = codec_distribution::open_blob(blob);
  if (!view) return tl::unexpected(view.error());
  return describe(*view);
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("inspecting a blob of {} bytes", blob.size());
}

Result<Info> verify_blob(std::span<const std::byte> blob, const DecodeOptions& options) try {
  const auto view = codec_distribution::open_blob(blob);
  if (!view) return tl::unexpected(view.error());
  if (auto ok = codec_distribution::check_payload(*view, options.threads); !ok) return tl::unexpected(ok.error());
  const Values values(view->values());
  const DecodeOptions checked{.threads = options.threads, .verify_checksums = true};
  if (auto ok = codec_distribution::decode_with(codec_distribution::rans_kernels(), *view, values.span, checked); !ok) {
    return tl::unexpected(ok.error());
  }
  return describe(*view);
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("verifying a blob of {} bytes", blob.size());
}

Result<std::vector<std::byte>> to_runtime(std::span<const std::byte> blob, const DecodeOptions& options) try {
  const auto view = codec_distribution::open_blob(blob);
  if (!view) return tl::unexpected(view.error());
  const Values values(view->values());
  if (auto ok = codec_distribution::decode_with(codec_distribution::rans_kernels(), *view, values.span, options); !ok) {
    return tl::unexpected(ok.error());
  }
  return unweight::encode(values.span, {view->header().batch, view->header().rows, view->header().cols},
                          {.threads = options.threads});
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("transcoding a blob of {} bytes", blob.size());
}

Result<std::vector<std::byte>> from_runtime(std::span<const std::byte> blob, const DecodeOptions& options) try {
  const auto info = unweight::inspect(blob);
  if (!info) return tl::unexpected(info.error());
  const Values values(info->value_bytes / 2);
  if (auto ok = unweight::decode(blob, values.span, options); !ok) return tl::unexpected(ok.error());
  return distribution::encode(values.span, info->shape, {.threads = options.threads});
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("transcoding a blob of {} bytes", blob.size());
}

}  // namespace unweight::distribution
