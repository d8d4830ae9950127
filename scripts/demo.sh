#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains one model twice, by MPI_Allreduce and by Terse, and shows the two side by side.
set -euo pipefail
from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/demo.sh [--ranks N] [--codec SPEC] [--no-install] [-- TRAINER_OPTION...]

Installs what is missing, builds Terse in build/release, trains a character-level language model on N ranks (4) of this
machine, once with MPI_Allreduce and once with a compressed allreduce (onebit), and prints the two side by side. Then
times both kinds of allreduce for a range of sizes on 2 ranks. Results are kept in build/demo.
  --no-install           leaves it to CMake to say what is missing
  -- TRAINER_OPTION...   for train_charlm, such as --text DIR or --steps 500 (build/release/bin/train_charlm --help)
TEXT
}
fail() { echo "demo.sh: $1" >&2; exit "${2:-1}"; }

ranks=4 codec=onebit install=yes
while (($# > 0)); do
  case $1 in
    --ranks | --codec)
      (($# > 1)) || fail "$1 needs a value (see --help)" 2
      if [[ $1 == --ranks ]]; then ranks=$2; else codec=$2; fi
      shift 2
      ;;
    --no-install) install=no; shift ;;
    --) shift; break ;;
    -h | --help) usage; exit 0 ;;
    *) fail "there is no option '$1' (see --help)" 2 ;;
  esac
done
[[ $ranks =~ ^[1-9][0-9]*$ ]] || fail "--ranks is a number of at least 1, not '$ranks'" 2

# What the trainer learns from unless told otherwise: asked for before the build, which takes minutes.
licenses=/usr/share/common-licenses
[[ -d $licenses || " $*" == *" --text"* ]] || fail "there is no $licenses to learn from: name text by -- --text DIR" 2

programs=$PWD/build/release/bin
results=$PWD/build/demo
say() { printf '\n== %s\n' "$*"; }
run() {
  echo "\$ $*"
  "$@"
}
train() {  # MPI_OR_SPEC JSON_FILE TRAINER_OPTIONS...
  local allreduce=$1 file=$2
  shift 2
  rm -f "$file"
  run "$mpirun" -np "$ranks" "$programs/train_charlm" --allreduce "$allreduce" --json "$file" "$@"
  [[ -s $file ]] || fail "the training wrote no $file"
}
# One value of a JSON file that has a key on each line.
value() {
  local found
  found=$(sed -n "s/^ *\"$2\": *\"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\} *$/\1/p" "$results/$1.json")
  [[ $found ]] || fail "$results/$1.json does not give $2"
  printf '%s' "$found"
}
yes_no() { [[ $1 == true ]] && echo yes || echo NO; }
# A row: what it is, both runs' values of a JSON key in a printf format, and how the second compares with the first.
row() {  # WHAT KEY FORMAT HOW
  awk -v what="$1" -v a="$(value mpi "$2")" -v b="$(value terse "$2")" -v format="$3" -v how="$4" 'BEGIN {
    if (how == "percent") how = sprintf("%+.2f %%", 100 * (b / a - 1))
    if (how == "part") how = b > 0 ? sprintf("1/%.1f", a / b) : ""
    if (how == "times") how = a > 0 ? sprintf("x %.2f", b / a) : ""
    printf "%-34s %16s %16s   %s\n", what, sprintf(format, a), sprintf(format, b), how
  }'
}

began=$SECONDS
if [[ $install == yes ]]; then
  say "install what is missing"
  ./scripts/install-deps.sh
fi
say "build"
cmake --preset release
cmake --build --preset release --target train_charlm terse-bench -j "$(nproc)"
# Ranks are started by the MPI library of the build, of which mpirun may not be.
mpirun=$(sed -n 's/^MPIEXEC_EXECUTABLE:[^=]*=//p' build/release/CMakeCache.txt)
mkdir -p "$results"
# Open MPI: root may run it, and ranks may outnumber the cores (as in mpi_examples/launcher.cmake).
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMP_NUM_THREADS=1
cd "$from"  # a relative path in TRAINER_OPTION is meant from there
say "train with MPI_Allreduce on $ranks ranks"
train mpi "$results/mpi.json" "$@"
say "train the same with $codec"
train "$codec" "$results/terse.json" "$@"
say "side by side: $(value mpi parameters) parameters, $(value mpi steps) steps, $ranks ranks"
printf '%-34s %16s %16s\n' "" MPI_Allreduce "$codec"
row "held-out loss, bits per character" held_out_bits_per_char %.4f percent
row "wire bytes per rank and step" wire_bytes_per_step %.0f part
row "compute, ms per step" compute_ms %.2f times
row "allreduce, ms per step" allreduce_ms %.2f times
row "same weights on all ranks" same_bits %s ""
for run in mpi terse; do
  [[ $(value $run same_bits) == true ]] || fail "the ranks do not hold the same weights"
done
say "allreduce by itself, 2 ranks of this machine (shared memory, the fastest wire there is)"
run "$mpirun" -np 2 "$programs/terse-bench" allreduce --codec "$codec" --sizes 64K:64M --json "$results/bench.json"
say "done in $((SECONDS - began)) s; results are in $results"
