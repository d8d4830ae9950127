# SPDX-License-Identifier: Apache-2.0
# The rooms that know no MPI make the same objects whatever the MPI library is. A build lists its own in
# terse_mpi_free.cmake, with what they depend on; a build with TERSE_OBJECTS_FROM links those of that build.

# What two builds must have in common, so that one may link the other's objects.
set(mpi_free_terms "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, ${CMAKE_BUILD_TYPE}, sanitizers (${TERSE_SANITIZE})")
string(APPEND mpi_free_terms ", Highway ${hwy_VERSION}, zstd ${terse_zstd}, zfp ${terse_zfp}, flags (${CMAKE_CXX_FLAGS})")

function(terse_offer_mpi_free_objects)
  file(GENERATE OUTPUT "${PROJECT_BINARY_DIR}/terse_mpi_free.cmake" CONTENT
       "set(offered_source [==[${PROJECT_SOURCE_DIR}]==])
set(offered_terms [==[${mpi_free_terms}]==])
set(offered_objects [==[$<TARGET_OBJECTS:terse_mpi_free>]==])
")
endfunction()

# Declares terse_mpi_free by the objects of the build in `folder`, which is first brought up to date: now, and by a new
# configure whenever one of their sources changes.
function(terse_take_mpi_free_objects folder)
  if(NOT EXISTS "${folder}/terse_mpi_free.cmake")
    message(FATAL_ERROR "TERSE_OBJECTS_FROM=${folder} is no build of Terse that compiles core, codec and collective itself: "
                        "configure one there")
  endif()
  execute_process(COMMAND "${CMAKE_COMMAND}" --build "${folder}" --target terse_mpi_free
                  RESULT_VARIABLE result OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "TERSE_OBJECTS_FROM=${folder} does not build its objects of core, codec and collective:\n${said}")
  endif()
  include("${folder}/terse_mpi_free.cmake")
  if(NOT offered_source STREQUAL PROJECT_SOURCE_DIR)
    message(FATAL_ERROR "TERSE_OBJECTS_FROM=${folder} is a build of another tree: ${offered_source}")
  endif()
  if(NOT offered_terms STREQUAL mpi_free_terms)
    message(FATAL_ERROR "TERSE_OBJECTS_FROM=${folder} is built in another way than this build:\n"
                        "  there: ${offered_terms}\n  here:  ${mpi_free_terms}")
  endif()
  add_library(terse_mpi_free OBJECT IMPORTED GLOBAL)
  set_target_properties(terse_mpi_free PROPERTIES IMPORTED_OBJECTS "${offered_objects}")
  file(GLOB files CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/core/*" "${PROJECT_SOURCE_DIR}/src/codec/*"
                                    "${PROJECT_SOURCE_DIR}/src/collective/*" "${PROJECT_SOURCE_DIR}/include/terse/*")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${files} "${folder}/terse_mpi_free.cmake")
  message(STATUS "Objects of core, codec and collective: those of ${folder}")
endfunction()
