// SPDX-License-Identifier: Apache-2.0
//
// Plan files: they come back as they were written, and nothing that is wrong with one is overlooked.
#include "support/checkpoints.hpp"
#include "support/simulated_bench.hpp"
#include <algorithm>
#include <filesystem>
#include <gtest/gtest.h>
#include <string>
#include <unweight/plan.hpp>
#include <unweight/version.h>
#include <vector>

namespace unweight::test {
namespace {

namespace fs = std::filesystem;

/// A small plan with everything that a file can hold. Times are whole nanoseconds, as in files.
Plan small_plan() {
  Plan plan;
  plan.origin = SimulatedBench().origin();
  plan.origin.command = "unweight tune \"a b\" \\ \xc3\xa4";
  plan.request = {Objective::kLatency, {1, 8, 4096}, 123456789, "model", 5, 6, true};
  plan.matrices.push_back({"o_proj", 64, 128, ExceptionClass::kMany, 100, 200, {"a", "b"}, 1});
  const Choice split{Pipeline::kFused, {.strips = 16, .stages = 8, .split = true, .warpgroup = true}, {}};
  const Choice decoded{Pipeline::kDecoded, {}, {{1, 2, 3, 4, 5, 6, 7, ~0ULL}}};
  plan.weights.push_back({{64, 128, BlobLayout::kTiled, ExceptionClass::kMany},
                          4711,
                          {{1, 12.345, {{split, 1.5, 0.0123}, {decoded, 2.25, 0}}, {}},
                           {4096, 0, {{decoded, 100, 0.5}}, {{{}, 99.999, 0.25}}}}});
  plan.weights.push_back({{64, 128, BlobLayout::kRaw, ExceptionClass::kUsual},
                          8192,
                          {{65536, 1e6, {{{Pipeline::kRaw, {}, {}}, 1e6, 0}}, {}}}});
  return plan;
}

/// The text of small_plan() with one change, which must be there.
std::string changed(const std::string& from, const std::string& to, std::size_t occurrence = 0) {
  std::string text = plan_text(small_plan());
  std::size_t at = text.find(from);
  for (; occurrence > 0 && at != std::string::npos; --occurrence) at = text.find(from, at + 1);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

void expect_refused(const std::string& text, ErrorCode code, const std::string& part) {
  const auto plan = parse_plan(text);
  ASSERT_FALSE(plan) << part;
  EXPECT_EQ(plan.error().code, code) << plan.error().message;
  EXPECT_NE(plan.error().message.find(part), std::string::npos) << plan.error().message << "\nwithout: " << part;
  EXPECT_EQ(plan.error().message.find('\n'), std::string::npos);
}

TEST(PlanFile, ComesBackAsItWasWritten) {
  const Plan plan = small_plan();
  const auto read = parse_plan(plan_text(plan));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, plan);
  EXPECT_EQ(plan_text(*read), plan_text(plan));
}

TEST(PlanFile, TunedPlansComeBackRounded) {
  const Plan plan = simulated_plan();
  const std::string text = plan_text(plan);
  const auto read = parse_plan(text);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(plan_text(*read), text);
  ASSERT_EQ(read->weights.size(), plan.weights.size());
  const Measurement &a = plan.weights[0].cells[3].isolated[0], &b = read->weights[0].cells[3].isolated[0];
  EXPECT_EQ(a.choice, b.choice);
  EXPECT_NEAR(a.us, b.us, 0.0005);
}

TEST(PlanFile, AMissingConfigurationMemberHasItsDefault) {
  const auto plan = parse_plan(changed("\"stages\": 8, ", ""));
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->weights[0].cells[0].isolated[0].choice.config.stages, MatmulConfig{}.stages);
}

TEST(PlanFile, EveryOtherMemberIsRequired) {
  const std::string text = plan_text(small_plan());
  std::size_t removed = 0;
  // Every line of the form `"name": value,` goes in turn.
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin) + 1;
    const std::string line = text.substr(begin, end - begin);
    const bool member =
        line.find("\": ") != line.npos && line.ends_with(",\n") && line.find_first_of("{[") == line.npos;
    if (member) {
      std::string without = text;
      without.erase(begin, end - begin);
      expect_refused(without, ErrorCode::kBadJson, "is missing");
      ++removed;
    }
    begin = end;
  }
  EXPECT_GE(removed, 20U);
}

