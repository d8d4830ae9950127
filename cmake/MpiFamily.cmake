# SPDX-License-Identifier: Apache-2.0
# Installed beside TerseConfig.cmake: what builds Terse and what finds it must mean the same MPI.

# Which MPI's header find_package(MPI) has found: "Open MPI", "MPICH" (and the libraries that share its binary interface),
# or "" where the header does not tell.
function(terse_mpi_family out)
  set(family "")
  foreach(folder IN LISTS MPI_CXX_INCLUDE_DIRS)
    if(NOT family AND EXISTS "${folder}/mpi.h")
      file(STRINGS "${folder}/mpi.h" lines REGEX "^#[ ]*define[ ]+(OPEN_MPI|MPICH_VERSION|MPICH_NAME)[ ]")
      if(lines MATCHES "OPEN_MPI")
        set(family "Open MPI")
      elseif(lines)
        set(family "MPICH")
      endif()
    endif()
  endforeach()
  set(${out} "${family}" PARENT_SCOPE)
endfunction()
