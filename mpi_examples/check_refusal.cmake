# SPDX-License-Identifier: Apache-2.0
# Runs a command that must refuse: say `SENTENCE` exactly once and exit with `CODE`.
#   cmake -DSENTENCE=... -DCODE=2 -P check_refusal.cmake -- COMMAND ARGUMENTS...
include("${CMAKE_CURRENT_LIST_DIR}/command.cmake")

execute_process(COMMAND ${command} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
message("${output}")
if(NOT code STREQUAL CODE)
  message(FATAL_ERROR "exit code ${code} instead of ${CODE}")
endif()
string(LENGTH "${output}" all)
string(REPLACE "${SENTENCE}" "" rest "${output}")
string(LENGTH "${rest}" without)
string(LENGTH "${SENTENCE}" once)
math(EXPR said "(${all} - ${without}) / ${once}")
if(NOT said EQUAL 1)
  message(FATAL_ERROR "said ${said} times instead of once: ${SENTENCE}")
endif()
