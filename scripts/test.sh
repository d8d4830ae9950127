#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds Terse and runs its tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/test.sh [--full] [--no-install]

Installs what is missing, builds Terse in build/release and runs all tests.
  --full         also: warnings are errors; all tests under the address and undefined-behaviour sanitizers
                 (build/asan); the tests whose ranks are threads under the thread sanitizer (build/tsan)
  --no-install   leaves it to CMake to say what is missing
TEXT
}

full=no install=yes
for argument in "$@"; do
  case $argument in
    --full) full=yes ;;
    --no-install) install=no ;;
    -h | --help) usage; exit 0 ;;
    *) echo "test.sh: there is no option '$argument' (see --help)" >&2; exit 2 ;;
  esac
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

# The thread sanitizer wants its memory map where it expects it: no address randomization, where that may be turned off.
plain_addresses=()
if setarch "$(uname -m)" -R true 2>/dev/null; then plain_addresses=(setarch "$(uname -m)" -R); fi

werror=OFF
[[ $full == no ]] || werror=ON
[[ $install == no ]] || stage "install what is missing" ./scripts/install-deps.sh
stage "build the release" build release -DTERSE_WERROR=$werror
stage "test the release" ctest --preset release -j "$jobs"
if [[ $full == yes ]]; then
  stage "build with the address and undefined-behaviour sanitizers" build asan
  stage "test with the address and undefined-behaviour sanitizers" ctest --preset asan -j "$jobs"
  stage "build with the thread sanitizer" build tsan
  stage "test with the thread sanitizer" "${plain_addresses[@]}" ctest --preset tsan -j "$jobs"
fi

printf '\n== times\n'
printf '%s\n' "${times[@]}"
printf '%5d s  in all: every stage passed\n' $((SECONDS - began))
