# SPDX-License-Identifier: Apache-2.0
# Run by cpack on the files that are about to be packed. Debian packages go where the loader looks by itself: there the
# tools need no run path.
if(CPACK_GENERATOR STREQUAL "DEB")
  file(GLOB tools "${CPACK_TEMPORARY_DIRECTORY}/tools/usr/bin/*")
  foreach(tool IN LISTS tools)
    file(RPATH_REMOVE FILE "${tool}")
  endforeach()
endif()
