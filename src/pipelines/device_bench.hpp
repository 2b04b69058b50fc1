// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <tune/bench.hpp>

namespace unweight::pipelines {

/// The tuner's bench on the current device. Errors: kNoDevice, kCuda, kOutOfMemory.
[[nodiscard]] Result<std::unique_ptr<tune::Bench>> device_bench();

}  // namespace unweight::pipelines
