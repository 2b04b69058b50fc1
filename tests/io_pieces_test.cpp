// SPDX-License-Identifier: Apache-2.0
//
// The pieces under the container: JSON text, paths, listings, matrix views, journals, duplicates, the byte pipe.
#include "support/checkpoints.hpp"
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <gtest/gtest.h>
#include <io/byte_pipe.hpp>
#include <io/file.hpp>
#include <io/json_document.hpp>
#include <io/json_text.hpp>
#include <io/listing.hpp>
#include <io/matrix_view.hpp>
#include <io/paths.hpp>
#include <io/sha256.hpp>
#include <io/weight_index.hpp>
#include <io/work_folder.hpp>
#include <iterator>
#include <sys/stat.h>
#include <unistd.h>

namespace unweight::io {
namespace {

namespace fs = std::filesystem;
using test::TempFolder;
using test::write_file;

// ---- JSON -----------------------------------------------------------------------------------------------------------

TEST(JsonText, WriterIsReadable) {
  JsonWriter json;
  json.begin_object();
  json.member("a", "x\"\\\n\x02ü");
  json.key("shape");
  json.begin_array(JsonWriter::Style::kLine);
  json.number(1);
  json.number(18446744073709551615U);
  json.end_array();
  json.key("empty");
  json.begin_array();
  json.end_array();
  json.key("nested");
  json.begin_object();
  json.end_object();
  json.end_object();
  EXPECT_EQ(json.text(),
            "{\n  \"a\": \"x\\\"\\\\\\n\\u0002ü\",\n  \"shape\": [1, 18446744073709551615],\n  \"empty\": [],\n"
            "  \"nested\": {}\n}");
  EXPECT_TRUE(JsonDocument::parse(json.text()).has_value());
}

TEST(JsonText, InsertsFirstMemberAndKeepsTheRest) {
  const auto insert = [](std::string_view text) { return insert_first_member(text, "k", "1"); };
  EXPECT_EQ(insert("{}"), "{\"k\": 1}");
  EXPECT_EQ(insert(" {  } \n"), " {\"k\": 1  } \n");
  EXPECT_EQ(insert("{\"a\":2}"), "{\"k\": 1,\"a\":2}");
  EXPECT_EQ(insert("{\n  \"a\": 2\n}\n"), "{\n  \"k\": 1,\n  \"a\": 2\n}\n");
  EXPECT_EQ(insert("{\r\n\t\"a\": {}\r\n}"), "{\r\n\t\"k\": 1,\r\n\t\"a\": {}\r\n}");
}

TEST(JsonText, QuotedNamesAreShortAndOnOneLine) {
  EXPECT_EQ(quoted_name("a'b\n"), "'a'b\\n'");
  EXPECT_EQ(quoted_name(std::string(200, 'x')), "'" + std::string(200, 'x') + "'");
  EXPECT_EQ(quoted_name(std::string(199, 'x') + "üy"), "'" + std::string(199, 'x') + "'...");
}

TEST(JsonDocument, ReadsTypedMembers) {
  const auto document = JsonDocument::parse(R"({"s":"x","n":5,"a":[1],"o":{},"twice":1,"twice":2,"neg":-1})");
  ASSERT_TRUE(document.has_value());
  simdjson::dom::object root;
  ASSERT_EQ(document->root().get(root), simdjson::SUCCESS);
  EXPECT_EQ(json_string(root, "s", "it").value(), "x");
  EXPECT_EQ(json_number(root, "n", "it").value(), 5U);
  EXPECT_EQ(json_array(root, "a", "it").value().size(), 1U);
  EXPECT_TRUE(json_object(root, "o", "it").has_value());
  EXPECT_EQ(json_string(root, "n", "it").error().message, "it: member 'n' is not a string");
  EXPECT_EQ(json_number(root, "neg", "it").error().code, ErrorCode::kBadJson);
  EXPECT_EQ(json_number(root, "twice", "it").error().message, "it: member 'twice' occurs twice");
  EXPECT_EQ(json_number(root, "gone", "it").error().message, "it: member 'gone' is missing");
}

TEST(WeightIndex, KeepsOrderAndOtherMembers) {
  const auto index = parse_weight_index(
      R"({"metadata":{"x":[1, 2.5],"total_size":9},"weight_map":{"b":"f2","a":"sub/f1"},"format":"pt"})");
  ASSERT_TRUE(index.has_value()) << index.error().message;
  EXPECT_EQ(make_weight_index(*index, 7),
            "{\n  \"metadata\": {\n    \"x\": [1,2.5],\n    \"total_size\": 7\n  },\n  \"format\": \"pt\",\n"
            "  \"weight_map\": {\n    \"b\": \"f2\",\n    \"a\": \"sub/f1\"\n  }\n}\n");
}

TEST(WeightIndex, RefusesBadFileNames) {
  for (const std::string_view name : {"../x", "/etc/passwd", "a/../../b", "", "a//b", "./a", "a/", "x\\u0000y"}) {
    const auto index = parse_weight_index("{\"weight_map\":{\"t\":\"" + std::string(name) + "\"}}");
    ASSERT_FALSE(index.has_value()) << name;
    EXPECT_EQ(index.error().code, ErrorCode::kBadCheckpoint) << name;
  }
  EXPECT_EQ(parse_weight_index("{\"weight_map\":{\"t\":1}}").error().code, ErrorCode::kBadJson);
  EXPECT_EQ(parse_weight_index("{}").error().code, ErrorCode::kBadJson);
  EXPECT_EQ(parse_weight_index("[]").error().code, ErrorCode::kBadJson);
  EXPECT_EQ(parse_weight_index(R"({"weight_map":{"t":"a","t":"b"}})").error().code, ErrorCode::kBadCheckpoint);
}

// ---- files ----------------------------------------------------------------------------------------------------------

TEST(Sha256, KnownDigests) {
  EXPECT_EQ(sha256_of({}).value(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_of(bytes_of("abc")).value(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(is_sha256(sha256_of({}).value()));
  EXPECT_FALSE(is_sha256("e3b0"));
  EXPECT_FALSE(is_sha256(std::string(64, 'A')));
}

TEST(File, ErrorsCarryPathOffsetAndSize) {
  const TempFolder folder;
  write_file(folder / "x", "12345");
  const auto file = File::open(folder / "x");
  ASSERT_TRUE(file.has_value());
  std::byte buffer[4];
  EXPECT_TRUE(file->read(1, buffer).has_value());
  const auto cut = file->read(3, buffer);
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(cut.error().code, ErrorCode::kIo);
  EXPECT_EQ(cut.error().message,
            "cannot read 4 bytes at offset 3 of '" + (folder / "x").native() + "': the file ends at byte 5");
  EXPECT_FALSE(file->read(~std::uint64_t{0}, buffer).has_value());
  EXPECT_EQ(File::open(folder / "none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(File::open(folder.path()).error().code, ErrorCode::kIo);
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(File::open(folder / "pipe").error().code, ErrorCode::kIo);  // and does not wait
  EXPECT_EQ(fail_errno(ENOSPC, "write", "x").value().code, ErrorCode::kNoSpace);
  EXPECT_EQ(fail_errno(EDQUOT, "write", "x").value().code, ErrorCode::kNoSpace);
}

TEST(File, NeverWritesThroughLinks) {
  const TempFolder folder;
  write_file(folder / "target", "original");
  fs::create_symlink(folder / "target", folder / "link");
  EXPECT_FALSE(File::create(folder / "link").has_value());
  EXPECT_FALSE(File::open_or_create(folder / "link").has_value());
  EXPECT_EQ(test::read_file(folder / "target"), "original");
}

TEST(File, CopiesRanges) {
  const TempFolder folder;
  std::string text(10'000'000, '\0');
  test::Random random(1);
  for (char& c : text) c = static_cast<char>(random.next());
  write_file(folder / "a", text);
  const auto from = File::open(folder / "a");
  const auto to = File::create(folder / "b");
  ASSERT_TRUE(from && to);
  ASSERT_TRUE(copy_range(*from, 123, *to, 7, 9'000'000).has_value());
  EXPECT_EQ(test::read_file(folder / "b"), std::string(7, '\0') + text.substr(123, 9'000'000));
  EXPECT_FALSE(copy_range(*from, 9'999'000, *to, 0, 2000).has_value());
}

TEST(File, RenameToNewRefusesExisting) {
  const TempFolder folder;
  fs::create_directories(folder / "from");
  fs::create_directories(folder / "to");
  EXPECT_EQ(rename_to_new(folder / "from", folder / "to").error().code, ErrorCode::kExists);
  EXPECT_TRUE(rename_to_new(folder / "from", folder / "new").has_value());
}

TEST(Paths, RelativePaths) {
  for (const std::string_view good : {"a", "a/b.c", ".hidden", "..a/b..", "ü", "a b\\c"}) {
    EXPECT_TRUE(check_relative_path(good, "p", ErrorCode::kBadBundle).has_value()) << good;
  }
  for (const std::string_view bad :
       {std::string_view(""), std::string_view("/a"), std::string_view("a/../b"), std::string_view(".."),
        std::string_view("."), std::string_view("a/."), std::string_view("a/"), std::string_view("a//b"),
        std::string_view("a\0b", 3), std::string_view("\xff")}) {
    EXPECT_EQ(check_relative_path(bad, "p", ErrorCode::kBadBundle).error().code, ErrorCode::kBadBundle) << bad;
  }
  EXPECT_FALSE(check_relative_path(std::string(5000, 'x'), "p", ErrorCode::kBadBundle).has_value());
}

TEST(Paths, OutputAndInputApart) {
  const TempFolder folder;
  fs::create_directories(folder / "in/sub");
  const auto check = [&](const fs::path& in, const fs::path& out) -> bool {
    const auto output = resolve_output(out);
    EXPECT_TRUE(output.has_value());
    return check_apart(in, *output).has_value();
  };
  EXPECT_TRUE(check(folder / "in", folder / "out"));
  EXPECT_TRUE(check(folder / "in", folder / "in2/"));
  EXPECT_FALSE(check(folder / "in", folder / "in"));
  EXPECT_FALSE(check(folder / "in", folder / "in/out"));
  EXPECT_FALSE(check(folder / "in", folder / "in/sub/../sub/out"));
  EXPECT_FALSE(check(folder / "in/sub", folder / "in"));
  fs::create_directories(folder / "x.partial/in");
  EXPECT_FALSE(check(folder / "x.partial", folder / "x"));
  EXPECT_FALSE(check(folder / "x.partial/in", folder / "x"));
  fs::create_directory_symlink(folder / "in", folder / "link");
  EXPECT_FALSE(check(folder / "in", folder / "link/out"));
  EXPECT_EQ(resolve_output(folder / "missing/out").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(resolve_output("/").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(resolve_output("").error().code, ErrorCode::kInvalidArgument);
}

// ---- listings -------------------------------------------------------------------------------------------------------

TEST(Listing, IsSortedAndRelative) {
  const TempFolder folder;
  for (const char* name : {"b", "a/z", "a-", "a/b/c", ".h"}) write_file(folder / name, name);
  fs::create_directories(folder / "e/f");
  const auto listing = list_checkpoint(folder.path());
  ASSERT_TRUE(listing.has_value());
  std::vector<std::string> names;
  for (const ListedFile& file : listing->files) names.push_back(file.path);
  EXPECT_EQ(names, (std::vector<std::string>{".h", "a-", "a/b/c", "a/z", "b"}));
  EXPECT_EQ(listing->empty_folders, (std::vector<std::string>{"e/f"}));
  EXPECT_EQ(listing->find("a/z"), 3U);
  EXPECT_EQ(listing->find("a/y"), 5U);
}

TEST(Listing, FollowsLinksLikeThoseOfTheHubCache) {
  const TempFolder folder;
  write_file(folder / "blobs/123", "data");
  fs::create_directories(folder / "snapshots/main");
  fs::create_symlink("../../blobs/123", folder / "snapshots/main/model.bin");
  fs::create_directory_symlink("../../blobs", folder / "snapshots/main/dir");
  const auto listing = list_checkpoint(folder / "snapshots/main");
  ASSERT_TRUE(listing.has_value()) << listing.error().message;
  ASSERT_EQ(listing->files.size(), 2U);
  EXPECT_EQ(listing->files[0].path, "dir/123");
  EXPECT_EQ(listing->files[1].path, "model.bin");
  EXPECT_EQ(listing->files[1].size_bytes, 4U);
}

TEST(Listing, RefusesWhatIsNoCheckpoint) {
  const TempFolder folder;
  const auto refuse = [&](const fs::path& path, ErrorCode code, std::string_view message) {
    const auto listing = list_checkpoint(path);
    ASSERT_FALSE(listing.has_value()) << path;
    EXPECT_EQ(listing.error().code, code);
    EXPECT_NE(listing.error().message.find(message), std::string::npos) << listing.error().message;
  };
  refuse(folder / "none", ErrorCode::kNotFound, "none");
  write_file(folder / "file.bin", "x");
  refuse(folder / "file.bin", ErrorCode::kInvalidArgument, "neither a folder nor a .safetensors file");
  fs::create_directories(folder / "cycle/a");
  fs::create_directory_symlink("..", folder / "cycle/a/up");
  refuse(folder / "cycle", ErrorCode::kBadCheckpoint, "folder above itself");
  fs::create_directories(folder / "broken");
  fs::create_symlink("nowhere", folder / "broken/link");
  refuse(folder / "broken", ErrorCode::kBadCheckpoint, "broken symbolic link");
  fs::create_directories(folder / "fifo");
  ASSERT_EQ(::mkfifo((folder / "fifo/pipe").c_str(), 0600), 0);
  refuse(folder / "fifo", ErrorCode::kBadCheckpoint, "neither a file nor a folder");
  write_file(folder / "latin/\xe4.txt", "x");
  refuse(folder / "latin", ErrorCode::kBadCheckpoint, "UTF-8");
}

// ---- views
// ------------------------------------------------------------------------------------------------------------

TEST(MatrixView, RowsColumnsBatch) {
  EXPECT_EQ(matrix_view(std::vector<std::uint64_t>{5, 7}), (MatrixShape{1, 5, 7}));
  EXPECT_EQ(matrix_view(std::vector<std::uint64_t>{8, 64, 128}), (MatrixShape{8, 64, 128}));
  EXPECT_EQ(matrix_view(std::vector<std::uint64_t>{2, 3, 64, 128}), (MatrixShape{6, 64, 128}));
  // A convolution: 14 x 14 would pad five-fold, 768 x 588 by 9%.
  EXPECT_EQ(matrix_view(std::vector<std::uint64_t>{768, 3, 14, 14}), (MatrixShape{1, 768, 588}));
  // Up to 1/16 of padding keeps the last two extents together.
  EXPECT_EQ(matrix_view(std::vector<std::uint64_t>{4, 64, 122}), (MatrixShape{4, 64, 122}));
  EXPECT_EQ(matrix_view(std::vector<std::uint64_t>{64, 64, 100}), (MatrixShape{1, 64, 6400}));
}

TEST(MatrixView, Candidates) {
  const auto candidate = [](Dtype dtype, std::vector<std::uint64_t> shape) {
    std::uint64_t bytes = dtype_bits(dtype) / 8;
    for (const std::uint64_t extent : shape) bytes *= extent;
    return is_blob_candidate({"t", dtype, std::move(shape), 0, bytes});
  };
  EXPECT_TRUE(candidate(Dtype::kBF16, {64, 64}));
  EXPECT_FALSE(candidate(Dtype::kF16, {64, 64}));
  EXPECT_FALSE(candidate(Dtype::kBF16, {4096}));
  EXPECT_FALSE(candidate(Dtype::kBF16, {63, 65}));
  EXPECT_FALSE(candidate(Dtype::kBF16, {0, 64}));
}

// ---- journal and locks ----------------------------------------------------------------------------------------------

TEST(Journal, SurvivesEveryCut) {
  const TempFolder folder;
  {
    auto journal = Journal::open(folder / "j");
    ASSERT_TRUE(journal.has_value());
    for (const char* line : {"first", "", "third line"}) ASSERT_TRUE(journal->append(line).has_value());
  }
  const std::string whole = test::read_file(folder / "j");
  std::size_t ends[3] = {};
  for (std::size_t i = 0, at = 0; i < 3; ++i) ends[i] = at = whole.find('\n', at) + 1;
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    write_file(folder / "j", whole.substr(0, size));
    auto journal = Journal::open(folder / "j");
    ASSERT_TRUE(journal.has_value());
    EXPECT_EQ(journal->lines().size(),
              static_cast<std::size_t>(
                  std::count_if(std::begin(ends), std::end(ends), [&](std::size_t e) { return e <= size; })));
    const std::size_t count = journal->lines().size();
    ASSERT_TRUE(journal->append("more").has_value());
    EXPECT_EQ(Journal::read_lines(folder / "j").value().size(), count + 1);
  }
  for (std::size_t i = 0; i < whole.size(); ++i) {  // a flipped bit ends the valid part
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    write_file(folder / "j", damaged);
    const auto lines = Journal::read_lines(folder / "j");
    ASSERT_TRUE(lines.has_value());
    EXPECT_EQ(lines->size(), i < ends[0] ? 0U : i < ends[1] ? 1U : 2U) << i;
  }
}

TEST(FileLock, OneHolder) {
  const TempFolder folder;
  {
    const auto lock = FileLock::try_acquire(folder / "l");
    ASSERT_TRUE(lock.has_value());
    EXPECT_EQ(FileLock::try_acquire(folder / "l").error().code, ErrorCode::kBusy);
  }
  EXPECT_TRUE(FileLock::try_acquire(folder / "l").has_value());
}

TEST(WorkFolder, RefusesForeignFolders) {
  const TempFolder folder;
  write_file(folder / "out.partial/mine.txt", "x");
  EXPECT_EQ(WorkFolder::open(folder / "out").error().code, ErrorCode::kExists);
  write_file(folder / "file.partial", "x");
  EXPECT_EQ(WorkFolder::open(folder / "file").error().code, ErrorCode::kExists);
  fs::create_directories(folder / "elsewhere");
  fs::create_directory_symlink("elsewhere", folder / "link.partial");
  EXPECT_EQ(WorkFolder::open(folder / "link").error().code, ErrorCode::kExists);
}

// ---- byte pipe
// --------------------------------------------------------------------------------------------------------

TEST(BytePipe, KeepsOrder) {
  std::string seen;
  BytePipe pipe([&](std::span<const std::byte> bytes) -> Result<void> {
    seen.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  });
  std::string sent;
  test::Random random(5);
  for (int i = 0; i < 500; ++i) {
    const std::string text(random.below(5000), static_cast<char>('a' + i % 26));
    auto buffer = pipe.take(text.size());
    ASSERT_TRUE(buffer.has_value());
    if (!text.empty()) std::memcpy(buffer->bytes().data(), text.data(), text.size());
    ASSERT_TRUE(pipe.give(*std::move(buffer), text.size()).has_value());
    sent += text;
  }
  ASSERT_TRUE(pipe.close().has_value());
  EXPECT_EQ(seen, sent);
}

TEST(BytePipe, ReportsTheConsumersError) {
  BytePipe pipe([&](std::span<const std::byte>) -> Result<void> { return fail(ErrorCode::kNoSpace, "full"); });
  bool failed = false;
  for (int i = 0; i < 100 && !failed; ++i) {
    auto buffer = pipe.take(10);
    failed = !buffer || !pipe.give(*std::move(buffer), 10);
  }
  EXPECT_TRUE(failed);
  EXPECT_EQ(pipe.close().error().code, ErrorCode::kNoSpace);
}

TEST(BytePipe, CanBeAbandoned) {
  for (int i = 0; i < 20; ++i) {
    BytePipe pipe([&](std::span<const std::byte>) -> Result<void> {
      ::usleep(100);
      return {};
    });
    auto buffer = pipe.take(10);
    ASSERT_TRUE(buffer.has_value());
    ASSERT_TRUE(pipe.give(*std::move(buffer), 10).has_value());
  }
}

}  // namespace
}  // namespace unweight::io
