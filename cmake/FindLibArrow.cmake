# SPDX-License-Identifier: Apache-2.0
#
# find_package(LibArrow): the target LibArrow::LibArrow, Apache Arrow C++ with Parquet. Looked for in
#   LOCKSTEP_ARROW_ROOT   the folder that holds include/ and the libraries, or lib/ with them, such as site-packages/pyarrow
#   CMAKE_PREFIX_PATH     with such a folder, then beside the LibTorch of a Python, then in .venv
#   Arrow_DIR, Parquet_DIR, the system   by Arrow's own CMake packages
# Sets LibArrow_VERSION, LibArrow_LIBRARY_DIR.

set(LOCKSTEP_ARROW_ROOT "" CACHE PATH "An Arrow C++: the folder that holds include/ and its libraries; empty: looked for")
set(LibArrow_places ${LOCKSTEP_ARROW_ROOT} $ENV{LOCKSTEP_ARROW_ROOT})
set(LibArrow_named ${LibArrow_places})
if(NOT LibArrow_places)
  string(REPLACE ":" ";" LibArrow_environment "$ENV{CMAKE_PREFIX_PATH}")
  get_filename_component(LibArrow_beside "${LibTorch_LIBRARY_DIR}/../../pyarrow" ABSOLUTE)
  file(GLOB LibArrow_venv ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/pyarrow)
  set(LibArrow_places ${CMAKE_PREFIX_PATH} ${LibArrow_environment} ${LibArrow_beside} ${LibArrow_venv})
endif()

# A wheel's libraries have no name without a version: the one that its headers are of.
find_path(LibArrow_INCLUDE_DIR arrow/util/config.h HINTS ${LibArrow_places} PATH_SUFFIXES include NO_DEFAULT_PATH)
if(LibArrow_INCLUDE_DIR AND EXISTS ${LibArrow_INCLUDE_DIR}/parquet/parquet_version.h)
  file(STRINGS ${LibArrow_INCLUDE_DIR}/arrow/util/config.h LibArrow_VERSION REGEX "define ARROW_VERSION_STRING ")
  string(REGEX REPLACE ".*\"(.*)\".*" "\\1" LibArrow_VERSION "${LibArrow_VERSION}")
  file(STRINGS ${LibArrow_INCLUDE_DIR}/parquet/parquet_version.h LibArrow_soname REGEX "define PARQUET_SO_VERSION ")
  string(REGEX REPLACE ".*\"(.*)\".*" "\\1" LibArrow_soname "${LibArrow_soname}")
  get_filename_component(LibArrow_root ${LibArrow_INCLUDE_DIR} DIRECTORY)
  find_file(LibArrow_LIBRARY libarrow.so.${LibArrow_soname} HINTS ${LibArrow_root} ${LibArrow_root}/lib NO_DEFAULT_PATH)
  find_file(LibArrow_PARQUET_LIBRARY libparquet.so.${LibArrow_soname} HINTS ${LibArrow_root} ${LibArrow_root}/lib NO_DEFAULT_PATH)
elseif(NOT LibArrow_named)
  find_package(Arrow CONFIG QUIET)
  find_package(Parquet CONFIG QUIET)
  if(TARGET Arrow::arrow_shared AND TARGET Parquet::parquet_shared)
    set(LibArrow_VERSION ${Arrow_VERSION})
    get_target_property(LibArrow_INCLUDE_DIR Arrow::arrow_shared INTERFACE_INCLUDE_DIRECTORIES)
    foreach(LibArrow_configuration RELEASE RELWITHDEBINFO NONE NOCONFIG DEBUG)
      foreach(LibArrow_pair Arrow::arrow_shared=LibArrow_LIBRARY Parquet::parquet_shared=LibArrow_PARQUET_LIBRARY)
        string(REPLACE "=" ";" LibArrow_pair ${LibArrow_pair})
        list(GET LibArrow_pair 0 LibArrow_target)
        list(GET LibArrow_pair 1 LibArrow_variable)
        get_target_property(LibArrow_location ${LibArrow_target} IMPORTED_LOCATION_${LibArrow_configuration})
        if(LibArrow_location AND NOT ${LibArrow_variable})
          set(${LibArrow_variable} ${LibArrow_location})
        endif()
      endforeach()
    endforeach()
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibArrow
  REQUIRED_VARS LibArrow_LIBRARY LibArrow_PARQUET_LIBRARY LibArrow_INCLUDE_DIR
  VERSION_VAR LibArrow_VERSION
  REASON_FAILURE_MESSAGE "tools/setup.sh brings it (pyarrow, into .venv), or name the folder of one in LOCKSTEP_ARROW_ROOT (of a pyarrow that Python sees: python3 -c 'print(__import__(\"pyarrow\").__path__[0])'), or build without tables: -DLOCKSTEP_ARROW=OFF")
mark_as_advanced(LibArrow_INCLUDE_DIR LibArrow_LIBRARY LibArrow_PARQUET_LIBRARY)

if(LibArrow_FOUND AND NOT TARGET LibArrow::LibArrow)
  get_filename_component(LibArrow_LIBRARY_DIR ${LibArrow_LIBRARY} DIRECTORY)
  add_library(LibArrow::LibArrow INTERFACE IMPORTED)
  target_include_directories(LibArrow::LibArrow INTERFACE ${LibArrow_INCLUDE_DIR})
  target_link_libraries(LibArrow::LibArrow INTERFACE ${LibArrow_PARQUET_LIBRARY} ${LibArrow_LIBRARY})
endif()
