# SPDX-License-Identifier: Apache-2.0
# What the libraries keep in the process: little thread-local storage, which the C library takes out of the stack of each
# thread that the program starts (but for the module with CUDA's runtime, which is loaded later); and nothing that ends before the process does, since calls may come while it exits.
#   -DLIBRARIES, -DOBJECTS: files, with | between them; -DREADELF, -DNM
cmake_minimum_required(VERSION 3.21)
set(most_bytes 256)
string(REPLACE "|" ";" libraries "${LIBRARIES}")
string(REPLACE "|" ";" objects "${OBJECTS}")
list(FILTER objects EXCLUDE REGEX "\\.gch$")  # a precompiled header

# The memory size of a program header's segment TLS is the sixth column; 0 where there is none.
function(thread_local_bytes file out)
  execute_process(COMMAND "${READELF}" --program-headers --wide "${file}" OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  set(bytes 0)
  if(said MATCHES "\n *TLS +0x[0-9a-f]+ +0x[0-9a-f]+ +0x[0-9a-f]+ +0x[0-9a-f]+ +(0x[0-9a-f]+)")
    math(EXPR bytes "${CMAKE_MATCH_1}")
  elseif(said MATCHES "\n *TLS ")
    message(FATAL_ERROR "this does not understand what ${READELF} says of ${file}:\n${said}")
  endif()
  set(${out} ${bytes} PARENT_SCOPE)
endfunction()

foreach(library IN LISTS libraries)
  thread_local_bytes("${library}" bytes)
  message(STATUS "${library}: ${bytes} bytes of thread-local storage")
  if(bytes GREATER most_bytes)
    message(SEND_ERROR "${library} has more than ${most_bytes} bytes of thread-local storage: see core/thread_memory.hpp")
  endif()
endforeach()

# A destructor of a global, or of a static in a function, is registered with __cxa_atexit; one of a thread_local object with
# __cxa_thread_atexit.
list(LENGTH objects count)
if(count LESS 50)
  message(FATAL_ERROR "only ${count} objects were given")
endif()
set(readable 0)
foreach(object IN LISTS objects)
  execute_process(COMMAND "${NM}" --undefined-only "${object}" OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  if(said MATCHES " U ")
    math(EXPR readable "${readable} + 1")
  endif()
  if(said MATCHES "__cxa_(thread_)?atexit|[^_a-z]atexit\n")
    message(SEND_ERROR "${object} has a global, static or thread_local object with a destructor (${CMAKE_MATCH_0}). Make it "
                       "one that is never destroyed (static T& t = *new T), or use core/thread_memory.hpp")
  endif()
endforeach()
math(EXPR most_empty "${count} / 4")
math(EXPR empty "${count} - ${readable}")
if(empty GREATER most_empty)
  message(FATAL_ERROR "${NM} finds no undefined symbol in ${empty} of ${count} objects: it cannot read them")
endif()
message(STATUS "${count} objects have no state with a destructor")
