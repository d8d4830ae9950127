#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Lets clang-tidy look for bugs, as .clang-tidy has it, and fails on the first file in which it finds one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/tidy.sh [--build DIR] [PATH...]

Runs clang-tidy on the C++ sources below each PATH (src, tests and mpi_examples), all cores at once, with headers of
Terse that they include. Every finding is an error.
  --build DIR   where CMake has configured Terse, which tells how files are compiled (build/release, configured if need be)
TEXT
}
fail() { echo "tidy.sh: $1" >&2; exit "${2:-1}"; }

build=""
while (($# > 0)); do
  case $1 in
    --build)
      (($# > 1)) || fail "--build needs a value (see --help)" 2
      build=$2
      shift 2
      ;;
    -h | --help) usage; exit 0 ;;
    -*) fail "there is no option '$1' (see --help)" 2 ;;
    *) break ;;
  esac
done
(($# > 0)) || set -- src tests mpi_examples
command -v clang-tidy >/dev/null || fail "clang-tidy is missing (Debian: clang-tidy; scripts/install-deps.sh --full)"
if [[ -z $build ]]; then
  build=build/release
  [[ -f $build/compile_commands.json ]] || cmake --preset release
fi
[[ -f $build/compile_commands.json ]] || fail "$build has no compile_commands.json: configure it by cmake --preset" 2

# What is compiled in that build: not what stands for users' projects, which is of other builds.
files=()
while IFS= read -r file; do
  ! grep -qF "\"file\": \"$PWD/$file\"" "$build/compile_commands.json" || files+=("$file")
done < <(find "${@%/}" -name '*.cpp' | sort)
((${#files[@]} > 0)) || fail "$build compiles no C++ source below: $*" 2

# As compiled, but for precompiled headers: those are GCC's own, and each file is to include what it needs. SIMD kernels
# are looked at for one target: of x86 for AVX2, whose branches of them are more than those of the default.
options=(--extra-arg=-Wno-unknown-warning-option --extra-arg=-Wreserved-identifier --extra-arg=-DHWY_COMPILE_ONLY_STATIC)
[[ $(uname -m) != x86_64 ]] || options+=(--extra-arg=-march=haswell)
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT
sed -E 's/-Winvalid-pch -include [^ ]+//' "$build/compile_commands.json" >"$commands/compile_commands.json"

export commands
look() {
  local file=$1 said
  shift
  if said=$(clang-tidy --quiet -p "$commands" --warnings-as-errors='*' "$@" "$file" 2>/dev/null); then return; fi
  printf '%s\n%s\n' "tidy.sh: in $file" "$said" >&2
  return 255  # xargs begins no further file
}
export -f look
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'look "${@: -1}" "${@:1:$#-1}"' look "${options[@]}" ||
  fail "clang-tidy has found something, see above"
echo "tidy.sh: clang-tidy finds nothing in ${#files[@]} files"
