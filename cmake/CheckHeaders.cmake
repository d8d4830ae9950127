# SPDX-License-Identifier: Apache-2.0

# Builds one source per header of the folders, named within `base`, that includes the header alone, and twice: each
# stands by itself and may be met again. `target` is what one links to use the headers.
#
# A header that begins with #pragma once, and that the source of its own name beside it includes first, needs no such
# source: clang-tidy, which knows no precompiled headers, reads that source as it stands (scripts/tidy.sh).
function(terse_check_headers name target base)
  set(sources)
  foreach(folder IN LISTS ARGN)
    file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE "${base}" "${base}/${folder}/*.hpp" "${base}/${folder}/*.h")
    list(FILTER headers EXCLUDE REGEX "-inl\\.hpp$")  # SIMD kernels, compiled by their .cpp once per instruction set
    foreach(header IN LISTS headers)
      string(REGEX REPLACE "\\.hpp$" ".cpp" own "${base}/${header}")
      set(first "")
      if(EXISTS "${own}")
        file(STRINGS "${own}" first REGEX "^[ ]*#[ ]*include" LIMIT_COUNT 1)
      endif()
      file(STRINGS "${base}/${header}" once REGEX "^#pragma once$" LIMIT_COUNT 1)
      if(once AND first STREQUAL "#include \"${header}\"")
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${own}" "${base}/${header}")
        continue()
      endif()
      set(source "${CMAKE_CURRENT_BINARY_DIR}/${name}/${header}.cpp")
      file(CONFIGURE OUTPUT "${source}" CONTENT "#include <${header}>\n#include <${header}>\n")
      list(APPEND sources "${source}")
    endforeach()
  endforeach()
  if(sources)
    add_library(${name} OBJECT ${sources})
    target_link_libraries(${name} PRIVATE ${target})
    terse_warnings(${name})
  endif()
endfunction()
