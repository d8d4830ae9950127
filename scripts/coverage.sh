#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Says which lines of src/ the tests run, and fails where they are less than a given part.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/coverage.sh [--least PERCENT] [--no-install]

Builds Terse in build/coverage, runs the tests and prints, for each file of src/ and for all, how many of its lines
ran, and which did not. Fails if fewer than PERCENT (90) of all lines ran. A line of a SIMD kernel counts as run if
it ran for the instruction set of this processor.
  --no-install   leaves it to CMake to say what is missing
TEXT
}
fail() { echo "coverage.sh: $1" >&2; exit "${2:-1}"; }

least=90 install=yes
while (($# > 0)); do
  case $1 in
    --least)
      (($# > 1)) || fail "--least needs a value (see --help)" 2
      least=$2
      shift
      ;;
    --no-install) install=no ;;
    -h | --help) usage; exit 0 ;;
    *) fail "there is no option '$1' (see --help)" 2 ;;
  esac
  shift
done
[[ $least =~ ^([0-9]|[1-9][0-9]|100)$ ]] || fail "--least is a whole number of percent, not '$least'" 2

[[ $install == no ]] || ./scripts/install-deps.sh --coverage
command -v gcovr >/dev/null || fail "gcovr is missing (Debian: gcovr)"
cmake --preset coverage
cmake --build --preset coverage -j "$(nproc)"
# What earlier runs counted would be counted again.
find build/coverage -name '*.gcda' -delete
ctest --preset coverage -j "$(nproc)"
gcovr --root . --filter 'src/' --exclude-throw-branches --print-summary --fail-under-line "$least" build/coverage ||
  fail "fewer than $least % of the lines of src/ ran, or gcovr failed: see above"
