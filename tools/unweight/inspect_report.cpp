// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <inspect_report.hpp>
#include <json.hpp>
#include <table.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

// ---- text -----------------------------------------------------------------------------------------------------------

std::string format_bits(std::optional<double> bits) { return bits ? fmt::format("{:.3f}", *bits) : "-"; }

bool has_histogram(const TensorReport& tensor, const Inspection& inspection) {
  return tensor.dtype == Dtype::kBF16 && inspection.arguments.histograms;
}

std::string stored_cell(const TensorReport& tensor) {
  if (tensor.stored != StoredAs::kAlias) return std::string(stored_name(tensor.stored));
  return fmt::format("alias of {}", printable(tensor.alias_of));
}

std::string tensor_table(const Inspection& inspection) {
  using enum Table::Align;
  Table table({{"tensor", kLeft},
               {"shape", kLeft},
               {"dtype", kLeft},
               {"size", kRight},
               {"bits/weight", kRight},
               {"entropy", kRight},
               {"palettes", kRight},
               {"exceptions", kRight},
               {"stored", kLeft}});
  const auto& tensors = inspection.report.tensors;
  bool several_files = false;
  for (const TensorReport& tensor : tensors) several_files = several_files || tensor.file != tensors.front().file;
  std::string_view file;
  for (const TensorReport& tensor : tensors) {
    if (several_files && tensor.file != file) table.add_section(printable(tensor.file) + ":");
    file = tensor.file;
    const bool blob = tensor.stored == StoredAs::kBlob;
    const bool alias = tensor.stored == StoredAs::kAlias;
    table.add_row({(several_files ? "  " : "") + printable(tensor.name), format_shape(tensor.shape),
                   std::string(dtype_name(tensor.dtype)), format_bytes(tensor.source_bytes),
                   alias ? "-" : format_bits(tensor.bits_per_weight),
                   has_histogram(tensor, inspection) ? format_bits(tensor.exponent_entropy_bits) : "-",
                   blob && tensor.palette_count > 0 ? format_count(tensor.palette_count) : "-",
                   blob ? format_percent(tensor.exception_count, element_count(tensor), 2) : "-", stored_cell(tensor)});
  }
  return table.text();
}

std::vector<std::string> totals_row(std::string name, const Totals& totals) {
  return {std::move(name),
          format_count(totals.tensors),
          format_count(totals.elements),
          format_bytes(totals.source_bytes),
          format_bytes(totals.stored_bytes),
          format_percent(totals.stored_bytes, totals.source_bytes),
          format_bits(totals.bits_per_weight()),
          format_bits(entropy_of(totals.exponents)),
          format_percent(totals.exceptions, totals.blob_elements, 2)};
}

std::string kind_table(const TensorSummary& summary) {
  using enum Table::Align;
  Table table({{"kind", kLeft},
               {"tensors", kRight},
               {"weights", kRight},
               {"size", kRight},
               {"stored", kRight},
               {"of size", kRight},
               {"bits/weight", kRight},
               {"entropy", kRight},
               {"exceptions", kRight}});
  for (const KindSummary& kind : summary.kinds) table.add_row(totals_row(printable(kind.kind), kind.totals));
  table.add_row(totals_row("all", summary.totals));
  return table.text();
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

void add_histogram(Json& json, const ExponentHistogram& histogram) {
  json.key("exponent_histogram");
  json.array(histogram);
}

void add_tensor(Json& json, const TensorReport& tensor, const std::string& kind, bool histogram) {
  json.begin_object();
  json.member("file", tensor.file);
  json.member("name", tensor.name);
  json.member("kind", kind);
  json.member("dtype", dtype_name(tensor.dtype));
  json.key("shape");
  json.array(tensor.shape);
  json.member("stored", stored_name(tensor.stored));
  if (tensor.stored == StoredAs::kAlias) json.member("alias_of", tensor.alias_of);
  json.member("source_bytes", tensor.source_bytes);
  json.member("stored_bytes", tensor.stored_bytes);
  json.member("bits_per_weight", tensor.bits_per_weight);
  if (tensor.stored == StoredAs::kBlob) {
    json.member("palette_count", tensor.palette_count);
    json.member("exception_count", tensor.exception_count);
    json.member("escaped_tiles", tensor.escaped_tiles);
    json.member("tile_count", tensor.tile_count);
    json.member("block_count", tensor.block_count);
  }
  if (histogram) {
    json.member("exponent_entropy_bits", tensor.exponent_entropy_bits);
    add_histogram(json, tensor.exponent_histogram);
  }
  json.end_object();
}

void add_totals(Json& json, const Totals& totals) {
  json.member("tensors", totals.tensors);
  json.member("elements", totals.elements);
  json.member("source_bytes", totals.source_bytes);
  json.member("stored_bytes", totals.stored_bytes);
  json.member("tensors_blob", totals.blobs);
  json.member("tensors_alias", totals.aliases);
  if (const auto bits = totals.bits_per_weight()) json.member("bits_per_weight", *bits);
  json.member("exception_count", totals.exceptions);
  if (const auto entropy = entropy_of(totals.exponents)) {
    json.member("exponent_entropy_bits", *entropy);
    add_histogram(json, totals.exponents);
  }
}

}  // namespace

