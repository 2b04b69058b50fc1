// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace unweight::tune {

/// Of at least one sample.
[[nodiscard]] inline double quantile(std::vector<double> samples, double share) {
  std::sort(samples.begin(), samples.end());
  const double place = share * static_cast<double>(samples.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  const std::size_t high = std::min(low + 1, samples.size() - 1);
  return samples[low] + (place - static_cast<double>(low)) * (samples[high] - samples[low]);
}

[[nodiscard]] inline double median(const std::vector<double>& samples) { return quantile(samples, 0.5); }

/// Half of the range of the middle half, as a share of the median.
[[nodiscard]] inline double noise_of(const std::vector<double>& samples) {
  const double middle = median(samples);
  return middle > 0 ? (quantile(samples, 0.75) - quantile(samples, 0.25)) / 2 / middle : 0;
}

}  // namespace unweight::tune
