# SPDX-License-Identifier: Apache-2.0
#
# Everything comes from the system's packages; scripts/bootstrap installs them.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(fmt REQUIRED)
find_package(simdjson REQUIRED)
find_package(tl-expected REQUIRED)

# xxHash is used inline, as headers; its packages bring no CMake files.
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
mark_as_advanced(XXHASH_INCLUDE_DIR)
add_library(unweight_xxhash INTERFACE)
target_include_directories(unweight_xxhash SYSTEM INTERFACE ${XXHASH_INCLUDE_DIR})

if(UNWEIGHT_BUILD_TOOLS)
  find_package(CLI11 REQUIRED)
endif()
if(UNWEIGHT_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
