// SPDX-License-Identifier: Apache-2.0
//
// What to do where nothing was measured.
#pragma once

#include <cstdint>
#include <unweight/plan.hpp>

namespace unweight::tune {

/// Decoding to memory costs the same for any number of tokens; cuBLASLt then gains on the fused kernel with every
/// token. Both grow with the matrix alike, so that the number of tokens alone decides: on an H200 a decode is faster
/// for 2048 tokens for all of 15 shapes, for 1024 for half of them, by little (tune_h200.json).
inline constexpr std::uint32_t kDecodedFromTokens = 2048;

/// @param scratch  whether there is memory to decode to
/// @param cublas   whether cuBLASLt can be used
[[nodiscard]] constexpr Pipeline model_pipeline(BlobLayout layout, std::uint32_t bucket, bool scratch, bool cublas) {
  if (!cublas) return Pipeline::kFused;
  if (layout == BlobLayout::kRaw)
    return Pipeline::kRaw;  // the best that is known for dense weights, up to some percent
  return scratch && bucket_tokens(bucket) >= kDecodedFromTokens ? Pipeline::kDecoded : Pipeline::kFused;
}

}  // namespace unweight::tune
