# SPDX-License-Identifier: Apache-2.0
# Libraries that single codecs are made of: terse_zstd (lossless) and terse_zfp (zfp) are TRUE where this build has them.
# terse_codec_libraries is what a target of this build links, terse_codec_links what one that is installed does.
set(terse_codec_include_dirs)
set(terse_codec_libraries)
set(terse_codec_links)

macro(terse_optional_codec name codec header library package)
  string(TOUPPER ${name} upper)
  set(TERSE_${upper} AUTO CACHE STRING "Codec ${codec}, by ${library}: ON, OFF, or AUTO where ${library} is there")
  set_property(CACHE TERSE_${upper} PROPERTY STRINGS AUTO ON OFF)
  set(terse_${name} FALSE)
  if(TERSE_${upper})
    find_path(${upper}_INCLUDE_DIR ${header})
    find_library(${upper}_LIBRARY ${name})
    mark_as_advanced(${upper}_INCLUDE_DIR ${upper}_LIBRARY)
    if(${upper}_INCLUDE_DIR AND ${upper}_LIBRARY)
      set(terse_${name} TRUE)
      list(APPEND terse_codec_include_dirs "${${upper}_INCLUDE_DIR}")
      list(APPEND terse_codec_libraries "${${upper}_LIBRARY}")
      list(APPEND terse_codec_links ${name})
    elseif(NOT TERSE_${upper} STREQUAL "AUTO")
      message(FATAL_ERROR "TERSE_${upper}=${TERSE_${upper}}, and there is no ${header} with lib${name}: install "
                          "${package} (Debian), or name its folder in CMAKE_PREFIX_PATH")
    endif()
  endif()
endmacro()

terse_optional_codec(zstd lossless zstd_errors.h zstd libzstd-dev)
terse_optional_codec(zfp zfp zfp.h zfp libzfp-dev)
