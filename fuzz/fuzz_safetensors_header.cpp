// SPDX-License-Identifier: Apache-2.0
//
// Input: 8 bytes of data size, then the JSON of a header. What the parser accepts must be a tiling of the data, and
// must survive being written and parsed again.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <unweight/safetensors.hpp>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

bool same_tensor(const unweight::TensorEntry& a, const unweight::TensorEntry& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin && a.end == b.end;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 8) return 0;
  std::uint64_t data_bytes = 0;
  std::memcpy(&data_bytes, data, 8);
  data_bytes &= (std::uint64_t{1} << 62) - 1;
  const std::string_view json(reinterpret_cast<const char*>(data) + 8, size - 8);
  const auto header = unweight::parse_safetensors_header(json, 8 + json.size() + data_bytes);
  if (!header) {
    require(header.error().code == unweight::ErrorCode::kBadSafetensors);
    require(!header.error().message.empty() && header.error().message.find('\n') == std::string::npos);
    return 0;
  }
  std::uint64_t end = 0;
  for (const auto& tensor : header->tensors) {
    require(tensor.begin == end && tensor.end >= end);
    end = tensor.end;
  }
  require(end == data_bytes && header->data_bytes == data_bytes);

  const std::string text = unweight::make_safetensors_header(header->tensors, header->metadata, 64);
  const auto again = unweight::parse_safetensors_header(std::string_view(text).substr(8), text.size() + data_bytes);
  require(again.has_value());
  require(std::equal(header->tensors.begin(), header->tensors.end(), again->tensors.begin(), again->tensors.end(),
                     same_tensor));
  require(header->metadata == again->metadata);
  return 0;
}
