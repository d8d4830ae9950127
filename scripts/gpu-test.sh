#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a GPU: builds Terse with CUDA, runs what needs a device, and prints one table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/gpu-test.sh [--setup FILE] [--skip-build] [--no-sanitizer] [--cuda-mpi PREFIX] [--jobs N] [--out FILE]

Builds Terse with CUDA in build/cuda, runs the tests that need a device and the benchmarks on it, looks for errors by
compute-sanitizer, and prints a table in Markdown. A part that fails is a row of the table and does not end the script;
the exit status is then 1. Without nvcc or a device it is 2. What scripts/install-deps.sh installs must be there. It
ends within 8 minutes: what there is no time left for is a row that says so.
  --setup FILE        a file of bash to source first, which says where things are; it may define a function use_cuda_mpi
                      that puts a CUDA-aware MPI in front
  --skip-build        measures what build/cuda holds
  --no-sanitizer      leaves compute-sanitizer out
  --cuda-mpi PREFIX   a CUDA-aware MPI with the same ABI as that of the build, below PREFIX/bin and PREFIX/lib, for the
                      last benchmarks; without it they go by use_cuda_mpi, if there is such a function
  --jobs N            compilers at once; default: one for each core
  --out FILE          writes the table to FILE, too
TEXT
}
fail() { echo "gpu-test.sh: $1" >&2; exit "${2:-1}"; }

build=yes sanitizer=yes setup="" cuda_mpi="" jobs=$(nproc) out=""
while (($# > 0)); do
  case $1 in
    --skip-build) build=no ;;
    --no-sanitizer) sanitizer=no ;;
    --setup | --cuda-mpi | --jobs | --out)
      (($# > 1)) || fail "$1 needs a value (see --help)" 2
      case $1 in
        --setup) setup=$2 ;;
        --cuda-mpi) cuda_mpi=$2 ;;
        --jobs) jobs=$2 ;;
        --out) out=$2 ;;
      esac
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) fail "there is no option '$1' (see --help)" 2 ;;
  esac
  shift
done
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "--jobs is a number of at least 1, not '$jobs'" 2
[[ -z $cuda_mpi || -x $cuda_mpi/bin/mpirun ]] || fail "--cuda-mpi: there is no $cuda_mpi/bin/mpirun" 2

if [[ $setup ]]; then
  [[ -f $setup ]] || fail "--setup: there is no file $setup" 2
  set +eu  # which it need not be written for
  # shellcheck source=/dev/null
  . "$setup"
  set -eu
fi

PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
command -v nvcc >/dev/null || fail "there is no nvcc: put it into PATH, or name its folder by CUDA_HOME" 2
device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | sort | uniq -c |
  sed 's/^ *1 //; s/^ *\([0-9]*\) /\1 x /' | paste -sd ';') || true
[[ $device ]] || fail "there is no CUDA device on this machine: nvidia-smi names none" 2
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
toolkit=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')

# Open MPI: root may run it, and ranks may outnumber the cores (as in mpi_examples/launcher.cmake).
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none

programs=$PWD/build/cuda/bin
results=$PWD/build/cuda/gpu-test
began=$SECONDS
deadline=$((began + 450))
rows=()
all_well=yes
row() { rows+=("| $1 | $2 | ${3:-} | ${4:-} |"); }  # WHAT FOUND TARGET MET
failed() {
  all_well=no
  row "$1" "FAILED: $2" "${3:-}" no
}
# Runs a part of at most so many seconds; what it says goes to the terminal and to NAME.log.
part() {  # NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  ((limit <= deadline - SECONDS)) || limit=$((deadline - SECONDS))
  if ((limit < 5)); then
    echo "no time was left for it" | tee "$results/$name.log"
    return 1
  fi
  printf '\n== %s\n' "$name"
  timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$results/$name.log" || status=$?
  printf -- '-- %s: %d s\n' "$name" $((SECONDS - start))
  ((status != 124)) || echo "stopped after $limit s" | tee -a "$results/$name.log"
  return "$status"
}
# The program's own last word, or else whoever's.
last_line() {
  { grep -a '^terse-bench: ' "$results/$1.log" || grep -av '^ *$' "$results/$1.log"; } | tail -n 1 | tr '|' '/' | cut -c -160
}
# One value of the first row of a JSON file that has a key on each line; empty where there is none.
value() {
  sed -n "s/^ *\"$2\": *\"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\} *$/\1/p" "$results/$1.json" 2>/dev/null | head -n 1
}
# A figure beside its target: WHAT VALUE TARGET_IN_WORDS LEAST FORMAT.
figure() {
  local met
  met=$(awk -v v="$2" -v least="$4" 'BEGIN { print (v >= least) ? "yes" : "no" }')
  [[ $met == yes ]] || all_well=no
  row "$1" "$(awk -v v="$2" -v f="$5" 'BEGIN { printf f, v }')" "$3" "$met"
}
percent='%.1f %%'

