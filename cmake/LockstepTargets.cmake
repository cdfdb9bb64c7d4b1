# SPDX-License-Identifier: Apache-2.0
#
# Helpers for the folders. A folder is one object library; all of them together are liblockstep.so.

add_library(lockstep_flags INTERFACE)
target_include_directories(lockstep_flags INTERFACE ${PROJECT_SOURCE_DIR})
# The same for libraries and executables (not -fPIE), so that all of them can use one precompiled header.
target_compile_options(lockstep_flags INTERFACE -fPIC)
target_compile_options(lockstep_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wswitch-enum
                       $<$<BOOL:${LOCKSTEP_WARNINGS_AS_ERRORS}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 and 13 warn of ordinary string concatenation (their bug 105651).
  target_compile_options(lockstep_flags INTERFACE -Wno-restrict -Wno-stringop-overflow -Wno-array-bounds)
else()  # of the inside of GCC 12's <algorithm>
  target_compile_options(lockstep_flags INTERFACE -Wno-deprecated-declarations)
endif()
if(LOCKSTEP_SANITIZE)
  target_compile_options(lockstep_flags INTERFACE -fsanitize=${LOCKSTEP_SANITIZE} -fno-omit-frame-pointer -g)
  target_link_options(lockstep_flags INTERFACE -fsanitize=${LOCKSTEP_SANITIZE})
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # what ccache wants (its manual, "Precompiled headers")
  set(lockstep_pch_options -fpch-preprocess)
else()
  set(lockstep_pch_options "SHELL:-Xclang -fno-pch-timestamp")
endif()
# lockstep_precompiled(name header.hpp [target ...]): for files that see torch, and these targets.
function(lockstep_precompiled name header)
  add_library(${name} OBJECT ${PROJECT_SOURCE_DIR}/cmake/pch.cpp)
  target_link_libraries(${name} PUBLIC lockstep_flags LibTorch::LibTorch ${ARGN})
  target_precompile_headers(${name} PRIVATE ${header})
  target_compile_options(${name} PRIVATE ${lockstep_pch_options})
endfunction()
lockstep_precompiled(lockstep_pch ${PROJECT_SOURCE_DIR}/cmake/torch_pch.hpp)

# lockstep_folder(name [TORCH] SOURCES a.cpp ... [LINK targets...]): object library lockstep_<name>.
function(lockstep_folder name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;LINK" ${ARGN})
  add_library(lockstep_${name} OBJECT ${ARG_SOURCES})
  target_link_libraries(lockstep_${name} PUBLIC lockstep_flags Threads::Threads ${ARG_LINK})
  if(ARG_TORCH)
    lockstep_use_torch(lockstep_${name})
  endif()
endfunction()

# lockstep_use_torch(target [precompiled]): for every target with files that include torch.
function(lockstep_use_torch target)
  set(precompiled lockstep_pch ${ARGN})
  list(GET precompiled -1 precompiled)
  target_link_libraries(${target} PUBLIC LibTorch::LibTorch)
  target_precompile_headers(${target} REUSE_FROM ${precompiled})
  target_compile_options(${target} PRIVATE ${lockstep_pch_options})
endfunction()
