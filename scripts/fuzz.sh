#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the libFuzzer targets and lets each run for a while.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/fuzz.sh [--seconds N] [--jobs N] [TARGET...]

The open-ended search, each night say: builds the targets of tests/fuzz with clang++ (build/fuzz) and runs each for N
seconds (600), fuzz_decode and fuzz_roundtrip once for each example of the codec table. Prints a line a run: inputs tried,
coverage, what was found. What targets have learnt is kept in build/fuzz/learnt for the next run. Exits with 1 when
something was found, and says where the input lies that shows it: fix what it shows, and put it into
tests/fuzz/regressions/TARGET under a name that says what it is. From then on every build's test fuzz.replay runs it, and
so does the preset fuzz (ctest --preset fuzz), which tries a fixed number of inputs from fixed seeds and so gives the same
answer each time.
  --seconds N   how long each runs
  --jobs N      how many run at once (as many as there are cores)
  TARGET        only these, such as fuzz_spec, or fuzz_decode=onebit:block=64
TEXT
}
fail() { echo "fuzz.sh: $1" >&2; exit "${2:-1}"; }

seconds=600 jobs=$(nproc) wanted=()
while (($# > 0)); do
  case $1 in
    --seconds | --jobs)
      (($# > 1)) && [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 needs a number of at least 1 (see --help)" 2
      if [[ $1 == --seconds ]]; then seconds=$2; else jobs=$2; fi
      shift 2
      ;;
    -h | --help) usage; exit 0 ;;
    -*) fail "there is no option '$1' (see --help)" 2 ;;
    *) wanted+=("$1"); shift ;;
  esac
done
runtime=$(clang++ -print-runtime-dir 2>/dev/null) && compgen -G "$runtime/libclang_rt.fuzzer*.a" >/dev/null ||
  fail "there is no clang++ with libFuzzer: run scripts/install-deps.sh --full"

build=$PWD/build/fuzz
bin=$build/bin
found=$build/found
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz -j "$(nproc)"
rm -rf "$build/seeds" "$found"
mkdir -p "$found"
"$bin/write_seeds" "$build/seeds"

# Runs: TARGET, or TARGET=SPEC where the codec is fixed.
mapfile -t specs < <("$bin/write_seeds" --specs)
all=()
for directory in "$build/seeds"/*/; do
  target=$(basename "$directory")
  case $target in
    fuzz_decode | fuzz_roundtrip) for spec in "${specs[@]}"; do all+=("$target=$spec"); done ;;
    *) all+=("$target") ;;
  esac
done
runs=()
for run in "${all[@]}"; do
  ((${#wanted[@]} > 0)) || runs+=("$run")
  for name in ${wanted[@]+"${wanted[@]}"}; do
    if [[ $run == "$name" || ${run%%=*} == "$name" ]]; then runs+=("$run"); fi
  done
done
((${#runs[@]} > 0)) || fail "there is no target '${wanted[*]}': the targets are ${all[*]}" 2

# One run; its line says how it ended.
fuzz() {
  local run=$1 target=${1%%=*} spec='' file status=0
  if [[ $run == *=* ]]; then spec=${run#*=}; fi
  file=$(tr -c 'A-Za-z0-9_\n' '-' <<<"$run")
  local learnt=$build/learnt/$file log=$found/$file.log corpora=()
  mkdir -p "$learnt"
  for corpus in "$build/seeds/$target" "tests/fuzz/regressions/$target"; do
    if [[ -d $corpus ]]; then corpora+=("$corpus"); fi
  done
  # a run of a fixed codec has seeds of its own, since the first byte chooses among one
  if [[ $spec ]]; then
    export TERSE_FUZZ_CODEC=$spec
    "$bin/write_seeds" "$found/$file.seeds"
    corpora=("$found/$file.seeds/$target" "${corpora[@]}")
  fi
  ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 "$bin/$target" -max_total_time="$seconds" -max_len=4096 \
    -print_final_stats=1 -artifact_prefix="$found/$file-" "$learnt" "${corpora[@]}" >"$log" 2>&1 || status=$?
  local tried coverage artifact
  tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  artifact=$(sed -n 's/^artifact_prefix.*Test unit written to //p' "$log" | tail -n 1)
  printf '%-40s %12s inputs  coverage %5s  ' "$run" "${tried:-?}" "${coverage:-?}"
  if ((status == 0)); then
    echo 'nothing found'
  else
    echo "FOUND: ${artifact:-see} ($log)"
    return 1
  fi
}
export -f fuzz
export build bin found seconds
echo "== ${#runs[@]} runs of $seconds s, $jobs at once"
printf '%s\0' "${runs[@]}" | xargs -0 -n 1 -P "$jobs" bash -c 'fuzz "$1"' fuzz ||
  fail "something was found: see above"
