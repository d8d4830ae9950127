# SPDX-License-Identifier: Apache-2.0
# Nothing of the C interface is destroyed as the process or a thread ends, since programs make calls then:
#   cmake -DNM=nm -DOBJECTS=a.o;b.o -P check_no_exit_handlers.cmake
# The compiler registers each destructor of a static or thread_local object with one of these functions.
if(NOT OBJECTS)
  message(FATAL_ERROR "there are no objects to look at")
endif()
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND "${NM}" -u "${object}" RESULT_VARIABLE code OUTPUT_VARIABLE symbols)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${NM} cannot read ${object}")
  endif()
  if(symbols MATCHES "__cxa_atexit|__cxa_thread_atexit|[ \n]atexit")
    message(SEND_ERROR "${object} has a static or thread_local object with a destructor: make it one that is never "
                       "destroyed (static auto& x = *new ...), or keep it with kept_by_thread()")
  endif()
endforeach()
