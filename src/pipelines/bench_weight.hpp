// SPDX-License-Identifier: Apache-2.0
//
// One weight in the forms that are measured, with activations, room for results, and what some results have to be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <pipelines/device_buffer.hpp>
#include <span>
#include <unweight/cuda.hpp>
#include <unweight/plan.hpp>
#include <vector>

namespace unweight::pipelines {

/// Copies of one blob that take turns, so that no launch finds its weights in the cache.
struct BlobRotation {
  std::vector<DeviceBuffer> memory;
  std::vector<DeviceBlob> blobs;

  [[nodiscard]] const DeviceBlob& turn(std::size_t launch) const { return blobs[launch % blobs.size()]; }
};

/// Random weights by the recipe of `unweight synth`, with more exceptions where their class has more. Rows repeat after
/// kDistinctRows: that many have the statistics of all, and are quickly made.
class BenchWeight {
 public:
  static constexpr std::uint64_t kDistinctRows = 1024;
  /// At least so many bytes are read between two uses of the same.
  static constexpr std::size_t kRotatedBytes = 400'000'000;

  /// Errors: kOutOfMemory (device), kCuda, kNoDevice.
  [[nodiscard]] static Result<BenchWeight> make(const WeightClass& weight, std::uint32_t most_tokens);

  [[nodiscard]] const MatrixShape& shape() const { return shape_; }
  [[nodiscard]] const BlobRotation& rotation(BlobLayout layout) const {
    return layout == BlobLayout::kTiled ? tiled_ : raw_;
  }
  /// Dense weights of a raw blob.
  [[nodiscard]] const std::uint16_t* dense(std::size_t launch) const;

  [[nodiscard]] const std::uint16_t* x() const { return static_cast<const std::uint16_t*>(x_.get()); }
  [[nodiscard]] std::uint16_t* y() const { return static_cast<std::uint16_t*>(y_.get()); }
  [[nodiscard]] std::uint16_t* expected_y() const { return static_cast<std::uint16_t*>(expected_y_.get()); }
  [[nodiscard]] std::uint16_t* scratch() const { return static_cast<std::uint16_t*>(scratch_.get()); }

  /// Fills a result with NaNs, so that what is not written shows.
  [[nodiscard]] Result<void> poison(std::uint16_t* result, std::uint32_t tokens, cudaStream_t stream) const;
  /// How many values of y() differ from expected_y(). Synchronises.
  [[nodiscard]] Result<std::uint64_t> differences(std::uint32_t tokens, cudaStream_t stream) const;
  /// Error of some values of a result against float64: the root of the mean square, over that of the values themselves.
  /// Synchronises.
  [[nodiscard]] Result<double> relative_error(const std::uint16_t* result, std::uint32_t tokens,
                                              cudaStream_t stream) const;

 private:
  BenchWeight() = default;

  [[nodiscard]] Result<void> make_blobs(const WeightClass& weight, std::span<const std::uint16_t> values);
  [[nodiscard]] Result<void> make_activations(std::uint32_t most_tokens, std::span<const std::uint16_t> values);

  MatrixShape shape_;
  BlobRotation tiled_, raw_;
  DeviceBuffer x_, y_, expected_y_, scratch_;
  std::vector<std::uint32_t> sampled_tokens_;
  std::vector<std::uint64_t> sampled_rows_;
  std::vector<double> samples_;      ///< [tokens][rows]
  std::vector<double> row_lengths_;  ///< of the sampled rows
  DeviceBuffer places_, gathered_, different_;
};

}  // namespace unweight::pipelines
