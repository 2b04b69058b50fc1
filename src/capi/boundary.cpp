// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <capi/boundary.hpp>

namespace unweight::capi {
namespace {

// A plain array: it needs no memory when there is none, and no destructor, so that it outlives every other object of
// its thread.
thread_local std::array<char, 1024> last_error_message{};

}  // namespace

unweight_status report(ErrorCode code, std::string_view message) noexcept {
  constexpr std::string_view kCut = "...";
  auto& text = last_error_message;
  const bool fits = message.size() < text.size();
  const std::size_t kept = fits ? message.size() : text.size() - 1 - kCut.size();
  char* end = std::copy_n(message.begin(), kept, text.begin());
  if (!fits) end = std::copy(kCut.begin(), kCut.end(), end);
  *end = '\0';
  return static_cast<unweight_status>(code);
}

}  // namespace unweight::capi

const char* unweight_version_string(void) { return UNWEIGHT_VERSION_STRING; }

uint32_t unweight_version_number(void) { return UNWEIGHT_VERSION_NUMBER; }

const char* unweight_status_name(uint32_t status) {
  return unweight::error_name(static_cast<unweight::ErrorCode>(status));
}

const char* unweight_last_error_message(void) { return unweight::capi::last_error_message.data(); }
