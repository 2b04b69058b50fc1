// SPDX-License-Identifier: Apache-2.0
//
// Headers of safetensors files: the writer, and one test for each way in which a header can be wrong.
#include "support/checkpoints.hpp"
#include <chrono>
#include <cstring>
#include <gtest/gtest.h>
#include <io/safetensors_file.hpp>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unweight/safetensors.hpp>

namespace unweight {
namespace {

using test::file_with_header;
using test::TempFolder;

/// Parses `json` as the header of a file with `data_bytes` bytes of data.
Result<SafetensorsHeader> parse(std::string_view json, std::uint64_t data_bytes) {
  return parse_safetensors_header(json, 8 + json.size() + data_bytes);
}

void expect_refused(std::string_view json, std::uint64_t data_bytes, std::string_view message) {
  const auto header = parse(json, data_bytes);
  ASSERT_FALSE(header.has_value()) << json.substr(0, 200);
  EXPECT_EQ(header.error().code, ErrorCode::kBadSafetensors);
  EXPECT_NE(header.error().message.find(message), std::string::npos) << header.error().message;
  EXPECT_EQ(header.error().message.find('\n'), std::string::npos) << header.error().message;
}

constexpr std::string_view kGood = R"({"a":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]}})";

TEST(Safetensors, ParsesEntriesInDataOrder) {
  const auto header = parse(
      R"({"__metadata__":{"format":"pt","x":""},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[4,12]},)"
      R"("s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"I64","shape":[0,7],"data_offsets":[4,4]}} )",
      12);
  ASSERT_TRUE(header.has_value()) << header.error().message;
  ASSERT_EQ(header->tensors.size(), 3U);
  EXPECT_EQ(header->tensors[0].name, "s");
  EXPECT_EQ(header->tensors[1].name, "e");
  EXPECT_EQ(header->tensors[2].name, "b");
  EXPECT_EQ(header->tensors[2].dtype, Dtype::kBF16);
  EXPECT_EQ(header->tensors[2].shape, (std::vector<std::uint64_t>{2, 2}));
  EXPECT_EQ(header->metadata, (test::Metadata{{"format", "pt"}, {"x", ""}}));
  EXPECT_EQ(header->data_bytes, 12U);
}

TEST(Safetensors, AcceptsHeaderWithoutTensors) {
  EXPECT_TRUE(parse("{}", 0).has_value());
  EXPECT_TRUE(parse("{ }   ", 0).has_value());
  EXPECT_TRUE(parse(R"({"__metadata__":{}})", 0).has_value());
}

TEST(Safetensors, KnowsEveryDtype) {
  for (unsigned i = 0; i < 20; ++i) {
    const auto dtype = static_cast<Dtype>(i);
    const std::string json = "{\"t\":{\"dtype\":\"" + std::string(dtype_name(dtype)) +
                             "\",\"shape\":[8],\"data_offsets\":[0," + std::to_string(dtype_bits(dtype)) + "]}}";
    const auto header = parse(json, dtype_bits(dtype));
    ASSERT_TRUE(header.has_value()) << header.error().message;
    EXPECT_EQ(header->tensors[0].dtype, dtype);
  }
}

TEST(Safetensors, WriterAndParserAgree) {
  const std::vector<TensorEntry> tensors = {{"first \"quoted\" \\ \n\x01 ü", Dtype::kU8, {4096}, 0, 4096},
                                            {"", Dtype::kBF16, {3, 5}, 4096, 4126},
                                            {"scalar", Dtype::kF64, {}, 4126, 4134}};
  for (const std::uint64_t min_data_begin : {0U, 1000U, 1024U}) {
    const std::string head = make_safetensors_header(tensors, {{{"k", "v\t"}}}, 128, min_data_begin);
    EXPECT_EQ(head.size() % 128, 0U);
    EXPECT_GE(head.size(), min_data_begin);
    const auto header = parse_safetensors_header(std::string_view(head).substr(8), head.size() + 4134);
    ASSERT_TRUE(header.has_value()) << header.error().message;
    ASSERT_EQ(header->tensors.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(header->tensors[i].name, tensors[i].name);
      EXPECT_EQ(header->tensors[i].dtype, tensors[i].dtype);
      EXPECT_EQ(header->tensors[i].shape, tensors[i].shape);
      EXPECT_EQ(header->tensors[i].begin, tensors[i].begin);
      EXPECT_EQ(header->tensors[i].end, tensors[i].end);
    }
    EXPECT_EQ(header->metadata, (test::Metadata{{"k", "v\t"}}));
  }
}

// ---- one test an error
// ------------------------------------------------------------------------------------------------

