// SPDX-License-Identifier: Apache-2.0
//
// Names of enumerators, in plan files and for people; and of tensors that loaders merge.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unweight/plan.hpp>

namespace unweight::tune {

// By the enumerators' values.
inline constexpr std::array<std::string_view, 3> kPipelineNames = {"fused", "decoded", "raw"};
inline constexpr std::array<std::string_view, 3> kExceptionClassNames = {"usual", "many", "dense"};
inline constexpr std::array<std::string_view, 2> kLayoutNames = {"raw", "tiled"};
inline constexpr std::array<std::string_view, 3> kObjectiveNames = {"latency", "memory", "balanced"};
inline constexpr std::array<std::string_view, 5> kChoiceSourceNames = {"override", "plan", "built-in table",
                                                                       "cost model", "fallback"};

template <std::size_t kCount, class Enum>
[[nodiscard]] constexpr std::string_view name_of(const std::array<std::string_view, kCount>& names,
                                                 Enum value) noexcept {
  const auto index = static_cast<std::size_t>(value);
  return index < kCount ? names[index] : "unknown";
}

template <class Enum, std::size_t kCount>
[[nodiscard]] constexpr std::optional<Enum> enum_of(const std::array<std::string_view, kCount>& names,
                                                    std::string_view name) noexcept {
  for (std::size_t i = 0; i < kCount; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

/// The name of the matrix that loaders merge a tensor into: "x.qkv_proj.weight" for q_proj, k_proj and v_proj,
/// "x.gate_up_proj.weight" for gate_proj and up_proj; otherwise the name itself.
[[nodiscard]] std::string merged_name(std::string_view tensor_name);

}  // namespace unweight::tune
