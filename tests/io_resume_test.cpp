// SPDX-License-Identifier: Apache-2.0
//
// Interrupted runs: killed before every single change of the file system, killed at random moments with many threads,
// out of space, two at once. Whatever happened, the same call continues and the result has the same bytes.
#include "support/checkpoints.hpp"
#include "support/tensors.hpp"
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <gtest/gtest.h>
#include <io/file.hpp>
#include <io/paths.hpp>
#include <io/plan.hpp>
#include <io/work_folder.hpp>
#include <sched.h>
#include <signal.h>
#include <string_view>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unweight/blob.hpp>
#include <unweight/checkpoint.hpp>
#include <utility>

namespace unweight {
namespace {

namespace fs = std::filesystem;
using test::difference;
using test::kSanitized;
using test::read_tree;
using test::run_in_child;
using test::TempFolder;
using test::Tree;

std::atomic<int> g_operations_left{0};

/// As a power cut would: no destructor, no buffer flushed.
void die_when_due(const char*) {
  if (--g_operations_left < 0) ::kill(::getpid(), SIGKILL);
}

enum class Ending { kDone, kKilled, kFailed };

/// Runs `operation` in a child process that is killed before its change number `operations` of the file system.
Ending run_until(int operations, const std::function<Result<void>()>& operation) {
  const int status = run_in_child([&] {
    g_operations_left = operations;
    io::testing::set_fault_hook(die_when_due);
    const auto result = operation();
    if (!result) std::fprintf(stderr, "child: %s\n", result.error().message.c_str());
    return result ? 0 : 1;
  });
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return Ending::kKilled;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? Ending::kDone : Ending::kFailed;
}

/// Without the report.
template <class Report>
Result<void> outcome(const Result<Report>& result) {
  if (!result) return tl::unexpected(result.error());
  return {};
}

/// Kills `operation` before each of its changes in turn, then lets it continue; `check` looks at the result and clears
/// it away.
void kill_everywhere(const std::function<Result<void>()>& operation, const std::function<void(int)>& check) {
  const int step = kSanitized ? 7 : 1;
  int operations = 0;
  for (;; operations += step) {
    const Ending ending = run_until(operations, operation);
    ASSERT_NE(ending, Ending::kFailed) << "before change " << operations;
    if (ending == Ending::kKilled) {
      const auto continued = operation();
      ASSERT_TRUE(continued.has_value()) << "after change " << operations << ": " << continued.error().message;
    }
    check(operations);
    if (::testing::Test::HasFatalFailure() || ending == Ending::kDone) break;
  }
  EXPECT_GT(operations, 20);
}

class Resume : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_small_checkpoint(source_);
    ASSERT_TRUE(compress_checkpoint(source_, folder_ / "expected").has_value());
    expected_ = read_tree(folder_ / "expected");
    source_tree_ = read_tree(source_);
  }
  void TearDown() override { io::testing::set_min_segment_bytes(0); }

  Result<void> compress(std::uint32_t share = 0, std::uint32_t shares = 1) const {
    return outcome(compress_checkpoint(source_, out_, {.threads = 1, .shard_index = share, .shard_count = shares}));
  }

  void check_and_clear(int operations) const {
    ASSERT_EQ(difference(expected_, read_tree(out_)), "") << "change " << operations;
    ASSERT_FALSE(fs::exists(io::partial_path(out_))) << "change " << operations;
    fs::remove_all(out_);
  }

  TempFolder folder_;
  fs::path source_ = folder_ / "source";
  fs::path out_ = folder_ / "out";
  Tree expected_;
  Tree source_tree_;
};

TEST_F(Resume, CompressKilledBeforeEveryChange) {
  kill_everywhere([&] { return compress(); }, [&](int operations) { check_and_clear(operations); });
  EXPECT_EQ(difference(source_tree_, read_tree(source_)), "");
}

TEST_F(Resume, CompressKilledAgainAndAgain) {
  for (const int stride : {25, 40, 60, 90}) {
    for (int kill = 0; kill < 8; ++kill) {
      const Ending ending = run_until(stride + kill, [&] { return compress(); });
      ASSERT_NE(ending, Ending::kFailed);
      if (ending == Ending::kDone) break;
    }
    if (!fs::exists(out_)) {
      ASSERT_TRUE(compress().has_value());
    }
    check_and_clear(stride);
  }
}

