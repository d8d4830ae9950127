#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the Debian packages, installs them and works with them as a user would.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/check-deb.sh [--mpi NAME]

For a Debian system to try things in, as root: builds Terse in build/release (build/NAME) and its packages in
build/debian, takes away what had to be installed for that alone, installs the packages by apt-get, compiles programs
against them by CMake and by MPI's compiler wrapper, runs these and the tools, and removes the packages again.
  --mpi NAME   openmpi or mpich, where the system has several MPI libraries under Debian's names
TEXT
}
fail() { echo "check-deb.sh: $1" >&2; exit "${2:-1}"; }

preset=release suffix="" mpi_options=()
while (($# > 0)); do
  case $1 in
    --mpi)
      case ${2:-} in
        openmpi | mpich) preset=$2 suffix=.$2 mpi_options=(--mpi "$2") ;;
        *) fail "--mpi is openmpi or mpich, not '${2:-}'" 2 ;;
      esac
      shift 2
      ;;
    -h | --help) usage; exit 0 ;;
    *) fail "there is no option '$1' (see --help)" 2 ;;
  esac
done
((EUID == 0)) || fail "installing packages needs root: run it as root or through sudo"
command -v apt-get dpkg-query >/dev/null || fail "this is no Debian system: there is no apt-get"

say() { printf '\n== %s\n' "$*"; }
installed() { dpkg-query --show --showformat '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^ii *//p' | sort; }
apt() {
  local log=build/debian/apt.log
  env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "failed: apt-get $*"
  }
}
tools=terse-tools
began=$SECONDS
if installed | grep -qxE "libterse.*|$tools"; then fail "Terse's packages are installed here already: remove them first"; fi

say "build"
rm -rf build/debian
mkdir -p build/debian
installed >build/debian/before
./scripts/install-deps.sh --package "${mpi_options[@]}"
installed >build/debian/after
cmake --preset "$preset"
cmake --build --preset "$preset" --target terse terse_mpi terse_cli terse-bench -j "$(nproc)"

say "pack"
cpack -G DEB -B build/debian --config "build/$preset/CPackConfig.cmake"
ls -l build/debian/*.deb
if command -v lintian >/dev/null; then
  # Left to a distribution: a maintainer's address, its changelog, manual pages. CPack itself calls ldconfig. The
  # packages do not claim to serve several architectures at once, so they keep clear of lib/<architecture>.
  lintian --fail-on error,warning --suppress-tags malformed-contact,no-changelog,no-manual-page \
    --suppress-tags maintscript-calls-ldconfig,pkg-config-unavailable-for-cross-compilation build/debian/*.deb
fi

say "take away what was installed for the build alone"
mapfile -t extra < <(comm -13 build/debian/before build/debian/after)
((${#extra[@]} == 0)) || apt purge "${extra[@]}"
echo "${#extra[@]} packages"

say "install the packages, and a compiler"
apt install --no-install-recommends ./build/debian/*.deb g++ cmake make pkg-config
# What the tools recommend is what starts ranks.
launcher=$(dpkg-query --show --showformat '${Recommends}' "$tools")
[[ $launcher ]] || fail "$tools recommends nothing that starts ranks"
apt install --no-install-recommends "$launcher"
for header in hwy/highway.h nlohmann/json.hpp; do
  [[ ! -e /usr/include/$header ]] || echo "(/usr/include/$header is here: that Terse works without it is not seen)"
done

# Open MPI: root may run it, and ranks may outnumber the cores (as in mpi_examples/launcher.cmake).
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r tests/package/. "$scratch"
cd "$scratch"  # nothing of the source tree from here on

say "a program by MPI's compiler wrapper and pkg-config"
"mpicxx$suffix" -std=c++20 allreduce.cpp $(pkg-config --cflags --libs terse) -o by_wrapper
"mpirun$suffix" -np 2 ./by_wrapper
"mpicc$suffix" -std=c99 allreduce.c $(pkg-config --cflags --libs terse) -o by_wrapper_c
"mpirun$suffix" -np 2 ./by_wrapper_c
say "programs by CMake"
cmake -S find_package -B build
cmake --build build
for program in allreduce allreduce_c; do
  "mpirun$suffix" -np 2 "build/$program"
done
say "the tools"
terse --version
terse codecs >codecs
grep -q '^onebit ' codecs || fail "terse codecs does not show onebit"
"mpirun$suffix" -np 2 terse-bench allreduce --codec onebit --bytes 256K --algorithm two_phase --min-bytes 0 --json rows.json
grep -q '"same_bits": true' rows.json || fail "terse-bench does not say that the ranks hold the same bits"

say "a program that nobody recompiles"
sed -e '/terse\.h/d' -e 's/Terse_Allreduce(/MPI_Allreduce(/' allreduce.c >plain.c
"mpicc$suffix" -std=c99 plain.c -o plain
"mpirun$suffix" -np 2 terse run --codec onebit --algorithm two_phase --sample 0 --report report.json -- ./plain
grep -q '"compressed": 1' report.json || fail "the report does not say that the program's sum was compressed"

say "remove the packages"
cd "$OLDPWD"
mapfile -t ours < <(installed | grep -xE "libterse.*|$tools")
apt purge "${ours[@]}"
left=$(find /usr -path /usr/local -prune -o \( -name 'libterse*' -o -name terse -o -name 'terse[-.]*' -o -name Terse \) -print)
[[ -z $left ]] || fail "the packages have left behind: $left"
say "done in $((SECONDS - began)) s"
