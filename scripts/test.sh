#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds Terse and runs its tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/test.sh [--full | --nightly] [--mpi NAME] [--no-install]

Installs what is missing, builds Terse in build/release and runs all tests. At the end it names each test that was
skipped or could not be made, with the reason.
  --full         also: warnings are errors; clang-tidy on src; all tests under the address and undefined-behaviour
                 sanitizers (build/asan); the tests whose ranks are threads under the thread sanitizer (build/tsan);
                 libFuzzer on every decoder and parser with as many inputs as TERSE_FUZZ_RUNS says, from a fixed seed, so
                 that a second run finds the same (build/fuzz; scripts/fuzz.sh searches for more); the tests, examples
                 and package tests that run MPI, with the other MPI library of the two, on 1, 2, 4 and 8 ranks
  --nightly      as --full, and the release's tests go over the full products of their parameters, of which the others
                 take a part that has each pair of two (TERSE_TEST_NIGHTLY=1): hours
  --mpi NAME     with openmpi or mpich, in build/NAME, where the system has several MPI libraries under Debian's names
                 (mpicxx.NAME); default: whatever mpicxx is, or Open MPI with --full
  --no-install   leaves it to CMake to say what is missing
Variables that are settings of Terse (TERSE_CODEC and the like) do not reach the tests; TERSE_TEST_LARGE=1 adds tests that
take minutes and 16 GiB of memory.
TEXT
}

full=no nightly=no install=yes mpi=""
while (($# > 0)); do
  case $1 in
    --full) full=yes ;;
    --nightly) full=yes nightly=yes ;;
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
# Seconds of all cores that commands have taken so far, in $cpu. (Of a subshell `times` would tell its own.)
scratch=$(mktemp)
cpu_so_far() {
  times >"$scratch"
  cpu=$(awk '{ for (i = 1; i <= 2; ++i) { split($i, part, /[ms]/); sum += 60 * part[1] + part[2] } } END { printf "%d", sum }' "$scratch")
}
# stage "what it does" COMMAND...
stage() {
  local what=$1 start=$SECONDS before
  shift
  cpu_so_far
  before=$cpu
  printf '\n== %s\n' "$what"
  "$@" || { printf '\ntest.sh: FAILED while: %s\n' "$what" >&2; exit 1; }
  cpu_so_far
  times+=("$(printf '%5d s  %5d s  %s' $((SECONDS - start)) $((cpu - before)) "$what")")
}

# The tests have settings of their own: what the caller's programs are to do with Terse is not for them.
for variable in "${!TERSE_@}"; do
  [[ $variable == TERSE_TEST_* ]] || unset "$variable"
done

# What was left out: a line PRESET<tab>REASON<tab>TEST each.
left_out=$(mktemp)
trap 'rm -f "$left_out" "$scratch"' EXIT

# What CMake could make no tests of is a line "no tests of WHAT: WHY" or "WHAT is left out: WHY".
build() {  # PRESET CMAKE_OPTIONS...
  local preset=$1 log status=0
  shift
  log=$(mktemp)
  cmake --preset "$preset" "$@" | tee "$log" || status=$?
  sed -nE "s/^-- (no tests of .*|.* is left out): (.*)/$preset\t\2\t\1/p" "$log" >>"$left_out"
  rm -f "$log"
  ((status == 0)) && cmake --build --preset "$preset" -j "$jobs"
}

