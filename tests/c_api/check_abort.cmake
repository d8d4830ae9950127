# SPDX-License-Identifier: Apache-2.0
# Runs a command that must fail and say what matches `SENTENCE`:
#   cmake -DSENTENCE=regex -P check_abort.cmake -- COMMAND ARGUMENTS...
include("${CMAKE_CURRENT_LIST_DIR}/../../mpi_examples/command.cmake")

execute_process(COMMAND ${command} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
message("${output}")
if(code EQUAL 0)
  message(FATAL_ERROR "the program went on and ended with 0")
endif()
if(NOT output MATCHES "${SENTENCE}")
  message(FATAL_ERROR "exit code ${code}, but nothing said: ${SENTENCE}")
endif()
