#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs MPI programs of others under the drop-in, and compares what they say with what they say without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/third-party.sh [--build DIR] [--mpi4py DIR] [--no-install]

Runs LAMMPS, HPCC and mpi4py, of Debian's archive and with Open MPI, three times: by themselves, under the drop-in with
nothing configured, and with every sum of MPI_FLOAT and MPI_DOUBLE of a byte and more by Terse's own algorithm, exactly
(codec identity). Prints a line for each comparison; exits with 1 if one does not hold. Results stay in build/third-party.
  --build DIR    where Terse was built (build/release)
  --mpi4py DIR   an unpacked source distribution of mpi4py, of the installed version: its tests of collectives are run
  --no-install   installs nothing: what is missing is left out
TEXT
}
fail() { echo "third-party.sh: $1" >&2; exit "${2:-1}"; }

build=build/release mpi4py="" install=yes
while (($# > 0)); do
  case $1 in
    --build | --mpi4py)
      (($# > 1)) || fail "$1 needs a folder (see --help)" 2
      [[ -d $2 ]] || fail "$1: there is no folder $2" 2
      if [[ $1 == --build ]]; then build=$2; else mpi4py=$(cd "$2" && pwd); fi
      shift 2
      ;;
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    *) fail "there is no option '$1' (see --help)" 2 ;;
  esac
done
terse=$PWD/$build/bin/terse
[[ -x $terse ]] || fail "there is no $terse: build it first (cmake --build --preset release)"
if [[ $install == yes ]]; then
  ((EUID == 0)) || fail "installing packages needs root: run it as root or through sudo, or with --no-install"
  packages="openmpi-bin lammps hpcc python3-mpi4py python3-numpy"
  # shellcheck disable=SC2086
  env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $packages >/dev/null
fi

# Open MPI: root may run it, and ranks may outnumber the cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
mpirun=$(command -v mpirun.openmpi || command -v mpirun)
results=$PWD/build/third-party
rm -rf "$results"
mkdir -p "$results"
cd "$results"

nothing=("$terse" run --)
exactly=("$terse" run --codec identity --algorithm two_phase --min-bytes 1 --)
broken=no
# holds WHAT YES_OR_NO
holds() {
  printf '%-72s %s\n' "$1" "$2"
  [[ $2 == yes ]] || broken=yes
}
same() { if cmp -s "$1" "$2"; then echo yes; else echo NO; fi; }
# The report of a run: what Terse took.
taken() { sed -n 's/^Terse: \(.* passed on\);.*/    \1/p' "$1"; }

if command -v lmp >/dev/null; then
  cat >melt.in <<'TEXT'
units lj
atom_style atomic
lattice fcc 0.8442
region box block 0 8 0 8 0 8
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 3.0 87287 loop geom
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor 0.3 bin
neigh_modify every 20 delay 0 check no
fix 1 all nve
thermo_style custom step temp pe ke etotal press pxx pxy vol
thermo_modify format float %.DIGITSg
thermo 20
run 200
TEXT
  # lammps OUTPUT RANKS DIGITS COMMAND...: the thermodynamic output alone
  lammps() {
    local out=$1 ranks=$2 digits=$3
    shift 3
    sed "s/DIGITS/$digits/" melt.in >"$out.in"
    "$mpirun" -np "$ranks" "$@" lmp -in "$out.in" -log none >"$out.all" 2>&1 || fail "LAMMPS failed: see $results/$out.all"
    sed -n '/^ *Step/,/^Loop/p' "$out.all" | grep -v '^Loop' >"$out"
    [[ -s $out ]] || fail "LAMMPS printed nothing: see $results/$out.all"
  }
  lammps melt2.plain 2 15
  lammps melt2.nothing 2 15 "${nothing[@]}"
  lammps melt2.exactly 2 15 "${exactly[@]}"
  holds "LAMMPS, 2 ranks, 15 digits, nothing configured: as by itself" "$(same melt2.plain melt2.nothing)"
  holds "LAMMPS, 2 ranks, 15 digits, sums by Terse: as by itself" "$(same melt2.plain melt2.exactly)"
  taken melt2.exactly.all
  lammps melt4.plain 4 15
  lammps melt4.nothing 4 15 "${nothing[@]}"
  lammps melt4.exactly 4 15 "${exactly[@]}"
  lammps melt4.plain.8 4 8
  lammps melt4.exactly.8 4 8 "${exactly[@]}"
  holds "LAMMPS, 4 ranks, 15 digits, nothing configured: as by itself" "$(same melt4.plain melt4.nothing)"
  holds "LAMMPS, 4 ranks, its 8 digits, sums by Terse: as by itself" "$(same melt4.plain.8 melt4.exactly.8)"
  for algorithm in 1 2 3 4 5; do
    OMPI_MCA_coll_tuned_use_dynamic_rules=1 OMPI_MCA_coll_tuned_allreduce_algorithm=$algorithm \
      lammps melt4.mpi$algorithm 4 15
  done
  # The largest relative difference of a number of one file from that of another.
  difference() {
    paste -d ' ' "$1" "$2" | awk 'NR > 1 { n = NF / 2; for (i = 1; i <= n; ++i) {
      d = $i - $(i + n); s = $i < 0 ? -$i : $i; if (d < 0) d = -d; if (s > 1e-300 && d / s > most) most = d / s } }
      END { printf "%.1e", most }'
  }
  for other in melt4.mpi{1,2,3,4,5} melt4.exactly; do
    printf '    LAMMPS, 4 ranks: %-14s differs from MPI'"'"'s default by at most %s of a number\n' "${other#melt4.}" \
      "$(difference melt4.plain "$other")"
  done
