#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds Terse and runs its tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/test.sh [--full] [--mpi NAME] [--no-install]

Installs what is missing, builds Terse in build/release and runs all tests.
  --full         also: warnings are errors; clang-tidy on src; all tests under the address and undefined-behaviour
                 sanitizers (build/asan); the tests whose ranks are threads under the thread sanitizer (build/tsan);
                 libFuzzer on every decoder and parser for a moment (build/fuzz); the tests, examples and package tests
                 that run MPI, with the other MPI library of the two, on 1, 2, 3, 4 and 8 ranks
  --mpi NAME     with openmpi or mpich, in build/NAME, where the system has several MPI libraries under Debian's names
                 (mpicxx.NAME); default: whatever mpicxx is, or Open MPI with --full
  --no-install   leaves it to CMake to say what is missing
TEXT
}

full=no install=yes mpi=""
while (($# > 0)); do
  case $1 in
    --full) full=yes ;;
    --mpi)
      case ${2:-} in
        openmpi | mpich) mpi=$2 ;;
        *) echo "test.sh: --mpi is openmpi or mpich, not '${2:-}'" >&2; exit 2 ;;
      esac
      shift
      ;;
    --no-install) install=no ;;
    -h | --help) usage; exit 0 ;;
    *) echo "test.sh: there is no option '$1' (see --help)" >&2; exit 2 ;;
  esac
  shift
done

jobs=$(nproc)
began=$SECONDS
times=()
# stage "what it does" COMMAND...
stage() {
  local what=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$what"
  "$@" || { printf '\ntest.sh: FAILED while: %s\n' "$what" >&2; exit 1; }
  times+=("$(printf '%5d s  %s' $((SECONDS - start)) "$what")")
}

build() {  # PRESET CMAKE_OPTIONS...
  local preset=$1
  shift
  cmake --preset "$preset" "$@" && cmake --build --preset "$preset" -j "$jobs"
}

# run_tests PRESET CTEST_OPTIONS...: and says how many tests were skipped.
skipped=()
run_tests() {
  local log status=0 count
  log=$(mktemp)
  ctest --preset "$1" -j "$jobs" "${@:2}" | tee "$log" || status=$?
  count=$(grep -c '\*\*\*Skipped' "$log" || true)
  [[ $count == 0 ]] || skipped+=("$count tests of preset $1 were skipped: those labelled device need a CUDA device")
  rm -f "$log"
  return "$status"
}

# The thread sanitizer wants its memory map where it expects it: no address randomization, where that may be turned off.
plain_addresses=()
if setarch "$(uname -m)" -R true 2>/dev/null; then plain_addresses=(setarch "$(uname -m)" -R); fi

needs=() werror=OFF
[[ -z $mpi ]] || needs+=(--mpi "$mpi")
if [[ $full == yes ]]; then needs=(--full) werror=ON; fi
[[ $install == no ]] || stage "install what is missing" ./scripts/install-deps.sh "${needs[@]}"

# From here on every build names its MPI library, where there are several: `mpicxx` may be any of them.
has_mpi() { command -v "mpicxx.$1" >/dev/null; }
[[ -z $mpi ]] || has_mpi "$mpi" || { echo "test.sh: there is no mpicxx.$mpi (without --mpi it takes mpicxx)" >&2; exit 1; }
[[ $full == no || $mpi ]] || ! has_mpi openmpi || mpi=openmpi
main=${mpi:-release}
suffix=${mpi:+-DMPI_EXECUTABLE_SUFFIX=.$mpi}

stage "build the release${mpi:+ with $mpi}" build "$main" -DTERSE_WERROR=$werror
stage "test the release${mpi:+ with $mpi}" run_tests "$main"
if [[ $full == yes ]]; then
  stage "clang-tidy on src" ./scripts/tidy.sh --build "build/$main" src
  stage "build with the address and undefined-behaviour sanitizers" build asan $suffix
  stage "test with the address and undefined-behaviour sanitizers" ctest --preset asan -j "$jobs"
  stage "build with the thread sanitizer" build tsan $suffix
  stage "test with the thread sanitizer" "${plain_addresses[@]}" ctest --preset tsan -j "$jobs"
  stage "build the fuzz targets" build fuzz $suffix
  stage "fuzz every decoder and parser for a moment" ctest --preset fuzz -j "$jobs"
  other=mpich
  [[ $mpi != mpich ]] || other=openmpi
  if [[ $mpi ]] && has_mpi $other; then
    # What does not know MPI has run above: command lines, packages but for the installed one, most of what the drop-in
    # decides and says. So have three, five and seven ranks; 1, 2, 4 and 8 remain.
    stage "build with $other" build $other -DTERSE_MPI_TESTS_ONLY=ON
    stage "test what runs MPI with $other" ctest --preset $other -j "$jobs" -L '^(mpi|examples|package)$' \
      -E '^package\.(add_subdirectory|static)$|\.np[357]$|^interpose\.(run|no_such|bad|un|diff|memory|moving|temp|warm|rules)'
  else
    times+=("        there is no mpicxx.$other: tests with one MPI library only")
  fi
fi

printf '\n== times\n'
printf '%s\n' "${times[@]}"
((${#skipped[@]} == 0)) || printf '%s\n' "${skipped[@]}"
printf '%5d s  in all: every stage passed\n' $((SECONDS - began))
