// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <codec/parallel.hpp>
#include <deque>
#include <fmt/format.h>
#include <io/file_hash.hpp>
#include <io/matrix_view.hpp>
#include <io/segment.hpp>
#include <io/sha256.hpp>
#include <io/share_run.hpp>
#include <io/source_access.hpp>
#include <io/tensor_encoder.hpp>
#include <io/try.hpp>
#include <map>
#include <memory>
#include <mutex>

namespace unweight::io {
namespace {

/// What tensors in flight may hold together, unless one alone needs more.
constexpr std::uint64_t kMemoryBytes = std::uint64_t{256} << 20;

/// A tensor to be stored.
struct Job {
  std::uint32_t segment = 0;  ///< index into ShareRun::segments_
  std::uint32_t ordinal = 0;  ///< within the segment
  std::uint32_t tensor = 0;   ///< index into the file's header
};

/// A tensor that waits for its turn to be written.
struct Prepared {
  Job job;
  EncodedTensor encoded;
  bool from_source = false;  ///< not read yet: copied straight from the source's file
  MemoryBudget::Lease lease;
};

/// A segment in the making: encoders deliver in any order, one of them at a time writes in the right one.
struct OpenSegment {
  const Segment* segment = nullptr;
  std::mutex mutex;
  std::map<std::uint32_t, Prepared> waiting;  ///< by ordinal
  std::uint32_t next = 0;                     ///< ordinal to be written next
  bool writing = false;
  std::optional<SegmentWriter> writer;  ///< touched only by whoever has set `writing`
};

class ShareRun {
 public:
  ShareRun(const Plan& plan, const WorkFolder& work, std::uint32_t share_index, unsigned threads, WorkControl& control)
      : plan_(plan),
        work_(work),
        share_index_(share_index),
        threads_(codec::resolve_threads(threads)),
        control_(control) {}

  Result<void> run() {
    UNWEIGHT_TRY(list_work());
    UNWEIGHT_TRY(resume());
    std::uint64_t largest = 0;
    for (const Job& job : jobs_) largest = std::max(largest, cost_of(job));
    budget_.emplace(std::max(kMemoryBytes, largest), control_);

    const unsigned hashers = threads_ == 1 ? 0 : std::clamp(threads_ / 2, 1U, 4U);
    run_workers(threads_ + hashers, control_, [&](unsigned worker) -> Result<void> {
      if (worker < threads_) UNWEIGHT_TRY(store_tensors());
      return process_files();
    });
    return control_.outcome();
  }

 private:
  const PlannedFile& file_of(const Job& job) const { return plan_.files[segments_[job.segment].segment->file]; }
  const TensorEntry& entry_of(const Job& job) const { return file_of(job).header.tensors[job.tensor]; }
  TensorRef ref_of(const Job& job) const { return {segments_[job.segment].segment->file, job.tensor}; }
  std::uint64_t cost_of(const Job& job) const {
    if (!is_blob_candidate(entry_of(job))) return 0;
    return encode_memory_bytes(entry_of(job)) + plan_.access->extra_memory_bytes(plan_, ref_of(job));
  }
  bool is_mine(std::uint32_t file) const { return plan_.share_of_file(file) == share_index_; }

  /// A stored tensor's bytes count half when stored and half when hashed, so that progress moves evenly while both go
  /// on; all others count when hashed.
  Result<void> list_work() {
    std::uint64_t bytes = 0, tensors = 0;
    for (const Segment& segment : plan_.segments) {
      if (segment.share != share_index_) continue;
      segments_.emplace_back().segment = &segment;
      for (std::uint32_t i = segment.begin; i < segment.end; ++i) bytes += stored_work_bytes(segment, i);
      tensors += segment.end - segment.begin;
    }
    for (std::uint32_t i = 0; i < plan_.files.size(); ++i) {
      if (!is_mine(i)) continue;
      files_.push_back(i);
      bytes += file_work_bytes(i);
    }
    control_.set_totals(bytes, tensors);
    UNWEIGHT_ASSIGN(journal_, Journal::open(files_journal_path(work_, share_index_)));
    UNWEIGHT_ASSIGN(digests_, read_file_digests(plan_, work_));
    return {};
  }

  std::uint64_t stored_work_bytes(const Segment& segment, std::uint32_t position) const {
    const PlannedFile& file = plan_.files[segment.file];
    return file.header.tensors[file.order[position]].size_bytes() / 2;
  }