configure_and_build() {
  local generator=() targets
  command -v ninja >/dev/null || generator=(-G "Unix Makefiles")
  cmake --preset cuda "${generator[@]}"
  mapfile -t targets < <(cmake --build build/cuda --target help |
    sed -nE 's/^(\.\.\. )?(test\.device\.[a-z_.]+|train_charlm_cuda)(: phony)?$/\2/p' | sort -u)
  cmake --build build/cuda -j "$jobs" --target terse-bench cuda_allreduce "${targets[@]}"
}
export -f configure_and_build
export jobs

mkdir -p "$results"
rm -f "$results"/*.json "$results"/*.log
if [[ $build == yes ]]; then
  if part build 240 bash -euo pipefail -c configure_and_build; then
    row "build" "well, $((SECONDS - began)) s"
  else
    failed "build" "$(last_line build)"
  fi
fi
[[ -x $programs/terse-bench ]] || fail "there is no $programs/terse-bench: it could not be built, or was not"
# Ranks are started by the MPI library of the build, of which mpirun may not be.
mpirun=$(sed -n 's/^MPIEXEC_EXECUTABLE:[^=]*=//p' build/cuda/CMakeCache.txt)

# --- tests ---
tests_status=0
part tests 150 ctest --preset cuda -j 2 || tests_status=$?
passed=$(grep -c '\. *Passed ' "$results/tests.log" || true)
skipped=$(grep -c '\*\*\*Skipped' "$results/tests.log" || true)
bad=$(sed -n 's/.* \([0-9]*\) tests failed out of .*/\1/p' "$results/tests.log")
((tests_status != 0)) || bad=0
counts="$passed passed, ${bad:-?} failed, $skipped skipped"
if ((tests_status == 0 && passed > 0)); then
  row "tests on the device" "$counts" "0 failed" yes
else
  failed "tests on the device" "$counts" "0 failed"
fi

# --- benchmarks ---
bench_codec() {
  if ! part codec 60 "$programs/terse-bench" codec --device cuda --codec onebit --bytes 1G \
    --json "$results/codec.json"; then
    failed "codec onebit, 1 GiB of f32" "$(last_line codec)"
    return
  fi
  row "copy on the device, 1 GiB" "$(awk -v v="$(value codec copy_gb_s)" 'BEGIN { printf "%.0f GB/s", v }')"
  row "encode, decode, decode and add" "$(awk -v a="$(value codec encode_gb_s)" -v b="$(value codec decode_gb_s)" \
    -v c="$(value codec decode_add_gb_s)" 'BEGIN { printf "%.0f, %.0f, %.0f GB/s of elements", a, b, c }')"
  figure "encode's memory traffic over copy's" "$(percent_of "$(value codec traffic_ratio)")" \
    "at least 75 %" 75 "$percent"
  figure "decode-and-add's memory traffic over copy's" "$(percent_of "$(value codec decode_add_traffic_ratio)")" \
    "at least 80 %" 80 "$percent"
}
percent_of() { awk -v v="$1" 'BEGIN { print 100 * v }'; }
milliseconds() { awk -v us="$1" 'BEGIN { printf "%.2f ms", us / 1000 }'; }
# Plain and compressed sums of 256 MiB on so many ranks; the first argument names the run.
bench_allreduce() {  # NAME RANKS
  local name=$1 ranks=$2 what="onebit allreduce of 256 MiB, $2 ranks"
  shift 2
  if ! part "$name" 75 "$mpirun" -np "$ranks" "$programs/terse-bench" allreduce --device cuda --codec onebit \
    --algorithm two_phase --bytes 256M --mean-calls 3 --iterations 9 --json "$results/$name.json" "$@"; then
    failed "$what" "$(last_line "$name")"
    return 1
  fi
  [[ $(value "$name" same_bits) == true ]] || failed "$what" "the ranks' bits differ"
}
bench_staged() {  # RANKS
  local name="staged-$1" what="onebit allreduce of 256 MiB, $1 ranks, staged"
  bench_allreduce "$name" "$1" --cuda-aware off || return 0
  row "$what" "$(milliseconds "$(value "$name" median_us)")"
  row "MPI by way of pinned memory, $1 ranks" "$(milliseconds "$(value "$name" mpi_median_us)")"
  figure "their ratio, $1 ranks" "$(value "$name" speedup)" "at least 5" 5 "%.1f x"
}
# With a CUDA-aware MPI the library is given its pointers, and staged calls run in turn with direct ones.
bench_aware() {  # RANKS
  local name="aware-$1" what="onebit allreduce of 256 MiB, $1 ranks, CUDA-aware"
  bench_allreduce "$name" "$1" || return 0
  if [[ $(value "$name" cuda_aware) != on ]]; then
    failed "$what" "this MPI does not say that it takes device memory"
    return 0
  fi
  row "$what" "$(milliseconds "$(value "$name" median_us)")"
  row "the same staged, in turn" "$(milliseconds "$(value "$name" cuda_aware_off_median_us)")"
  row "this MPI, directly and by way of pinned memory" "$(milliseconds "$(value "$name" cuda_aware_mpi_median_us)"), \
$(milliseconds "$(value "$name" mpi_median_us)")"
  figure "staged over CUDA-aware, $1 ranks" "$(awk -v a="$(value "$name" cuda_aware_off_median_us)" \
    -v b="$(value "$name" median_us)" 'BEGIN { print a / b }')" "at least 1, to 2 %" 0.98 "%.2f x"
}

