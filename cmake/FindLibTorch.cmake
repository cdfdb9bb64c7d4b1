# SPDX-License-Identifier: Apache-2.0
#
# find_package(LibTorch): the target LibTorch::LibTorch, of headers and libraries alone, so a CUDA build's too without a
# CUDA toolkit (its own package, Torch, asks for one). Looked for in
#   LOCKSTEP_TORCH_ROOT   the folder that holds include/ and lib/, such as site-packages/torch
#   Torch_DIR             as torch's own package is found
#   CMAKE_PREFIX_PATH     with such a folder, or what torch.utils.cmake_prefix_path prints
# Sets LibTorch_VERSION, LibTorch_LIBRARY_DIR, LibTorch_CUDA (ON: a CUDA build).

set(LOCKSTEP_TORCH_ROOT "" CACHE PATH "A LibTorch: the folder that holds include/ and lib/; empty: looked for in CMAKE_PREFIX_PATH")
set(LibTorch_places ${LOCKSTEP_TORCH_ROOT} $ENV{LOCKSTEP_TORCH_ROOT})
if(NOT LibTorch_places)
  string(REPLACE ":" ";" LibTorch_environment "$ENV{CMAKE_PREFIX_PATH}")
  foreach(LibTorch_place ${Torch_DIR}/.. $ENV{Torch_DIR}/.. ${CMAKE_PREFIX_PATH} ${LibTorch_environment})
    get_filename_component(LibTorch_above ${LibTorch_place}/../.. ABSOLUTE)
    list(APPEND LibTorch_places ${LibTorch_place} ${LibTorch_above})
  endforeach()
endif()

find_path(LibTorch_INCLUDE_DIR torch/headeronly/version.h HINTS ${LibTorch_places} PATH_SUFFIXES include)
if(LibTorch_INCLUDE_DIR)
  # Of one LibTorch: no library of another one beside these headers.
  get_filename_component(LibTorch_root ${LibTorch_INCLUDE_DIR} DIRECTORY)
  find_library(LibTorch_LIBRARY torch HINTS ${LibTorch_root}/lib NO_DEFAULT_PATH)
  find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${LibTorch_root}/lib NO_DEFAULT_PATH)
  find_library(LibTorch_C10_LIBRARY c10 HINTS ${LibTorch_root}/lib NO_DEFAULT_PATH)
  file(STRINGS ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h LibTorch_numbers REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  list(TRANSFORM LibTorch_numbers REPLACE ".* " "")
  list(JOIN LibTorch_numbers "." LibTorch_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_LIBRARY LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "name its folder in LOCKSTEP_TORCH_ROOT (of a torch that Python sees it is what this prints: python3 -c 'print(__import__(\"torch\").__path__[0])')")
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_LIBRARY LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  get_filename_component(LibTorch_LIBRARY_DIR ${LibTorch_LIBRARY} DIRECTORY)
  file(STRINGS ${LibTorch_LIBRARY} LibTorch_needed REGEX "libtorch_cuda\\.so" LIMIT_COUNT 1)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  # Its headers are not ours to warn about: of an imported target they are SYSTEM.
  target_include_directories(LibTorch::LibTorch INTERFACE
                             ${LibTorch_INCLUDE_DIR} ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include)
  # libtorch.so, which no symbol of ours needs, is what loads the CUDA side (pytorch issue 31611).
  target_link_libraries(LibTorch::LibTorch INTERFACE
                        "-Wl,--push-state,--no-as-needed,${LibTorch_LIBRARY},--pop-state"
                        ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})
  set(LibTorch_CUDA OFF)
  if(LibTorch_needed)
    set(LibTorch_CUDA ON)
    # NVIDIA's libraries, which its libraries need, are found at run time, and need not be here.
    target_link_options(LibTorch::LibTorch INTERFACE "-Wl,--allow-shlib-undefined")
  endif()
endif()
