// SPDX-License-Identifier: Apache-2.0
//
// SHA-256, by which source files are recognised: the digest that the Hub shows for large files, and sha256sum prints.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unweight/result.hpp>

struct evp_md_ctx_st;

namespace unweight::io {

/// Incremental SHA-256.
class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes) noexcept;
  /// 64 lowercase hexadecimal digits. Ends the computation. kInternal when libcrypto refused any step.
  [[nodiscard]] Result<std::string> finish();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const noexcept;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
  bool good_ = false;
};

[[nodiscard]] Result<std::string> sha256_of(std::span<const std::byte> bytes);
/// Whether `text` is 64 lowercase hexadecimal digits.
[[nodiscard]] bool is_sha256(std::string_view text) noexcept;

}  // namespace unweight::io
