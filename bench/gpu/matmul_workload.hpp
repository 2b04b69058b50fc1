// SPDX-License-Identifier: Apache-2.0
//
// One matrix in all the forms that are multiplied, with X, room for Y, and what Y has to be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <device_memory.hpp>
#include <span>
#include <unweight/cuda.hpp>
#include <vector>

namespace unweight::bench {

/// Copies of one blob that take turns.
struct RotatedBlob {
  std::size_t bytes = 0;  ///< of one
  std::vector<DeviceMemory> memory;
  std::vector<DeviceBlob> blobs;

  [[nodiscard]] std::size_t count() const { return blobs.size(); }
  [[nodiscard]] const DeviceBlob& turn(int launch) const { return blobs[static_cast<std::size_t>(launch) % count()]; }
};

/// Synthetic weights W[rows, cols], X[tokens, cols] of N(0, 1), both dense.
class MatmulWorkload {
 public:
  MatmulWorkload(const MatrixShape& shape, std::uint32_t max_tokens);

  [[nodiscard]] const MatrixShape& shape() const { return shape_; }
  [[nodiscard]] const RotatedBlob& compressed() const { return compressed_; }
  /// Blobs of raw layout: also where the dense baseline finds its weights, at raw_weights().
  [[nodiscard]] const RotatedBlob& raw() const { return raw_; }
  [[nodiscard]] const void* raw_weights(int launch) const;
  [[nodiscard]] const std::uint16_t* x() const { return static_cast<const std::uint16_t*>(x_.get()); }
  [[nodiscard]] std::uint16_t* y() const { return static_cast<std::uint16_t*>(y_.get()); }

  /// Y = X * blob^T into y().
  void multiply(const DeviceBlob& blob, std::uint32_t tokens, const MatmulConfig& config, void* workspace,
                cudaStream_t stream) const;

  /// Overwrites y() with NaNs, so that what is not written shows.
  void poison_y() const;
  /// y() when all work is done.
  [[nodiscard]] std::vector<std::uint16_t> download_y(std::uint32_t tokens) const;

  /// Of some output features against float64: the root of the mean squared error, each feature scaled by the length of
  /// its row of W, over that of the values.
  [[nodiscard]] double relative_error(std::span<const std::uint16_t> y, std::uint32_t tokens) const;

 private:
  struct Sample {
    std::uint64_t feature;
    double length;               ///< of the row of W
    std::vector<double> values;  ///< of Y, by token
  };

  MatrixShape shape_;
  std::uint32_t max_tokens_;
  RotatedBlob compressed_, raw_;
  DeviceMemory x_, y_;
  std::vector<Sample> samples_;
};

}  // namespace unweight::bench
