// SPDX-License-Identifier: Apache-2.0
#include "support/checkpoints.hpp"
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

namespace unweight::test {
namespace fs = std::filesystem;

TempFolder::TempFolder(Where where) {
  const fs::path memory = "/dev/shm";
  const bool in_memory =
      where == Where::kMemory && std::getenv("TMPDIR") == nullptr && ::access(memory.c_str(), W_OK | X_OK) == 0;
  std::string name = ((in_memory ? memory : fs::temp_directory_path()) / "unweight-test-XXXXXX").native();
  if (::mkdtemp(name.data()) == nullptr) {
    ADD_FAILURE() << "mkdtemp " << name << ": " << std::strerror(errno);
    std::abort();
  }
  path_ = name;
}

TempFolder::~TempFolder() {
  std::error_code error;
  fs::remove_all(path_, error);
}

void write_file(const fs::path& path, std::string_view bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  ASSERT_TRUE(out.good()) << path;
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.is_open()) << path;
  std::error_code error;
  const std::uint64_t size = fs::file_size(path, error);
  std::string bytes(error ? 0 : size, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  EXPECT_TRUE(in.good()) << path;
  return bytes;
}

Tree read_tree(const fs::path& root) {
  Tree tree;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string name = entry.path().lexically_relative(root).native();
    if (entry.is_directory()) {
      if (fs::is_empty(entry.path())) tree[name + "/"] = "";
    } else {
      tree[name] = read_file(entry.path());
    }
  }
  return tree;
}

std::string difference(const Tree& a, const Tree& b) {
  std::string text;
  for (const auto& [name, bytes] : a) {
    const auto other = b.find(name);
    if (other == b.end()) {
      text += " -" + name;
    } else if (other->second != bytes) {
      text += " !" + name;
    }
  }
  for (const auto& [name, bytes] : b) {
    if (!a.contains(name)) text += " +" + name;
  }
  return text;
}

TensorData bf16_tensor(std::string name, std::vector<std::uint64_t> shape, Filling filling, std::uint64_t seed) {
  std::uint64_t values = 1;
  for (const std::uint64_t extent : shape) values *= extent;
  const std::uint64_t cols = shape.empty() ? 1 : shape.back();
  const auto filled = make_tensor({1, cols == 0 ? 0 : values / cols, cols}, filling, seed);
  TensorData tensor{std::move(name), Dtype::kBF16, std::move(shape), std::string(2 * filled.size(), '\0')};
  if (!filled.empty()) std::memcpy(tensor.bytes.data(), filled.data(), tensor.bytes.size());
  return tensor;
}

TensorData random_tensor(std::string name, Dtype dtype, std::vector<std::uint64_t> shape, std::uint64_t seed) {
  std::uint64_t bits = dtype_bits(dtype);
  for (const std::uint64_t extent : shape) bits *= extent;
  TensorData tensor{std::move(name), dtype, std::move(shape), std::string(bits / 8, '\0')};
  Random random(seed);
  for (char& c : tensor.bytes) c = static_cast<char>(random.below(256));
  return tensor;
}

std::string file_with_header(std::string_view json, std::string_view data) {
  const std::uint64_t size = json.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  return file.append(json).append(data);
}

std::string make_safetensors(const std::vector<TensorData>& tensors, const Metadata& metadata) {
  std::vector<TensorEntry> entries;
  std::string data;
  for (const TensorData& tensor : tensors) {
    const std::uint64_t begin = data.size();
    data += tensor.bytes;
    entries.push_back({tensor.name, tensor.dtype, tensor.shape, begin, data.size()});
  }
  return make_safetensors_header(entries, metadata, 8) + data;
}

