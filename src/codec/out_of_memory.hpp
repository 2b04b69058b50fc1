// SPDX-License-Identifier: Apache-2.0
//
// The error that a public function returns where memory has run out.
#pragma once

#include <fmt/format.h>
#include <new>
#include <unweight/result.hpp>
#include <utility>

namespace unweight::codec {

/// kOutOfMemory with "out of memory while <what is said>". Called from handlers of bad_alloc, so it does without the
/// details where there is no memory for them either.
template <class... Args>
[[nodiscard]] tl::unexpected<Error> fail_out_of_memory(fmt::format_string<Args...> doing, Args&&... args) noexcept {
  try {
    return fail(ErrorCode::kOutOfMemory, "out of memory while " + fmt::format(doing, std::forward<Args>(args)...));
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "out of memory");  // short enough for a string without allocation
  }
}

}  // namespace unweight::codec
