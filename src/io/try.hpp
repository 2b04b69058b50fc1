// SPDX-License-Identifier: Apache-2.0
//
// Early return for Result<T>, and the boundary that turns exceptions into errors.
#pragma once

#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <unweight/result.hpp>
#include <utility>

#define UNWEIGHT_JOIN_(a, b) a##b
#define UNWEIGHT_JOIN(a, b) UNWEIGHT_JOIN_(a, b)

/// Evaluates a Result and returns its error, if any, from the enclosing function.
#define UNWEIGHT_TRY(...)                                                             \
  do {                                                                                \
    if (auto unweight_result = (__VA_ARGS__); !unweight_result) {                     \
      return ::tl::unexpected<::unweight::Error>(std::move(unweight_result).error()); \
    }                                                                                 \
  } while (false)

/// `UNWEIGHT_ASSIGN(auto x, f());` declares (or assigns) x from a Result, or returns its error.
#define UNWEIGHT_ASSIGN(target, ...) UNWEIGHT_ASSIGN_(UNWEIGHT_JOIN(unweight_result_, __LINE__), target, __VA_ARGS__)
#define UNWEIGHT_ASSIGN_(result, target, ...)                                                      \
  auto result = (__VA_ARGS__);                                                                     \
  if (!result) return ::tl::unexpected<::unweight::Error>(std::move(result).error()); /* NOLINT */ \
  target = *std::move(result)

namespace unweight::io {

/// The same error, its message preceded by "prefix: ".
[[nodiscard]] inline tl::unexpected<Error> fail_within(const std::string& prefix, Error error) {
  error.message = prefix + ": " + error.message;
  return tl::unexpected<Error>(std::move(error));
}

/// A message stays one line, whatever paths and names it quotes: control characters are written as \xNN.
[[nodiscard]] inline std::string on_one_line(std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string line;
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code >= 0x20 && code != 0x7f) {
      line += c;
    } else {
      line += {'\\', 'x', kDigits[code >> 4], kDigits[code & 15]};
    }
  }
  return line;
}

/// Runs `body`, which returns a Result, and turns what the standard library throws into one.
template <class Body>
[[nodiscard]] auto guarded(const Body& body) noexcept -> std::invoke_result_t<const Body&> {
  try {
    auto result = body();
    if (!result) result.error().message = on_one_line(result.error().message);
    return result;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "out of memory");
  } catch (const std::length_error&) {
    return fail(ErrorCode::kOutOfMemory, "out of memory: a container's size limit");
  } catch (const std::filesystem::filesystem_error& error) {
    return fail(ErrorCode::kIo, error.what());
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInternal, error.what());
  }
}

}  // namespace unweight::io