  std::uint64_t file_work_bytes(std::uint32_t file) const {
    const PlannedFile& planned = plan_.files[file];
    std::uint64_t bytes = planned.size_bytes;
    for (const std::uint32_t tensor : planned.order) bytes -= planned.header.tensors[tensor].size_bytes() / 2;
    return bytes;
  }

  /// Takes over what earlier runs stored, and lists what remains.
  Result<void> resume() {
    std::vector<std::size_t> done(segments_.size());
    std::atomic<std::size_t> next{0};
    run_workers(std::min<unsigned>(threads_, 4), control_, [&](unsigned) -> Result<void> {
      for (std::size_t i = next++; i < segments_.size() && !control_.stopped(); i = next++) {
        const Segment& segment = *segments_[i].segment;
        UNWEIGHT_ASSIGN(const auto records, resume_segment(plan_, work_, segment, control_));
        done[i] = records.size();
        std::uint64_t bytes = 0;
        for (std::size_t t = 0; t < records.size(); ++t) {
          bytes += stored_work_bytes(segment, segment.begin + static_cast<std::uint32_t>(t));
        }
        if (!records.empty()) control_.add_resumed(bytes, records.size());
      }
      return {};
    });
    UNWEIGHT_TRY(control_.outcome());
    for (std::uint32_t s = 0; s < segments_.size(); ++s) {
      const Segment& segment = *segments_[s].segment;
      segments_[s].next = static_cast<std::uint32_t>(done[s]);
      for (std::uint32_t i = segments_[s].next; i < segment.end - segment.begin; ++i) {
        jobs_.push_back({s, i, plan_.files[segment.file].order[segment.begin + i]});
      }
    }
    return {};
  }

  // ---- tensors ------------------------------------------------------------------------------------------------------

  Result<void> store_tensors() {
    for (;;) {
      Prepared prepared;
      {
        // Admission in order, the wait for memory included: the earliest tensor in flight always has what it needs, so
        // the writing can always go on.
        const std::lock_guard lock(admission_);
        if (next_job_ == jobs_.size() || control_.stopped()) return {};
        prepared.job = jobs_[next_job_++];
        prepared.lease = budget_->acquire(cost_of(prepared.job));
      }
      if (control_.stopped()) return {};
      UNWEIGHT_TRY(prepare(prepared));
      UNWEIGHT_TRY(deliver(std::move(prepared)));
    }
  }

  Result<void> prepare(Prepared& prepared) {
    const TensorEntry& entry = entry_of(prepared.job);
    if (!is_blob_candidate(entry)) {
      prepared.from_source = true;
      return {};
    }
    // A tensor that fills half of the memory leaves room for one other only: it gets half of the threads.
    const std::uint64_t share =
        (cost_of(prepared.job) * threads_ + budget_->limit_bytes() - 1) / budget_->limit_bytes();
    const auto threads = static_cast<unsigned>(std::clamp<std::uint64_t>(share, 1, threads_));
    UNWEIGHT_ASSIGN(Buffer values, plan_.access->read_values(plan_, ref_of(prepared.job), threads));
    auto encoded = encode_candidate(std::move(values), entry, threads, plan_.verify, plan_.profile);
    if (!encoded) {
      const std::filesystem::path path = plan_.access->place(plan_, ref_of(prepared.job)).path;
      return fail_within("'" + path.native() + "'", std::move(encoded).error());
    }
    prepared.encoded = *std::move(encoded);
    prepared.lease.shrink(prepared.encoded.buffer.size_bytes());
    return {};
  }

  Result<void> deliver(Prepared prepared) {
    OpenSegment& segment = segments_[prepared.job.segment];
    std::unique_lock lock(segment.mutex);
    segment.waiting.emplace(prepared.job.ordinal, std::move(prepared));
    if (segment.writing) return {};
    segment.writing = true;
    while (!segment.waiting.empty() && segment.waiting.begin()->first == segment.next) {
      const Prepared turn = std::move(segment.waiting.begin()->second);
      segment.waiting.erase(segment.waiting.begin());
      ++segment.next;
      lock.unlock();
      UNWEIGHT_TRY(write(segment, turn));
      lock.lock();
    }
    segment.writing = false;
    return {};
  }

