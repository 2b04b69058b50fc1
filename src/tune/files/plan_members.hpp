// SPDX-License-Identifier: Apache-2.0
//
// The members of a plan file, for its writer and its reader. docs/tuning.md says what they mean.
#pragma once

#include <cstdint>
#include <string_view>

namespace unweight::tune::plan_members {

inline constexpr std::uint64_t kFileVersion = 1;
inline constexpr std::uint64_t kMaxFileBytes = std::uint64_t{64} << 20;

inline constexpr std::string_view kVersion = "unweight_plan", kGpu = "gpu", kSoftware = "software", kDate = "date",
                                  kCommand = "command", kRequest = "request", kMatrices = "matrices",
                                  kWeights = "weights";
// gpu, software
inline constexpr std::string_view kName = "name", kMultiprocessors = "multiprocessors", kMemoryBytes = "memory_bytes",
                                  kDriver = "driver", kCuda = "cuda", kCublaslt = "cublaslt", kLibrary = "library",
                                  kKernels = "kernels";
// request
inline constexpr std::string_view kObjective = "objective", kBatchSizes = "batch_sizes",
                                  kMemoryBudgetBytes = "memory_budget_bytes", kDependentLaunch = "dependent_launch",
                                  kModel = "model", kOtherBytes = "other_bytes",
                                  kKvBytesPerToken = "kv_bytes_per_token";
// matrices
inline constexpr std::string_view kKind = "kind", kRows = "rows", kCols = "cols", kExceptions = "exceptions",
                                  kCompressedBytes = "compressed_bytes", kRawBytes = "raw_bytes", kRaw = "raw",
                                  kNames = "names";
// weights
inline constexpr std::string_view kLayout = "layout", kBytes = "bytes", kCells = "cells";
// cells
inline constexpr std::string_view kTokens = "tokens", kCublasUs = "cublas_us", kIsolated = "isolated",
                                  kDependent = "dependent";
// measurements
inline constexpr std::string_view kPipeline = "pipeline", kAlgorithm = "algorithm", kConfig = "config", kUs = "us",
                                  kNoise = "noise";

}  // namespace unweight::tune::plan_members
