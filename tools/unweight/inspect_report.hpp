// SPDX-License-Identifier: Apache-2.0
//
// The three forms of what 'inspect' found.
#pragma once

#include <arguments.hpp>
#include <string>
#include <tensor_summary.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight::cli {

struct Inspection {
  const InspectArguments& arguments;
  const InspectReport& report;
  const TensorSummary& summary;

  /// Whether the sizes are those that the tensors have, or would have, in a bundle.
  [[nodiscard]] bool sizes_known() const noexcept { return report.is_bundle || arguments.histograms; }
};

/// Tables.
[[nodiscard]] std::string inspection_text(const Inspection& inspection);
/// One line of JSON with every field of the report.
[[nodiscard]] std::string inspection_json(const Inspection& inspection);
/// A self-contained page, well-formed as HTML and as XML.
[[nodiscard]] std::string inspection_page(const Inspection& inspection);

/// "blob", "raw", "alias".
[[nodiscard]] std::string_view stored_name(StoredAs stored) noexcept;

}  // namespace unweight::cli
