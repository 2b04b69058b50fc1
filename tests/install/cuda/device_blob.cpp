// SPDX-License-Identifier: Apache-2.0
//
// Calls both libraries: encodes a matrix on the CPU, and asks for it on the GPU with an address that is not there. That
// must be an error, whether or not there is a device.
#include <cstdint>
#include <cstdio>
#include <unweight/blob.hpp>
#include <unweight/cuda.hpp>
#include <vector>

int main() {
  const unweight::MatrixShape shape{.batch = 1, .rows = 64, .cols = 128};
  const std::vector<std::uint16_t> values(shape.rows * shape.cols, 0x3f80);
  const auto blob = unweight::encode(values, shape);
  if (!blob) {
    std::fprintf(stderr, "encode: %s\n", blob.error().message.c_str());
    return 1;
  }
  const auto refused = unweight::DeviceBlob::create(*blob, nullptr);
  if (refused) {
    std::fprintf(stderr, "a blob at address 0 was accepted\n");
    return 1;
  }
  std::printf("refused as it should be: %s\n", refused.error().message.c_str());
  return 0;
}