TEST_F(Resume, ShareKilledBeforeEveryChange) {
  io::testing::set_min_segment_bytes(30'000);
  kill_everywhere([&] { return compress(1, 3); },
                  [&](int operations) {
                    ASSERT_TRUE(compress(0, 3).has_value());
                    ASSERT_TRUE(compress(2, 3).has_value());
                    const auto finished = finish_compress(source_, out_);
                    ASSERT_TRUE(finished.has_value()) << finished.error().message;
                    check_and_clear(operations);
                  });
}

TEST_F(Resume, FinishKilledBeforeEveryChange) {
  io::testing::set_min_segment_bytes(30'000);
  for (std::uint32_t share = 0; share < 3; ++share) ASSERT_TRUE(compress(share, 3).has_value());
  const fs::path partial = io::partial_path(out_);
  const fs::path saved = folder_ / "saved";
  fs::copy(partial, saved, fs::copy_options::recursive);
  kill_everywhere([&] { return outcome(finish_compress(source_, out_)); },
                  [&](int operations) {
                    check_and_clear(operations);
                    fs::copy(saved, partial, fs::copy_options::recursive);
                  });
}

TEST_F(Resume, ShareAfterJoiningHasBegunChangesNothing) {
  io::testing::set_min_segment_bytes(30'000);
  for (std::uint32_t share = 0; share < 3; ++share) ASSERT_TRUE(compress(share, 3).has_value());
  const auto finish = [&] { return outcome(finish_compress(source_, out_)); };
  for (const int operations : {5, 15, 30}) {
    ASSERT_EQ(run_until(operations, finish), Ending::kKilled);
    for (std::uint32_t share = 0; share < 3; ++share) ASSERT_TRUE(compress(share, 3).has_value());
  }
  ASSERT_TRUE(finish().has_value());
  check_and_clear(0);
}

TEST_F(Resume, DecompressKilledBeforeEveryChange) {
  const auto decompress = [&] { return outcome(decompress_bundle(folder_ / "expected", out_, {.threads = 1})); };
  kill_everywhere(decompress, [&](int operations) {
    ASSERT_EQ(difference(source_tree_, read_tree(out_)), "") << "change " << operations;
    ASSERT_FALSE(fs::exists(io::partial_path(out_))) << "change " << operations;
    fs::remove_all(out_);
  });
  EXPECT_EQ(difference(expected_, read_tree(folder_ / "expected")), "");
}

/// What a crash of the machine can leave: data that never reached the disk, though the journal says so, and more.
TEST_F(Resume, DamagedWorkFoldersAreMended) {
  const fs::path partial = io::partial_path(out_);
  test::Random random(7);
  for (int round = 0; round < (kSanitized ? 10 : 60); ++round) {
    const int operations = 30 + static_cast<int>(random.below(60));
    ASSERT_EQ(run_until(operations, [&] { return compress(); }), Ending::kKilled);
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(partial)) {
      const bool is_ours = entry.path().filename() == "plan" || entry.path().extension() == ".lock";
      if (entry.is_regular_file() && !is_ours && fs::file_size(entry.path()) > 0) files.push_back(entry.path());
    }
    ASSERT_FALSE(files.empty());
    for (int damage = 0; damage < 3; ++damage) {
      const fs::path& file = files[random.below(files.size())];
      std::string bytes = test::read_file(file);
      if (bytes.empty()) continue;
      switch (random.below(3)) {
        case 0:
          bytes.resize(random.below(bytes.size()));
          break;
        case 1:
          std::fill(bytes.end() - static_cast<std::ptrdiff_t>(bytes.size() / 3), bytes.end(), '\0');
          break;
        default:
          bytes += "tail";
      }
      test::write_file(file, bytes);
    }
    const auto continued = compress();
    ASSERT_TRUE(continued.has_value()) << continued.error().message;
    check_and_clear(operations);
  }
}

TEST_F(Resume, ReportsWhatEarlierRunsDid) {
  ASSERT_EQ(run_until(60, [&] { return compress(); }), Ending::kKilled);
  const auto report = compress_checkpoint(source_, out_, {.threads = 1});
  ASSERT_TRUE(report.has_value());
  EXPECT_GT(report->bytes_resumed, 0U);
  EXPECT_LT(report->bytes_resumed, report->source_bytes);
}

TEST_F(Resume, RefusesTheWorkOfAnotherRun) {
  const auto expect_other = [&](const auto& result, std::string_view message) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::kSourceChanged) << result.error().message;
    EXPECT_NE(result.error().message.find(message), std::string::npos) << result.error().message;
    EXPECT_NE(result.error().message.find("remove that folder"), std::string::npos) << result.error().message;
  };
  ASSERT_EQ(run_until(60, [&] { return compress(); }), Ending::kKilled);
  expect_other(compress_checkpoint(source_, out_, {.threads = 1, .verify = false}), "verifies");
  expect_other(compress(0, 2), "split over 1 processes, not 2");
  expect_other(decompress_bundle(folder_ / "expected", out_), "made by compress");
  test::write_file(source_ / "tokenizer.json", "changed");
  expect_other(compress(), "the source has changed");
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(Resume, SourceThatChangesMeanwhileIsNoticed) {
  // Between planning and the end: the hook plays the other process, when the result's first file is written.
  static fs::path victim;
  victim = source_ / "config.json";
  io::testing::set_fault_hook([](const char* operation) {
    if (operation != std::string_view("write") || victim.empty()) return;
    test::write_file(std::exchange(victim, fs::path()), "{\"model_type\": \"other\"}");
  });
  const auto result = compress();
  io::testing::set_fault_hook(nullptr);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kSourceChanged) << result.error().message;
  EXPECT_FALSE(fs::exists(out_));
}