bench_codec
bench_staged 2
bench_staged 4
aware=no
if [[ $cuda_mpi ]]; then
  export PATH=$cuda_mpi/bin:$PATH LD_LIBRARY_PATH=$cuda_mpi/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  aware=yes mpirun=$cuda_mpi/bin/mpirun
elif declare -F use_cuda_mpi >/dev/null; then
  if use_cuda_mpi; then
    aware=yes
    mpirun=$(command -v mpirun)
  else
    failed "CUDA-aware MPI" "use_cuda_mpi failed"
  fi
fi
if [[ $aware == yes ]]; then
  bench_aware 2
  bench_aware 4
else
  row "CUDA-aware MPI" "none was named" "no slower than staged" ""
fi

# --- compute-sanitizer ---
sanitize() {  # TOOL PROGRAM ARGUMENTS...
  local tool=$1 name="$1-$2"
  shift
  if ! part "$name" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$programs/$1" "${@:2}"; then
    failed "$tool of $1" "$(last_line "$name")" "0 errors"
  elif ! grep -q '\[       OK \]' "$results/$name.log"; then
    failed "$tool of $1" "no test ran" "0 errors"
  elif grep -qE 'ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards' "$results/$name.log"; then
    row "$tool of $1" "0 errors" "0 errors" yes
  else
    failed "$tool of $1" "$(last_line "$name")" "0 errors"
  fi
}

if [[ $sanitizer == no ]]; then
  row "compute-sanitizer" "not run"
elif ! command -v compute-sanitizer >/dev/null; then
  failed "compute-sanitizer" "it is not installed" "0 errors"
else
  # Each kernel once or twice: under the tools they take a hundred times as long.
  codecs=DeviceCodecs.EncodeAndDecodeOfACodec:DeviceCodecs.ReportsCorruptPayloads:DeviceCodecs.DivideAsTheHost
  sanitize memcheck test.device.codecs "--gtest_filter=$codecs"
  sanitize racecheck test.device.codecs "--gtest_filter=$codecs"
  sanitize memcheck test.device.allreduce "--gtest_filter=DeviceAllreduce.GoldenVectors:DeviceAllreduce.NonFinitePieces"
fi

# --- the table ---
table() {
  echo "| $(date -u +%Y-%m-%d), $device | driver $driver, CUDA $toolkit | target | met |"
  echo "| --- | --- | --- | --- |"
  printf '%s\n' "${rows[@]}"
}
printf '\n== %d s in all; logs and figures are in build/cuda/gpu-test\n\n' $((SECONDS - began))
table
[[ -z $out ]] || table >"$out"
[[ $all_well == yes ]]
