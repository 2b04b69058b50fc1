// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <codec/parallel.hpp>
#include <cstring>
#include <format/layout.hpp>
#include <io/synth_values.hpp>
#include <io/try.hpp>
#include <pipelines/bench_kernels.hpp>
#include <pipelines/bench_weight.hpp>
#include <random>
#include <unweight/blob.hpp>
#include <utility>

namespace unweight::pipelines {
namespace {

constexpr std::uint64_t kKey = 20;                 ///< of the random numbers
constexpr std::size_t kPatternValues = 1'000'003;  ///< prime: rows of activations all begin at another place
constexpr std::uint64_t kSampledRows = 8;
constexpr std::uint32_t kSampledTokens = 8;  ///< the first ones; and the last one of each bucket

double value_of(std::uint16_t bf16) {
  const std::uint32_t bits = std::uint32_t{bf16} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return static_cast<double>(value);
}

std::uint16_t to_bf16(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to nearest even
}

/// Share of values that are replaced by random bits, most of them exceptions of one or two units.
double noise_share(ExceptionClass exceptions) {
  switch (exceptions) {
    case ExceptionClass::kUsual:
      break;
    case ExceptionClass::kMany:
      return 0.04;
    case ExceptionClass::kDense:
      return 0.20;
  }
  return 0;
}

void add_noise(std::span<std::uint16_t> values, double share, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto limit = static_cast<std::uint64_t>(share * 0x1p32);
  for (std::uint16_t& value : values) {
    const std::uint64_t bits = random();
    // Finite: an infinity would hide other errors.
    if ((bits & 0xffffffff) < limit) value = static_cast<std::uint16_t>((bits >> 32 & 0xbfff));
  }
}

std::vector<std::uint16_t> make_values(const WeightClass& weight) {
  std::vector<std::uint16_t> values(weight.rows * weight.cols);
  const std::uint64_t distinct = std::min(weight.rows, BenchWeight::kDistinctRows);
  const auto row = [&](std::uint64_t number) { return std::span(values).subspan(number * weight.cols, weight.cols); };
  codec::parallel_for(0, distinct, [&](std::uint64_t number) {
    io::synth_values(kKey, io::SynthRecipe::kMatrix, weight.cols, number * weight.cols, row(number));
    if (const double share = noise_share(weight.exceptions); share > 0) add_noise(row(number), share, number);
  });
  codec::parallel_for(0, weight.rows - distinct, [&](std::uint64_t number) {
    std::ranges::copy(row(number % distinct), row(distinct + number).begin());
  });
  return values;
}

std::size_t rotation_count(std::size_t bytes) {
  return std::max<std::size_t>(2, (BenchWeight::kRotatedBytes + bytes - 1) / bytes);
}

/// One upload, then copies on the device.
Result<std::vector<DeviceBuffer>> upload_copies(std::span<const std::byte> bytes) {
  std::vector<DeviceBuffer> copies;
  for (std::size_t i = 0; i < rotation_count(bytes.size()); ++i) {
    UNWEIGHT_ASSIGN(DeviceBuffer memory, allocate_device(bytes.size(), "tune: weights"));
    const bool first = i == 0;
    UNWEIGHT_TRY(cuda_check(cudaMemcpy(memory.get(), first ? bytes.data() : copies.front().get(), bytes.size(),
                                       first ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice),
                            "tune: upload"));
    copies.push_back(std::move(memory));
  }
  return copies;
}

template <class T>
Result<DeviceBuffer> upload(std::span<const T> values) {
  UNWEIGHT_ASSIGN(DeviceBuffer memory, allocate_device(values.size_bytes(), "tune: operands"));
  UNWEIGHT_TRY(
      cuda_check(cudaMemcpy(memory.get(), values.data(), values.size_bytes(), cudaMemcpyHostToDevice), "tune: upload"));
  return memory;
}

}  // namespace

Result<BenchWeight> BenchWeight::make(const WeightClass& weight, std::uint32_t most_tokens) {
  BenchWeight made;
  made.shape_ = {1, weight.rows, weight.cols};
  const std::vector<std::uint16_t> values = make_values(weight);
  UNWEIGHT_TRY(made.make_blobs(weight, values));
  UNWEIGHT_TRY(made.make_activations(most_tokens, values));
  return made;
}

Result<void> BenchWeight::make_blobs(const WeightClass& weight, std::span<const std::uint16_t> values) {
  UNWEIGHT_ASSIGN(const std::uint64_t bound, encode_bound(shape_));
  // Not cleared first, as a vector would be.
  const std::unique_ptr<std::byte[]> bytes(new std::byte[bound]);
  UNWEIGHT_ASSIGN(const std::uint64_t size, encode_into(values, shape_, {bytes.get(), bound}, {.threads = 0}));
  const std::span<const std::byte> blob(bytes.get(), size);
  UNWEIGHT_ASSIGN(tiled_.memory, upload_copies(blob));
  for (const DeviceBuffer& memory : tiled_.memory) {
    UNWEIGHT_ASSIGN(const DeviceBlob device, DeviceBlob::create(blob, memory.get()));
    tiled_.blobs.push_back(device);
  }
  if (tiled_.blobs.front().layout() != weight.layout) {
    return fail(ErrorCode::kInvalidArgument, "tune: " + describe(weight) + " is too small to be compressed");
  }
  // Raw blobs have the original values, not decoded ones: they are what decoding is compared with.
  for (std::size_t i = 0; i < rotation_count(bound); ++i) {
    UNWEIGHT_ASSIGN(DeviceBuffer memory, allocate_device(bound, "tune: weights"));
    UNWEIGHT_ASSIGN(const DeviceBlob device, decode_to_raw(tiled_.blobs.front(), memory.get(), nullptr));
    raw_.blobs.push_back(device);
    raw_.memory.push_back(std::move(memory));
    auto* own = const_cast<std::uint16_t*>(dense(i));
    UNWEIGHT_TRY(cuda_check(cudaMemcpy(own, i == 0 ? values.data() : dense(0), values.size_bytes(),
                                       i == 0 ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice),
                            "tune: upload"));
  }
  UNWEIGHT_ASSIGN(scratch_, allocate_device(values.size_bytes(), "tune: scratch"));
  return {};
}

Result<void> BenchWeight::make_activations(std::uint32_t most_tokens, std::span<const std::uint16_t> values) {
  std::mt19937_64 random(kKey);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> pattern(kPatternValues);
  for (std::uint16_t& value : pattern) value = to_bf16(normal(random));
  const std::uint64_t x_values = std::uint64_t{most_tokens} * shape_.cols;
  UNWEIGHT_ASSIGN(const DeviceBuffer device_pattern, upload(std::span<const std::uint16_t>(pattern)));
  UNWEIGHT_ASSIGN(x_, allocate_device(2 * x_values, "tune: activations"));
  UNWEIGHT_TRY(repeat(static_cast<const std::uint16_t*>(device_pattern.get()), pattern.size(),
                      static_cast<std::uint16_t*>(x_.get()), x_values, nullptr));
  UNWEIGHT_TRY(cuda_check(cudaDeviceSynchronize(), "tune: activations"));
  UNWEIGHT_ASSIGN(y_, allocate_device(2 * most_tokens * shape_.rows, "tune: results"));
  UNWEIGHT_ASSIGN(expected_y_, allocate_device(2 * most_tokens * shape_.rows, "tune: results"));

  for (std::uint32_t token = 0; token < std::min(kSampledTokens, most_tokens); ++token)
    sampled_tokens_.push_back(token);
  for (std::uint32_t bucket = 0; bucket < kTokenBuckets && bucket_tokens(bucket) <= most_tokens; ++bucket) {
    if (bucket_tokens(bucket) > kSampledTokens) sampled_tokens_.push_back(bucket_tokens(bucket) - 1);
  }
  const std::uint64_t rows = std::min(kSampledRows, shape_.rows);
  for (std::uint64_t i = 0; i < rows; ++i) {  // the first and the last among them
    sampled_rows_.push_back(rows == 1 ? 0 : i * (shape_.rows - 1) / (rows - 1));
  }
  std::vector<std::uint64_t> places;
  for (const std::uint64_t row : sampled_rows_) {
    double squares = 0;
    for (std::uint64_t k = 0; k < shape_.cols; ++k) squares += std::pow(value_of(values[row * shape_.cols + k]), 2);
    row_lengths_.push_back(std::max(std::sqrt(squares), 1e-300));
  }
  for (const std::uint32_t token : sampled_tokens_) {
    for (const std::uint64_t row : sampled_rows_) {
      double sum = 0;
      for (std::uint64_t k = 0; k < shape_.cols; ++k) {
        sum += value_of(pattern[(token * shape_.cols + k) % kPatternValues]) * value_of(values[row * shape_.cols + k]);
      }
      samples_.push_back(sum);
      places.push_back(token * shape_.rows + row);
    }
  }
  UNWEIGHT_ASSIGN(places_, upload(std::span<const std::uint64_t>(places)));
  UNWEIGHT_ASSIGN(gathered_, allocate_device(sizeof(std::uint16_t) * places.size(), "tune: results"));
  UNWEIGHT_ASSIGN(different_, allocate_device(sizeof(unsigned long long), "tune: results"));
  return {};
}

const std::uint16_t* BenchWeight::dense(std::size_t launch) const {
  return reinterpret_cast<const std::uint16_t*>(raw_.turn(launch).data() + format::kHeaderBytes);
}

Result<void> BenchWeight::poison(std::uint16_t* result, std::uint32_t tokens, cudaStream_t stream) const {
  return cuda_check(cudaMemsetAsync(result, 0xff, 2 * tokens * shape_.rows, stream), "tune: poison");
}

Result<std::uint64_t> BenchWeight::differences(std::uint32_t tokens, cudaStream_t stream) const {
  auto* const count = static_cast<unsigned long long*>(different_.get());
  unsigned long long different = 0;
  UNWEIGHT_TRY(cuda_check(cudaMemsetAsync(count, 0, sizeof *count, stream), "tune: compare"));
  UNWEIGHT_TRY(count_differences(y(), expected_y(), tokens * shape_.rows, count, stream));
  UNWEIGHT_TRY(cuda_check(cudaMemcpyAsync(&different, count, sizeof different, cudaMemcpyDeviceToHost, stream),
                          "tune: compare"));
  UNWEIGHT_TRY(cuda_check(cudaStreamSynchronize(stream), "tune: compare"));
  return different;
}

Result<double> BenchWeight::relative_error(const std::uint16_t* result, std::uint32_t tokens,
                                           cudaStream_t stream) const {
  const auto sampled =
      static_cast<std::size_t>(std::ranges::upper_bound(sampled_tokens_, tokens - 1) - sampled_tokens_.begin());
  const std::size_t count = sampled * sampled_rows_.size();
  std::vector<std::uint16_t> found(count);
  auto* const gathered = static_cast<std::uint16_t*>(gathered_.get());
  UNWEIGHT_TRY(gather(result, static_cast<const std::uint64_t*>(places_.get()), static_cast<std::uint32_t>(count),
                      gathered, stream));
  UNWEIGHT_TRY(
      cuda_check(cudaMemcpyAsync(found.data(), gathered, 2 * count, cudaMemcpyDeviceToHost, stream), "tune: compare"));
  UNWEIGHT_TRY(cuda_check(cudaStreamSynchronize(stream), "tune: compare"));
  double errors = 0, squares = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double length = row_lengths_[i % sampled_rows_.size()];
    errors += std::pow((value_of(found[i]) - samples_[i]) / length, 2);
    squares += std::pow(samples_[i] / length, 2);
  }
  return std::sqrt(errors / squares);
}

}  // namespace unweight::pipelines
