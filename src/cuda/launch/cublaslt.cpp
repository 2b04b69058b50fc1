// SPDX-License-Identifier: Apache-2.0
#if __has_include(<cublasLt.h>)
#include <cuda/launch/cublaslt.hpp>
#include <dlfcn.h>

namespace unweight::launch {
namespace {

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

Result<CublasLt> load() {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail(ErrorCode::kCuda, std::string("cuBLASLt: ") + dlerror());
  CublasLt lt{};
  const bool complete = find(library, "cublasLtCreate", lt.create) && find(library, "cublasLtDestroy", lt.destroy) &&
                        find(library, "cublasLtGetStatusString", lt.status_string) &&
                        find(library, "cublasLtMatmul", lt.matmul) &&
                        find(library, "cublasLtMatmulAlgoGetHeuristic", lt.heuristic) &&
                        find(library, "cublasLtMatmulDescCreate", lt.desc_create) &&
                        find(library, "cublasLtMatmulDescDestroy", lt.desc_destroy) &&
                        find(library, "cublasLtMatmulDescSetAttribute", lt.desc_set) &&
                        find(library, "cublasLtMatrixLayoutCreate", lt.layout_create) &&
                        find(library, "cublasLtMatrixLayoutDestroy", lt.layout_destroy) &&
                        find(library, "cublasLtMatmulPreferenceCreate", lt.preference_create) &&
                        find(library, "cublasLtMatmulPreferenceDestroy", lt.preference_destroy) &&
                        find(library, "cublasLtMatmulPreferenceSetAttribute", lt.preference_set);
  if (!complete) return fail(ErrorCode::kCuda, "cuBLASLt: " + name + " lacks a function: " + dlerror());
  return lt;
}

}  // namespace

Result<const CublasLt*> CublasLt::get() {
  static const Result<CublasLt> loaded = load();
  if (!loaded) return tl::unexpected(loaded.error());
  return &*loaded;
}

}  // namespace unweight::launch
#endif
