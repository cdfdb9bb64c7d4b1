# SPDX-License-Identifier: Apache-2.0
#
# cmake --install: the command, the library, its headers and the CMake package. The result may be moved as a whole, and
# knows neither the build tree nor the source tree. LibTorch and Arrow are looked for in PREFIX/lib/lockstep (the
# component "torch" copies them there), then where they were at build time.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir lib/cmake/lockstep)
set(library_dirs ${LibTorch_LIBRARY_DIR} ${LibArrow_LIBRARY_DIR})

set_target_properties(lockstep PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/lockstep;${library_dirs}")
set_target_properties(lockstep_command PROPERTIES INSTALL_RPATH "$ORIGIN/../lib;$ORIGIN/../lib/lockstep;${library_dirs}")

install(TARGETS lockstep EXPORT lockstep LIBRARY DESTINATION lib COMPONENT lockstep)
install(TARGETS lockstep_command RUNTIME DESTINATION bin COMPONENT lockstep)
foreach(folder runtime models partitioner)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder} DESTINATION include/lockstep COMPONENT lockstep
          FILES_MATCHING PATTERN "*.hpp")
endforeach()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/configs DESTINATION share/lockstep COMPONENT lockstep)
install(FILES ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/CHANGELOG.md
              ${PROJECT_SOURCE_DIR}/CONTRIBUTING.md DESTINATION share/doc/lockstep COMPONENT lockstep)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs ${PROJECT_SOURCE_DIR}/examples DESTINATION share/doc/lockstep
        COMPONENT lockstep)
install(FILES ${PROJECT_SOURCE_DIR}/tools/completion.bash DESTINATION share/bash-completion/completions
        RENAME lockstep COMPONENT lockstep)

install(EXPORT lockstep NAMESPACE lockstep:: DESTINATION ${package_dir} FILE lockstepTargets.cmake COMPONENT lockstep)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/lockstepConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/lockstepConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lockstepConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lockstepConfig.cmake ${PROJECT_BINARY_DIR}/lockstepConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindLibTorch.cmake DESTINATION ${package_dir} COMPONENT lockstep)

# LibTorch itself (0.4 GB) and Arrow (60 MB), for packages that stand alone: cmake --install build/release --component torch.
file(GLOB torch_runtime ${LibTorch_LIBRARY_DIR}/libc10.so ${LibTorch_LIBRARY_DIR}/libtorch.so ${LibTorch_LIBRARY_DIR}/libtorch_cpu.so
     ${LibTorch_LIBRARY_DIR}/libgomp*.so*)
if(LOCKSTEP_ARROW)
  file(GLOB arrow_runtime ${LibArrow_LIBRARY_DIR}/libarrow.so* ${LibArrow_LIBRARY_DIR}/libparquet.so*)
endif()
install(FILES ${torch_runtime} ${arrow_runtime} DESTINATION lib/lockstep COMPONENT torch EXCLUDE_FROM_ALL)

# Packages that stand alone: tools/package.sh.
set(CPACK_PACKAGE_NAME lockstep)
set(CPACK_PACKAGE_VENDOR Lockstep)
set(CPACK_PACKAGE_CONTACT "Lockstep <lockstep@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /opt/lockstep)
set(CPACK_COMPONENTS_ALL lockstep torch)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE gzip)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${library_dirs} ${PROJECT_BINARY_DIR})
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS mpich)
set(CPACK_STRIP_FILES ON)
include(CPack)
