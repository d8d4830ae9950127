# SPDX-License-Identifier: Apache-2.0
# For a script that is run as cmake -P SCRIPT -- COMMAND ARGUMENTS...: the list `command` of what follows the --.
math(EXPR last "${CMAKE_ARGC} - 1")
set(command)
set(separator_seen FALSE)
foreach(i RANGE ${last})
  if(separator_seen)
    list(APPEND command "${CMAKE_ARGV${i}}")
  elseif(CMAKE_ARGV${i} STREQUAL "--")
    set(separator_seen TRUE)
  endif()
endforeach()
