#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs MPI programs of others under the drop-in, and compares what they say with what they say without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/third-party.sh [--build DIR] [--mpi4py DIR] [--osu DIR] [--no-install] [PROGRAM...]

Runs programs of others with Open MPI three times: by themselves, under the drop-in with nothing configured, and with
every sum of MPI_FLOAT and MPI_DOUBLE of a byte and more by Terse's own algorithm, exactly (codec identity). Prints a line
for each comparison; exits with 1 if one does not hold. Results stay in build/third-party. PROGRAM is one of
  lammps hpcc    of Debian's archive
  mpi4py         its newest version from PyPI, built by pip for this run alone: all its tests on 2 ranks, those of
                 collectives on 3 and 4; the tests that fail must be those that fail by themselves
  mpi4py-debian  of Debian's archive, with --mpi4py: its tests of collectives
  osu            OSU's micro-benchmarks, with --osu, since neither Debian nor PyPI has them: osu_allreduce with validation
and by default all of them; those that cannot be had are named and left out.
  --build DIR    where Terse was built (build/release)
  --mpi4py DIR   an unpacked source distribution of mpi4py, of the version that Debian's archive has
  --osu DIR      OSU's micro-benchmarks, 7.0 or later: built, or sources that have a script configure, which are built in
                 a copy
  --no-install   installs and fetches nothing: what is missing is left out
TEXT
}
fail() { echo "third-party.sh: $1" >&2; exit "${2:-1}"; }

build=build/release mpi4py="" osu="" install=yes
known=(lammps hpcc mpi4py mpi4py-debian osu) programs=()
while (($# > 0)); do
  case $1 in
    --build | --mpi4py | --osu)
      (($# > 1)) || fail "$1 needs a folder (see --help)" 2
      [[ -d $2 ]] || fail "$1: there is no folder $2" 2
      case $1 in
        --build) build=$2 ;;
        --mpi4py) mpi4py=$(cd "$2" && pwd) ;;
        --osu) osu=$(cd "$2" && pwd) ;;
      esac
      shift 2
      ;;
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) fail "there is no option '$1' (see --help)" 2 ;;
    *)
      [[ " ${known[*]} " == *" $1 "* ]] || fail "there is no program '$1': the programs are ${known[*]}" 2
      programs+=("$1")
      shift
      ;;
  esac
