# SPDX-License-Identifier: Apache-2.0
# Runs a command line and checks its exit code, what it says, and the numbers of the report that it writes.
#   cmake -DCODE=0 -DSAYS=REGEX... -DONCE=REGEX -DNEVER=REGEX -DREPORT=FILE -DNUMBERS=LINE... -P check_report.cmake --
#     COMMAND ARGUMENTS...
# SAYS has a regular expression a line, to be found in that order; ONCE and NEVER are found once and nowhere. A line of NUMBERS is LOW:HIGH KEY KEY..., for a number
# of the JSON.
cmake_minimum_required(VERSION 3.21)
include("${CMAKE_CURRENT_LIST_DIR}/../tools/checks.cmake")
set(JSON "${REPORT}")
set(CHECK "")
include("${CMAKE_CURRENT_LIST_DIR}/../tools/expect.cmake")
if(ONCE)
  string(REGEX MATCHALL "${ONCE}" found "${output}\n${complaints}")
  list(LENGTH found times)
  if(NOT times EQUAL 1)
    message(FATAL_ERROR "it says ${times} times, not once: ${ONCE}")
  endif()
endif()
if(NEVER AND "${output}\n${complaints}" MATCHES "${NEVER}")
  message(FATAL_ERROR "it says: ${NEVER}")
endif()
if(NUMBERS)
  file(READ "${REPORT}" text)
  message("${text}")
  string(REPLACE "\n" ";" lines "${NUMBERS}")
  foreach(line IN LISTS lines)
    string(REPLACE " " ";" keys "${line}")
    list(POP_FRONT keys range)
    string(REPLACE ":" ";" range "${range}")
    list(GET range 0 low)
    list(GET range -1 high)
    expect_json_between("${text}" ${low} ${high} ${keys})
  endforeach()
endif()