  Result<void> write(OpenSegment& open, const Prepared& prepared) {
    const Segment& segment = *open.segment;
    if (!open.writer) {
      UNWEIGHT_ASSIGN(open.writer, SegmentWriter::open(plan_, work_, segment));
    }
    const TensorEntry& entry = entry_of(prepared.job);
    if (prepared.from_source) {
      const FilePlace from = plan_.access->place(plan_, ref_of(prepared.job));
      UNWEIGHT_ASSIGN(const File source, File::open(from.path));
      UNWEIGHT_TRY(open.writer->append_copy(source, from.offset, entry.size_bytes(), control_));
    } else {
      UNWEIGHT_TRY(open.writer->append(prepared.encoded.stored(), prepared.encoded.is_blob));
    }
    if (prepared.job.ordinal + 1 == segment.end - segment.begin) open.writer.reset();  // closes its files
    control_.add_bytes(entry.size_bytes() / 2);
    control_.add_tensor(entry.name);
    return {};
  }

  // ---- files --------------------------------------------------------------------------------------------------------

  Result<void> process_files() {
    for (std::size_t i = next_file_++; i < files_.size() && !control_.stopped(); i = next_file_++) {
      const std::uint32_t file = files_[i];
      const PlannedFile& planned = plan_.files[file];
      UNWEIGHT_ASSIGN(const bool done, is_done(file));
      if (done) {
        control_.add_resumed(file_work_bytes(file), 0);
        continue;
      }
      std::string digest;
      if (planned.restore == Restore::kCopied) {
        UNWEIGHT_ASSIGN(const File source, File::open(plan_.access->path(plan_, file)));
        const std::filesystem::path temporary = work_.path(fmt::format("file-{}.tmp", file));
        UNWEIGHT_ASSIGN(digest, copy_and_hash(source, temporary, planned.size_bytes, control_));
        UNWEIGHT_ASSIGN(const std::filesystem::path target, work_.place(planned.path));
        UNWEIGHT_TRY(rename_file(temporary, target));
      } else {
        UNWEIGHT_ASSIGN(digest, plan_.access->hash(plan_, file, control_, file_work_bytes(file)));
      }
      UNWEIGHT_TRY(plan_.access->check_digest(plan_, file, digest));
      control_.set_current(planned.path);
      const std::lock_guard lock(journal_mutex_);
      UNWEIGHT_TRY(journal_.append(fmt::format("{} {}", file, digest)));
    }
    return {};
  }

  /// Whether an earlier run has finished a file. A digest alone is trusted, because the plan's fingerprint holds the
  /// source's state; a copy is read again.
  Result<bool> is_done(std::uint32_t file) {
    if (!digests_[file]) return false;
    const PlannedFile& planned = plan_.files[file];
    if (planned.restore != Restore::kCopied) return true;
    const auto copy = File::open(work_.result() / planned.path);
    if (!copy) return false;
    UNWEIGHT_ASSIGN(const std::uint64_t size, copy->size_bytes());
    if (size != planned.size_bytes) return false;
    UNWEIGHT_ASSIGN(const std::string digest, hash_file(*copy, size, control_, 0));
    return digest == *digests_[file];
  }

  const Plan& plan_;
  const WorkFolder& work_;
  const std::uint32_t share_index_;
  const unsigned threads_;
  WorkControl& control_;

  std::optional<MemoryBudget> budget_;  ///< outlives the segments: what still waits there gives its memory back
  std::deque<OpenSegment> segments_;
  std::vector<Job> jobs_;
  std::mutex admission_;
  std::size_t next_job_ = 0;

  std::vector<std::uint32_t> files_;
  std::atomic<std::size_t> next_file_{0};
  std::vector<std::optional<std::string>> digests_;
  std::mutex journal_mutex_;
  Journal journal_;
};

}  // namespace

Result<void> run_share(const Plan& plan, const WorkFolder& work, std::uint32_t share_index, unsigned threads,
                       WorkControl& control) {
  return ShareRun(plan, work, share_index, threads, control).run();
}

std::filesystem::path files_journal_path(const WorkFolder& work, std::uint32_t share_index) {
  return work.path(fmt::format("files-{}.journal", share_index));
}

Result<std::vector<std::optional<std::string>>> read_file_digests(const Plan& plan, const WorkFolder& work) {
  std::vector<std::optional<std::string>> digests(plan.files.size());
  for (std::uint32_t share = 0; share < plan.shard_count; ++share) {
    UNWEIGHT_ASSIGN(const std::vector<std::string> lines, Journal::read_lines(files_journal_path(work, share)));
    for (const std::string& line : lines) {
      std::size_t file = 0;
      const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), file);
      if (error != std::errc{} || file >= digests.size() || *end != ' ' || !is_sha256(std::string_view(end + 1))) {
        continue;
      }
      digests[file] = std::string(end + 1);
    }
  }
  return digests;
}

}  // namespace unweight::io
