// SPDX-License-Identifier: Apache-2.0
//
// What transcoding does, kernel after kernel, and where its workspace lies. Host code without CUDA: `Device` launches
// the kernels, on a stream or, in tests, on the CPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cuda/kernels/sm90_distribution_decode.cuh>
#include <cuda/kernels/sm90_transcode_palettes.cuh>
#include <cuda/kernels/sm90_transcode_tables.cuh>
#include <cuda/kernels/sm90_transcode_tiles.cuh>
#include <cuda/kernels/sm90_transcode_units.cuh>
#include <cuda/launch/distribution_params.hpp>
#include <format/layout.hpp>
#include <optional>
#include <unweight/distribution_cuda.hpp>

namespace unweight::launch {

/// A tensor's way from one form to the other: sizes, and which parts of it are decoded at a time.
class TranscodeJob {
 public:
  /// Nothing where a slab of that many bytes holds no row group. 0: the whole tensor.
  static std::optional<TranscodeJob> make(const PlacedDistributionBlob& blob, std::uint64_t slab_bytes) {
    TranscodeJob job(blob);
    const std::uint64_t group_bytes = job.group_strips_ * job.strip_bytes();
    job.slab_groups_ =
        slab_bytes == 0 ? job.groups() : std::min(job.groups(), slab_bytes / std::max<std::uint64_t>(1, group_bytes));
    if (job.groups() != 0 && job.slab_groups_ == 0) return std::nullopt;
    return job;
  }

  [[nodiscard]] std::size_t workspace_bytes() const {
    std::uint64_t end = 0;
    (void)lay_out(nullptr, end);
    return static_cast<std::size_t>(end);
  }

  /// Row groups are numbered through all matrices.
  [[nodiscard]] std::uint64_t groups() const { return blob_.shape.batch * groups_per_matrix_; }
  [[nodiscard]] std::uint64_t slabs() const { return groups() == 0 ? 0 : format::ceil_div(groups(), slab_groups_); }

  /// Enqueues the first half. `Device` has
  ///   clear(void* memory, std::size_t bytes)
  ///   launch(kernel, grid, threads, shared bytes, kernel's arguments...)
  ///   launch_dependent(likewise), for a kernel that may begin while the one in front of it runs
  ///   decode(parameters, classes of the blob)
  ///   multiprocessors()
  template <class Device>
  void plan(void* workspace, distribution::TranscodeOutcome* outcome, Device& device) const {
    device::TranscodeParams params = base_params(workspace, outcome);
    device.clear(params.workspace.state, cleared_bytes(params.workspace));
    const std::uint32_t* const too_many = &params.workspace.state->too_many_palettes;
    for_slabs(params, [&](const Slab& slab) {
      decode(slab, params, device);
      device.launch_dependent(sm90::row_palettes_kernel<sm90::RowPalettesConfig>, row_grid(params, device),
                              sm90::RowPalettesConfig::kThreads, 0, params);
      device.launch_dependent(sm90::strip_hashes_kernel<sm90::HashConfig>, strips_of(params),
                              sm90::HashConfig::kThreads, 0, params);
    });
    launch_after_slabs(device, sm90::dictionary_kernel<sm90::DictionaryConfig>, 1, sm90::DictionaryConfig::kThreads,
                       params);
    for_slabs(params, [&](const Slab& slab) {
      params.only_if = too_many;
      if (slabs() > 1) decode(slab, params, device);
      device.launch_dependent(sm90::nearest_palettes_kernel<sm90::RowPalettesConfig>, row_grid(params, device),
                              sm90::RowPalettesConfig::kThreads, 0, params);
      params.only_if = nullptr;
    });
    const auto count_units = [&] {
      device.launch_dependent(sm90::count_units_kernel<sm90::CountUnitsConfig>, segments_of(params),
                              sm90::CountUnitsConfig::kThreads, 0, params);
    };
    if (slabs() == 0) count_units();  // for the end of the exception stream
    for_slabs(params, [&](const Slab& slab) {
      if (slabs() > 1) decode(slab, params, device);
      count_units();
    });
    device.launch_dependent(sm90::plan_kernel<sm90::PlanConfig>, 1, sm90::PlanConfig::kThreads, 0, params);
  }

