# SPDX-License-Identifier: Apache-2.0
# Runs a training that dumps a gradient to FILE, and checks that this has the 4 bytes of each parameter, not all of them
# zero.
#   cmake -DFILE=FILE -P check_dump.cmake -- COMMAND ARGUMENTS...
include("${CMAKE_CURRENT_LIST_DIR}/command.cmake")

file(REMOVE "${FILE}")
execute_process(COMMAND ${command} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
message("${output}")
if(NOT output MATCHES "model: ([0-9]+) parameters")
  message(FATAL_ERROR "it does not say how many parameters there are")
endif()
math(EXPR want "4 * ${CMAKE_MATCH_1}")
file(SIZE "${FILE}" bytes)
if(NOT bytes EQUAL want)
  message(FATAL_ERROR "${FILE} has ${bytes} bytes instead of ${want}")
endif()
file(READ "${FILE}" beginning OFFSET 0 LIMIT 4096 HEX)
if(beginning MATCHES "^0*$")
  message(FATAL_ERROR "the gradient is zero")
endif()