// ---- two at once
// --------------------------------------------------------------------------------------------------------

TEST_F(Resume, SecondProcessIsTurnedAway) {
  const auto work = io::WorkFolder::open(out_);
  ASSERT_TRUE(work.has_value());
  const auto lock = io::FileLock::try_acquire(work->path("share-0.lock"));
  ASSERT_TRUE(lock.has_value());
  EXPECT_EQ(compress().error().code, ErrorCode::kBusy);
}

TEST_F(Resume, RacingProcessesMakeOneBundle) {
  for (int round = 0; round < 10; ++round) {
    pid_t children[4] = {};
    for (pid_t& child : children) {
      child = ::fork();
      if (child == 0) {
        const auto result = compress();
        const bool fine =
            result || result.error().code == ErrorCode::kBusy || result.error().code == ErrorCode::kExists;
        if (!fine) std::fprintf(stderr, "child: %s\n", result.error().message.c_str());
        ::_exit(result ? 0 : fine ? 3 : 1);
      }
    }
    int successes = 0;
    for (const pid_t child : children) {
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status));
      EXPECT_NE(WEXITSTATUS(status), 1);
      successes += WEXITSTATUS(status) == 0 ? 1 : 0;
    }
    EXPECT_GE(successes, 1);
    ASSERT_EQ(difference(expected_, read_tree(out_)), "");
    fs::remove_all(out_);
    fs::remove_all(io::partial_path(out_));
  }
}

