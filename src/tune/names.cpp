// SPDX-License-Identifier: Apache-2.0
#include <tune/names.hpp>
#include <utility>

namespace unweight::tune {

std::string merged_name(std::string_view tensor_name) {
  constexpr std::pair<std::string_view, std::string_view> kMerged[] = {{".q_proj.", ".qkv_proj."},
                                                                       {".k_proj.", ".qkv_proj."},
                                                                       {".v_proj.", ".qkv_proj."},
                                                                       {".gate_proj.", ".gate_up_proj."},
                                                                       {".up_proj.", ".gate_up_proj."}};
  std::string name(tensor_name);
  for (const auto& [part, merged] : kMerged) {
    const std::size_t at = name.rfind(part);
    if (at != std::string::npos) return name.replace(at, part.size(), merged);
  }
  return name;
}

}  // namespace unweight::tune