TEST(SafetensorsHostile, NotJson) {
  expect_refused("", 0, "does not begin with '{'");
  expect_refused(" {}", 0, "does not begin with '{'");
  expect_refused("[]", 0, "does not begin with '{'");
  expect_refused("{", 0, "not valid JSON");
  expect_refused("{}{}", 0, "not valid JSON");
  expect_refused("{} x", 0, "not valid JSON");
  expect_refused(std::string_view("{}\0", 3), 0, "not valid JSON");
  expect_refused(R"({"a":NaN})", 0, "not valid JSON");
  expect_refused(R"({"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,6]}})", 6, "not valid JSON");
  expect_refused(R"({"a":{"dtype":"U8","shape":[Infinity],"data_offsets":[0,6]}})", 6, "not valid JSON");
  expect_refused("{\"\xff\":{}}", 0, "not valid JSON");
  expect_refused("{\"\\ud800\":{}}", 0, "not valid JSON");
}

TEST(SafetensorsHostile, EveryPrefixIsRefused) {
  for (std::size_t n = 0; n < kGood.size(); ++n) {
    EXPECT_FALSE(parse(kGood.substr(0, n), 6).has_value()) << n;
  }
  EXPECT_TRUE(parse(kGood, 6).has_value());
}

TEST(SafetensorsHostile, DeepNesting) {
  std::string json = R"({"a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  expect_refused(json, 0, "not valid JSON");
  json = R"({"a":)";
  for (int i = 0; i < 100'000; ++i) json += R"({"a":)";
  expect_refused(json, 0, "not valid JSON");
}

TEST(SafetensorsHostile, DuplicateNames) {
  expect_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],)"
                 R"("data_offsets":[1,2]}})",
                 2, "'a' occurs twice");
  // The same name in another spelling.
  expect_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],)"
                 R"("data_offsets":[1,2]}})",
                 2, "'a' occurs twice");
  expect_refused(R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ occurs twice");
  expect_refused(R"({"__metadata__":{"k":"v","k":"w"}})", 0, "key occurs twice");
}

TEST(SafetensorsHostile, MetadataOfAnotherType) {
  expect_refused(R"({"__metadata__":null})", 0, "__metadata__ is not an object");
  expect_refused(R"({"__metadata__":{"k":1}})", 0, "value is not a string");
}

TEST(SafetensorsHostile, EntryMembers) {
  expect_refused(R"({"a":3})", 0, "not an object");
  expect_refused(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, "dtype is missing");
  expect_refused(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "shape is missing");
  expect_refused(R"({"a":{"dtype":"U8","shape":[1]}})", 1, "data_offsets is missing");
  expect_refused(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "'dtype' occurs twice");
  expect_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1, "has a member that is not");
  expect_refused(R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1, "dtype is not a string");
  expect_refused(R"({"a":{"dtype":"U7","shape":[1],"data_offsets":[0,1]}})", 1, "dtype 'U7' is unknown");
  expect_refused(R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1, "shape is not an array");
  expect_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1, "has 3 entries, not 2");
  expect_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[]}})", 1, "has 0 entries, not 2");
}

TEST(SafetensorsHostile, NumbersOfAnotherType) {
  for (const std::string_view number : {"-1", "1.0", "1e0", "\"1\"", "null", "true", "[1]", "9223372036854775808.0"}) {
    expect_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[" + std::string(number) + "],\"data_offsets\":[0,1]}}", 1,
                   "shape[0] is not an integer");
    expect_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0," + std::string(number) + "]}}", 1,
                   "data_offsets[1] is not an integer");
  }
  expect_refused(R"({"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}})", 1, "not valid JSON");
}

TEST(SafetensorsHostile, SizesThatOverflow) {
  expect_refused(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1, "no whole number");
  expect_refused(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "no whole number");
  expect_refused(R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0, "no whole number");
  expect_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}})", 1, "end beyond");
  expect_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,18446744073709551615]}})", 1,
                 "end beyond");
  // An extent of zero makes the tensor empty, whatever the others are.
  EXPECT_TRUE(parse(R"({"a":{"dtype":"U8","shape":[18446744073709551615,8,0],"data_offsets":[0,0]}})", 0).has_value());
}

TEST(SafetensorsHostile, BitsThatFillNoBytes) {
  expect_refused(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1, "no whole number");
  expect_refused(R"({"a":{"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,1]}})", 1, "no whole number");
}

TEST(SafetensorsHostile, SizeContradictsShape) {
  expect_refused(R"({"a":{"dtype":"U8","shape":[2,3],"data_offsets":[0,5]}})", 5, "need 6");
  expect_refused(R"({"a":{"dtype":"U16","shape":[2,3],"data_offsets":[0,6]}})", 6, "need 12");
  expect_refused(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,6]}})", 6, "need 0");
  expect_refused(R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0,6]}})", 6, "need 1");
}

