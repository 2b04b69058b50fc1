// SPDX-License-Identifier: Apache-2.0
//
// Input: replacements for files of a small, sound bundle. Each is the number of a file (one byte) and its new content,
// up to the separator FF FE FD FC. The top bit of the first byte chooses a bundle of the distribution profile. The
// manifest's digest is made to fit, so that what is behind it can be reached. Verifying, inspecting, restoring and
// transcoding must end with success or a proper error, and agree with each other.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <io/manifest.hpp>
#include <string>
#include <string_view>
#include <unistd.h>
#include <unweight/blob.hpp>
#include <unweight/checkpoint.hpp>
#include <unweight/safetensors.hpp>
#include <utility>
#include <vector>

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSeparator = "\xff\xfe\xfd\xfc";

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

void write_file(const fs::path& path, std::string_view bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string read_file(const fs::path& path) {
  std::string bytes(fs::file_size(path), '\0');
  std::ifstream(path, std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

/// A checkpoint of one 64 x 64 matrix, its duplicate in another file, and some small things; compressed once.
class Base {
 public:
  explicit Base(unweight::Profile profile) : profile_(profile) {
    const fs::path memory = "/dev/shm";
    std::string name = ((fs::exists(memory) ? memory : fs::temp_directory_path()) / "unweight-fuzz-XXXXXX").native();
    require(::mkdtemp(name.data()) != nullptr, "a temporary folder");
    root_ = name;
    std::string values;
    for (std::uint32_t i = 0; i < 4096; ++i) {
      const std::uint32_t mixed = i * 2654435761U;
      const auto value = static_cast<std::uint16_t>((mixed >> 16 & 0x807fU) | (120 + (mixed >> 13 & 3)) << 7);
      values += static_cast<char>(value & 0xff);
      values += static_cast<char>(value >> 8);
    }
    using unweight::Dtype;
    const std::vector<unweight::TensorEntry> first = {{"w", Dtype::kBF16, {64, 64}, 0, 8192},
                                                      {"n", Dtype::kF32, {2}, 8192, 8200}};
    const std::vector<unweight::TensorEntry> second = {{"twin", Dtype::kBF16, {64, 64}, 0, 8192}};
    write_file(root_ / "source/model.safetensors",
               unweight::make_safetensors_header(first, {}, 8) + values + "12345678");
    write_file(root_ / "source/sub/twin.safetensors", unweight::make_safetensors_header(second, {}, 8) + values);
    write_file(root_ / "source/config.json", "{\"a\": 1}");
    write_file(root_ / "source/model.safetensors.index.json",
               R"({"metadata": {}, "weight_map": {"w": "model.safetensors", "n": "model.safetensors"}})");
    write_file(root_ / "source/notes.txt", "notes");
    fs::create_directories(root_ / "source/empty");
    const auto report = unweight::compress_checkpoint(root_ / "source", bundle(), {.profile = profile});
    require(report.has_value(), "a bundle to start from");
    for (const auto& entry : fs::recursive_directory_iterator(bundle())) {
      const std::string path = entry.path().lexically_relative(bundle()).native();
      if (entry.is_regular_file() && path != unweight::io::kManifestDigestPath) {
        files_.emplace_back(path, read_file(entry.path()));
      }
    }
    std::sort(files_.begin(), files_.end());
    changed_.resize(files_.size(), false);
  }
  ~Base() {
    std::error_code error;
    fs::remove_all(root_, error);
  }
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;

  [[nodiscard]] fs::path bundle() const { return root_ / "bundle"; }
  [[nodiscard]] fs::path restored() const { return root_ / "restored"; }
  [[nodiscard]] fs::path transcoded() const { return root_ / "transcoded"; }
  [[nodiscard]] unweight::Profile other_profile() const {
    return profile_ == unweight::Profile::kRuntime ? unweight::Profile::kDistribution : unweight::Profile::kRuntime;
  }
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& files() const { return files_; }

  void replace(std::size_t file, std::string_view bytes) {
    write_file(bundle() / files_[file].first, bytes);
    changed_[file] = true;
  }
  void fit_digest() {
    const std::string manifest = read_file(bundle() / unweight::io::kManifestPath);
    write_file(bundle() / unweight::io::kManifestDigestPath, unweight::io::make_manifest_digest(manifest).value());
  }
  void reset() {
    for (std::size_t i = 0; i < files_.size(); ++i) {
      if (changed_[i]) write_file(bundle() / files_[i].first, files_[i].second);
      changed_[i] = false;
    }
    fs::remove_all(restored());
    fs::remove_all(root_ / "restored.partial");
    fs::remove_all(transcoded());
    fs::remove_all(root_ / "transcoded.partial");
  }
  /// Nothing but the bundle, the source, and what was restored.
  void check_surroundings() const {
    for (const auto& entry : fs::directory_iterator(root_)) {
      const std::string name = entry.path().filename().native();
      require(name == "source" || name == "bundle" || name == "restored" || name == "restored.partial" ||
                  name == "transcoded" || name == "transcoded.partial",
              "nothing is written outside of the output");
    }
  }

 private:
  unweight::Profile profile_;
  fs::path root_;
  std::vector<std::pair<std::string, std::string>> files_;
  std::vector<bool> changed_;
};

void check_error(const unweight::Error& error) {
  require(error.code != unweight::ErrorCode::kInternal && error.code != unweight::ErrorCode::kOk,
          "a proper error code");
  require(!error.message.empty() && error.message.find('\n') == std::string::npos, "a message of one line");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Base bases[] = {Base(unweight::Profile::kRuntime), Base(unweight::Profile::kDistribution)};
  Base& base = bases[size != 0 && data[0] >= 128 ? 1 : 0];
  std::string_view input(reinterpret_cast<const char*>(data), size);
  while (!input.empty()) {
    const std::size_t end = std::min(input.find(kSeparator), input.size());
    if (end > 0) {
      const auto file = static_cast<unsigned char>(input[0]) % 128 % base.files().size();
      base.replace(file, input.substr(1, end - 1));
    }
    input.remove_prefix(std::min(input.size(), end + kSeparator.size()));
  }
  base.fit_digest();

  const auto verified = unweight::verify_bundle(base.bundle(), {.threads = 1});
  const auto inspected = unweight::inspect_path(base.bundle(), {.threads = 1, .histograms = false});
  const auto restored = unweight::decompress_bundle(base.bundle(), base.restored(), {.threads = 1});
  if (!verified) check_error(verified.error());
  if (!inspected) check_error(inspected.error());
  if (!restored) check_error(restored.error());
  const auto transcoded =
      unweight::transcode_bundle(base.bundle(), base.transcoded(), {.profile = base.other_profile(), .threads = 1});
  if (!transcoded) check_error(transcoded.error());
  if (verified) {
    require(restored.has_value(), "what verify accepts can be restored");
    require(inspected.has_value(), "what verify accepts can be inspected");
    require(transcoded.has_value(), "what verify accepts can be transcoded");
    require(unweight::verify_bundle(base.transcoded(), {.threads = 1}).has_value(), "transcoding gives sound bundles");
    require(restored->bytes == verified->bytes && restored->files == verified->files, "equal totals");
  }
  base.check_surroundings();
  base.reset();
  return 0;
}
