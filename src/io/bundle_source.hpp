// SPDX-License-Identifier: Apache-2.0
//
// The source of a bundle, without restoring it: what transcoding compresses.
#pragma once

#include <filesystem>
#include <io/plan.hpp>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>

namespace unweight::io {

/// As scan_source() of the bundle's source, in one share. kInvalidArgument when the bundle has `profile` already.
[[nodiscard]] Result<Plan> scan_bundle(const std::filesystem::path& bundle, bool verify, Profile profile);

}  // namespace unweight::io
