// SPDX-License-Identifier: Apache-2.0
//
// The command line tool on a terminal, and stopped by signals.
#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <gtest/gtest.h>
#include <pty.h>
#include <string>
#include <support/checkpoints.hpp>
#include <support/process.hpp>
#include <thread>
#include <unistd.h>
#include <vector>

namespace unweight::test {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

/// A terminal, whose output the test reads.
class Terminal {
 public:
  explicit Terminal(unsigned columns) {
    const winsize size = {24, static_cast<unsigned short>(columns), 0, 0};
    EXPECT_EQ(::openpty(&master_, &slave_, nullptr, nullptr, &size), 0);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    close_slave();
    ::close(master_);
  }

  [[nodiscard]] int slave() const { return slave_; }

  /// What was written, after the program has ended.
  std::string finish() {
    close_slave();
    std::string text;
    std::array<char, 4096> buffer;
    for (ssize_t got = 0; (got = ::read(master_, buffer.data(), buffer.size())) > 0;) {
      text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return text;
  }

 private:
  void close_slave() {
    if (slave_ >= 0) ::close(slave_);
    slave_ = -1;
  }

  int master_ = -1;
  int slave_ = -1;
};

std::size_t columns_of(std::string_view text) {
  std::size_t columns = 0;
  for (const char c : text) columns += (static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1U : 0U;
  return columns;
}

struct TerminalRun {
  std::string out;
  std::string shown;
};

TerminalRun run_on_terminal(unsigned columns, std::vector<std::string> arguments, const fs::path& folder,
                            std::vector<std::string> environment) {
  Terminal terminal(columns);
  const ProcessOutcome outcome =
      run_process({UNWEIGHT_CLI_PATH, std::move(arguments), folder, std::move(environment), {}, terminal.slave()});
  EXPECT_EQ(outcome.exit_code, 0);
  return {outcome.out, terminal.finish()};
}

constexpr std::string_view kClear = "\r\x1b[K";

TEST(CliTerminal, ProgressFitsTheTerminalAndIsCleanedUp) {
  const TempFolder folder;
  for (const unsigned columns : {20U, 50U, 80U, 200U}) {
    for (const char* locale : {"LC_ALL=C", "LC_ALL=C.UTF-8"}) {
      fs::remove_all(folder / "model");
      const auto run = run_on_terminal(columns, {"synth", "--model", "tiny-llama-test", "model"}, folder.path(),
                                       {locale, "TERM=xterm"});
      EXPECT_NE(run.out.find("written"), std::string::npos);
      ASSERT_TRUE(run.shown.starts_with(kClear)) << columns;
      EXPECT_TRUE(run.shown.ends_with(kClear)) << columns;
      EXPECT_NE(run.shown.find("100%"), std::string::npos);
      EXPECT_EQ(run.shown.find('\n'), std::string::npos);
      for (std::size_t at = 0; at < run.shown.size();) {
        const std::size_t next = std::min(run.shown.find(kClear, at + 1), run.shown.size());
        EXPECT_LT(columns_of(run.shown.substr(at + kClear.size(), next - at - kClear.size())), columns);
        at = next;
      }
      const bool ascii = columns_of(run.shown) == run.shown.size();
      EXPECT_EQ(ascii, columns < 60 || std::string_view(locale) == "LC_ALL=C") << run.shown;
    }
  }
}

TEST(CliTerminal, ShowsNothingWhenItShouldNot) {
  const TempFolder folder;
  const auto shown = [&](const char* option, const char* term) {
    fs::remove_all(folder / "model");
    return run_on_terminal(80, {"synth", "--model", "tiny-llama-test", "model", option}, folder.path(), {term}).shown;
  };
  EXPECT_EQ(shown("--quiet", "TERM=xterm"), "");
  EXPECT_EQ(shown("--json", "TERM=xterm"), "");
  EXPECT_EQ(shown("--seed=1", "TERM=dumb"), "");
}

// ---- signals --------------------------------------------------------------------------------------------------------

/// A checkpoint that takes a thread most of a second.
void write_large_checkpoint(const fs::path& path) {
  std::vector<TensorData> tensors;
  const TensorData tensor = bf16_tensor("w", {1024, 4096}, Filling::kTrained, 1);
  for (int i = 0; i < 24; ++i) {
    tensors.push_back(tensor);
    tensors.back().name = "layers." + std::to_string(i) + ".weight";
    tensors.back().bytes[0] = static_cast<char>(i);  // no duplicates
  }
  write_file(path / "model.safetensors", make_safetensors(tensors));
}

class CliSignalSlow : public ::testing::Test {
 protected:
  void SetUp() override { write_large_checkpoint(folder_ / "model"); }

  /// Starts a command, sends `signal` when its work folder has been there for `delay`, and returns the outcome.
  ProcessOutcome interrupt(std::vector<std::string> arguments, const fs::path& work, int signal,
                           std::chrono::milliseconds delay) {
    Process process({UNWEIGHT_CLI_PATH, std::move(arguments), folder_.path(), {}, {}, -1});
    for (int i = 0; i < 5000 && !fs::exists(work); ++i) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(delay);
    process.send(signal);
    return process.wait();
  }

  ProcessOutcome run(std::vector<std::string> arguments) {
    return run_process({UNWEIGHT_CLI_PATH, std::move(arguments), folder_.path(), {}, {}, -1});
  }

  TempFolder folder_;
};

TEST_F(CliSignalSlow, CompressStopsAndContinues) {
  ASSERT_EQ(run({"compress", "-q", "model", "whole"}).exit_code, 0);
  const auto stopped =
      interrupt({"compress", "--threads", "1", "model", "out"}, folder_ / "out.partial", SIGINT, 250ms);
  ASSERT_EQ(stopped.exit_code, 130) << stopped.out << stopped.err;
  EXPECT_EQ(stopped.err, "unweight: stopped; run the same command to continue\n");
  EXPECT_EQ(stopped.out, "");
  EXPECT_FALSE(fs::exists(folder_ / "out"));

  const auto terminated =
      interrupt({"compress", "--json", "--threads", "1", "model", "out"}, folder_ / "out.partial", SIGTERM, 100ms);
  ASSERT_EQ(terminated.exit_code, 143) << terminated.out << terminated.err;
  EXPECT_NE(terminated.out.find("\"code\":61"), std::string::npos) << terminated.out;

  const auto continued = run({"compress", "--threads", "1", "model", "out"});
  ASSERT_EQ(continued.exit_code, 0) << continued.err;
  EXPECT_NE(continued.out.find("earlier run"), std::string::npos) << continued.out;
  EXPECT_EQ(difference(read_tree(folder_ / "whole"), read_tree(folder_ / "out")), "");
}

TEST_F(CliSignalSlow, SecondSignalEndsAtOnce) {
  Process process({UNWEIGHT_CLI_PATH, {"compress", "--threads", "1", "model", "out"}, folder_.path(), {}, {}, -1});
  for (int i = 0; i < 5000 && !fs::exists(folder_ / "out.partial"); ++i) std::this_thread::sleep_for(1ms);
  process.send(SIGINT);
  process.send(SIGTERM);
  const int exit_code = process.wait().exit_code;
  EXPECT_TRUE(exit_code == 130 || exit_code == 143) << exit_code;
  EXPECT_EQ(run({"compress", "-q", "model", "out"}).exit_code, 0);
}

TEST_F(CliSignalSlow, SynthKeepsNothing) {
  const auto stopped =
      interrupt({"synth", "--threads", "1", "--model", "qwen3-0.6b", "out"}, folder_ / "out.partial", SIGINT, 100ms);
  ASSERT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_EQ(stopped.err, "unweight: stopped; nothing was kept\n");
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_FALSE(fs::exists(folder_ / "out.partial"));
}

}  // namespace
}  // namespace unweight::test
