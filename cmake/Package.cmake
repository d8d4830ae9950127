# SPDX-License-Identifier: Apache-2.0
# Debian packages of what is installed, by `cpack -G DEB` in the build folder: the library that programs run with, what
# they are built with, the tools, and the drop-in. They are for the MPI library and the system of this build.

# The package that a file of this system belongs to, or nothing.
function(debian_package_of file out)
  set(${out} "" PARENT_SCOPE)
  if(NOT DPKG_QUERY_EXECUTABLE OR NOT EXISTS "${file}")
    return()
  endif()
  file(REAL_PATH "${file}" path)
  execute_process(COMMAND "${DPKG_QUERY_EXECUTABLE}" --search "${path}"
                  OUTPUT_VARIABLE said RESULT_VARIABLE result ERROR_QUIET)
  if(result EQUAL 0 AND said MATCHES "^([^:, \n]+)[^\n]*: ")
    set(${out} "${CMAKE_MATCH_1}" PARENT_SCOPE)
  endif()
endfunction()

find_program(DPKG_QUERY_EXECUTABLE dpkg-query)
find_program(DPKG_SHLIBDEPS_EXECUTABLE dpkg-shlibdeps)
find_program(FILE_EXECUTABLE file)  # CPack asks it which files are programs
mark_as_advanced(DPKG_QUERY_EXECUTABLE DPKG_SHLIBDEPS_EXECUTABLE FILE_EXECUTABLE)
set(mpi_headers_package "")
foreach(folder IN LISTS MPI_CXX_INCLUDE_DIRS)
  if(NOT mpi_headers_package)
    debian_package_of("${folder}/mpi.h" mpi_headers_package)
  endif()
endforeach()
debian_package_of("${MPIEXEC_EXECUTABLE}" mpiexec_package)

set(runtime_package "libterse${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
set(exact_runtime "${runtime_package} (= ${PROJECT_VERSION})")
if(terse_mpi)
  set(of_mpi " (${terse_mpi})")
else()
  set(of_mpi "")
endif()

set(CPACK_PACKAGE_NAME terse)
set(CPACK_PACKAGE_VENDOR "Terse contributors")
set(CPACK_PACKAGE_CONTACT "Terse contributors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")  # each package has its own
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_PROJECT_CONFIG_FILE "${PROJECT_SOURCE_DIR}/cmake/CheckPackaging.cmake")  # before anything is packed
set(CPACK_PRE_BUILD_SCRIPTS "${PROJECT_SOURCE_DIR}/cmake/FinishPackage.cmake")    # on what is about to be
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
if(BUILD_SHARED_LIBS)
  set(CPACK_COMPONENTS_ALL runtime devel)
else()
  set(CPACK_COMPONENTS_ALL devel)  # the archive is the library
endif()
if(TERSE_BUILD_TOOLS)
  list(APPEND CPACK_COMPONENTS_ALL tools)
endif()
set(drop_in_package "libterse-mpi${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
set(exact_drop_in "")
if(TERSE_BUILD_DROP_IN)
  list(APPEND CPACK_COMPONENTS_ALL drop_in)
  set(exact_drop_in "${drop_in_package} (= ${PROJECT_VERSION})")
endif()
if(DPKG_SHLIBDEPS_EXECUTABLE AND FILE_EXECUTABLE)
  set(CPACK_GENERATOR DEB)
else()
  set(CPACK_GENERATOR TGZ)
  set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
endif()

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${PROJECT_BINARY_DIR}")  # where libterse is at that time
set(about_terse "Terse takes the place of MPI_Allreduce in data-parallel training: the
same call, about a thirty-second of the bytes on the wire, the same model
at the end.")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME ${runtime_package})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA "${PROJECT_SOURCE_DIR}/cmake/debian/triggers")
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION "compressed collectives on MPI${of_mpi} - library
${about_terse}")
set(CPACK_DEBIAN_DEVEL_PACKAGE_NAME libterse-dev)
set(CPACK_DEBIAN_DEVEL_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVEL_DESCRIPTION "compressed collectives on MPI${of_mpi} - development files
${about_terse}
.
These are the headers and what CMake and pkg-config find them by.")
set(devel_depends ${mpi_headers_package})
if(BUILD_SHARED_LIBS)
  list(PREPEND devel_depends "${exact_runtime}")
  set(CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS "${exact_runtime}")
  set(CPACK_DEBIAN_DROP_IN_PACKAGE_DEPENDS "${exact_runtime}")
else()
  list(APPEND devel_depends libhwy-dev)
  foreach(library IN LISTS terse_codec_links)
    list(APPEND devel_depends lib${library}-dev)
  endforeach()
endif()
if(exact_drop_in)
  list(APPEND devel_depends "${exact_drop_in}")
  list(APPEND CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS "${exact_drop_in}")
  list(JOIN CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS ", " CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS)
endif()
set(CPACK_DEBIAN_DROP_IN_PACKAGE_NAME ${drop_in_package})
set(CPACK_DEBIAN_DROP_IN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_DROP_IN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_DROP_IN_PACKAGE_CONTROL_EXTRA "${PROJECT_SOURCE_DIR}/cmake/debian/triggers")
set(CPACK_DEBIAN_DROP_IN_DESCRIPTION "compressed collectives on MPI${of_mpi} - drop-in
${about_terse}
.
This library stands before MPI's, preloaded or linked, for programs that
nobody recompiles: see terse run.")
list(JOIN devel_depends ", " CPACK_DEBIAN_DEVEL_PACKAGE_DEPENDS)
set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME terse-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_TOOLS_PACKAGE_RECOMMENDS "${mpiexec_package}")
set(CPACK_DEBIAN_TOOLS_PACKAGE_SUGGESTS gnuplot)
set(CPACK_DEBIAN_TOOLS_DESCRIPTION "compressed collectives on MPI${of_mpi} - tools
${about_terse}
.
These are terse, which tells what the library has and how it is set and
runs programs with the drop-in, and terse-bench, which measures the
library against MPI.")

# Each package says whose it is, where Debian looks for that.
foreach(component IN LISTS CPACK_COMPONENTS_ALL)
  string(TOUPPER ${component} upper)
  install(FILES cmake/debian/copyright COMPONENT ${component} EXCLUDE_FROM_ALL
          DESTINATION "${CMAKE_INSTALL_DATAROOTDIR}/doc/${CPACK_DEBIAN_${upper}_PACKAGE_NAME}")
endforeach()
include(CPack)
