# SPDX-License-Identifier: Apache-2.0
# One way of using Terse, from a fresh folder to running programs. Called by ctest: see CMakeLists.txt.
cmake_minimum_required(VERSION 3.21)
string(REPLACE "|" ";" RUN "${RUN}")

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "package: failed with ${result}: ${command}")
  endif()
endfunction()

# Configures and builds a project of this folder in ${scratch}/build.
function(build project)
  # Of several MPI libraries what is installed knows its own; else it has to be told.
  set(mpi "-DMPI_CXX_COMPILER=${MPICXX}")
  if(MPI_EXECUTABLE_SUFFIX AND project STREQUAL find_package)
    set(mpi)
  endif()
  run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}/${project}" -B "${scratch}/build" -G "${GENERATOR}"
      "-DCMAKE_CXX_COMPILER=${CXX}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}" "-DCMAKE_BUILD_TYPE=${BUILD_TYPE}"
      ${mpi} ${ARGN})
  run("${CMAKE_COMMAND}" --build "${scratch}/build" --config "${BUILD_TYPE}" --parallel 2)
endfunction()

# Compiles and links the programs as a makefile would, with the flags that pkg-config gives.
function(build_by_pkg_config)
  set(ENV{PKG_CONFIG_PATH} "${prefix}/${LIBDIR}/pkgconfig:$ENV{PKG_CONFIG_PATH}")
  execute_process(COMMAND "${PKG_CONFIG}" --cflags --libs ${ARGN} terse
                  OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  list(APPEND flags "-Wl,-rpath,${prefix}/${LIBDIR}")
  file(MAKE_DIRECTORY "${scratch}/build")
  run("${MPICXX}" -std=c++20 "${CMAKE_CURRENT_LIST_DIR}/allreduce.cpp" -o "${scratch}/build/allreduce" ${flags})
  if(NOT MPICC)
    message(FATAL_ERROR "package: there is no mpicc beside ${MPICXX}, which programs in C are compiled with")
  endif()
  run("${MPICC}" -std=c99 "${CMAKE_CURRENT_LIST_DIR}/allreduce.c" -o "${scratch}/build/allreduce_c" ${flags})
endfunction()

function(run_programs)
  run(${RUN} "${scratch}/build/allreduce")
  run(${RUN} "${scratch}/build/allreduce_c")
endfunction()

set(scratch "${FOLDER}/${WAY}")
set(prefix "${scratch}/prefix")
file(REMOVE_RECURSE "${scratch}")

set(nightly FALSE)
if(DEFINED ENV{TERSE_TEST_NIGHTLY})
  set(nightly TRUE)
  if(WAY MATCHES "^(add_subdirectory|static)$")
    set(BUILD_TYPE Debug)  # all is compiled: a configuration of its own, and the quicker one
  endif()
endif()

if(WAY STREQUAL add_subdirectory)
  # What a project builds of the library beside its own code, but for kernels and what else takes minutes to compile and
  # knows neither MPI nor who asks: these objects are the build's, where it offers them. Nightly, all of it.
  set(objects)
  if(EXISTS "${TERSE_BUILD}/terse_mpi_free.cmake" AND NOT nightly)
    set(objects "-DTERSE_OBJECTS_FROM=${TERSE_BUILD}" "-DCMAKE_CXX_FLAGS=${CXX_FLAGS}")
  endif()
  build(add_subdirectory "-DTERSE_SOURCE=${TERSE_SOURCE}" -DTERSE_CUDA=OFF ${objects})
  run_programs()
elseif(WAY STREQUAL static)
  set(tree "${FOLDER}/add_subdirectory/build")  # its library is static
  run("${CMAKE_COMMAND}" -DTERSE_INSTALL=ON "${tree}")
  run("${CMAKE_COMMAND}" --build "${tree}" --parallel 2)
  run("${CMAKE_COMMAND}" --install "${tree}" --prefix "${prefix}")
  build(find_package "-DCMAKE_PREFIX_PATH=${prefix}")
  run_programs()
  if(PKG_CONFIG AND MPICC)
    file(REMOVE_RECURSE "${scratch}/build")
    build_by_pkg_config(--static)
    run_programs()
  endif()
else()
  run("${CMAKE_COMMAND}" --install "${TERSE_BUILD}" --prefix "${prefix}" --config "${BUILD_TYPE}")
  if(WAY STREQUAL pkg_config)
    build_by_pkg_config()
  else()
    build(find_package "-DCMAKE_PREFIX_PATH=${prefix}")
  endif()
  run_programs()
endif()
