// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cuda/device/bit_ops.cuh>
#include <cuda_runtime_api.h>
#include <failure.hpp>
#include <format/layout.hpp>
#include <matmul_workload.hpp>
#include <support/tensors.hpp>
#include <synthetic.hpp>

namespace unweight::bench {
namespace {

constexpr std::uint64_t kSampledFeatures = 48;

double bf16_value(std::uint16_t bits) { return static_cast<double>(device::float_of_bf16(bits)); }

RotatedBlob rotated(const std::vector<std::byte>& bytes) {
  RotatedBlob all;
  all.bytes = bytes.size();
  all.memory = upload_copies(bytes, rotation_count(bytes.size()));
  for (const DeviceMemory& memory : all.memory) all.blobs.push_back(value_of(DeviceBlob::create(bytes, memory.get())));
  return all;
}

}  // namespace

MatmulWorkload::MatmulWorkload(const MatrixShape& shape, std::uint32_t max_tokens)
    : shape_(shape), max_tokens_(max_tokens) {
  const std::vector<std::uint16_t> weights = synthetic_weights(shape);
  compressed_ = rotated(value_of(encode(weights, shape, {.threads = 0})));
  raw_ = rotated(test::raw_blob(weights, shape));
  const std::vector<std::uint16_t> x = normal_values(max_tokens * shape.cols);
  x_ = allocate(2 * x.size());
  check(cudaMemcpy(x_.get(), x.data(), 2 * x.size(), cudaMemcpyHostToDevice), "upload");
  y_ = allocate(2 * max_tokens * shape.rows);

  const std::uint64_t count = std::min(kSampledFeatures, shape.rows);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t feature = count == 1 ? 0 : i * (shape.rows - 1) / (count - 1);  // the first and the last, too
    std::vector<double> row(shape.cols);
    double squares = 0;
    for (std::uint64_t k = 0; k < shape.cols; ++k) {
      row[k] = bf16_value(weights[feature * shape.cols + k]);
      squares += row[k] * row[k];
    }
    Sample sample{feature, std::sqrt(squares), {}};
    for (std::uint32_t m = 0; m < max_tokens; ++m) {
      double sum = 0;
      for (std::uint64_t k = 0; k < shape.cols; ++k) sum += row[k] * bf16_value(x[m * shape.cols + k]);
      sample.values.push_back(sum);
    }
    samples_.push_back(std::move(sample));
  }
}

const void* MatmulWorkload::raw_weights(int launch) const { return raw_.turn(launch).data() + format::kHeaderBytes; }

void MatmulWorkload::multiply(const DeviceBlob& blob, std::uint32_t tokens, const MatmulConfig& config, void* workspace,
                              cudaStream_t stream) const {
  const MatmulArguments arguments{.x = x(),
                                  .x_stride = shape_.cols,
                                  .y = y(),
                                  .y_stride = shape_.rows,
                                  .bias = nullptr,
                                  .tokens = tokens,
                                  .matrix = 0,
                                  .workspace = workspace};
  check(matmul(blob, arguments, config, stream));
}

void MatmulWorkload::poison_y() const {
  check(cudaMemset(y_.get(), 0xff, 2 * max_tokens_ * shape_.rows), "poison");
  check(cudaDeviceSynchronize(), "poison");
}

std::vector<std::uint16_t> MatmulWorkload::download_y(std::uint32_t tokens) const {
  std::vector<std::uint16_t> found(tokens * shape_.rows);
  check(cudaDeviceSynchronize(), "multiply");
  check(cudaMemcpy(found.data(), y_.get(), 2 * found.size(), cudaMemcpyDeviceToHost), "download");
  return found;
}

double MatmulWorkload::relative_error(std::span<const std::uint16_t> y, std::uint32_t tokens) const {
  double errors = 0, values = 0;
  for (const Sample& sample : samples_) {
    for (std::uint32_t m = 0; m < tokens; ++m) {
      const double expected = sample.values[m];
      const double error = (bf16_value(y[m * shape_.rows + sample.feature]) - expected) / sample.length;
      errors += error * error;
      values += expected * expected / (sample.length * sample.length);
    }
  }
  return std::sqrt(errors / values);
}

}  // namespace unweight::bench
