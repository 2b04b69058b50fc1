# SPDX-License-Identifier: Apache-2.0
include(CMakePackageConfigHelpers)

set(UNWEIGHT_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/unweight)

install(TARGETS unweight EXPORT unweightTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET unweight_cli)
  if(BUILD_SHARED_LIBS)
    # The tool finds its library wherever the two are moved together.
    file(RELATIVE_PATH bin_to_lib ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
    set_target_properties(unweight_cli PROPERTIES INSTALL_RPATH "$ORIGIN/${bin_to_lib}")
  endif()
  install(TARGETS unweight_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
# Started by `unweight bench` and `unweight tune`.
foreach(program matmul_bench tune_device)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/unweight)
  endif()
endforeach()
if(UNWEIGHT_CUDA_ENABLED)
  # An export of its own: only who asks for the component `cuda` of a static library needs a CUDA toolkit.
  install(TARGETS unweight_cuda EXPORT unweightCudaTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT unweightCudaTargets NAMESPACE unweight:: DESTINATION ${UNWEIGHT_CMAKE_DIR})
  set(UNWEIGHT_HEADERS_LEFT_OUT)
else()
  set(UNWEIGHT_HEADERS_LEFT_OUT REGEX "(cublas|cuda|pipelines|plan|tune)\\.hpp$|_cuda\\.h$" EXCLUDE)
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/unweight DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp" ${UNWEIGHT_HEADERS_LEFT_OUT})
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
# Relative to the .pc file, so that `cmake --install --prefix` and a moved folder work.
file(RELATIVE_PATH UNWEIGHT_PC_TO_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH UNWEIGHT_PC_TO_LIB ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH UNWEIGHT_PC_TO_INCLUDE ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(${PROJECT_SOURCE_DIR}/cmake/unweight.pc.in ${PROJECT_BINARY_DIR}/unweight.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/unweight.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
