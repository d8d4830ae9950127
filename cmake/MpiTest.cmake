# SPDX-License-Identifier: Apache-2.0
# How tests are declared. Each takes one source file; extra arguments name it.
#
#   terse_test(codec/onebit_test.cpp)       one process:  codec.onebit
#   terse_mpi_test(mpi/allreduce_mpi_test.cpp RANKS 1 2 4)   under mpirun:  mpi.allreduce.np1, .np2, .np4
#
# Both link terse_internal, which also has the symbols that the shared library hides.

# It ends hangs and judges nothing else: many times what the slowest test takes on two cores, for those that share them.
set(TERSE_TEST_TIMEOUT 300 CACHE STRING "Seconds that one test may take")
set(test_timeout ${TERSE_TEST_TIMEOUT})
if(TERSE_SANITIZE)
  math(EXPR test_timeout "5 * ${test_timeout}")
endif()
if(terse_mpi STREQUAL "MPICH")  # its waiting ranks keep their cores, also from ranks that have work to do
  math(EXPR test_timeout "3 * ${test_timeout}")
endif()
math(EXPR launch_timeout "${test_timeout} - 5")  # the launcher stops its ranks before ctest stops the launcher

# For sanitizers. Open MPI leaves memory behind in components that it has unloaded, so leaks are looked for only in tests
# that do not start MPI.
set(test_environment ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1)
list(TRANSFORM test_environment REPLACE "detect_leaks=0" "detect_leaks=1" OUTPUT_VARIABLE leak_environment)
include("${CMAKE_CURRENT_LIST_DIR}/../mpi_examples/launcher.cmake")
math(EXPR patience "${test_timeout} / 2")  # the ranks' watchdog says where they are before the launcher stops them
list(APPEND mpi_environment MPIEXEC_TIMEOUT=${launch_timeout} TERSE_TEST_TIMEOUT_S=${patience})

# ROOM/WHAT_test.cpp -> ROOM.WHAT
function(terse_test_name file suffix out)
  string(REGEX REPLACE "${suffix}\\.cpp$" "" name "${file}")
  string(REPLACE "/" "." name "${name}")
  set(${out} ${name} PARENT_SCOPE)
endfunction()

function(terse_test_executable target file)
  get_filename_component(folder "${file}" DIRECTORY)
  add_executable(${target} ${file})
  target_link_libraries(${target} PRIVATE terse_internal terse_test_support ${ARGN})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/${folder}")
  terse_warnings(${target})
  target_precompile_headers(${target} REUSE_FROM terse_test_support)
endfunction()

# A test that includes support/thread_transport.hpp or what is built on it has ranks that are threads: label `threads`,
# what the thread sanitizer is for.
function(terse_test file)
  if(TERSE_MPI_TESTS_ONLY)
    return()
  endif()
  terse_test_name(${file} "_test" name)
  terse_test_executable(test.${name} ${file} GTest::gtest_main)
  add_test(NAME ${name} COMMAND test.${name})
  set(labels unit)
  file(STRINGS ${file} threads REGEX "^#include \"support/(thread_transport|rig)\\.hpp\"")
  set(cost 0)
  if(threads)
    list(APPEND labels threads)
    add_dependencies(terse_thread_tests test.${name})
    set(cost 10)  # the longest of those that take one processor, which begin first: so none is left alone at the end
  endif()
  set(environment ${leak_environment})
  file(STRINGS ${file} starts_mpi REGEX "^#include <mpi\\.h>")
  if(starts_mpi)
    set(environment ${test_environment} ${mpi_environment})
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${test_timeout} ENVIRONMENT "${environment}"
                                          COST ${cost})
endfunction()

# A program on some ranks, with arguments.
function(terse_add_mpi_test name ranks target)
  add_test(NAME ${name} COMMAND "${MPIEXEC_EXECUTABLE}" ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${MPIEXEC_PREFLAGS}
                                $<TARGET_FILE:${target}> ${MPIEXEC_POSTFLAGS} ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS mpi PROCESSORS ${ranks} TIMEOUT ${test_timeout}
                                          ENVIRONMENT "${mpi_environment};${test_environment}")
endfunction()

# main() comes from support/mpi_main.cpp. Without RANKS, those of the line "// ranks: 2 4" in the file, or the numbers
# that every collective is tested with.
function(terse_mpi_test file)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "RANKS")
  if(NOT arg_RANKS)
    file(STRINGS ${file} line REGEX "^// ranks: [0-9 ]+$" LIMIT_COUNT 1)
    string(REGEX MATCHALL "[0-9]+" arg_RANKS "${line}")
  endif()
  if(NOT arg_RANKS)
    set(arg_RANKS 1 2 3 4 5 7 8)
  endif()
  terse_test_name(${file} "_mpi_test" name)
  terse_test_executable(test.${name} ${file} terse_test_mpi_main)
  foreach(ranks IN LISTS arg_RANKS)
    terse_add_mpi_test(${name}.np${ranks} ${ranks} test.${name})
  endforeach()
endfunction()