TEST_F(Resume, SharesRunAtTheSameTime) {
  io::testing::set_min_segment_bytes(30'000);
  for (int round = 0; round < 5; ++round) {
    std::vector<pid_t> children;
    for (std::uint32_t share = 0; share < 3; ++share) {
      children.push_back(::fork());
      if (children.back() == 0) ::_exit(compress(share, 3) ? 0 : 1);
    }
    for (const pid_t child : children) {
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    ASSERT_TRUE(finish_compress(source_, out_).has_value());
    check_and_clear(round);
  }
}

// ---- out of space
// -------------------------------------------------------------------------------------------------------

TEST_F(Resume, FileSizeLimitIsACleanError) {
  for (const unsigned threads : {1U, 8U}) {
    for (const rlim_t limit : {4096U, 20'000U, 60'000U}) {
      const int status = run_in_child([&] {
        ::signal(SIGXFSZ, SIG_IGN);
        const struct rlimit bound = {limit, limit};
        ::setrlimit(RLIMIT_FSIZE, &bound);
        const auto result = compress_checkpoint(source_, out_, {.threads = threads});
        if (result || result.error().code != ErrorCode::kNoSpace) return 1;
        return result.error().message.find(".partial") != std::string::npos ? 0 : 2;
      });
      ASSERT_TRUE(WIFEXITED(status));
      EXPECT_EQ(WEXITSTATUS(status), 0) << limit;
      EXPECT_FALSE(fs::exists(out_));
    }
  }
  EXPECT_EQ(difference(source_tree_, read_tree(source_)), "");
  ASSERT_TRUE(compress().has_value());
  check_and_clear(0);
}

/// A small file system that goes when the process does, however that ends: no other process sees the mount.
bool mount_small_disk(const fs::path& disk) {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=150k") == 0;
}

void fill_disk_and_continue(const fs::path& source, const fs::path& disk, const Tree& expected) {
  const auto full = compress_checkpoint(source, disk / "out", {.threads = 2});
  EXPECT_FALSE(full.has_value());
  if (!full) {
    EXPECT_EQ(full.error().code, ErrorCode::kNoSpace) << full.error().message;
  }
  EXPECT_FALSE(fs::exists(disk / "out"));
  EXPECT_EQ(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=20m"), 0);
  const auto continued = compress_checkpoint(source, disk / "out", {.threads = 2});
  ASSERT_TRUE(continued.has_value()) << continued.error().message;
  EXPECT_EQ(difference(expected, read_tree(disk / "out")), "");
}

TEST_F(Resume, FullDiskIsACleanErrorAndCanBeContinued) {
  const fs::path disk = folder_ / "disk";
  fs::create_directories(disk);
  constexpr int kCannotMount = 77;
  const int status = run_in_child([&] {
    if (!mount_small_disk(disk)) return kCannotMount;
    fill_disk_and_continue(source_, disk, expected_);
    return HasFailure() ? 1 : 0;
  });
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kCannotMount) GTEST_SKIP() << "not allowed to mount a small file system";
  EXPECT_EQ(WEXITSTATUS(status), 0) << "see above";
}

// ---- large ones
// ---------------------------------------------------------------------------------------------------------

/// Tensors of `tensor_bytes` that compress and differ from each other; little memory in this process.
void write_large_checkpoint(const fs::path& root, std::uint64_t files, std::uint64_t tensors,
                            std::uint64_t tensor_bytes) {
  fs::create_directories(root);
  const std::uint64_t rows = tensor_bytes / 2 / 2048;
  std::vector<std::uint16_t> values = test::make_tensor({1, rows, 2048}, test::Filling::kTrained, 3);
  std::uint16_t round = 0;
  for (std::uint64_t f = 0; f < files; ++f) {
    std::vector<TensorEntry> entries;
    for (std::uint64_t t = 0; t < tensors; ++t) {
      entries.push_back(
          {"t" + std::to_string(t), Dtype::kBF16, {rows, 2048}, t * tensor_bytes, (t + 1) * tensor_bytes});
    }
    std::ofstream out(root / ("model-" + std::to_string(f) + ".safetensors"), std::ios::binary);
    const std::string head = make_safetensors_header(entries, {}, 8);
    out.write(head.data(), static_cast<std::streamsize>(head.size()));
    for (std::uint64_t t = 0; t < tensors; ++t) {
      for (std::size_t i = 0; i < values.size(); i += 64) values[i] = static_cast<std::uint16_t>(values[i] ^ ++round);
      out.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(tensor_bytes));
    }
    ASSERT_TRUE(out.good());
  }
}

std::string tree_digest(const fs::path& root) {
  std::string text;
  for (const auto& [name, bytes] : read_tree(root))
    text += name + " " + std::to_string(std::hash<std::string>{}(bytes));
  return text;
}

TEST(ResumeSlow, KilledAtRandomMomentsWithManyThreads) {
  const TempFolder folder(TempFolder::Where::kDisk);
  write_large_checkpoint(folder / "source", 3, 6, 1 << 20);
  ASSERT_TRUE(compress_checkpoint(folder / "source", folder / "expected").has_value());
  const std::string expected = tree_digest(folder / "expected");
  const std::string source = tree_digest(folder / "source");
  test::Random random(static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
  int kills = 0;
  for (int round = 0; round < (kSanitized ? 5 : 25); ++round) {
    for (const bool restoring : {false, true}) {
      const fs::path out = folder / (restoring ? "restored" : "out");
      const auto operation = [&] {
        return restoring ? outcome(decompress_bundle(folder / "expected", out, {.threads = 4}))
                         : outcome(compress_checkpoint(folder / "source", out, {.threads = 4}));
      };
      for (bool done = false; !done;) {
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) ::_exit(operation() ? 0 : 1);
        ::usleep(static_cast<useconds_t>(random.below(kSanitized ? 400'000 : 60'000)));
        ::kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        done = WIFEXITED(status) || fs::exists(out);
        if (WIFEXITED(status)) {
          ASSERT_EQ(WEXITSTATUS(status), 0);
        } else {
          ++kills;
        }
      }
      ASSERT_EQ(tree_digest(out), restoring ? source : expected);
      fs::remove_all(out);
      fs::remove_all(io::partial_path(out));
    }
  }
  std::fprintf(stderr, "%d kills\n", kills);
}

/// Peak resident memory of a process that does only that, in bytes.
std::uint64_t peak_of(const std::function<Result<void>()>& operation) {
  int channel[2] = {};
  EXPECT_EQ(::pipe(channel), 0);
  const int status = run_in_child([&] {
    const auto result = operation();
    struct rusage usage {};
    ::getrusage(RUSAGE_SELF, &usage);
    const long peak = usage.ru_maxrss;
    return result && ::write(channel[1], &peak, sizeof peak) == sizeof peak ? 0 : 1;
  });
  long peak = 0;
  EXPECT_EQ(status, 0);
  EXPECT_EQ(::read(channel[0], &peak, sizeof peak), static_cast<ssize_t>(sizeof peak));
  ::close(channel[0]);
  ::close(channel[1]);
  return static_cast<std::uint64_t>(peak) << 10;
}

/// 15% exceptions: encoding takes the values, the blob's bound, and a sixteenth.
TEST(MemorySlow, ManyExceptionsTakeNoMore) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need memory of their own";
  const MatrixShape shape{1, 16384, 4096}, part_shape{1, 256, 4096};
  const auto part = test::make_tensor(part_shape, test::Filling::kEscapes15, 1);
  const auto encode_parts = [&](const MatrixShape& s) -> Result<void> {
    std::vector<std::uint16_t> values;
    values.reserve(s.rows * s.cols);
    while (values.size() < s.rows * s.cols) values.insert(values.end(), part.begin(), part.end());
    std::vector<std::byte> blob(encode_bound(s).value());
    const auto size = encode_into(values, s, blob, {.threads = 4});
    if (!size) return tl::unexpected(size.error());
    return *size < blob.size() * 15 / 16 ? Result<void>{} : fail(ErrorCode::kInternal, "tiles did not pay");
  };
  const std::uint64_t base = peak_of([&] { return encode_parts(part_shape); });
  const std::uint64_t peak = peak_of([&] { return encode_parts(shape); });
  const std::uint64_t tensor_bytes = 2 * shape.rows * shape.cols;
  EXPECT_LT(peak, base + 2 * tensor_bytes + tensor_bytes / 16 + (std::uint64_t{8} << 20)) << "base " << base;
}

