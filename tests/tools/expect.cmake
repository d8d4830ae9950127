# SPDX-License-Identifier: Apache-2.0
# Runs a command line and checks its exit code, what it says, and the JSON file that it writes.
#   cmake -DCODE=0 -DSAYS=REGEX... -DJSON=FILE -DCHECK=FUNCTION -P expect.cmake -- COMMAND ARGUMENTS...
# SAYS has a regular expression a line; each is looked for behind the one before. FILE is below the current folder and is
# removed before; "-" means standard output. FUNCTION, of checks.cmake, is called with the JSON text.
cmake_minimum_required(VERSION 3.21)
include("${CMAKE_CURRENT_LIST_DIR}/../../mpi_examples/command.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/checks.cmake")

if(JSON AND NOT JSON STREQUAL "-")
  file(REMOVE "${JSON}")
endif()
execute_process(COMMAND ${command} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE complaints)
message("${output}\n${complaints}")
if(NOT code STREQUAL CODE)
  message(FATAL_ERROR "exit code ${code} instead of ${CODE}")
endif()
if(NOT CODE STREQUAL 0 AND complaints STREQUAL "")
  message(FATAL_ERROR "it failed without a word on standard error")
endif()

set(rest "${output}\n${complaints}")
string(REPLACE "\n" ";" says "${SAYS}")
foreach(regex IN LISTS says)
  string(REGEX MATCH "${regex}" found "${rest}")
  if(found STREQUAL "")
    message(FATAL_ERROR "it does not say, or not in this order: ${regex}")
  endif()
  string(FIND "${rest}" "${found}" at)
  string(LENGTH "${found}" length)
  math(EXPR at "${at} + ${length}")
  string(SUBSTRING "${rest}" ${at} -1 rest)
endforeach()

if(CHECK)
  if(JSON STREQUAL "-")
    set(text "${output}")
  else()
    file(READ "${JSON}" text)
  endif()
  cmake_language(CALL ${CHECK} "${text}")
endif()