TEST(PlanFile, EveryPrefixIsRefused) {
  const std::string text = plan_text(small_plan());
  for (std::size_t size = 0; size + 1 < text.size(); ++size) {
    const auto plan = parse_plan(text.substr(0, size));
    ASSERT_FALSE(plan) << size;
    EXPECT_EQ(plan.error().code, ErrorCode::kBadJson);
  }
}

TEST(PlanFile, EveryChangedByteIsRefusedOrAnotherPlan) {
  const std::string text = plan_text(small_plan());
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::string damaged = text;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x11);
    const auto plan = parse_plan(damaged);
    if (!plan) continue;
    EXPECT_TRUE(*plan != small_plan() || text[at] == ' ') << at;
  }
}

TEST(PlanFile, RefusesWhatItDoesNotKnow) {
  expect_refused("", ErrorCode::kBadJson, "plan: not valid JSON");
  expect_refused("[]", ErrorCode::kBadJson, "plan is not an object");
  expect_refused("{}", ErrorCode::kBadJson, "'unweight_plan' is missing");
  expect_refused(plan_text(small_plan()) + "x", ErrorCode::kBadJson, "not valid JSON");
  expect_refused(changed("\"unweight_plan\": 1", "\"unweight_plan\": 2"), ErrorCode::kUnsupportedVersion, "version 2");
  expect_refused(changed("\"date\"", "\"data\""), ErrorCode::kBadJson, "'date' is missing");
  expect_refused(changed("\"date\"", "\"time\": 1, \"date\""), ErrorCode::kBadJson, "member 'time' is not known");
  expect_refused(changed("\"strips\"", "\"stripes\""), ErrorCode::kBadJson,
                 "weights[0], cells[0], isolated[0], config: member 'stripes' is not known");
  expect_refused(changed("\"us\"", "\"ms\""), ErrorCode::kBadJson, "'us' is missing");
  expect_refused(changed("\"fused\"", "\"fusion\""), ErrorCode::kInvalidArgument,
                 "pipeline 'fusion' is none of fused, decoded, raw");
  expect_refused(changed("\"layout\": \"tiled\"", "\"layout\": \"tilde\""), ErrorCode::kInvalidArgument, "layout");
  expect_refused(changed("\"objective\": \"latency\"", "\"objective\": \"speed\""), ErrorCode::kInvalidArgument,
                 "speed");
  expect_refused(changed("\"exceptions\": \"many\"", "\"exceptions\": \"few\""), ErrorCode::kInvalidArgument, "few");
}

TEST(PlanFile, RefusesMembersThatOccurTwice) {
  expect_refused(changed("\"date\"", "\"date\": \"x\", \"date\""), ErrorCode::kBadJson, "'date' occurs twice");
  expect_refused(changed("\"split\": true", "\"split\": true, \"split\": false"), ErrorCode::kBadJson,
                 "'split' occurs twice");
  expect_refused(changed("\"tokens\": 4096", "\"tokens\": 8, \"tokens\": 4096"), ErrorCode::kBadJson,
                 "'tokens' occurs twice");
}

TEST(PlanFile, RefusesOtherTypes) {
  expect_refused(changed("\"date\": \"", "\"date\": 5, \"x\": \""), ErrorCode::kBadJson, "'date' is not a string");
  expect_refused(changed("\"strips\": 16", "\"strips\": \"16\""), ErrorCode::kBadJson, "'strips' is not an integer");
  expect_refused(changed("\"strips\": 16", "\"strips\": 1.5"), ErrorCode::kBadJson, "'strips' is not an integer");
  expect_refused(changed("\"strips\": 16", "\"strips\": -1"), ErrorCode::kBadJson, "'strips' is not an integer");
  expect_refused(changed("\"split\": true", "\"split\": 1"), ErrorCode::kBadJson, "'split' is not true or false");
  expect_refused(changed("\"us\": 1.500", "\"us\": null"), ErrorCode::kBadJson, "'us' is not a number");
  expect_refused(changed("\"weights\": [", "\"weights\": 1, \"x\": ["), ErrorCode::kBadJson,
                 "'weights' is not an array");
  expect_refused(changed("\"a\"", "7"), ErrorCode::kBadJson, "names[0] is not a string");
  expect_refused(changed("[1, 8, 4096]", "[1, \"8\", 4096]"), ErrorCode::kBadJson, "batch_sizes[1] is not a number");
}