TEST(MemorySlow, PeakStaysBelowTheBound) {
  const TempFolder folder(TempFolder::Where::kDisk);
  constexpr std::uint64_t kTensorBytes = std::uint64_t{32} << 20;
  write_large_checkpoint(folder / "source", 2, 14, kTensorBytes);  // 896 MiB
  const std::uint64_t bound = (std::uint64_t{512} << 20) + 2 * kTensorBytes;
  const fs::path bundle = folder / "bundle";
  const std::uint64_t compress =
      peak_of([&] { return outcome(compress_checkpoint(folder / "source", bundle, {.threads = 16})); });
  const std::uint64_t verify = peak_of([&] { return outcome(verify_bundle(bundle, {.threads = 16})); });
  const std::uint64_t inspect = peak_of([&] { return outcome(inspect_path(folder / "source", {.threads = 16})); });
  const std::uint64_t decompress =
      peak_of([&] { return outcome(decompress_bundle(bundle, folder / "restored", {.threads = 16})); });
  std::fprintf(stderr, "peak MiB: compress %lu, verify %lu, inspect %lu, decompress %lu, bound %lu\n", compress >> 20,
               verify >> 20, inspect >> 20, decompress >> 20, bound >> 20);
  if (kSanitized) GTEST_SKIP() << "sanitizers need memory of their own";
  for (const std::uint64_t peak : {compress, verify, inspect, decompress}) EXPECT_LT(peak, bound);
}

}  // namespace
}  // namespace unweight