void write_mixed_checkpoint(const fs::path& root) {
  const TensorData embedding = bf16_tensor("model.embed_tokens.weight", {250, 96}, Filling::kTrained, 1);
  TensorData lm_head = embedding;
  lm_head.name = "lm_head.weight";
  std::vector<TensorData> first = {
      embedding,
      bf16_tensor("model.norm.weight", {96}, Filling::kTrained, 2),
      bf16_tensor("layers.0.q.weight", {96, 96}, Filling::kTrained, 3),
      bf16_tensor("layers.0.odd.weight", {67, 131}, Filling::kOutlierRows, 4),
      bf16_tensor("layers.0.noise.weight", {80, 96}, Filling::kUniformBits, 5),
      bf16_tensor("layers.0.oddnoise.weight", {67, 65}, Filling::kUniformBits, 6),
      bf16_tensor("layers.0.experts.weight", {4, 32, 64}, Filling::kTrained, 7),
      bf16_tensor("vision.conv.weight", {32, 3, 14, 14}, Filling::kTrained, 8),
      bf16_tensor("tiny.weight", {4, 4}, Filling::kTrained, 9),
      bf16_tensor("scalar", {}, Filling::kTrained, 10),
      bf16_tensor("empty", {0, 64}, Filling::kTrained, 11),
      bf16_tensor("layers.0.all.weight", {256, 256}, Filling::kEveryValue, 12),
  };
  std::vector<TensorData> second = {lm_head};
  std::uint64_t seed = 100;
  for (const Dtype dtype :
       {Dtype::kBool, Dtype::kU8,  Dtype::kI8,  Dtype::kF8E5M2, Dtype::kF8E4M3, Dtype::kF8E8M0, Dtype::kI16,
        Dtype::kU16,  Dtype::kF16, Dtype::kI32, Dtype::kU32,    Dtype::kF32,    Dtype::kC64,    Dtype::kF64,
        Dtype::kI64,  Dtype::kU64, Dtype::kF4,  Dtype::kF6E2M3, Dtype::kF6E3M2, Dtype::kBF16}) {
    second.push_back(random_tensor("dtype." + std::string(dtype_name(dtype)), dtype, {3, 8}, seed++));
  }
  write_file(root / "model-00001-of-00002.safetensors", make_safetensors(first, {{"format", "pt"}}));
  write_file(root / "model-00002-of-00002.safetensors",
             make_safetensors(second, {{"format", "pt"}, {"note", "\"ü\n"}}));

  std::string map;
  for (const TensorData& tensor : first) map += "\n  \"" + tensor.name + "\": \"model-00001-of-00002.safetensors\",";
  for (const TensorData& tensor : second) map += "\n  \"" + tensor.name + "\": \"model-00002-of-00002.safetensors\",";
  map.pop_back();
  write_file(root / "model.safetensors.index.json",
             R"({"metadata": {"total_size": 12345, "total_parameters": 77}, "weight_map": {)" + map + "}}");
  write_file(root / "config.json", "{\n    \"model_type\": \"llama\",\n    \"torch_dtype\":\"bfloat16\"\n}\n");
  write_file(root / "tokenizer.json", R"({"version": "1.0", "odd": [1,2 , 3]})");
  write_file(root / "empty.txt", "");
  write_file(root / ".gitattributes", "*.safetensors filter=lfs\n");
  write_file(root / "nested/deep/notes.bin", std::string("\0\1\2binary", 9));
  // Odd spacing, names out of data order, metadata in the middle, trailing spaces.
  const std::string data = bf16_tensor("a", {64, 128}, Filling::kTrained, 20).bytes + "12345678";
  write_file(root / "nested/adapter.safetensors",
             file_with_header("{ \"z\" : {\"data_offsets\":[16384,16392], \"shape\" : [2], \"dtype\":\"F32\"},\n"
                              "\"__metadata__\":{\"k\":\"v\"}, \"a\\u0062c\": {\"dtype\":\"BF16\",\"shape\":[64,128],"
                              "\"data_offsets\":[0,16384]}  }     ",
                              data));
  write_file(root / "nested/nothing.safetensors", file_with_header("{}", ""));
  fs::create_directories(root / "empty_folder/inner");
}

void write_small_checkpoint(const fs::path& root) {
  std::vector<TensorData> shards[2];
  std::string map;
  for (std::uint64_t i = 0; i < 8; ++i) {
    const std::string layer = "layers." + std::to_string(i);
    std::vector<TensorData>& shard = shards[i / 4];
    shard.push_back(bf16_tensor(layer + ".norm", {64}, Filling::kTrained, 10 * i));
    shard.push_back(bf16_tensor(layer + ".up", {96, 128}, Filling::kTrained, 10 * i + 1));
    shard.push_back(
        bf16_tensor(layer + ".down", {128, 96}, i == 5 ? Filling::kUniformBits : Filling::kTrained, 10 * i + 2));
    shard.push_back(random_tensor(layer + ".scale", Dtype::kF32, {100}, 10 * i + 3));
  }
  shards[1].push_back(shards[0][1]);
  shards[1].back().name = "tied";
  for (int s = 0; s < 2; ++s) {
    const std::string name = "model-0000" + std::to_string(s + 1) + "-of-00002.safetensors";
    write_file(root / name, make_safetensors(shards[s], {{"format", "pt"}}));
    for (const TensorData& tensor : shards[s]) map += "\"" + tensor.name + "\":\"" + name + "\",";
  }
  map.pop_back();
  write_file(root / "model.safetensors.index.json", "{\"metadata\":{\"total_size\":1},\"weight_map\":{" + map + "}}");
  write_file(root / "config.json", "{\"model_type\": \"llama\"}");
  write_file(root / "tokenizer.json", std::string(5000, 't'));
}

int run_in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child < 0) {
    ADD_FAILURE() << "fork: " << std::strerror(errno);
    return -1;
  }
  if (child == 0) ::_exit(body());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace unweight::test
