// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "emulation/guarded_bytes.hpp"
#include <codec/distribution_open.hpp>
#include <cuda/launch/distribution_params.hpp>
#include <span>

namespace unweight::test {

/// A distribution blob whose header and tables are sound, as though `memory` were on a device.
inline launch::PlacedDistributionBlob place(std::span<const std::byte> bytes, const GuardedBytes& memory) {
  const auto front = codec::distribution::open_front(bytes).value();
  const auto& h = front.header();
  return {{h.batch, h.rows, h.cols},
          static_cast<distribution::Layout>(h.layout),
          h.class_count,
          h.scale_count,
          h.table_units,
          h.stream_bytes,
          h.content_checksum,
          memory.data()};
}

}  // namespace unweight::test
