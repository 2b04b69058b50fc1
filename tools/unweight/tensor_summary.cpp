// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <string_view>
#include <tensor_summary.hpp>

namespace unweight::cli {
namespace {

/// More layers than any model has: a number above it in a name is something else, and lays claim to no memory here.
constexpr std::size_t kMaxLayers = 4096;

using Path = std::vector<std::string_view>;

/// Where a tensor sits in the model.
struct Place {
  Path kind;
  std::optional<std::size_t> layer;
};

Path split(std::string_view name) {
  Path parts;
  while (true) {
    const std::size_t dot = name.find('.');
    parts.push_back(name.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    name.remove_prefix(dot + 1);
  }
}

std::optional<std::size_t> parse_number(std::string_view part) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
  if (part.empty() || error != std::errc() || end != part.data() + part.size()) return std::nullopt;
  return number;
}

Place place_of(std::string_view name) {
  Place place;
  Path parts = split(name);
  if (parts.size() > 1 && parts.back() == "weight") parts.pop_back();
  for (const std::string_view part : parts) {
    const auto number = parse_number(part);
    if (!number) {
      place.kind.push_back(part);
    } else if (!place.layer && *number < kMaxLayers) {
      place.layer = number;
      place.kind.clear();  // what stands before the number is the same for all layers
    }
  }
  if (place.kind.empty()) place.kind = {name};  // "layers.3"
  return place;
}

std::string join_last(const Path& path, std::size_t count) {
  std::string text;
  for (std::size_t i = path.size() - count; i < path.size(); ++i) {
    if (i > path.size() - count) text += '.';
    text += path[i];
  }
  return text;
}

/// The shortest ending of each path that is no other path's ending.
std::map<Path, std::string> shortest_labels(const std::set<Path>& paths) {
  std::map<std::string, std::size_t> uses;
  for (const Path& path : paths) {
    for (std::size_t count = 1; count <= path.size(); ++count) ++uses[join_last(path, count)];
  }
  std::map<Path, std::string> labels;
  for (const Path& path : paths) {
    std::size_t count = path.back() == "bias" ? std::min<std::size_t>(2, path.size()) : 1;
    while (count < path.size() && (path[path.size() - count].empty() || uses[join_last(path, count)] > 1)) ++count;
    labels[path] = join_last(path, count);
  }
  return labels;
}

}  // namespace

std::uint64_t element_count(const TensorReport& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::uint64_t{1}, std::multiplies<>());
}

void Totals::add(const TensorReport& tensor) {
  ++tensors;
  const std::uint64_t count = element_count(tensor);
  elements += count;
  source_bytes += tensor.source_bytes;
  stored_bytes += tensor.stored_bytes;
  exceptions += tensor.exception_count;
  if (tensor.stored == StoredAs::kBlob) {
    ++blobs;
    blob_elements += count;
  }
  if (tensor.stored == StoredAs::kAlias) {
    ++aliases;
    alias_elements += count;
  }
  for (std::size_t i = 0; i < exponents.size(); ++i) exponents[i] += tensor.exponent_histogram[i];
}

std::optional<double> Totals::bits_per_weight() const {
  if (elements == alias_elements) return std::nullopt;
  return 8.0 * static_cast<double>(stored_bytes) / static_cast<double>(elements - alias_elements);
}

std::optional<double> entropy_of(const ExponentHistogram& histogram) {
  const std::uint64_t total = std::accumulate(histogram.begin(), histogram.end(), std::uint64_t{0});
  if (total == 0) return std::nullopt;
  double entropy = 0;
  for (const std::uint64_t count : histogram) {
    if (count == 0) continue;
    const double probability = static_cast<double>(count) / static_cast<double>(total);
    entropy -= probability * std::log2(probability);
  }
  return entropy;
}

TensorSummary summarize(std::span<const TensorReport> tensors) {
  TensorSummary summary;
  std::vector<Place> places;
  std::set<Path> paths;
  for (const TensorReport& tensor : tensors) {
    summary.totals.add(tensor);
    places.push_back(place_of(tensor.name));
    paths.insert(places.back().kind);
    if (places.back().layer) summary.layers = std::max(summary.layers, *places.back().layer + 1);
  }
  const std::map<Path, std::string> labels = shortest_labels(paths);

  struct KindSums {
    Totals all;
    std::map<std::size_t, Totals> layers;
  };
  std::map<std::string_view, KindSums> sums;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    KindSums& kind = sums[labels.at(places[i].kind)];
    kind.all.add(tensors[i]);
    if (places[i].layer) kind.layers[*places[i].layer].add(tensors[i]);
  }

  for (const auto& [label, kind_sums] : sums) {
    KindSummary kind{std::string(label), kind_sums.all, std::vector<std::optional<double>>(summary.layers)};
    for (const auto& [layer, totals] : kind_sums.layers) kind.layer_bits[layer] = totals.bits_per_weight();
    summary.kinds.push_back(std::move(kind));
  }
  std::ranges::stable_sort(summary.kinds, std::ranges::greater(),
                           [](const KindSummary& kind) { return kind.totals.source_bytes; });
  std::map<std::string_view, std::size_t> index;
  for (std::size_t i = 0; i < summary.kinds.size(); ++i) index[summary.kinds[i].kind] = i;
  for (const Place& place : places) summary.kind_of.push_back(index.at(labels.at(place.kind)));
  return summary;
}

}  // namespace unweight::cli
