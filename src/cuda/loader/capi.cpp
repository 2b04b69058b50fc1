// SPDX-License-Identifier: Apache-2.0
//
// unweight_load() of <unweight/unweight_cuda.h>, over load_to_device(). In a file of its own: programs that load
// nothing need none of what reads files.
#include <capi/boundary.hpp>
#include <cstddef>
#include <cuda/capi_objects.hpp>
#include <memory>
#include <string>
#include <type_traits>
#include <unweight/loader.hpp>

namespace {

using unweight::ErrorCode;
using unweight::fail;
using unweight::LoadedTensor;
using unweight::LoadOptions;
using unweight::Result;
using unweight::capi::check_object;
using unweight::capi::guarded;
using unweight::capi::read_struct;

// What programs have compiled in: members never move.
static_assert(std::is_trivial_v<unweight_load_options> && std::is_standard_layout_v<unweight_load_options>);
static_assert(offsetof(unweight_load_options, user) == 8);
static_assert(offsetof(unweight_load_options, deliver) == 16);
static_assert(offsetof(unweight_load_options, allocate) == 24);
static_assert(offsetof(unweight_load_options, release) == 32);
static_assert(offsetof(unweight_load_options, host_buffer_bytes) == 40);
static_assert(offsetof(unweight_load_options, device_bytes) == 48);
static_assert(offsetof(unweight_load_options, threads) == 56);
static_assert(offsetof(unweight_load_options, no_verify) == 60);
static_assert(offsetof(unweight_load_options, reserved) == 64);
static_assert(std::is_trivial_v<unweight_loaded_tensor> && std::is_standard_layout_v<unweight_loaded_tensor>);
static_assert(offsetof(unweight_loaded_tensor, file) == 8);
static_assert(offsetof(unweight_loaded_tensor, name) == 16);
static_assert(offsetof(unweight_loaded_tensor, dtype) == 24);
static_assert(offsetof(unweight_loaded_tensor, shape) == 32);
static_assert(offsetof(unweight_loaded_tensor, rank) == 40);
static_assert(offsetof(unweight_loaded_tensor, data) == 48);
static_assert(offsetof(unweight_loaded_tensor, size_bytes) == 56);
static_assert(offsetof(unweight_loaded_tensor, blob) == 64);
static_assert(offsetof(unweight_loaded_tensor, original_file) == 72);
static_assert(offsetof(unweight_loaded_tensor, original_name) == 80);

constexpr std::uint64_t kFirstOptionsBytes = 72;  ///< sizeof() in the release that introduced it
static_assert(sizeof(unweight_load_options) >= kFirstOptionsBytes);

Result<void> deliver(const unweight_load_options& options, const LoadedTensor& tensor) {
  const std::string dtype(unweight::dtype_name(tensor.dtype));
  std::unique_ptr<unweight_device_blob> blob;
  if (tensor.blob) blob = std::make_unique<unweight_device_blob>(unweight_device_blob{*tensor.blob});
  const bool is_alias = tensor.stored == unweight::StoredAs::kAlias;
  const unweight_loaded_tensor described{sizeof described,
                                         tensor.file.c_str(),
                                         tensor.name.c_str(),
                                         dtype.c_str(),
                                         tensor.shape.data(),
                                         tensor.shape.size(),
                                         tensor.data,
                                         tensor.size_bytes,
                                         blob.release(),
                                         is_alias ? tensor.original_file.c_str() : nullptr,
                                         is_alias ? tensor.original_name.c_str() : nullptr};
  if (options.deliver(options.user, &described) == 0) return {};
  return fail(ErrorCode::kCancelled, "load: ended by the caller at tensor '" + tensor.name + "'");
}

LoadOptions to_options(const unweight_load_options& options) {
  LoadOptions result;
  result.deliver = [&options](const LoadedTensor& tensor) { return deliver(options, tensor); };
  if (options.allocate != nullptr) {
    result.memory.allocate = [&options](const std::string& file, const std::string& name,
                                        std::uint64_t size_bytes) -> Result<void*> {
      void* const memory = options.allocate(options.user, file.c_str(), name.c_str(), size_bytes);
      if (memory == nullptr) {
        return fail(ErrorCode::kOutOfMemory, "load: no memory of " + std::to_string(size_bytes) + " bytes");
      }
      return memory;
    };
    result.memory.release = [&options](void* memory) {
      if (options.release != nullptr) options.release(options.user, memory);
    };
  }
  if (options.threads != 0) result.threads = options.threads;
  if (options.host_buffer_bytes != 0) result.host_buffer_bytes = options.host_buffer_bytes;
  result.device_bytes = options.device_bytes;
  result.verify = options.no_verify == 0;
  return result;
}

}  // namespace

unweight_status unweight_load(const char* path, const unweight_load_options* options) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(path, "path"); !ok) return ok;
    const auto read = read_struct(options, kFirstOptionsBytes, "options");
    if (!read) return tl::unexpected(read.error());
    if (read->deliver == nullptr) return fail(ErrorCode::kInvalidArgument, "options->deliver is NULL");
    if (read->no_verify > 1) {
      return fail(ErrorCode::kInvalidArgument,
                  "options->no_verify = " + std::to_string(read->no_verify) + " must be 0 or 1");
    }
    const auto loaded = unweight::load_to_device(path, to_options(*read));
    if (!loaded) return tl::unexpected(loaded.error());
    return {};
  });
}
