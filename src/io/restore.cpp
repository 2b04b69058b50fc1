// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <codec/parallel.hpp>
#include <fmt/format.h>
#include <io/blob_form.hpp>
#include <io/file.hpp>
#include <io/json_text.hpp>
#include <io/restore.hpp>
#include <io/safetensors_file.hpp>
#include <io/sha256.hpp>
#include <io/try.hpp>
#include <numeric>
#include <utility>

namespace unweight::io {
namespace {

/// Files at a time: the pieces under way take memory, and SHA-256 on so many cores is faster than storage.
constexpr unsigned kMaxFiles = 8;

class FileRestorer {
 public:
  FileRestorer(const Bundle& bundle, BytePipe& pipe, MemoryBudget& budget, const std::function<unsigned()>& threads,
               WorkControl& control, const std::function<void(const std::string&)>& tensor_done)
      : bundle_(bundle),
        pipe_(pipe),
        budget_(budget),
        threads_(threads),
        control_(control),
        tensor_done_(tensor_done) {}

  Result<void> restore(const BundleFile& file) {
    const ManifestFile& manifest = file.manifest;
    switch (manifest.restore) {
      case Restore::kCopied:
        return whole_file(bundle_.full_path(manifest.path), manifest.size_bytes);
      case Restore::kKept:
        return whole_file(bundle_.full_path(kept_path(manifest.path)), manifest.size_bytes);
      case Restore::kSafetensors:
        break;
    }
    const std::uint64_t head_bytes = file.header.data_begin;
    UNWEIGHT_TRY(whole_file(bundle_.full_path(kept_header_path(manifest.path)), head_bytes));
    for (std::size_t i = 0; i < file.tensors.size(); ++i) {
      const TensorEntry& entry = file.header.tensors[i];
      const LocatedTensor& located = bundle_.resolve(file.tensors[i]);
      UNWEIGHT_ASSIGN(const File* stored, open_bundle_file(located.file));
      auto done = located.stored == StoredAs::kBlob ? blob(*stored, located, entry)
                                                    : range(*stored, located.offset, entry.size_bytes());
      if (!done) {
        if (done.error().code == ErrorCode::kCancelled) return done;
        return fail_within("'" + stored->path().native() + "': tensor " + quoted_name(entry.name),
                           std::move(done).error());
      }
      tensor_done_(entry.name);
    }
    return {};
  }

 private:
  Result<const File*> open_bundle_file(std::uint32_t file) {
    if (!stored_.is_open() || stored_number_ != file) {
      UNWEIGHT_ASSIGN(stored_, File::open(bundle_.full_path(bundle_.files[file].manifest.path)));
      stored_number_ = file;
    }
    return &stored_;
  }

  Result<void> whole_file(const std::filesystem::path& path, std::uint64_t size_bytes) {
    UNWEIGHT_ASSIGN(const File file, File::open(path));
    UNWEIGHT_ASSIGN(const std::uint64_t found_bytes, file.size_bytes());
    if (found_bytes != size_bytes) {
      return fail(ErrorCode::kBadBundle,
                  fmt::format("'{}' has {} bytes, the manifest says {}", path.native(), found_bytes, size_bytes));
    }
    return range(file, 0, size_bytes);
  }

  Result<void> range(const File& file, std::uint64_t offset, std::uint64_t size_bytes) {
    for (std::uint64_t done = 0; done < size_bytes;) {
      const std::size_t count = std::min<std::uint64_t>(kStreamBytes, size_bytes - done);
      UNWEIGHT_ASSIGN(Buffer buffer, pipe_.take(count));
      UNWEIGHT_TRY(file.read(offset + done, buffer.bytes().first(count)));
      UNWEIGHT_TRY(pipe_.give(std::move(buffer), count));
      UNWEIGHT_TRY(control_.outcome());
      done += count;
    }
    return {};
  }

  Result<void> blob(const File& file, const LocatedTensor& located, const TensorEntry& entry) {
    const MemoryBudget::Lease lease = budget_.acquire(located.size_bytes);
    UNWEIGHT_TRY(control_.outcome());
    const unsigned threads = threads_();
    Buffer bytes(located.size_bytes);
    UNWEIGHT_TRY(file.read(located.offset, bytes.bytes()));
    const ValueSink sink{[&](std::uint64_t count) { return pipe_.take(2 * count); },
                         [&](Buffer buffer, std::uint64_t count) -> Result<void> {
                           UNWEIGHT_TRY(pipe_.give(std::move(buffer), 2 * count));
                           return control_.outcome();
                         }};
    return stream_blob(bundle_.manifest.profile, std::as_const(bytes).bytes(), entry.size_bytes(), threads, sink);
  }