TEST(SafetensorsHostile, Offsets) {
  expect_refused(R"({"a":{"dtype":"U8","shape":[2,3],"data_offsets":[6,0]}})", 6, "reversed");
  expect_refused(kGood, 5, "end beyond the file's 5 bytes");
  expect_refused(kGood, 7, "the file has 7 bytes of data");
  expect_refused("{}", 1, "the file has 1 bytes of data");
  expect_refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3, "leaving a hole");
  expect_refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],)"
                 R"("data_offsets":[1,3]}})",
                 3, "overlapping");
  expect_refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],)"
                 R"("data_offsets":[0,2]}})",
                 2, "overlapping");
  expect_refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],)"
                 R"("data_offsets":[3,5]}})",
                 5, "leaving a hole");
  // An empty tensor in the middle of another.
  expect_refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],)"
                 R"("data_offsets":[1,1]}})",
                 2, "overlapping");
}

TEST(SafetensorsHostile, NamesStayOnOneLineOfTheMessage) {
  const std::string name = std::string(5000, 'n') + "\\n";
  const auto header = parse("{\"" + name + "\":3}", 0);
  ASSERT_FALSE(header.has_value());
  EXPECT_LT(header.error().message.size(), 300U);
  expect_refused("{\"a\\nb\":3}", 0, "tensor 'a\\nb'");
  expect_refused("{\"a\":{\"dtype\":\"U\\n8\"}}", 0, "dtype 'U\\n8' is unknown");
}

TEST(SafetensorsHostile, LengthField) {
  const TempFolder folder;
  const auto refuse = [&](std::string_view bytes, std::string_view message) {
    test::write_file(folder / "x.safetensors", bytes);
    const auto file = io::File::open(folder / "x.safetensors");
    ASSERT_TRUE(file.has_value());
    const auto header = io::read_safetensors_header(*file);
    ASSERT_FALSE(header.has_value());
    EXPECT_EQ(header.error().code, ErrorCode::kBadSafetensors);
    EXPECT_NE(header.error().message.find(message), std::string::npos) << header.error().message;
    EXPECT_NE(header.error().message.find("x.safetensors"), std::string::npos) << header.error().message;
  };
  refuse("", "0 bytes are no safetensors file");
  refuse("1234567", "7 bytes are no safetensors file");
  refuse(std::string(8, '\xff'), "over the limit");
  refuse(std::string_view("\x05\0\0\0\0\0\0\0{}", 10), "longer than the file");
  refuse(std::string_view("\x01\xe1\xf5\x05\0\0\0\0{}", 10), "over the limit");  // 100,000,001
}

TEST(SafetensorsHostile, HeaderOverTheLimitIsRefusedBeforeAllocation) {
  const TempFolder folder(TempFolder::Where::kDisk);
  const std::filesystem::path path = folder / "big.safetensors";
  const std::uint64_t header_bytes = 101'000'000;
  {
    std::string head(8, '\0');
    std::memcpy(head.data(), &header_bytes, 8);
    test::write_file(path, head + "{");
    std::filesystem::resize_file(path, 8 + header_bytes);  // sparse
  }
  const auto file = io::File::open(path);
  ASSERT_TRUE(file.has_value());
  struct rusage before {
  }, after{};
  getrusage(RUSAGE_SELF, &before);
  const auto header = io::read_safetensors_header(*file);
  getrusage(RUSAGE_SELF, &after);
  ASSERT_FALSE(header.has_value());
  EXPECT_NE(header.error().message.find("over the limit of 100000000"), std::string::npos) << header.error().message;
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 16 * 1024);
}

TEST(SafetensorsHostileSlow, LargestHeaderIsBoundedInTimeAndMemory) {
  const TempFolder folder(TempFolder::Where::kDisk);
  const std::filesystem::path path = folder / "large.safetensors";
  std::string json = "{";
  std::uint64_t end = 0;
  for (std::uint64_t i = 0; json.size() < 99'900'000; ++i) {
    if (i > 0) json += ',';
    json += "\"model.layers." + std::to_string(i) + ".weight\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" +
            std::to_string(end) + "," + std::to_string(end + 1) + "]}";
    ++end;
  }
  json += '}';
  ASSERT_LE(json.size(), kMaxSafetensorsHeaderBytes);
  test::write_file(path, file_with_header(json, std::string(end, 'x')));
  json = std::string();

  const int status = test::run_in_child([&] {
    const auto begin = std::chrono::steady_clock::now();
    const auto file = io::File::open(path);
    const auto header = io::read_safetensors_header(*file);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    struct rusage usage {};
    getrusage(RUSAGE_SELF, &usage);
    std::fprintf(stderr, "100 MB header, %zu tensors: %.2f s, %ld MiB\n", header ? header->tensors.size() : 0, seconds,
                 usage.ru_maxrss / 1024);
    if (!header || header->tensors.size() != end) return 1;
    if (test::kSanitized) return seconds < 60 ? 0 : 2;
    return seconds < 15 ? (usage.ru_maxrss < 640 * 1024 ? 0 : 3) : 2;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace unweight
