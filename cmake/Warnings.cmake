# SPDX-License-Identifier: Apache-2.0

# Warnings for one target, never passed on to those who link it.
function(terse_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
                                           -Woverloaded-virtual $<$<BOOL:${TERSE_WERROR}>:-Werror>)
  # GCC 12 sees overlaps and overruns in its own std::string and std::vector (GCC bugs 105329, 105651).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE -Wno-restrict -Wno-array-bounds -Wno-stringop-overflow)
  endif()
endfunction()
