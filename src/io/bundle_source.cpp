// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <io/blob_form.hpp>
#include <io/bundle.hpp>
#include <io/bundle_source.hpp>
#include <io/file.hpp>
#include <io/file_hash.hpp>
#include <io/json_text.hpp>
#include <io/restore.hpp>
#include <io/safetensors_file.hpp>
#include <io/sha256.hpp>
#include <io/source_access.hpp>
#include <io/tensor_encoder.hpp>
#include <io/try.hpp>
#include <memory>
#include <unweight/version.h>
#include <utility>

namespace unweight::io {
namespace {

/// What a plan depends on: the manifest names every file's digest.
Result<std::string> fingerprint_of(const std::filesystem::path& root, bool verify, Profile profile) {
  UNWEIGHT_ASSIGN(const std::string manifest, read_text(root / kManifestPath, kMaxJsonBytes));
  Sha256 hash;
  hash.update(bytes_of(fmt::format("transcode {} {} {} {}", UNWEIGHT_VERSION_STRING, profile_name(profile),
                                   format_version(profile), verify ? "verified" : "unverified")));
  hash.update(bytes_of(manifest));
  return hash.finish();
}

class BundleAccess final : public SourceAccess {
 public:
  explicit BundleAccess(Bundle bundle) : bundle_(std::move(bundle)) {}

  [[nodiscard]] const Bundle& bundle() const { return bundle_; }

  Result<std::vector<Alias>> aliases(const Plan& /*plan*/, WorkControl& /*control*/) const override {
    std::vector<Alias> aliases;
    for (std::uint32_t f = 0; f < bundle_.files.size(); ++f) {
      const std::vector<LocatedTensor>& tensors = bundle_.files[f].tensors;
      for (std::uint32_t t = 0; t < tensors.size(); ++t) {
        if (tensors[t].stored == StoredAs::kAlias) aliases.push_back({{f, t}, {tensors[t].file, tensors[t].tensor}});
      }
    }
    return aliases;
  }

  std::uint64_t extra_memory_bytes(const Plan& /*plan*/, TensorRef tensor) const override {
    const LocatedTensor& located = stored(tensor);
    return located.stored == StoredAs::kBlob ? located.size_bytes : 0;
  }

  Result<Buffer> read_values(const Plan& plan, TensorRef tensor, unsigned threads) const override {
    const LocatedTensor& located = stored(tensor);
    const FilePlace from = place(plan, tensor);
    const TensorEntry& entry = plan.tensor(tensor);
    UNWEIGHT_ASSIGN(const File file, File::open(from.path));
    if (located.stored == StoredAs::kRaw) return read_tensor(file, from.offset, entry);
    Buffer blob(located.size_bytes);
    UNWEIGHT_TRY(file.read(from.offset, blob.bytes()));
    Buffer values(entry.size_bytes());
    auto decoded = decode_blob(bundle_.manifest.profile, std::as_const(blob).bytes(), values.values(), threads);
    if (!decoded) {
      return fail_within("'" + from.path.native() + "': tensor " + quoted_name(entry.name), std::move(decoded).error());
    }
    return values;
  }

  FilePlace place(const Plan& /*plan*/, TensorRef tensor) const override {
    return {bundle_.full_path(bundle_.files[tensor.file].manifest.path), stored(tensor).offset};
  }

  Result<std::string> head(const Plan& plan, std::size_t file) const override {
    UNWEIGHT_ASSIGN(const File kept, File::open(bundle_.full_path(kept_header_path(plan.files[file].path))));
    UNWEIGHT_ASSIGN(const SafetensorsHead head, SafetensorsHead::read(kept));
    return std::string(head.bytes());
  }

  std::filesystem::path path(const Plan& plan, std::size_t file) const override {
    const PlannedFile& planned = plan.files[file];
    return bundle_.full_path(planned.restore == Restore::kKept ? kept_path(planned.path) : planned.path);
  }

  Result<std::string> hash(const Plan& plan, std::size_t file, WorkControl& control,
                           std::uint64_t counted_bytes) const override {
    if (plan.files[file].restore != Restore::kSafetensors) {
      UNWEIGHT_ASSIGN(const File kept, File::open(path(plan, file)));
      return hash_file(kept, plan.files[file].size_bytes, control, counted_bytes);
    }
    UNWEIGHT_ASSIGN(std::string digest, restored_digest(bundle_, file, control));
    control.add_bytes(counted_bytes);
    return digest;
  }

  Result<void> check_digest(const Plan& plan, std::size_t file, const std::string& digest) const override {
    const std::string& recorded = bundle_.files[file].manifest.sha256;
    if (digest == recorded) return {};
    return fail(ErrorCode::kNotIdentical,
                fmt::format("'{}': the restored bytes have SHA-256 {}, the source had {}",
                            bundle_.full_path(plan.files[file].path).native(), digest, recorded));
  }

  Result<std::string> fingerprint(const Plan& plan) const override {
    return fingerprint_of(bundle_.root, plan.verify, plan.profile);
  }

 private:
  [[nodiscard]] const LocatedTensor& stored(TensorRef tensor) const {
    return bundle_.files[tensor.file].tensors[tensor.tensor];
  }

  const Bundle bundle_;
};

}  // namespace

Result<Plan> scan_bundle(const std::filesystem::path& path, bool verify, Profile profile) {
  UNWEIGHT_ASSIGN(Bundle bundle, open_bundle(path));
  if (bundle.manifest.profile == profile) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' has the profile '{}' already", path.native(), profile_name(profile)));
  }
  Plan plan;
  plan.verify = verify;
  plan.profile = profile;
  plan.source.root = bundle.root;
  plan.source.single_file = bundle.manifest.single_file;
  plan.source.empty_folders = bundle.manifest.empty_folders;
  for (const BundleFile& from : bundle.files) {
    plan.source.files.push_back({from.manifest.path, from.manifest.size_bytes, 0});
    PlannedFile& file = plan.files.emplace_back();
    file.path = from.manifest.path;
    file.size_bytes = from.manifest.size_bytes;
    file.restore = from.manifest.restore;
    file.header = from.header;
  }
  UNWEIGHT_ASSIGN(plan.fingerprint, fingerprint_of(bundle.root, verify, profile));
  plan.access = std::make_shared<BundleAccess>(std::move(bundle));
  return plan;
}

}  // namespace unweight::io
