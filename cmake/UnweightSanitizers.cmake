# SPDX-License-Identifier: Apache-2.0
#
# UNWEIGHT_SANITIZE applies to the library and everything that links it, since sanitizers need whole programs.
if(UNWEIGHT_SANITIZE)
  list(JOIN UNWEIGHT_SANITIZE "," sanitizers)
  add_compile_options(
    $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${sanitizers}>
    $<$<COMPILE_LANGUAGE:C,CXX>:-fno-omit-frame-pointer>
    $<$<COMPILE_LANGUAGE:C,CXX>:-fno-sanitize-recover=all>)
  add_link_options(-fsanitize=${sanitizers})
endif()
# Bounds checks of the standard library wherever speed is not the point.
if(UNWEIGHT_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Debug")
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
endif()
