# SPDX-License-Identifier: Apache-2.0
#
# Sets UNWEIGHT_VERSION from include/unweight/version.h, the one place where the version stands.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  ${CMAKE_CURRENT_LIST_DIR}/../include/unweight/version.h)
file(READ ${CMAKE_CURRENT_LIST_DIR}/../include/unweight/version.h version_text)
set(version_parts)
foreach(part MAJOR MINOR PATCH)
  if(NOT version_text MATCHES "#define UNWEIGHT_VERSION_${part} ([0-9]+)")
    message(FATAL_ERROR "include/unweight/version.h does not define UNWEIGHT_VERSION_${part}")
  endif()
  list(APPEND version_parts ${CMAKE_MATCH_1})
endforeach()
list(JOIN version_parts "." UNWEIGHT_VERSION)
if(NOT version_text MATCHES "#define UNWEIGHT_VERSION_STRING \"${UNWEIGHT_VERSION}\"")
  message(FATAL_ERROR "UNWEIGHT_VERSION_STRING in include/unweight/version.h is not \"${UNWEIGHT_VERSION}\"")
endif()