  /// Enqueues the second half.
  template <class Device>
  void finish(void* workspace, void* out, std::uint64_t capacity_bytes, distribution::TranscodeOutcome* outcome,
              Device& device) const {
    device::TranscodeParams params = base_params(workspace, outcome);
    params.out = static_cast<std::byte*>(out);
    params.capacity_bytes = capacity_bytes;
    for_slabs(params, [&](const Slab& slab) {
      if (slabs() > 1) decode(slab, params, device);
      params.table_blocks = slab.end_group == groups() ? table_blocks(params, device) : 0;
      params.item_tiles = item_tiles(params, device);
      device.launch(sm90::encode_tiles_kernel<sm90::EncodeTilesConfig>, params.table_blocks + item_grid(params),
                    sm90::EncodeTilesConfig::kThreads, 0, params);
    });
    const std::uint32_t chunks = grid(most_payload_bytes(), device::kPayloadChunkBytes);
    launch_after_slabs(device, sm90::chunk_hashes_kernel<sm90::HashConfig>, chunks, sm90::HashConfig::kThreads, params);
  }

 private:
  explicit TranscodeJob(const PlacedDistributionBlob& blob)
      : blob_(blob), geometry_(format::tiled_geometry(blob.shape.batch, blob.shape.rows, blob.shape.cols, 1)) {
    if (values() == 0) return;
    // A raw blob can be cut anywhere.
    const bool is_coded = blob.layout == distribution::Layout::kCoded;
    group_strips_ = is_coded ? blob.blocks().group_rows / format::kTileRows : 1;
    groups_per_matrix_ = format::ceil_div(geometry_.strips, group_strips_);
  }

  struct Slab {
    std::uint64_t first_group, end_group;
  };

  /// The first kernel behind those of the slabs, of which there may be none for it to depend on.
  template <class Device, class Kernel>
  void launch_after_slabs(Device& device, Kernel* kernel, std::uint32_t grid, std::uint32_t threads,
                          const device::TranscodeParams& params) const {
    if (slabs() == 0) {
      device.launch(kernel, grid, threads, 0, params);
    } else {
      device.launch_dependent(kernel, grid, threads, 0, params);
    }
  }

  [[nodiscard]] std::uint64_t values() const { return blob_.shape.batch * blob_.shape.rows * blob_.shape.cols; }
  [[nodiscard]] std::uint64_t strip_bytes() const {
    return format::kTileRows * blob_.shape.cols * sizeof(std::uint16_t);
  }
  [[nodiscard]] std::uint64_t most_payload_bytes() const {
    return format::raw_blob_bytes(values()) - format::kHeaderBytes;
  }
  /// The first strip of a row group, or the end.
  [[nodiscard]] std::uint64_t first_strip(std::uint64_t group) const {
    return group / groups_per_matrix_ * geometry_.strips + group % groups_per_matrix_ * group_strips_;
  }

  /// Places the workspace's parts from `memory` on; `end` is set to their size.
  [[nodiscard]] device::TranscodeWorkspace lay_out(void* memory, std::uint64_t& end) const {
    end = 0;
    const auto take = [&]<class T>(T*& part, std::uint64_t count) {
      constexpr std::uint64_t kAlignment = 256;
      part = memory == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<std::byte*>(memory) + end);
      end += format::align_up(count * sizeof(T), kAlignment);
    };
    device::TranscodeWorkspace w{};
    w.slot_count = slot_count();
    take(w.state, 1);  // these three are cleared together
    take(w.slots, w.slot_count);
    take(w.slot_rows, w.slot_count);
    take(w.row_palettes, geometry_.padded_rows);
    take(w.tile_starts, geometry_.tiles + 1);
    take(w.segment_starts, geometry_.segments);
    take(w.content_hashes, blob_.shape.batch * geometry_.strips);
    take(w.payload_hashes, format::ceil_div(most_payload_bytes(), device::kPayloadChunkBytes));
    std::uint64_t slab_strips = slab_groups_ * group_strips_;
    slab_strips = std::min(slab_strips, blob_.shape.batch * geometry_.strips);
    take(w.values, slab_strips * strip_bytes() / sizeof(std::uint16_t));
    return w;
  }
  /// Room for every row's palette, and then some.
  [[nodiscard]] std::uint64_t slot_count() const { return geometry_.padded_rows + geometry_.padded_rows / 4 + 256; }
  [[nodiscard]] static std::size_t cleared_bytes(const device::TranscodeWorkspace& w) {
    return static_cast<std::size_t>(reinterpret_cast<std::byte*>(w.row_palettes) -
                                    reinterpret_cast<std::byte*>(w.state));
  }

  [[nodiscard]] device::TranscodeParams base_params(void* workspace, distribution::TranscodeOutcome* outcome) const {
    device::TranscodeParams params{};
    std::uint64_t end = 0;
    params.workspace = lay_out(workspace, end);
    params.geometry = geometry_;
    params.batch = blob_.shape.batch;
    params.rows = blob_.shape.rows;
    params.cols = blob_.shape.cols;
    params.raw_bytes = format::raw_blob_bytes(values());
    params.content_checksum = blob_.content_checksum;
    params.outcome = reinterpret_cast<std::uint64_t*>(outcome);
    return params;
  }

