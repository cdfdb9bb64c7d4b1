#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Lockstep is developed with one version of LibTorch, on its CPU build. This builds it with another one.
set -euo pipefail

readonly default_version=2.11.0

usage() {
  cat <<TEXT
Usage: tools/test-other-torch.sh [--syntax | --bring] [VERSION]

Brings torch==VERSION (default $default_version) from pip into build/torch-VERSION, whichever build that is, CUDA too, builds
Lockstep with it and runs the tests, but those that compare with Python's torch. A CUDA build is 3 GB to download.

  --syntax  only compiles what sees torch, without making code (0.5 GB to download, two to three minutes, clang 19); part
            of CI. Of the tests only those of the simulated accelerator, which implement interfaces of LibTorch's
  --bring   only brings it, and prints its folder, for LOCKSTEP_TORCH_ROOT
  --help    this text
TEXT
}

version=$default_version what=test
while (($#)); do
  case $1 in
    --syntax | --bring) what=${1#--} ;;
    --help | -h) usage; exit 0 ;;
    [0-9]*.[0-9]*.[0-9]*) version=$1 ;;
    *) printf "test-other-torch: unknown argument '%s'\n" "$1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
readonly folder="$root/build/torch-$version" jobs=${LOCKSTEP_JOBS:-$(nproc)}
readonly torch="$folder/packages/torch"

# bring WHAT pip-arguments...: once; WHAT is made when all of it is there.
bring() {
  local what=$1
  shift
  [[ ! -e $folder/$what ]] || return 0
  rm -rf "$folder/packages"
  mkdir -p "$folder"
  echo "test-other-torch: pip install torch==$version in build/torch-$version" >&2
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-compile --only-binary :all: \
    --target "$folder/packages" "$@" "torch==$version" </dev/null
  touch "$folder/$what"
}
tools/setup.sh --no-install >&2
if [[ $what == syntax && ! -e $folder/whole ]]; then
  bring headers --no-deps
else
  bring whole
fi
if [[ $what == bring ]]; then
  echo "$torch"
  exit
fi

configure() {  # configure DIRECTORY cmake-arguments...
  cmake --preset release -B "$@" -DLOCKSTEP_TORCH_ROOT="$torch" >"$folder/configure.log" ||
    { cat "$folder/configure.log" >&2; exit 1; }
}

if [[ $what == test ]]; then
  configure "$folder/release"
  cmake --build "$folder/release" --parallel "$jobs"
  ctest --test-dir "$folder/release" --output-on-failure --no-tests=error -LE 'oracle|install'
  exit
fi

# Every file that takes the precompiled header, read by clang, whose own precompiled header takes a tenth of the time: GCC
# instantiates again, for every file, what the header used. The warnings are GCC's, in the build.
command -v clang++-19 >/dev/null || { echo "test-other-torch: no clang++-19 here (apt-get install clang-tidy-19 brings it)" >&2; exit 1; }
configure "$folder/syntax" -DCMAKE_BUILD_TYPE=Debug -DLOCKSTEP_BENCH=ON
.venv/bin/python - "$folder/syntax" >"$folder/commands" <<'PYTHON'
import json, pathlib, shlex, sys

folder = pathlib.Path(sys.argv[1])
header = f"{folder}/torch_pch.pch"
commands = {}
for entry in json.loads((folder / "compile_commands.json").read_text()):
    words, file = shlex.split(entry["command"]), entry["file"]
    if not any("cmake_pch.hxx" in word for word in words):
        continue
    flags = ["-w"]
    for word, after in zip(words, words[1:]):
        flags += [word, after] if word == "-isystem" else [word] if word.startswith(("-D", "-I", "-std=", "-fPIC")) else []
    if file.endswith("cmake_pch.hxx.cxx"):
        if "/tests/" in file:
            continue
        own = next(word for word in words if word.endswith("cmake_pch.hxx"))
        print(shlex.join(["clang++-19", *flags, "-fpch-instantiate-templates", "-x", "c++-header", own, "-o", header]))
    elif not file.endswith("pch.cpp") and ("/tests/" not in file or "/tests/accelerator/" in file):
        commands[file] = shlex.join(["clang++-19", *flags, "-include-pch", header, "-fsyntax-only", file])
print("\n".join(commands.values()))
PYTHON
count=$(($(wc -l <"$folder/commands") - 1))
((count > 0)) || { echo "test-other-torch: no file sees torch" >&2; exit 1; }
head -n 1 "$folder/commands" | sh
tail -n +2 "$folder/commands" | tr '\n' '\0' | xargs -0 -n 1 -P "$jobs" sh -c
echo "test-other-torch: $count files compile with LibTorch $version"
