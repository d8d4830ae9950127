# SPDX-License-Identifier: Apache-2.0
# Runs a training twice, with --allreduce mpi and with --allreduce onebit, and fails unless the second one's held-out
# loss is within 2 % of the first one's at less than 1/25 of its wire bytes.
#   cmake -DFOLDER=... -P compare_trainings.cmake -- COMMAND ARGUMENTS...
include("${CMAKE_CURRENT_LIST_DIR}/command.cmake")

# Whole millionths of a key's number: math(EXPR) knows no fractions.
function(read_millionths file key out)
  file(READ "${file}" json)
  string(JSON number GET "${json}" ${key})
  if(NOT number MATCHES "^([0-9]+)(\\.([0-9]*))?$")
    message(FATAL_ERROR "${file}: ${key} is ${number}")
  endif()
  string(SUBSTRING "${CMAKE_MATCH_3}000000" 0 6 fraction)
  math(EXPR millionths "${CMAKE_MATCH_1} * 1000000 + 1${fraction} - 1000000")
  set(${out} ${millionths} PARENT_SCOPE)
endfunction()

foreach(allreduce mpi onebit)
  set(file "${FOLDER}/training_${allreduce}.json")
  execute_process(COMMAND ${command} --allreduce ${allreduce} --json "${file}" COMMAND_ERROR_IS_FATAL ANY)
  read_millionths("${file}" held_out_bits_per_char ${allreduce}_loss)
  read_millionths("${file}" wire_bytes_per_step ${allreduce}_bytes)
endforeach()
if(onebit_bytes EQUAL 0)
  message(FATAL_ERROR "onebit says that it sent nothing")
endif()
math(EXPR fewer "${mpi_bytes} / ${onebit_bytes}")
math(EXPR loss_most "${mpi_loss} * 102 / 100")
message("held-out loss ${mpi_loss} and ${onebit_loss} millionths of a bit, wire bytes 1/${fewer}")
if(onebit_loss GREATER loss_most)
  message(FATAL_ERROR "onebit's held-out loss is more than 2 % above MPI_Allreduce's")
endif()
if(fewer LESS 25)
  message(FATAL_ERROR "onebit sent more than 1/25 of MPI_Allreduce's bytes")
endif()