  template <class Body>
  void for_slabs(device::TranscodeParams& params, const Body& body) const {
    for (std::uint64_t first = 0; first < groups(); first += slab_groups_) {
      const Slab slab{first, std::min(groups(), first + slab_groups_)};
      params.first_strip = first_strip(slab.first_group);
      params.end_strip = first_strip(slab.end_group);
      body(slab);
    }
  }

  template <class Device>
  void decode(const Slab& slab, const device::TranscodeParams& params, Device& device) const {
    if (blob_.layout == distribution::Layout::kRaw) {
      const auto* values = reinterpret_cast<const std::uint16_t*>(blob_.data + format::kHeaderBytes);
      device.launch(sm90::unpack_raw_kernel<sm90::UnpackRawConfig>, strips_of(params), sm90::UnpackRawConfig::kThreads,
                    0, params, values);
      return;
    }
    sm90::DistributionDecodeParams decoding =
        distribution_decode_params(blob_, slab.first_group, slab.end_group,
                                   {params.workspace.values, params.cols, geometry_.strips * format::kTileRows,
                                    params.first_strip * format::kTileRows},
                                   &params.workspace.state->status);
    decoding.only_if = params.only_if;
    device.decode(decoding, blob_.class_count);
  }

  [[nodiscard]] static std::uint32_t grid(std::uint64_t work, std::uint64_t per_block) {
    return static_cast<std::uint32_t>(std::max<std::uint64_t>(1, format::ceil_div(work, per_block)));
  }
  [[nodiscard]] static std::uint32_t strips_of(const device::TranscodeParams& params) {
    return static_cast<std::uint32_t>(params.end_strip - params.first_strip);
  }
  /// Those with tiles of the slab, and, with the last tile, that of the stream's end.
  [[nodiscard]] static std::uint32_t segments_of(const device::TranscodeParams& params) {
    const std::uint64_t begin = params.first_strip * params.geometry.tiles_per_strip,
                        end = params.end_strip * params.geometry.tiles_per_strip;
    const std::uint64_t last = (end == params.geometry.tiles ? end : end - 1) / format::kTilesPerSegment;
    return static_cast<std::uint32_t>(last - begin / format::kTilesPerSegment + 1);
  }
  /// Tiles that a warp encodes with one table of codes: fewer where there would be fewer blocks than the device holds.
  template <class Device>
  [[nodiscard]] static std::uint32_t item_tiles(const device::TranscodeParams& params, const Device& device) {
    constexpr std::uint64_t kMost = 8, kLeast = 2;
    const std::uint64_t warps = std::uint64_t{device.multiprocessors()} * sm90::EncodeTilesConfig::kBlocksPerSm *
                                sm90::EncodeTilesConfig::kWarps;
    const std::uint64_t tiles = strips_of(params) * params.geometry.tiles_per_strip;
    return static_cast<std::uint32_t>(std::clamp(format::ceil_div(tiles, warps), kLeast, kMost));
  }
  [[nodiscard]] static std::uint32_t item_grid(const device::TranscodeParams& params) {
    const std::uint64_t items =
        strips_of(params) * format::ceil_div(params.geometry.tiles_per_strip, std::uint64_t{params.item_tiles});
    return grid(items, sm90::EncodeTilesConfig::kWarps);
  }
  template <class Device>
  [[nodiscard]] static std::uint32_t table_blocks(const device::TranscodeParams& params, const Device& device) {
    const std::uint64_t bytes = params.geometry.exceptions_offset - params.geometry.segment_starts_offset;
    return std::min(grid(bytes, 8 * sm90::EncodeTilesConfig::kThreads), 8 * device.multiprocessors());
  }
  template <class Device>
  [[nodiscard]] static std::uint32_t row_grid(const device::TranscodeParams& params, const Device& device) {
    const std::uint64_t rows = (params.end_strip - params.first_strip) * format::kTileRows;
    const std::uint32_t most = device.multiprocessors() * sm90::RowPalettesConfig::kBlocksPerSm;
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(most, format::ceil_div(rows, sm90::RowPalettesConfig::kWarps)));
  }

  PlacedDistributionBlob blob_;
  format::TiledGeometry geometry_;
  std::uint64_t group_strips_ = 1;
  std::uint64_t groups_per_matrix_ = 0;
  std::uint64_t slab_groups_ = 0;
};

static_assert(sizeof(distribution::TranscodeOutcome) == 2 * sizeof(std::uint64_t) + format::kHeaderBytes);

}  // namespace unweight::launch