  const Bundle& bundle_;
  BytePipe& pipe_;
  MemoryBudget& budget_;
  const std::function<unsigned()>& threads_;
  WorkControl& control_;
  const std::function<void(const std::string&)>& tensor_done_;
  File stored_;
  std::uint32_t stored_number_ = 0;
};

/// One file through the pipe: its digest, and whatever else the caller's consumer does.
Result<void> process_file(const Bundle& bundle, std::size_t file, const RestoreSteps& steps, MemoryBudget& budget,
                          const std::function<unsigned()>& threads, WorkControl& control) {
  const ManifestFile& manifest = bundle.files[file].manifest;
  UNWEIGHT_ASSIGN(const BytePipe::Consumer consumer, steps.make_consumer(file));
  Sha256 hash;
  {
    BytePipe pipe([&](std::span<const std::byte> bytes) -> Result<void> {
      hash.update(bytes);
      UNWEIGHT_TRY(consumer(bytes));
      control.add_bytes(bytes.size());
      return {};
    });
    UNWEIGHT_TRY(restore_file(bundle, file, pipe, budget, threads, control,
                              [&](const std::string& tensor) { control.add_tensor(tensor); }));
    UNWEIGHT_TRY(pipe.close());
  }
  UNWEIGHT_ASSIGN(const std::string digest, hash.finish());
  if (digest != manifest.sha256) {
    return fail(ErrorCode::kNotIdentical,
                fmt::format("'{}': the restored bytes have SHA-256 {}, the source had {}",
                            bundle.full_path(manifest.path).native(), digest, manifest.sha256));
  }
  control.set_current(manifest.path);
  return steps.complete(file);
}

}  // namespace

Result<void> restore_file(const Bundle& bundle, std::size_t file, BytePipe& pipe, MemoryBudget& budget,
                          const std::function<unsigned()>& threads, WorkControl& control,
                          const std::function<void(const std::string&)>& tensor_done) {
  return FileRestorer(bundle, pipe, budget, threads, control, tensor_done).restore(bundle.files[file]);
}

Result<std::string> restored_digest(const Bundle& bundle, std::size_t file, WorkControl& control) {
  MemoryBudget budget(restore_memory_bytes(bundle), control);
  Sha256 hash;
  {
    BytePipe pipe([&](std::span<const std::byte> bytes) -> Result<void> {
      hash.update(bytes);
      control.tick();
      return {};
    });
    UNWEIGHT_TRY(restore_file(
        bundle, file, pipe, budget, [] { return 1U; }, control, [](const std::string&) {}));
    UNWEIGHT_TRY(pipe.close());
  }
  return hash.finish();
}

std::uint64_t restore_memory_bytes(const Bundle& bundle) noexcept {
  std::uint64_t bytes = kRestoreMemoryBytes;
  for (const BundleFile& file : bundle.files) {
    for (const LocatedTensor& tensor : file.tensors) bytes = std::max(bytes, tensor.size_bytes);
  }
  return bytes;
}

Result<void> restore_all(const Bundle& bundle, unsigned threads, const RestoreSteps& steps, WorkControl& control) {
  std::uint64_t bytes = 0, tensors = 0;
  for (const BundleFile& file : bundle.files) {
    bytes += file.manifest.size_bytes;
    tensors += file.tensors.size();
  }
  control.set_totals(bytes, tensors);

  // The largest first, so that the last ones to finish are small.
  std::vector<std::size_t> order(bundle.files.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return bundle.files[a].manifest.size_bytes > bundle.files[b].manifest.size_bytes;
  });

  const unsigned all_threads = codec::resolve_threads(threads);
  const auto workers =
      static_cast<unsigned>(std::clamp<std::size_t>(order.size(), 1, std::min(all_threads, kMaxFiles)));
  MemoryBudget budget(restore_memory_bytes(bundle), control);
  std::atomic<std::size_t> next{0};
  std::atomic<unsigned> active{workers};
  const std::function<unsigned()> threads_each = [&] {
    return std::max(1U, all_threads / std::max(1U, active.load()));
  };
  run_workers(workers, control, [&](unsigned) -> Result<void> {
    for (std::size_t i = next++; i < order.size() && !control.stopped(); i = next++) {
      const BundleFile& file = bundle.files[order[i]];
      UNWEIGHT_ASSIGN(const bool done, steps.is_done(order[i]));
      if (done) {
        control.add_resumed(file.manifest.size_bytes, file.tensors.size());
        continue;
      }
      UNWEIGHT_TRY(process_file(bundle, order[i], steps, budget, threads_each, control));
    }
    --active;  // the others share this one's threads
    return {};
  });
  return control.outcome();
}

}  // namespace unweight::io
