// SPDX-License-Identifier: Apache-2.0
//
// How the programs here end when something fails: one line, then exit 2 (wrong results or input) or 3 (device).
#pragma once

#include <cuda_runtime_api.h>
#include <string>
#include <unweight/result.hpp>
#include <utility>

namespace unweight::bench {

/// Ends the program with a message unless `error` is cudaSuccess.
void check(cudaError_t error, const char* what);

[[noreturn]] void stop(const std::string& message);
[[noreturn]] void stop(const Error& error);

inline void check(const Result<void>& done) {
  if (!done) stop(done.error());
}

/// The value of a result, which must have one.
template <class T>
[[nodiscard]] T value_of(Result<T> result) {
  if (!result) stop(result.error());
  return *std::move(result);
}

}  // namespace unweight::bench
