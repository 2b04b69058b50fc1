# SPDX-License-Identifier: Apache-2.0
include(CMakePackageConfigHelpers)

set(UNWEIGHT_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/unweight)

install(TARGETS unweight EXPORT unweightTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET unweight_cli)
  install(TARGETS unweight_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/unweight DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(EXPORT unweightTargets NAMESPACE unweight:: DESTINATION ${UNWEIGHT_CMAKE_DIR})

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/unweightConfig.cmake.in
  ${PROJECT_BINARY_DIR}/unweightConfig.cmake INSTALL_DESTINATION ${UNWEIGHT_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/unweightConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/unweightConfig.cmake ${PROJECT_BINARY_DIR}/unweightConfigVersion.cmake
  DESTINATION ${UNWEIGHT_CMAKE_DIR})

# A static libunweight passes its own libraries on to whoever links it; a shared one keeps them to itself.
set(UNWEIGHT_PC_LIBRARIES "simdjson libcrypto")
if(BUILD_SHARED_LIBS)
  set(UNWEIGHT_PC_REQUIRES_FIELD "Requires.private")
  set(UNWEIGHT_PC_LIBS "-L\${libdir} -lunweight")
else()
  set(UNWEIGHT_PC_REQUIRES_FIELD "Requires")
  set(UNWEIGHT_PC_LIBS "-L\${libdir} -lunweight -pthread -lstdc++")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/unweight.pc.in ${PROJECT_BINARY_DIR}/unweight.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/unweight.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
