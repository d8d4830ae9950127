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

# As compiled, but for precompiled headers: those are GCC's own. SIMD kernels are looked at for one target: of x86 for AVX2,
# whose branches of them are more than those of the default.
options=(--extra-arg=-Wno-unknown-warning-option --extra-arg=-Wreserved-identifier --extra-arg=-DHWY_COMPILE_ONLY_STATIC)
[[ $(uname -m) != x86_64 ]] || options+=(--extra-arg=-march=haswell)
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT

# Most of the time goes into the standard library's headers, which clang-tidy reads and matches for every source anew. So
# sources that are compiled alike go in packs, one source that includes them, where their unnamed namespaces have no name in
# common. What is found in a pack is looked for again in each of its sources by itself. Kernels do not go together.
sed -E 's/-Winvalid-pch -include [^ ]+//' "$build/compile_commands.json" >"$commands/compiled.json"
printf '%s\n' "${files[@]/#/$PWD/}" >"$commands/wanted"
grep -rhoE --include='*.hpp' '^inline constexpr .* k[A-Za-z0-9]+' include src | sed 's/.* //' >"$commands/constants"
awk -v folder="$commands" '
  function value(line) { sub(/^[^:]*: "/, "", line); sub(/",?$/, "", line); return line }
  # The names that a source declares in its unnamed namespaces: in own, and whether it goes into a pack.
  function look_at(file,   line, inside, name, packs) {
    split("", own)
    packs = 1
    while ((getline line <file) > 0) {
      if (line ~ /foreach_target/) packs = 0
      if (line == "namespace {") { inside = 1; continue }
      if (line == "}  // namespace") inside = 0
      if (!inside || line !~ /^[A-Za-z_]/ || line ~ /^template/) continue
      if (match(line, /^(class|struct|enum class|using|namespace) [A-Za-z_0-9]+/)) {
        name = substr(line, RSTART, RLENGTH)
        sub(/.* /, "", name)
        if (line ~ /^(using|namespace) .* = /) name = ""  # may be said again
      } else if (match(line, /[A-Za-z_0-9]+( =| [{]|[({;[])/)) {
        name = substr(line, RSTART, RLENGTH)
        sub(/[^A-Za-z_0-9].*/, "", name)
      } else {
        name = ""
      }
      if (name != "") own[name] = 1
      if (name in constants) packs = 0
    }
    close(file)
    return packs
  }
  function clashes(p,   name) {
    for (name in own) {
      if ((p, name) in names) return 1
    }
    return 0
  }
  FILENAME ~ /constants$/ { constants[$0] = 1; next }  # that headers declare
  FILENAME ~ /wanted$/ { wanted[$0] = 1; order[++count] = $0; next }
  /^ *"directory": / { directory = value($0) }
  /^ *"command": / { command = value($0) }
  /^ *"file": / {
    file = value($0)
    if (!(file in wanted)) next
    ++times[file]
    sub(/ -o [^ ]+ -c [^ ]+$/, "", command)
    how[file] = command
    where[file] = directory
  }
  END {
    for (i = 1; i <= count; ++i) {
      file = order[i]
      if (!look_at(file) || times[file] > 1) {
        print file >(folder "/alone")
        continue
      }
      for (p = 1; p <= packs; ++p) {
        if (size[p] >= 8 || how_of[p] != how[file]) continue
        if (!clashes(p)) break
      }
      if (p > packs) { packs = p; how_of[p] = how[file]; where_of[p] = where[file] }
      first = ++size[p] == 1
      for (name in own) names[p, name] = 1
      print "#include \"" file "\"  // NOLINT(bugprone-suspicious-include)" >(folder "/pack" p ".cpp")
      if (!first) print where[file] "\t" how[file] "\t" file >(folder "/packed")
    }
    for (p = 1; p <= packs; ++p) {
      pack = folder "/pack" p ".cpp"
      printf "{\n  \"directory\": \"%s\",\n  \"command\": \"%s -o pack.o -c %s\",\n  \"file\": \"%s\"\n},\n", where_of[p],
             how_of[p], pack, pack >(folder "/packs.json")
    }
  }' "$commands/constants" "$commands/wanted" "$commands/compiled.json"
touch "$commands/alone" "$commands/packed" "$commands/packs.json"
{
  echo '['
  cat "$commands/packs.json"
  sed 1d "$commands/compiled.json"
} >"$commands/compile_commands.json"

export commands
tidy() {  # FILE OPTIONS...
  local file=$1
  shift
  clang-tidy --quiet -p "$commands" --config-file="$PWD/.clang-tidy" --warnings-as-errors='*' "$@" "$file" 2>/dev/null
}
# A header that the source of its own name includes first needs no other: which a pack shows of its first source alone.
stands_alone() {  # DIRECTORY COMMAND SOURCE
  local header=${3%.cpp}.hpp command=${2//\\\"/\"} flags said
  [[ -f $header ]] && grep -m 1 '^ *# *include' "$3" | grep -qF "${header##*/}\"" || return 0
  eval "flags=(${command//\\\\/\\})"  # as JSON has it
  if said=$(cd "$1" && clang++ "${flags[@]:1}" -w -fsyntax-only -x c++ "$header" 2>&1); then return; fi
  printf '%s\n%s\n' "tidy.sh: ${header#"$PWD"/} does not compile alone" "$said" >&2
  return 255
}
look() {  # FILE OPTIONS...
  local file=$1 said source
  shift
  if [[ $file == "$commands"/* ]]; then
    # what another source declares is no name to be shadowed, which the build looks for as well
    if tidy "$file" "$@" --extra-arg=-Wno-shadow >/dev/null; then return; fi
    while IFS= read -r source; do
      look "$source" "$@" || return
    done < <(sed -E 's/^#include "([^"]+)".*/\1/' "$file")
    return
  fi
  if said=$(tidy "$file" "$@"); then return; fi
  printf '%s\n%s\n' "tidy.sh: in ${file#"$PWD"/}" "$said" >&2
  return 255  # xargs begins no further file
}
export -f look stands_alone tidy
sed -E 's/\t/\n/g' "$commands/packed" | tr '\n' '\0' |
  xargs -0 -n 3 -P "$(nproc)" bash -c 'stands_alone "$@"' stands_alone || fail "a header needs others, see above"
{
  cat "$commands/alone"
  find "$commands" -name 'pack*.cpp' | sort
} | tr '\n' '\0' |
  xargs -0 -n 1 -P "$(nproc)" bash -c 'look "${@: -1}" "${@:1:$#-1}"' look "${options[@]}" ||
  fail "clang-tidy has found something, see above"
echo "tidy.sh: clang-tidy finds nothing in ${#files[@]} files"
