# SPDX-License-Identifier: Apache-2.0
# One way of using Terse, from a fresh folder to a running program. Called by ctest: see CMakeLists.txt.
cmake_minimum_required(VERSION 3.21)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "package: failed with ${result}: ${command}")
  endif()
endfunction()

file(REMOVE_RECURSE "${SCRATCH}")
set(prefix "${SCRATCH}/prefix")
set(program "${SCRATCH}/build/allreduce")
if(NOT WAY STREQUAL add_subdirectory)
  run("${CMAKE_COMMAND}" --install "${TERSE_BUILD}" --prefix "${prefix}" --config "${BUILD_TYPE}")
endif()

if(WAY STREQUAL pkg_config)
  set(ENV{PKG_CONFIG_PATH} "${prefix}/${LIBDIR}/pkgconfig:$ENV{PKG_CONFIG_PATH}")
  execute_process(COMMAND "${PKG_CONFIG}" --cflags --libs terse
                  OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  file(MAKE_DIRECTORY "${SCRATCH}/build")
  run("${MPICXX}" -std=c++20 "${CMAKE_CURRENT_LIST_DIR}/allreduce.cpp" -o "${program}" ${flags}
      "-Wl,-rpath,${prefix}/${LIBDIR}")
else()
  if(WAY STREQUAL add_subdirectory)
    set(BUILD_TYPE Debug)  # builds the whole library again: quicker, and a configuration of its own
  endif()
  run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}/${WAY}" -B "${SCRATCH}/build" -G "${GENERATOR}"
      "-DCMAKE_CXX_COMPILER=${CXX}" "-DCMAKE_BUILD_TYPE=${BUILD_TYPE}" "-DCMAKE_PREFIX_PATH=${prefix}"
      "-DTERSE_SOURCE=${TERSE_SOURCE}")
  run("${CMAKE_COMMAND}" --build "${SCRATCH}/build" --config "${BUILD_TYPE}" --parallel 2)
endif()
run(${RUN} "${program}")
