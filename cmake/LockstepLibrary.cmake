# SPDX-License-Identifier: Apache-2.0
#
# liblockstep.so: all folders in one library. It is listed before torch wherever both are linked, so that MKL asks our
# library which path to take (runtime/layer/gemm_path.hpp).

set(folders base config schedule observe host device partitioner layer graph comm engine data checkpoint training profile models session)
if(LOCKSTEP_MPI)
  list(APPEND folders comm_mpi)
endif()
add_library(lockstep SHARED)
foreach(folder ${folders})
  target_sources(lockstep PRIVATE $<TARGET_OBJECTS:lockstep_${folder}>)
endforeach()
# Who builds in this tree takes flags and torch from here; who installs it finds torch for themselves.
target_link_libraries(lockstep PUBLIC $<BUILD_INTERFACE:lockstep_flags> LibTorch::LibTorch Threads::Threads
                      PRIVATE spdlog::spdlog yaml-cpp nlohmann_json::nlohmann_json ${CMAKE_DL_LIBS})
if(LOCKSTEP_ARROW)
  target_link_libraries(lockstep PRIVATE LibArrow::LibArrow)
endif()
if(LOCKSTEP_MPI)
  target_link_libraries(lockstep PRIVATE MPI::MPI_C)
endif()
if(LOCKSTEP_IMAGES)
  target_link_libraries(lockstep PRIVATE JPEG::JPEG PNG::PNG ZLIB::ZLIB)
endif()
target_include_directories(lockstep INTERFACE $<INSTALL_INTERFACE:include/lockstep>)
target_compile_features(lockstep INTERFACE cxx_std_20)
set_target_properties(lockstep PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0)
