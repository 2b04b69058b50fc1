// SPDX-License-Identifier: Apache-2.0
//
// Distribution blobs for tests: made, damaged, made sound again, compared with the reference.
#pragma once

#include "support/tensors.hpp"
#include <cstddef>
#include <cstdint>
#include <format/blob_view.hpp>
#include <format/distribution_view.hpp>
#include <span>
#include <string>
#include <unweight/distribution.hpp>
#include <vector>

namespace unweight::test {

using Bytes = std::vector<std::byte>;

[[nodiscard]] Bytes distribution_blob(const MatrixShape& shape, Filling filling, std::uint64_t seed = 1);

template <class T>
void poke(Bytes& blob, std::size_t offset, T value) {
  format::store(blob.data() + offset, value);
}

template <class T>
T peek(const Bytes& blob, std::size_t offset) {
  return format::load<T>(blob.data() + offset);
}

[[nodiscard]] format::distribution::Header distribution_header(const Bytes& blob);

/// Makes the checksums right again after a change to the header or the payload.
void reseal_distribution(Bytes& blob);

[[nodiscard]] Result<std::vector<std::uint16_t>> decode_distribution(std::span<const std::byte> blob);

/// Expects all implementations, with the content's checksum left out, to come to what the reference says: values or
/// corruption.
void expect_as_reference(const Bytes& blob, const format::distribution::View& view, const std::string& what);

/// A random valid coded blob that no encoder of ours would make: any tables, any scales, ranks at random, escapes
/// anywhere.
[[nodiscard]] Bytes random_distribution_blob(Random& random);

}  // namespace unweight::test
