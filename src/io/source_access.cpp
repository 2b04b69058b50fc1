// SPDX-License-Identifier: Apache-2.0
//
// A source that is a folder, or one file.
#include <io/file.hpp>
#include <io/file_hash.hpp>
#include <io/safetensors_file.hpp>
#include <io/source_access.hpp>
#include <io/tensor_encoder.hpp>
#include <io/try.hpp>
#include <memory>

namespace unweight::io {
namespace {

class FolderAccess final : public SourceAccess {
 public:
  Result<std::vector<Alias>> aliases(const Plan& plan, WorkControl& control) const override {
    return find_aliases(plan, control);
  }

  std::uint64_t extra_memory_bytes(const Plan& /*plan*/, TensorRef /*tensor*/) const override { return 0; }

  Result<Buffer> read_values(const Plan& plan, TensorRef tensor, unsigned /*threads*/) const override {
    const FilePlace from = place(plan, tensor);
    UNWEIGHT_ASSIGN(const File source, File::open(from.path));
    return read_tensor(source, from.offset, plan.tensor(tensor));
  }

  FilePlace place(const Plan& plan, TensorRef tensor) const override {
    return {path(plan, tensor.file), plan.files[tensor.file].header.data_begin + plan.tensor(tensor).begin};
  }

  Result<std::string> head(const Plan& plan, std::size_t file) const override {
    UNWEIGHT_ASSIGN(const File source, File::open(path(plan, file)));
    UNWEIGHT_ASSIGN(const SafetensorsHead head, SafetensorsHead::read(source));
    return std::string(head.bytes());
  }

  std::filesystem::path path(const Plan& plan, std::size_t file) const override {
    return plan.source.full_path(plan.files[file].path);
  }

  Result<std::string> hash(const Plan& plan, std::size_t file, WorkControl& control,
                           std::uint64_t counted_bytes) const override {
    UNWEIGHT_ASSIGN(const File source, File::open(path(plan, file)));
    return hash_file(source, plan.files[file].size_bytes, control, counted_bytes);
  }

  Result<void> check_digest(const Plan& /*plan*/, std::size_t /*file*/, const std::string& /*digest*/) const override {
    return {};
  }

  Result<std::string> fingerprint(const Plan& plan) const override {
    const std::filesystem::path source = plan.source.single_file ? path(plan, 0) : plan.source.root;
    UNWEIGHT_ASSIGN(const Plan now, scan_source(source, plan.shard_count, plan.verify, plan.profile));
    return now.fingerprint;
  }
};

}  // namespace

std::shared_ptr<const SourceAccess> make_folder_access() { return std::make_shared<FolderAccess>(); }

}  // namespace unweight::io
