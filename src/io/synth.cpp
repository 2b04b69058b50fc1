// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <bit>
#include <codec/parallel.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <io/file.hpp>
#include <io/paths.hpp>
#include <io/synth_plan.hpp>
#include <io/try.hpp>
#include <io/work_control.hpp>
#include <memory>
#include <set>
#include <unweight/checkpoint.hpp>

namespace unweight {
namespace {

namespace fs = std::filesystem;
using io::File;
using io::SynthFile;
using io::SynthPlan;
using io::SynthTensor;

static_assert(std::endian::native == std::endian::little, "tensor data is little-endian");

constexpr std::uint64_t kChunkValues = io::kStreamBytes / sizeof(std::uint16_t);

/// Values [begin, begin + count) of one tensor: the unit of parallel work.
struct Chunk {
  const SynthTensor* tensor = nullptr;
  std::uint64_t begin = 0;
  std::uint64_t count = 0;
};

std::vector<Chunk> chunks_of(const SynthFile& planned) {
  std::vector<Chunk> chunks;
  for (const SynthTensor& tensor : planned.tensors) {
    const std::uint64_t values = tensor.entry.size_bytes() / sizeof(std::uint16_t);
    for (std::uint64_t begin = 0; begin < values; begin += kChunkValues) {
      chunks.push_back({&tensor, begin, std::min(kChunkValues, values - begin)});
    }
  }
  return chunks;
}

/// Writes the tensors of one file, chunks in parallel.
Result<void> write_tensors(const SynthFile& planned, const File& file, const SynthOptions& options,
                           io::WorkControl& control) {
  const std::vector<Chunk> chunks = chunks_of(planned);
  const auto workers =
      static_cast<unsigned>(std::min<std::size_t>(codec::resolve_threads(options.threads), chunks.size()));
  std::atomic<std::size_t> next = 0;
  io::run_workers(workers, control, [&](unsigned) -> Result<void> {
    const auto buffer = std::make_unique<std::uint16_t[]>(kChunkValues);
    for (std::size_t i = next++; i < chunks.size() && !control.stopped(); i = next++) {
      const auto& [tensor, begin, count] = chunks[i];
      const std::span<std::uint16_t> values(buffer.get(), static_cast<std::size_t>(count));
      const std::uint64_t key = io::synth_tensor_key(options.seed, tensor->values_of);
      io::synth_values(key, tensor->recipe, tensor->entry.shape.back(), begin, values);
      const std::uint64_t offset = planned.header.size() + tensor->entry.begin + begin * sizeof(std::uint16_t);
      UNWEIGHT_TRY(file.write(offset, std::as_bytes(values)));
      if (begin + count == tensor->entry.size_bytes() / sizeof(std::uint16_t)) control.add_tensor(tensor->entry.name);
      control.add_bytes(values.size_bytes());
    }
    return {};
  });
  return control.outcome();
}

Result<void> write_files(const fs::path& folder, const SynthPlan& plan, const SynthOptions& options,
                         io::WorkControl& control) {
  for (const SynthFile& planned : plan.weights) {
    UNWEIGHT_ASSIGN(const File file, File::create(folder / planned.path));
    UNWEIGHT_TRY(file.write(0, io::bytes_of(planned.header)));
    control.add_bytes(planned.header.size());
    UNWEIGHT_TRY(write_tensors(planned, file, options, control));
    UNWEIGHT_TRY(file.sync());
  }
  for (const auto& [path, text] : plan.texts) {
    UNWEIGHT_ASSIGN(const File file, File::create(folder / path));
    UNWEIGHT_TRY(file.write(0, io::bytes_of(text)));
    UNWEIGHT_TRY(file.sync());
    control.add_bytes(text.size());
  }
  return io::sync_folder(folder);
}

/// Makes the work folder. What an interrupted run left there is removed; any other file is refused.
Result<void> open_work_folder(const fs::path& folder, const SynthPlan& plan) {
  UNWEIGHT_TRY(io::make_folder(folder));
  std::set<std::string> own;
  for (const SynthFile& file : plan.weights) own.insert(file.path);
  for (const auto& [path, text] : plan.texts) own.insert(path);
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (!own.contains(entry.path().filename().string())) {
      return fail(ErrorCode::kExists, fmt::format("'{}' is in the way: it is not of this model; remove '{}' first",
                                                  entry.path().string(), folder.string()));
    }
  }
  for (const std::string& name : own) UNWEIGHT_TRY(io::remove_file(folder / name));
  const std::uint64_t available = fs::space(folder).available;
  if (available < plan.size_bytes()) {
    static_cast<void>(io::remove_folder(folder));
    return fail(ErrorCode::kNoSpace, fmt::format("'{}' needs {} bytes, but its file system has only {} free",
                                                 folder.string(), plan.size_bytes(), available));
  }
  return {};
}

Result<const io::SynthModel*> find_model(const std::string& name) {
  for (const io::SynthModel& model : io::synth_model_table()) {
    if (model.name == name) return &model;
  }
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("unknown model '{}'; known are {}", name, fmt::join(synth_models(), ", ")));
}

Result<SynthReport> write_checkpoint(const fs::path& requested_out, const SynthOptions& options) {
  const io::Stopwatch stopwatch;
  UNWEIGHT_ASSIGN(const io::SynthModel* model, find_model(options.model));
  UNWEIGHT_ASSIGN(const fs::path out, io::resolve_output(requested_out));
  if (io::entry_exists(out)) return fail(ErrorCode::kExists, fmt::format("'{}' exists already", out.string()));

  const SynthPlan plan = io::make_synth_plan(*model);
  SynthReport report;
  report.files = plan.weights.size() + plan.texts.size();
  report.bytes = plan.size_bytes();
  for (const SynthFile& file : plan.weights) report.tensors += file.tensors.size();

  const fs::path work = io::partial_path(out);
  UNWEIGHT_TRY(open_work_folder(work, plan));
  io::WorkControl control(options.progress);
  control.set_totals(report.bytes, report.tensors);
  auto written = io::guarded([&] { return write_files(work, plan, options, control); });
  if (written) written = io::rename_to_new(work, out);
  if (!written) {
    static_cast<void>(io::remove_folder(work));  // quicker made anew than continued; the first error is the one to tell
    return tl::unexpected<Error>(std::move(written).error());
  }
  UNWEIGHT_TRY(io::sync_folder(out.parent_path()));
  control.report_end();
  report.seconds = stopwatch.seconds();
  return report;
}

}  // namespace

std::vector<std::string> synth_models() {
  std::vector<std::string> names;
  for (const io::SynthModel& model : io::synth_model_table()) names.emplace_back(model.name);
  return names;
}

Result<SynthReport> synth_checkpoint(const fs::path& out, const SynthOptions& options) {
  return io::guarded([&] { return write_checkpoint(out, options); });
}

}  // namespace unweight
