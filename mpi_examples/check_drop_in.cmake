# SPDX-License-Identifier: Apache-2.0
# Runs a program under `terse run --report REPORT` and checks in the report that its calls were compressed, and to less
# than 1/25 of the bytes.
#   cmake -DREPORT=FILE -P check_drop_in.cmake -- COMMAND ARGUMENTS...
include("${CMAKE_CURRENT_LIST_DIR}/command.cmake")

file(REMOVE "${REPORT}")
execute_process(COMMAND ${command} COMMAND_ERROR_IS_FATAL ANY)
file(READ "${REPORT}" json)
foreach(key compressed bytes_before bytes_after ratio)
  string(JSON ${key} GET "${json}" rules 0 ${key})
endforeach()
message("${compressed} calls compressed, ${bytes_before} -> ${bytes_after} bytes: 1/${ratio}")
if(NOT compressed GREATER 0)
  message(FATAL_ERROR "no call was compressed")
endif()
if(NOT ratio GREATER_EQUAL 25)
  message(FATAL_ERROR "more than 1/25 of the bytes were sent")
endif()
