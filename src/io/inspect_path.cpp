// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <codec/parallel.hpp>
#include <cstring>
#include <format/blob_view.hpp>
#include <io/blob_form.hpp>
#include <io/bundle.hpp>
#include <io/file.hpp>
#include <io/json_text.hpp>
#include <io/matrix_view.hpp>
#include <io/plan.hpp>
#include <io/tensor_encoder.hpp>
#include <io/try.hpp>
#include <unweight/checkpoint.hpp>
#include <unweight/distribution.hpp>

namespace unweight {
namespace {

using namespace io;

constexpr std::uint64_t kMemoryBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kDecodeBytes = std::uint64_t{1} << 20;

using Histogram = std::array<std::uint64_t, 256>;

void count_exponents(std::span<const std::uint16_t> values, Histogram& histogram) {
  // Four tables: neighbouring values often have the same exponent, and one counter would be a chain of dependent adds.
  std::array<Histogram, 4> parts{};
  std::size_t i = 0;
  for (; i + 4 <= values.size(); i += 4) {
    for (std::size_t k = 0; k < 4; ++k) ++parts[k][(values[i + k] >> 7) & 0xff];
  }
  for (; i < values.size(); ++i) ++parts[0][(values[i] >> 7) & 0xff];
  for (std::size_t e = 0; e < histogram.size(); ++e) {
    for (const Histogram& part : parts) histogram[e] += part[e];
  }
}

double entropy_bits(const Histogram& histogram) {
  std::uint64_t total = 0;
  for (const std::uint64_t count : histogram) total += count;
  double bits = 0;
  for (const std::uint64_t count : histogram) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / static_cast<double>(total);
    bits -= p * std::log2(p);
  }
  return bits;
}

std::uint64_t element_count(const std::vector<std::uint64_t>& shape) {
  std::uint64_t count = 1;
  for (const std::uint64_t extent : shape) count *= extent;
  return count;
}

TensorReport begin_report(const std::string& file, const TensorEntry& entry) {
  TensorReport report;
  report.file = file;
  report.name = entry.name;
  report.dtype = entry.dtype;
  report.shape = entry.shape;
  report.source_bytes = report.stored_bytes = entry.size_bytes();
  return report;
}

void set_blob_info(TensorReport& report, const BlobInfo& info) {
  report.stored = StoredAs::kBlob;
  report.stored_bytes = info.blob_bytes;
  report.palette_count = info.palette_count;
  report.exception_count = info.exception_count;
  report.escaped_tiles = info.escaped_tiles;
  report.tile_count = info.tile_count;
}

void set_blob_info(TensorReport& report, const distribution::Info& info) {
  report.stored = StoredAs::kBlob;
  report.stored_bytes = info.blob_bytes;
  report.exception_count = info.escape_count;
  report.block_count = info.block_count;
}

void complete_report(TensorReport& report) {
  const std::uint64_t elements = element_count(report.shape);
  if (elements != 0) {
    report.bits_per_weight = 8.0 * static_cast<double>(report.stored_bytes) / static_cast<double>(elements);
  }
  report.exponent_entropy_bits = entropy_bits(report.exponent_histogram);
}

/// Runs `body(i)` for every tensor, on several threads and within a memory budget. `cost(i)` is in bytes.
Result<void> for_each_tensor(std::size_t count, unsigned threads, const std::function<std::uint64_t(std::size_t)>& cost,
                             const std::function<Result<void>(std::size_t)>& body, WorkControl& control) {
  std::uint64_t largest = kMemoryBytes;
  for (std::size_t i = 0; i < count; ++i) largest = std::max(largest, cost(i));
  MemoryBudget budget(largest, control);
  std::atomic<std::size_t> next{0};
  const auto workers = static_cast<unsigned>(std::clamp<std::size_t>(count, 1, codec::resolve_threads(threads)));
  run_workers(workers, control, [&](unsigned) -> Result<void> {
    for (std::size_t i = next++; i < count && !control.stopped(); i = next++) {
      const MemoryBudget::Lease lease = budget.acquire(cost(i));
      if (control.stopped()) break;
      UNWEIGHT_TRY(body(i));
    }
    return {};
  });
  return control.outcome();
}

// ---- a checkpoint ---------------------------------------------------------------------------------------------------

/// Histogram, and what compress would store.
Result<void> examine_values(const Plan& plan, TensorRef ref, TensorReport& report) {
  const PlannedFile& file = plan.files[ref.file];
  const TensorEntry& entry = plan.tensor(ref);
  UNWEIGHT_ASSIGN(const File source, File::open(plan.source.full_path(file.path)));
  UNWEIGHT_ASSIGN(Buffer values, read_tensor(source, file.header.data_begin + entry.begin, entry));
  count_exponents(std::as_const(values).values(), report.exponent_histogram);
  if (report.stored == StoredAs::kAlias || !is_blob_candidate(entry)) return {};
  UNWEIGHT_ASSIGN(const EncodedTensor encoded, encode_candidate(std::move(values), entry, 1, false, Profile::kRuntime));
  if (!encoded.is_blob) return {};
  UNWEIGHT_ASSIGN(const BlobInfo info, inspect(encoded.stored()));
  set_blob_info(report, info);
  return {};
}

Result<InspectReport> inspect_checkpoint(const std::filesystem::path& path, const InspectOptions& options) {
  WorkControl control(options.progress);
  UNWEIGHT_ASSIGN(Plan plan, scan_source(path, 1, false, Profile::kRuntime));
  control.set_totals(plan.source.total_bytes(), 0);
  std::vector<Alias> aliases;
  if (options.histograms) {
    UNWEIGHT_ASSIGN(aliases, find_aliases(plan, control));
  }
  UNWEIGHT_TRY(complete_plan(plan, aliases));

  InspectReport report;
  std::vector<TensorRef> refs;
  for (std::uint32_t f = 0; f < plan.files.size(); ++f) {
    const PlannedFile& file = plan.files[f];
    for (std::uint32_t t = 0; t < file.header.tensors.size(); ++t) {
      refs.push_back({f, t});
      TensorReport& tensor = report.tensors.emplace_back(begin_report(file.path, file.header.tensors[t]));
      if (!file.originals[t]) continue;
      tensor.stored = StoredAs::kAlias;
      tensor.stored_bytes = 0;
      tensor.alias_of = plan.files[file.originals[t]->file].path + ":" + plan.tensor(*file.originals[t]).name;
    }
  }
  control.set_totals(plan.source.total_bytes(), refs.size());
  if (options.histograms) {
    const auto cost = [&](std::size_t i) {
      return plan.tensor(refs[i]).dtype == Dtype::kBF16 ? encode_memory_bytes(plan.tensor(refs[i])) : 0;
    };
    const auto examine = [&](std::size_t i) -> Result<void> {
      const TensorEntry& entry = plan.tensor(refs[i]);
      if (entry.dtype == Dtype::kBF16) UNWEIGHT_TRY(examine_values(plan, refs[i], report.tensors[i]));
      control.add_bytes(entry.size_bytes());
      control.add_tensor(entry.name);
      return {};
    };
    UNWEIGHT_TRY(for_each_tensor(refs.size(), options.threads, cost, examine, control));
  }
  report.source_bytes = report.stored_bytes = plan.source.total_bytes();
  for (TensorReport& tensor : report.tensors) {
    complete_report(tensor);
    report.stored_bytes -= tensor.source_bytes - tensor.stored_bytes;
  }
  control.report_end();
  return report;
}

// ---- a bundle -------------------------------------------------------------------------------------------------------

/// Reads a blob: all of it, or only header and tables, which is all that inspect() looks at. The rest of the memory
/// stays untouched then.
Result<Buffer> read_blob(const File& file, const LocatedTensor& located, bool whole) {
  Buffer buffer(located.size_bytes);
  const auto read = [&](std::uint64_t begin, std::uint64_t end) {
    begin = std::min(begin, located.size_bytes);
    end = std::clamp(end, begin, located.size_bytes);
    return file.read(located.offset + begin, buffer.bytes().subspan(begin, end - begin));
  };
  if (whole) {
    UNWEIGHT_TRY(read(0, located.size_bytes));
    return buffer;
  }
  UNWEIGHT_TRY(read(0, format::kHeaderBytes));
  const auto header = format::read_header(
      std::as_const(buffer).bytes().first(std::min<std::uint64_t>(format::kHeaderBytes, located.size_bytes)));
  // A damaged header may name any range here; inspect() refuses it afterwards.
  if (header) UNWEIGHT_TRY(read(header->segment_starts_offset, header->exceptions_offset));
  return buffer;
}

Result<void> count_blob(Profile profile, std::span<const std::byte> blob, const MatrixShape& shape,
                        Histogram& histogram) {
  const std::uint64_t rows = shape.batch * shape.rows;
  if (rows == 0 || shape.cols == 0) return {};
  const std::uint64_t rows_at_once =
      std::max<std::uint64_t>(1, kDecodeBytes / (2 * shape.cols * kSliceRows)) * kSliceRows;
  Buffer decoded(std::min(rows, rows_at_once) * shape.cols * 2);
  for (std::uint64_t row = 0; row < rows; row += rows_at_once) {
    const std::uint64_t count = std::min(rows_at_once, rows - row);
    const std::span<std::uint16_t> values = decoded.values().first(count * shape.cols);
    UNWEIGHT_TRY(decode_blob_rows(profile, blob, row, count, values, 1));
    count_exponents(values, histogram);
  }
  return {};
}

Result<void> examine_stored(const Bundle& bundle, const LocatedTensor& located, bool histograms, TensorReport& report) {
  if (located.stored == StoredAs::kRaw && !(histograms && report.dtype == Dtype::kBF16)) return {};
  UNWEIGHT_ASSIGN(const File file, File::open(bundle.full_path(bundle.files[located.file].manifest.path)));
  const Profile profile = bundle.manifest.profile;
  // The distribution form has what its tables say checked against the blocks.
  UNWEIGHT_ASSIGN(const Buffer stored, read_blob(file, located, histograms || profile == Profile::kDistribution));
  if (located.stored == StoredAs::kRaw) {
    count_exponents(stored.values(), report.exponent_histogram);
    return {};
  }
  const std::string what = "'" + file.path().native() + "': tensor " + quoted_name(report.name);
  const auto examine = [&](const auto& info) -> Result<void> {
    if (!info) return fail_within(what, info.error());
    if (info->value_bytes != report.source_bytes || info->blob_bytes != located.size_bytes) {
      return fail(ErrorCode::kBadBundle, what + ": the blob is of another tensor's size");
    }
    set_blob_info(report, *info);
    return histograms ? count_blob(profile, stored.bytes(), info->shape, report.exponent_histogram) : Result<void>{};
  };
  return profile == Profile::kDistribution ? examine(distribution::inspect(stored.bytes()))
                                           : examine(inspect(stored.bytes()));
}

Result<InspectReport> inspect_bundle(const std::filesystem::path& path, const InspectOptions& options) {
  WorkControl control(options.progress);
  UNWEIGHT_ASSIGN(const Bundle bundle, open_bundle(path));
  UNWEIGHT_ASSIGN(const Listing listing, list_checkpoint(path));
  InspectReport report;
  report.is_bundle = true;
  report.profile = bundle.manifest.profile;
  report.stored_bytes = listing.total_bytes();
  std::vector<TensorRef> refs;
  std::vector<std::size_t> first_of;  // by file: index of its first tensor in the report
  for (std::uint32_t f = 0; f < bundle.files.size(); ++f) {
    const BundleFile& file = bundle.files[f];
    report.source_bytes += file.manifest.size_bytes;
    first_of.push_back(refs.size());
    for (std::uint32_t t = 0; t < file.tensors.size(); ++t) {
      refs.push_back({f, t});
      report.tensors.push_back(begin_report(file.manifest.path, file.header.tensors[t]));
      report.tensors.back().stored = file.tensors[t].stored;
      report.tensors.back().stored_bytes = file.tensors[t].size_bytes;
    }
  }
  control.set_totals(report.source_bytes, refs.size());
  const auto located = [&](std::size_t i) -> const LocatedTensor& {
    return bundle.files[refs[i].file].tensors[refs[i].tensor];
  };
  const auto cost = [&](std::size_t i) { return located(i).size_bytes; };
  const auto examine = [&](std::size_t i) -> Result<void> {
    if (located(i).stored != StoredAs::kAlias) {
      UNWEIGHT_TRY(examine_stored(bundle, located(i), options.histograms, report.tensors[i]));
    }
    control.add_bytes(report.tensors[i].source_bytes);
    control.add_tensor(report.tensors[i].name);
    return {};
  };
  UNWEIGHT_TRY(for_each_tensor(refs.size(), options.threads, cost, examine, control));
  for (std::size_t i = 0; i < refs.size(); ++i) {
    if (located(i).stored == StoredAs::kAlias) {
      const TensorReport& original = report.tensors[first_of[located(i).file] + located(i).tensor];
      report.tensors[i].alias_of = original.file + ":" + original.name;
      report.tensors[i].exponent_histogram = original.exponent_histogram;
    }
    complete_report(report.tensors[i]);
  }
  control.report_end();
  return report;
}

}  // namespace

Result<InspectReport> inspect_path(const std::filesystem::path& path, const InspectOptions& options) {
  return guarded([&] { return is_bundle(path) ? inspect_bundle(path, options) : inspect_checkpoint(path, options); });
}

}  // namespace unweight