fi

if command -v hpcc >/dev/null && [[ -e /usr/share/doc/hpcc/examples/_hpccinf.txt ]]; then
  # hpcc OUTPUT COMMAND...: what it says of its own results
  run_hpcc() {
    local out=$1
    shift
    mkdir "$out.d"
    cp /usr/share/doc/hpcc/examples/_hpccinf.txt "$out.d/hpccinf.txt"
    (cd "$out.d" && "$mpirun" -np 4 "$@" hpcc) >"$out.all" 2>&1 || fail "HPCC failed: see $results/$out.all"
    { grep -E '^(Success|PTRANS_residual|MPIRandomAccess_ErrorsFraction|MPIFFT_maxErr|HPL_RnormI)' "$out.d/hpccoutf.txt"
      grep -c PASSED "$out.d/hpccoutf.txt"
      grep -c FAILED "$out.d/hpccoutf.txt" || true; } >"$out"
  }
  run_hpcc hpcc.plain
  run_hpcc hpcc.nothing "${nothing[@]}"
  run_hpcc hpcc.exactly "${exactly[@]}"
  holds "HPCC, 4 ranks, nothing configured: as by itself" "$(same hpcc.plain hpcc.nothing)"
  holds "HPCC, 4 ranks, sums by Terse: as by itself" "$(same hpcc.plain hpcc.exactly)"
  taken hpcc.exactly.all
fi

if [[ $mpi4py ]]; then
  version=$(/usr/bin/python3 -c 'import mpi4py; print(mpi4py.__version__)')
  grep -q "^Version: $version$" "$mpi4py/PKG-INFO" || fail "$mpi4py is not mpi4py $version, which is installed"
  for ranks in 2 3 4; do
    for way in nothing exactly; do
      declare -n command=$way
      out=$results/mpi4py$ranks.$way
      right=yes
      (cd "$mpi4py/test" && "$mpirun" -np $ranks "${command[@]}" /usr/bin/python3 runtests.py --no-builddir -i cco) \
        >"$out" 2>&1 || right=NO
      holds "mpi4py $version, tests of collectives, $ranks ranks, $way: $(grep -c '^OK' "$out" || true) ranks say OK" $right
      taken "$out"
    done
  done
fi
[[ $broken == no ]] || fail "not all is as it was: see $results"
