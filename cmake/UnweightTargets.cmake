# SPDX-License-Identifier: Apache-2.0
#
# What every target of this project has in common.

set(UNWEIGHT_WARNINGS
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast -Wnon-virtual-dtor
  -Woverloaded-virtual -Wcast-align -Wcast-qual -Wunused -Wnull-dereference -Wdouble-promotion -Wformat=2
  -Wimplicit-fallthrough -Wextra-semi -Wvla)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND UNWEIGHT_WARNINGS -Wduplicated-cond -Wduplicated-branches -Wlogical-op)
  if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC bug 105651: string operations with literals are reported as overlapping copies.
    list(APPEND UNWEIGHT_WARNINGS -Wno-restrict)
  endif()
endif()
if(UNWEIGHT_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # The checks that sanitizers insert make g++ 12's flow analysis see paths that do not exist.
  list(REMOVE_ITEM UNWEIGHT_WARNINGS -Wnull-dereference)
  list(APPEND UNWEIGHT_WARNINGS -Wno-maybe-uninitialized)
endif()

# unweight_target_defaults(target): C++20 without extensions, warnings, hidden symbols.
function(unweight_target_defaults target)
  set_target_properties(${target} PROPERTIES
    CXX_STANDARD 20
    CXX_STANDARD_REQUIRED ON
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${UNWEIGHT_WARNINGS}>")
  if(UNWEIGHT_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
  endif()
endfunction()

# Lets a program run on a machine that has a driver and little else: its shared libraries are copied to its folder.
function(unweight_carry_libraries name)
  set_target_properties(${name} PROPERTIES BUILD_RPATH "$ORIGIN" BUILD_RPATH_USE_ORIGIN ON)
  target_link_options(${name} PRIVATE LINKER:--disable-new-dtags)  # the libraries look there, too
  add_custom_command(TARGET ${name} POST_BUILD
    COMMAND ${PROJECT_SOURCE_DIR}/cmake/copy_libraries.sh $<TARGET_FILE:${name}> VERBATIM)
endfunction()