std::string_view stored_name(StoredAs stored) noexcept {
  switch (stored) {
    case StoredAs::kBlob:
      return "blob";
    case StoredAs::kRaw:
      return "raw";
    case StoredAs::kAlias:
      break;
  }
  return "alias";
}

std::string inspection_text(const Inspection& inspection) {
  const InspectReport& report = inspection.report;
  const Totals& totals = inspection.summary.totals;
  std::string text = tensor_table(inspection) + "\n" + kind_table(inspection.summary) + "\n";
  Table table({{}, {}});
  table.add_row({report.is_bundle ? "bundle" : "checkpoint", printable(inspection.arguments.path.native())});
  table.add_row({"source", fmt::format("{}, all files", format_bytes(report.source_bytes))});
  if (inspection.sizes_known()) {
    table.add_row(
        {report.is_bundle ? "stored" : "would be",
         fmt::format("{}, {} of the source{}", format_bytes(report.stored_bytes),
                     format_percent(report.stored_bytes, report.source_bytes), report.is_bundle ? "" : " (estimate)")});
    table.add_row({"tensors", fmt::format("{} compressed, {} raw, {}", format_count(totals.blobs),
                                          format_count(totals.tensors - totals.blobs - totals.aliases),
                                          format_count(totals.aliases, "duplicate"))});
  } else {
    table.add_row(
        {"tensors", fmt::format("{}; compression was not tried (--no-histograms)", format_count(totals.tensors))});
  }
  if (!inspection.arguments.report.empty()) {
    table.add_row({"report", printable(inspection.arguments.report.native())});
  }
  return text + table.text();
}

std::string inspection_json(const Inspection& inspection) {
  const InspectReport& report = inspection.report;
  const TensorSummary& summary = inspection.summary;
  Json json;
  json.begin_object();
  json.member("path", inspection.arguments.path.native());
  json.member("is_bundle", report.is_bundle);
  json.member("profile", profile_name(report.profile));
  json.member("sizes_known", inspection.sizes_known());
  json.member("source_bytes", report.source_bytes);
  json.member("stored_bytes", report.stored_bytes);
  if (!inspection.arguments.report.empty()) json.member("report", inspection.arguments.report.native());
  json.key("totals");
  json.begin_object();
  add_totals(json, summary.totals);
  json.end_object();
  json.key("kinds");
  json.begin_array();
  for (const KindSummary& kind : summary.kinds) {
    json.begin_object();
    json.member("kind", kind.kind);
    add_totals(json, kind.totals);
    json.end_object();
  }
  json.end_array();
  json.key("tensors");
  json.begin_array();
  for (std::size_t i = 0; i < report.tensors.size(); ++i) {
    const TensorReport& tensor = report.tensors[i];
    add_tensor(json, tensor, summary.kinds[summary.kind_of[i]].kind, has_histogram(tensor, inspection));
  }
  json.end_array();
  json.end_object();
  return json.text();
}

}  // namespace unweight::cli