# Reads ctest's log and prints a line REASON<tab>TEST for each test that was skipped: the line of its output that ctest
# knew that by. And for each case that a test program of GoogleTest's skipped although the rest of it ran.
reasons() {
  awk '
    /^[0-9]+\/[0-9]+ Testing: / { test = $3; cases = ""; next }
    /^Output:$/ { lines = 0; next }
    /: Skipped\r?$/ { getline why; line[++lines] = why; next }
    /^\[  SKIPPED \] .* \([0-9]+ ms\)/ { cases = cases why "\t" test " (" $4 ")\n"; next }
    /^Skip regular expression found in output\. Regex=\[/ {
      regex = $0
      sub(/^[^[]*\[/, "", regex)
      sub(/\]$/, "", regex)
      for (i = 1; i <= lines && !match(line[i], regex); ++i) continue
      why = i <= lines ? substr(line[i], RSTART) : "it does not say why"
      sub(/^.*[Ss][Kk][Ii][Pp][Pp][Ee][Dd]: /, "", why)
      print why "\t" test
      cases = ""
      next
    }
    /^"[^"]*" time elapsed: / { printf "%s", cases; cases = ""; next }
    { line[++lines] = $0 }' "$1"
}

# The thread sanitizer wants its memory map where it expects it: no address randomization, where that may be turned off.
plain_addresses=()
if setarch "$(uname -m)" -R true 2>/dev/null; then plain_addresses=(setarch "$(uname -m)" -R); fi

run_tests() {  # PRESET CTEST_OPTIONS...
  local preset=$1 before=() status=0
  shift
  [[ $preset != tsan ]] || before=("${plain_addresses[@]}")
  "${before[@]}" ctest --preset "$preset" -j "$jobs" "$@" || status=$?
  reasons "build/$preset/Testing/Temporary/LastTest.log" | sort -u | sed "s/^/$preset\t/" >>"$left_out"
  return "$status"
}

# Says what was left out: for each preset and reason, of how many tests, and their names.
say_left_out() {
  [[ -s $left_out ]] || return 0
  printf '\n== skipped, and why\n'
  sort -u -t $'\t' -k 1,2 -k 3 "$left_out" | awk -F '\t' '
    $1 "\t" $2 != group { group = $1 "\t" $2; order[++groups] = group }
    { names[group] = names[group] "\n      " $3; ++count[group] }
    END {
      for (g = 1; g <= groups; ++g) {
        split(order[g], part, "\t")
        printf "  %s: %s (%d)%s\n", part[1], part[2], count[order[g]], names[order[g]]
      }
    }'
}

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

slow=()
if [[ $nightly == yes ]]; then slow=(-DTERSE_TEST_TIMEOUT=14400); fi
stage "build the release${mpi:+ with $mpi}" build "$main" -DTERSE_WERROR=$werror "${slow[@]}"
if [[ $nightly == yes ]]; then export TERSE_TEST_NIGHTLY=1; fi
stage "test the release${mpi:+ with $mpi}" run_tests "$main"
unset TERSE_TEST_NIGHTLY
if [[ $full == yes ]]; then
  stage "clang-tidy on src" ./scripts/tidy.sh --build "build/$main" src
  stage "build with the address and undefined-behaviour sanitizers" build asan $suffix
  stage "test with the address and undefined-behaviour sanitizers" run_tests asan
  stage "build with the thread sanitizer" build tsan $suffix
  stage "test with the thread sanitizer" run_tests tsan
  stage "build the fuzz targets" build fuzz $suffix
  stage "fuzz every decoder and parser, from fixed seeds" run_tests fuzz
  other=mpich
  [[ $mpi != mpich ]] || other=openmpi
  if [[ $mpi ]] && has_mpi $other; then
    # What does not know MPI has run above: command lines, packages but for the installed one, most of what the drop-in
    # decides and says, and whether a model learns as well (examples.train_charlm.promise). So have three, five and
    # seven ranks; 1, 2, 4 and 8 remain. The objects of rooms that know no MPI are those of the first build.
    stage "build with $other" build $other -DTERSE_MPI_TESTS_ONLY=ON "-DTERSE_OBJECTS_FROM=$PWD/build/$main" \
      -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG"
    stage "test what runs MPI with $other" run_tests $other -L '^(mpi|examples|package)$' \
      -E '^package\.(add_subdirectory|static)$|^examples\.train_charlm\.promise$|\.np[357]$|^interpose\.(run|no_such|bad|un|diff|memory|moving|temp|warm|rules)'
  else
    times+=("                  there is no mpicxx.$other: tests with one MPI library only")
  fi
fi

printf '\n== times, and those of all cores\n'
printf '%s\n' "${times[@]}"
say_left_out
printf '\n%5d s  in all: every stage passed\n' $((SECONDS - began))
