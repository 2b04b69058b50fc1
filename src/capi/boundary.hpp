// SPDX-License-Identifier: Apache-2.0
//
// The boundary to C: results become numbers, messages go to the thread's last error, exceptions stop.
#pragma once

#include <exception>
#include <fmt/format.h>
#include <new>
#include <string_view>
#include <unweight/result.hpp>
#include <unweight/unweight.h>

namespace unweight::capi {

/// Sets the thread's message and returns the number. Allocates nothing, so that it can report that nothing is left.
unweight_status report(ErrorCode code, std::string_view message) noexcept;

/// Runs the body of a C function: a callable that returns a Result<void> and may throw.
template <class Body>
unweight_status guarded(const Body& body) noexcept {
  try {
    const Result<void> result = body();
    return result ? report(ErrorCode::kOk, "") : report(result.error().code, result.error().message);
  } catch (const std::bad_alloc&) {
    return report(ErrorCode::kOutOfMemory, "out of memory");
  } catch (const std::exception& e) {
    return report(ErrorCode::kInternal, e.what());
  } catch (...) {
    return report(ErrorCode::kInternal, "an exception of unknown type");
  }
}

/// Fails unless `pointer` can be used as one T.
template <class T>
[[nodiscard]] Result<void> check_object(const T* pointer, const char* name) {
  if (pointer == nullptr) return fail(ErrorCode::kInvalidArgument, fmt::format("{} is NULL", name));
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignof(T) != 0) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} = {} is not aligned to {} bytes", name, static_cast<const void*>(pointer), alignof(T)));
  }
  return {};
}

/// Fails unless `pointer` can be used as `count` elements of T.
template <class T>
[[nodiscard]] Result<void> check_array(const T* pointer, std::size_t count, const char* name, const char* count_name) {
  if (count == 0) return {};
  if (pointer == nullptr) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("{} is NULL, but {} = {}", name, count_name, count));
  }
  return check_object(pointer, name);
}

}  // namespace unweight::capi
