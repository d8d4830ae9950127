# SPDX-License-Identifier: Apache-2.0
# Makes the Debian packages and reads their fields and lists of files.
cmake_minimum_required(VERSION 3.21)

file(REMOVE_RECURSE "${SCRATCH}")
execute_process(COMMAND "${CPACK}" -G DEB -C "${BUILD_TYPE}" -B "${SCRATCH}" --config "${TERSE_BUILD}/CPackConfig.cmake"
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCH "^[0-9]+\\.[0-9]+" minor "${VERSION}")
file(GLOB debs RELATIVE "${SCRATCH}" "${SCRATCH}/*.deb")
list(LENGTH debs count)
if(NOT count EQUAL 4)
  message(FATAL_ERROR "4 packages are made, not: ${debs}")
endif()

function(deb_file package out)
  file(GLOB file "${SCRATCH}/${package}_${VERSION}_*.deb")
  if(NOT file)
    message(FATAL_ERROR "there is no package ${package} of version ${VERSION}, only: ${debs}")
  endif()
  set(${out} "${file}" PARENT_SCOPE)
endfunction()
# Fails unless field `field` of a package matches the regular expression.
function(expect_field package field regex)
  deb_file(${package} file)
  execute_process(COMMAND "${DPKG_DEB}" --field "${file}" ${field} OUTPUT_VARIABLE value
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  if(NOT value MATCHES "${regex}")
    message(SEND_ERROR "${package}: ${field} is '${value}', which does not match ${regex}")
  endif()
endfunction()
# Fails unless the package holds exactly these files, given as regular expressions for whole paths.
function(expect_files package)
  deb_file(${package} file)
  file(REMOVE_RECURSE "${SCRATCH}/${package}")
  execute_process(COMMAND "${DPKG_DEB}" --extract "${file}" "${SCRATCH}/${package}" COMMAND_ERROR_IS_FATAL ANY)
  file(GLOB_RECURSE files RELATIVE "${SCRATCH}/${package}" "${SCRATCH}/${package}/*")
  foreach(path IN LISTS files)
    set(known FALSE)
    foreach(regex IN LISTS ARGN)
      if(path MATCHES "^${regex}$")
        set(known TRUE)
      endif()
    endforeach()
    if(NOT known)
      message(SEND_ERROR "${package} holds ${path}, which is not its")
    endif()
  endforeach()
  foreach(regex IN LISTS ARGN)
    set(found ${files})
    list(FILTER found INCLUDE REGEX "^${regex}$")
    if(NOT found)
      message(SEND_ERROR "${package} holds nothing like ${regex}, only: ${files}")
    endif()
  endforeach()
endfunction()

set(library "libterse${minor}")
string(REPLACE "." "\\." version "${VERSION}")
set(exact "${library} \\(= ${version}\\)")
set(drop_in "libterse-mpi${minor}")
string(REPLACE "." "\\." drop_in_version "${drop_in} \\(= ${VERSION}\\)")
foreach(package ${library} ${drop_in} libterse-dev terse-tools)
  expect_field(${package} Package "^${package}$")
  expect_field(${package} Version "^${version}$")
  expect_field(${package} Maintainer "^Terse contributors")
  expect_field(${package} Description "^compressed collectives on MPI.*\n ")
endforeach()

# The library and the tools run with the libraries that they link; what is built against it needs the very same
# library, and MPI's headers.
expect_field(${library} Section "^libs$")
expect_field(${library} Depends "libc6 .*libhwy")
expect_field(${library} Depends "lib(open)?mpi[a-z]*[0-9]")
set(module "")
if(DEVICE_MODULE)
  set(module "usr/${LIBDIR}/libterse_cuda\\.so\\.${minor}" "usr/${LIBDIR}/libterse_cuda\\.so\\.${version}")
endif()
expect_files(${library} "usr/${LIBDIR}/libterse\\.so\\.${minor}" "usr/${LIBDIR}/libterse\\.so\\.${version}" ${module}
             "usr/share/doc/${library}/copyright")
deb_file(${library} file)
execute_process(COMMAND "${DPKG_DEB}" --info "${file}" shlibs OUTPUT_VARIABLE shlibs COMMAND_ERROR_IS_FATAL ANY)
if(NOT shlibs MATCHES "^libterse ${minor} ${library}")
  message(SEND_ERROR "${library}: shlibs is '${shlibs}'")
endif()

expect_field(libterse-dev Section "^libdevel$")
expect_field(libterse-dev Depends "^${exact}, lib[a-z]+-dev, ${drop_in_version}$")
expect_files(libterse-dev "usr/include/terse/[a-z_]+\\.hp*" "usr/${LIBDIR}/libterse\\.so" "usr/${LIBDIR}/libterse_mpi\\.so"
             "usr/${LIBDIR}/cmake/Terse/[A-Za-z-]+\\.cmake" "usr/${LIBDIR}/pkgconfig/terse\\.pc"
             "usr/share/doc/libterse-dev/copyright")

expect_field(${drop_in} Section "^libs$")
expect_field(${drop_in} Depends "${exact}.*libboost-program-options")
expect_files(${drop_in} "usr/${LIBDIR}/libterse_mpi\\.so\\.${minor}" "usr/${LIBDIR}/libterse_mpi\\.so\\.${version}"
             "usr/share/doc/${drop_in}/copyright")

expect_field(terse-tools Depends "${exact}, ${drop_in_version}.*libboost-program-options")
expect_field(terse-tools Recommends "^[a-z0-9.+-]+$")  # what starts ranks
expect_files(terse-tools "usr/bin/terse" "usr/bin/terse-bench" "usr/share/doc/terse-tools/copyright")
foreach(tool terse terse-bench)
  execute_process(COMMAND "${READELF}" --dynamic --wide "${SCRATCH}/terse-tools/usr/bin/${tool}"
                  OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  if(said MATCHES "R(UN)?PATH")
    message(SEND_ERROR "${tool} has a run path, though the library lies where the loader looks by itself")
  endif()
endforeach()