TEST(PlanFile, RefusesNumbersOutOfRange) {
  expect_refused(changed("\"stages\": 8", "\"stages\": 4294967296"), ErrorCode::kInvalidArgument, "stages=4294967296");
  expect_refused(changed("\"stages\": 8", "\"stages\": 99999999999999999999999"), ErrorCode::kBadJson, "JSON");
  expect_refused(changed("\"us\": 1.500", "\"us\": 1e308"), ErrorCode::kInvalidArgument, "us=1e+308");
  expect_refused(changed("\"us\": 1.500", "\"us\": 1e999"), ErrorCode::kBadJson, "JSON");
  expect_refused(changed("\"us\": 1.500", "\"us\": -1.5"), ErrorCode::kInvalidArgument, "us=-1.5");
  expect_refused(changed("\"tokens\": 4096", "\"tokens\": 4095"), ErrorCode::kInvalidArgument,
                 "must be a power of two");
  expect_refused(changed("\"tokens\": 4096", "\"tokens\": 0"), ErrorCode::kInvalidArgument, "must be a power of two");
  expect_refused(changed("\"tokens\": 4096", "\"tokens\": 131072"), ErrorCode::kInvalidArgument, "tokens=131072");
  expect_refused(changed("\"tokens\": 4096", "\"tokens\": 1"), ErrorCode::kInvalidArgument, "increasing order");
  expect_refused(changed("[1, 8, 4096]", "[1, 0, 4096]"), ErrorCode::kInvalidArgument, "batch_sizes[1]: 0");
  expect_refused(changed("\"rows\": 64", "\"rows\": 0", 1), ErrorCode::kInvalidArgument, "rows=0");
  expect_refused(changed("\"cols\": 128", "\"cols\": 18446744073709551615", 1), ErrorCode::kInvalidArgument, "cols=");
  expect_refused(changed("\"raw\": 1", "\"raw\": 3"), ErrorCode::kInvalidArgument, "raw=3 must be 0 to 2");
  expect_refused(changed("\"layout\": \"raw\"", "\"layout\": \"tiled\", \"x\": 1"), ErrorCode::kBadJson, "'x'");
}

TEST(PlanFile, RefusesAlgorithmsThatAreNone) {
  const std::string digits = "0000000000000001";
  expect_refused(changed(digits, digits.substr(1)), ErrorCode::kInvalidArgument, "is not 128 hexadecimal digits");
  expect_refused(changed(digits, "g" + digits.substr(1)), ErrorCode::kInvalidArgument, "is not 128 hexadecimal digits");
}

TEST(PlanFile, RefusesTwoEntriesForOneWeightAndCellsWithoutChoice) {
  Plan plan = small_plan();
  plan.weights.push_back(plan.weights[0]);
  expect_refused(plan_text(plan), ErrorCode::kInvalidArgument, "64 x 128, tiled, many exceptions has an entry already");
  plan = small_plan();
  plan.weights[0].cells[0].isolated.clear();
  expect_refused(plan_text(plan), ErrorCode::kInvalidArgument, "weights[0], cells[0]: it has no choice");
}

TEST(PlanFile, FilesAreReplacedInOneStep) {
  const TempFolder folder;
  const fs::path path = folder / "plan.json";
  ASSERT_TRUE(write_plan(small_plan(), path));
  EXPECT_EQ(read_plan(path).value(), small_plan());
  Plan other = small_plan();
  other.origin.date = "later";
  ASSERT_TRUE(write_plan(other, path));
  EXPECT_EQ(read_plan(path).value(), other);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
  // What cannot be written leaves what was there.
  const auto failed = write_plan(other, folder / "no" / "such" / "folder.json");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kNotFound);
  fs::create_directory(folder / "folder");
  EXPECT_FALSE(write_plan(other, folder / "folder"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 2);
}

TEST(PlanFile, ErrorsNameTheFile) {
  const TempFolder folder;
  const auto missing = read_plan(folder / "none.json");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  write_file(folder / "bad.json", "{\"unweight_plan\": 1, \"gpu\": {}}");
  const auto bad = read_plan(folder / "bad.json");
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("bad.json: plan, gpu: member 'name' is missing"), std::string::npos)
      << bad.error().message;
}

}  // namespace
}  // namespace unweight::test
