# SPDX-License-Identifier: Apache-2.0
# Read by cpack before it packs. Without these programs a package would be made that depends on nothing.
if(CPACK_GENERATOR STREQUAL "DEB")
  foreach(program dpkg-shlibdeps:dpkg-dev file:file)
    string(REGEX REPLACE ":.*" "" name "${program}")
    string(REGEX REPLACE ".*:" "" package "${program}")
    find_program(found ${name} NO_CACHE)
    if(NOT found)
      message(FATAL_ERROR "cpack -G DEB needs ${name}, to find what Terse depends on (Debian: ${package})")
    endif()
    unset(found)
  endforeach()
endif()
