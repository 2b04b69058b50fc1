// SPDX-License-Identifier: Apache-2.0
//
// The boundary to C: results become numbers, messages go to the thread's last error, exceptions stop.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <fmt/format.h>
#include <new>
#include <string_view>
#include <type_traits>
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

/// Fails unless `pointer` can be used as a structure with at least the members that it had in the release that
/// introduced it: `first_bytes`.
template <class Struct>
[[nodiscard]] Result<void> check_struct(const Struct* pointer, std::uint64_t first_bytes, const char* name) {
  if (auto ok = check_object(pointer, name); !ok) return ok;
  if (pointer->struct_size >= first_bytes) return {};
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("{}->struct_size = {} must be the structure's size, {} bytes or more", name,
                          pointer->struct_size, first_bytes));
}

/// A copy of a structure from a caller compiled against an earlier or a later release: members that the caller does
/// not have are zero. Fails where the caller sets a member that this release does not know, or a reserved one.
template <class Struct>
[[nodiscard]] Result<Struct> read_struct(const Struct* pointer, std::uint64_t first_bytes, const char* name) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  constexpr std::uint64_t kMaxBytes = 4096;  // larger is garbage: not to be read to its end
  if (auto ok = check_struct(pointer, first_bytes, name); !ok) return tl::unexpected(ok.error());
  const std::uint64_t bytes = pointer->struct_size;
  if (bytes > kMaxBytes) {
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("{}->struct_size = {} must be the structure's size, at most {} bytes", name, bytes, kMaxBytes));
  }
  Struct copy{};
  std::memcpy(&copy, pointer, std::min<std::size_t>(bytes, sizeof copy));
  if (copy.reserved != 0) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("{}->reserved = {} must be 0", name, copy.reserved));
  }
  const auto* all = reinterpret_cast<const unsigned char*>(pointer);
  for (std::uint64_t i = sizeof copy; i < bytes; ++i) {
    if (all[i] == 0) continue;
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("byte {} of {} is set, a member that this release does not have: its structure has {} bytes", i,
                    name, sizeof copy));
  }
  return copy;
}

/// Fills in what a caller's structure has room for, and says in its struct_size how much that was. After
/// check_struct().
template <class Struct>
void write_struct(Struct from, Struct* to) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  from.struct_size = std::min<std::uint64_t>(to->struct_size, sizeof from);
  std::memcpy(to, &from, static_cast<std::size_t>(from.struct_size));
}

}  // namespace unweight::capi
