#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what building and testing Terse needs and what is not there yet.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/install-deps.sh [--mpi NAME]... [--full] [--coverage] [--package] [--dry-run]

Installs, by apt-get (as root or through sudo), what is missing for building and testing Terse.
Without apt-get it names what is missing. What lies below a folder of CMAKE_PREFIX_PATH counts as installed.
  --mpi NAME   openmpi or mpich, under the names that Debian gives each beside the other (mpicxx.NAME); without it, an
               MPI library is there if mpicxx and mpirun are, and Open MPI is what would be installed
  --full       also what test.sh --full needs: both MPI libraries, clang with clang-tidy and libFuzzer, what packs,
               and for tests of the drop-in gfortran and mpi4py
  --coverage   also what coverage.sh needs: gcovr
  --package    also what `cpack -G DEB` needs
  --dry-run    only say what is missing
TEXT
}

dry_run=no groups="" mpis=()
while (($# > 0)); do
  case $1 in
    --mpi)
      case ${2:-} in
        openmpi | mpich) mpis+=("$2") ;;
        *) echo "install-deps.sh: --mpi is openmpi or mpich, not '${2:-}'" >&2; exit 2 ;;
      esac
      shift
      ;;
    --full) mpis=(openmpi mpich) groups+=" clang package drop_in" ;;
    --coverage | --package) groups+=" ${1#--}" ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "install-deps.sh: there is no option '$1' (see --help)" >&2; exit 2 ;;
  esac
  shift
done

has_command() { command -v "$1" >/dev/null 2>&1; }
compiles() { "${CXX:-c++}" -std=c++20 -fsyntax-only -x c++ - >/dev/null 2>&1; }
has_compiler() { printf '#include <concepts>\n#include <ranges>\n#include <span>\n' | compiles; }
# Any of the headers, where CMake or the compiler would find it. The folders come first: they can be asked without a
# compiler, and the compiler does not know CMAKE_PREFIX_PATH.
has_header() {
  local tests="" header prefix prefixes
  IFS=: read -ra prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for header in "$@"; do
    for prefix in "${prefixes[@]}" /usr/local /usr; do
      [[ -e $prefix/include/$header ]] && return
    done
    tests+="${tests:+ || }__has_include(<$header>)"
  done
  printf '#if !(%s)\n#error absent\n#endif\n' "$tests" | compiles
}
has_cmake() {
  has_command cmake || return 1
  local version
  version=$(cmake --version | sed -n '1s/[^0-9]*//p')
  [[ $(printf '%s\n' 3.21 "$version" | sort -V | head -n 1) == 3.21 ]]
}
has_mpi() { has_command "mpicxx${1:-}" && has_command "mpirun${1:-}"; }
# Clang comes without its run-time libraries, whose package bears its major version.
clang_version() {
  if has_command clang++; then
    clang++ -dumpversion
  else
    apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]\)/\1/p'
  fi | sed -n '1s/^\([0-9]*\).*/\1/p'
}
has_mpi4py() { /usr/bin/python3 -c 'import mpi4py, numpy' 2>/dev/null; }
has_libfuzzer() {
  local runtime
  runtime=$(clang++ -print-runtime-dir 2>/dev/null) && compgen -G "$runtime/libclang_rt.fuzzer*.a" >/dev/null
}

# A row: what it is | how to see whether it is there | its packages on Debian and Ubuntu.
needs=(
  "a C++20 compiler (GCC 12, Clang 15 or newer)|has_compiler|g++"
  "CMake 3.21 or newer|has_cmake|cmake"
  "Ninja|has_command ninja|ninja-build"
  "pkg-config|has_command pkg-config|pkg-config"
  "Google Highway|has_header hwy/highway.h|libhwy-dev"
  "xxHash|has_header xxhash.h|libxxhash-dev"
  "zstd|has_header zstd_errors.h|libzstd-dev"
  "zfp|has_header zfp.h|libzfp-dev"
  "Boost.Program_options|has_header boost/program_options.hpp|libboost-program-options-dev"
  "nlohmann-json|has_header nlohmann/json.hpp|nlohmann-json3-dev"
  "GoogleTest|has_header gtest/gtest.h|libgtest-dev"
  "Eigen 3|has_header Eigen/Core eigen3/Eigen/Core|libeigen3-dev"
)

for mpi in "${mpis[@]}"; do
  case $mpi in
    openmpi) needs+=("Open MPI (mpicxx.openmpi and mpirun.openmpi)|has_mpi .openmpi|libopenmpi-dev openmpi-bin") ;;
    mpich) needs+=("MPICH (mpicxx.mpich and mpirun.mpich)|has_mpi .mpich|libmpich-dev mpich") ;;
  esac
done
((${#mpis[@]} > 0)) || needs+=("MPI 3.1 (mpicxx and mpirun)|has_mpi|libopenmpi-dev openmpi-bin")
for group in $groups; do
  case $group in
    clang)
      needs+=(
        "clang|has_command clang++|clang"
        "clang-tidy|has_command clang-tidy|clang-tidy"
        "libFuzzer, of clang's run-time libraries|has_libfuzzer|libclang-rt-CLANG-dev"
      )
      ;;
    drop_in)
      needs+=(
        "a Fortran compiler|has_command gfortran|gfortran"
        "mpi4py with NumPy|has_mpi4py|python3-mpi4py python3-numpy"
      )
      ;;
    coverage) needs+=("gcovr|has_command gcovr|gcovr") ;;
    package) needs+=("dpkg-shlibdeps|has_command dpkg-shlibdeps|dpkg-dev" "file|has_command file|file") ;;
  esac
done

missing=() packages=()
look() {
  missing=() packages=()
  local row what check names
  for row in "${needs[@]}"; do
    IFS='|' read -r what check names <<<"$row"
    if ! $check; then
      [[ $names != *CLANG* ]] || names=${names/CLANG/$(clang_version || true)}
      missing+=("$what|$names")
      read -ra names <<<"$names"
      packages+=("${names[@]}")
    fi
  done
}
# Says on stderr, one line each, what is missing.
name_missing() {
  local row
  for row in "${missing[@]}"; do
    printf '  %-46s Debian and Ubuntu: %s\n' "${row%%|*}" "${row#*|}" >&2
  done
}

look
if ((${#missing[@]} == 0)); then
  echo "install-deps.sh: nothing is missing"
  exit 0
fi
if [[ $dry_run == yes ]]; then
  echo "install-deps.sh: missing:" >&2
  name_missing
  exit 1
fi

as_root=()
if ! has_command apt-get; then
  reason="this system has no apt-get"
elif ((EUID == 0)); then
  reason=""
elif has_command sudo; then
  reason="" as_root=(sudo)
else
  reason="apt-get needs root, and there is no sudo"
fi
if [[ $reason ]]; then
  echo "install-deps.sh: $reason. Please install, with your system's packages or modules:" >&2
  name_missing
  exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >>"$log" 2>&1; }
# Names that depend on a version are known when apt-get knows the packages.
install_missing() {
  apt update || return
  look
  echo "install-deps.sh: installing, which may take a few minutes: ${packages[*]}"
  apt install --no-install-recommends "${packages[@]}"
}
if ! install_missing; then
  tail -n 20 "$log" >&2
  echo "install-deps.sh: apt-get failed, see above. Missing:" >&2
  name_missing
  exit 1
fi
look
if ((${#missing[@]} > 0)); then
  echo "install-deps.sh: this system's packages are there, but too old or elsewhere. Still missing:" >&2
  name_missing
  exit 1
fi