done
((${#programs[@]} > 0)) || programs=("${known[@]}")
wanted() { [[ " ${programs[*]} " == *" $1 "* ]]; }
[[ $build == /* ]] || build=$PWD/$build
terse=$build/bin/terse
[[ -x $terse ]] || fail "there is no $terse: build it first (cmake --build --preset release)"
if [[ $install == yes ]]; then
  ((EUID == 0)) || fail "installing packages needs root: run it as root or through sudo, or with --no-install"
  packages=(openmpi-bin)
  ! wanted lammps || packages+=(lammps)
  ! wanted hpcc || packages+=(hpcc)
  ! wanted mpi4py || packages+=(libopenmpi-dev python3-dev python3-pip python3-numpy)
  [[ ! $mpi4py ]] || packages+=(python3-mpi4py python3-numpy)
  env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${packages[@]}" >/dev/null
fi

# Open MPI: root may run it, and ranks may outnumber the cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
mpirun=$(command -v mpirun.openmpi || command -v mpirun)
results=$PWD/build/third-party
rm -rf "$results"
mkdir -p "$results"
cd "$results"

plain=()
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
# left_out WHAT WHY
left_out() { printf '%s: left out, %s\n' "$1" "$2"; }

if ! wanted lammps; then
  :
elif ! command -v lmp >/dev/null; then
  left_out LAMMPS "there is no program lmp (Debian: lammps)"
else
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

if ! wanted hpcc; then
  :
elif ! command -v hpcc >/dev/null || [[ ! -e /usr/share/doc/hpcc/examples/_hpccinf.txt ]]; then
  left_out HPCC "there is no program hpcc with its example of an input (Debian: hpcc)"
else
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

# python_tests OUTPUT RANKS WAY TEST_OPTION...: runs mpi4py's tests in the current folder by themselves or one of the ways
# above. OUTPUT names what failed on any rank, and says how many ranks came to the end; what they said is in OUTPUT.all.
python_tests() {
  local out=$1 ranks=$2 status=0
  local -n command_of=$3
  shift 3
  timeout 1800 "$mpirun" -np "$ranks" "${command_of[@]}" /usr/bin/python3 runtests.py --no-builddir "$@" \
    >"$out.all" 2>&1 || status=$?
  { grep -oE '^(FAIL|ERROR): .*' "$out.all" | sort -u || true
    echo "$(grep -cE '^(OK|FAILED)( |$)' "$out.all" || true) of $ranks ranks came to the end"
    echo "exit code $status"; } >"$out"
}
# compare_python_tests NAME RANKS OUTPUT TEST_OPTION...
compare_python_tests() {
  local what=$1 ranks=$2 out=$3 way
  shift 3
  python_tests "$out.plain" "$ranks" plain "$@"
  printf '    %s, %s ranks, by itself: %s tests fail; %s\n' "$what" "$ranks" \
    "$(grep -cE '^(FAIL|ERROR): ' "$out.plain" || true)" "$(grep 'came to the end' "$out.plain")"
  for way in nothing exactly; do
    python_tests "$out.$way" "$ranks" $way "$@"
    holds "$what, $ranks ranks, $way: as by itself" "$(same "$out.plain" "$out.$way")"
    diff "$out.plain" "$out.$way" | sed -n 's/^[<>]/    &/p' | head -n 20 || true
    taken "$out.$way.all"
  done
}

if ! wanted mpi4py-debian; then
  :
elif [[ ! $mpi4py ]]; then
  left_out "Debian's mpi4py" "its sources have the tests, and --mpi4py does not name them"
else
  version=$(/usr/bin/python3 -c 'import mpi4py; print(mpi4py.__version__)')
  grep -q "^Version: $version$" "$mpi4py/PKG-INFO" || fail "$mpi4py is not mpi4py $version, which is installed"
  cd "$mpi4py/test"
  for ranks in 2 3 4; do
    compare_python_tests "mpi4py $version, collectives" $ranks "$results/mpi4py-debian$ranks" -i cco
  done
  cd "$results"
fi

# Made for this run and removed with it: nothing of the system's Python changes.
# fetch_mpi4py FOLDER: sources and what they are built into
fetch_mpi4py() {
  local pip=(/usr/bin/python3 -m pip --disable-pip-version-check -q) wrapper
  wrapper=$(command -v mpicc.openmpi || command -v mpicc) || return
  "${pip[@]}" download --no-deps --no-binary mpi4py --dest "$1" mpi4py || return
  mkdir "$1/sources" && tar -xf "$1"/mpi4py-*.tar.gz -C "$1/sources" --strip-components 1 || return
  # Unoptimised: it is one file, which takes a compiler minutes otherwise.
  MPICC=$wrapper CFLAGS=-O0 "${pip[@]}" install --no-deps --target "$1/built" "$1/sources"
}
if ! wanted mpi4py; then
  :
elif [[ $install == no ]]; then
  left_out "mpi4py of PyPI" "--no-install fetches nothing"
else
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  if ! fetch_mpi4py "$scratch" >mpi4py.log 2>&1; then
    left_out "mpi4py of PyPI" "pip cannot fetch and build it, see $results/mpi4py.log"
  else
    export PYTHONPATH=$scratch/built
    version=$(/usr/bin/python3 -c 'import mpi4py; print(mpi4py.__version__)')
    cd "$scratch/sources/test"
    # Its tests that start further programs want slots of the launcher's that oversubscribing ranks do not have.
    compare_python_tests "mpi4py $version, all but spawning" 2 "$results/mpi4py2" -e spawn
    for ranks in 3 4; do
      compare_python_tests "mpi4py $version, collectives" $ranks "$results/mpi4py$ranks" -i cco
    done
    cd "$results"
    unset PYTHONPATH
  fi
fi

# The program osu_allreduce below a folder.
osu_in() { find "$1" -type f -name osu_allreduce -perm -u+x -print -quit; }
# build_osu FOLDER: of the sources in $osu
build_osu() {
  cp -r "$osu/." "$1" && cd "$1" || return
  ./configure CC="$(command -v mpicc.openmpi || command -v mpicc)" CXX="$(command -v mpicxx.openmpi || command -v mpicxx)" || return
  make -j "$(nproc)" -C c/mpi/collective/blocking osu_allreduce
}
if ! wanted osu; then
  :
elif [[ ! $osu ]]; then
  left_out "OSU's micro-benchmarks" "neither Debian nor PyPI has them, and --osu does not name them"
else
  program=$(osu_in "$osu")
  if [[ ! $program ]]; then
    mkdir osu
    (build_osu "$results/osu") >osu.log 2>&1 || fail "$osu has no program osu_allreduce, and none can be built: see $results/osu.log"
    program=$(osu_in "$results/osu")
  fi
  # osu_run OUTPUT RANKS TYPE COMMAND...: sizes and what validation says of each, without the times
  osu_run() {
    local out=$1 ranks=$2 type=$3
    shift 3
    timeout 600 "$mpirun" -np "$ranks" "$@" "$program" -c -T "$type" -m 4:4194304 -i 20 -x 5 >"$out.all" 2>&1 ||
      echo "exit code $?" >>"$out.all"
    awk '$1 ~ /^[0-9]+$/ && $2 ~ /^[0-9.]+$/ { print $1, $NF } /^exit code/' "$out.all" >"$out"
  }
  for ranks in 2 3 4; do
    for type in mpi_float mpi_int; do
      osu_run osu$ranks.$type.plain $ranks $type
      osu_run osu$ranks.$type.nothing $ranks $type "${nothing[@]}"
      osu_run osu$ranks.$type.exactly $ranks $type "${exactly[@]}"
      for way in nothing exactly; do
        out=osu$ranks.$type.$way
        right=$(same osu$ranks.$type.plain $out)
        passed=$(grep -c ' Pass$' $out || true)
        [[ $passed != 0 ]] || right=NO  # nothing was validated
        holds "OSU's osu_allreduce -c, $type, $ranks ranks, $way: $passed sizes pass, as by itself" "$right"
        taken $out.all
      done
    done
  done
fi
[[ $broken == no ]] || fail "not all is as it was: see $results"
