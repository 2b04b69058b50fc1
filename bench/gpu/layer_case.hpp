// SPDX-License-Identifier: Apache-2.0
//
// What a loader does: the matrices of a layer transcoded to the runtime form, one after another on one stream, and
// several at a time on some.
#pragma once

#include <cstddef>
#include <graph_timer.hpp>
#include <string>
#include <unweight/blob.hpp>
#include <vector>

namespace unweight::bench {

struct LayerResult {
  struct Way {
    std::size_t streams = 0;
    Spread us;  ///< of the whole layer
  };
  std::string name;
  std::vector<MatrixShape> shapes;
  std::size_t blob_bytes = 0, runtime_bytes = 0, value_bytes = 0;
  std::vector<Way> ways;
};

/// A layer of Llama-3.1-8B. Checks every way's blobs against the CPU's before anything is timed.
[[nodiscard]] LayerResult measure_layer(int rounds);

/// For a results file, and for people.
[[nodiscard]] std::string layer_json(const LayerResult& result);
[[nodiscard]] std::string layer_table(const LayerResult& result);

}  // namespace unweight::bench
