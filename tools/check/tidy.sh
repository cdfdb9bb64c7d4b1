#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# clang-tidy 19 (Debian 12's newest) over the torch-free folders, with what .clang-tidy asks for. It compiles as the build
# does, so there has to be one: tools/build.sh, or its CMake configuration alone.
# Usage: tools/check/tidy.sh [FILE.cpp ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

command -v clang-tidy-19 >/dev/null || { echo "tidy: no clang-tidy-19 here (apt-get install clang-tidy-19)" >&2; exit 1; }
[[ -f build/release/compile_commands.json ]] || { echo "tidy: build/release is not configured (tools/build.sh)" >&2; exit 1; }
files=("$@")
if ((${#files[@]} == 0)); then
  mapfile -t folders < <(tools/check/includes.py --torch-free)
  mapfile -t files < <(find "${folders[@]}" -name '*.cpp' | sort)
fi
((${#files[@]})) || { echo "tidy: no file to check" >&2; exit 1; }

# -w: warnings are GCC's, in the build. What clang-tidy says on stderr is how many it left out.
if ! printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy-19 -p build/release --quiet --extra-arg=-w 2>/dev/null; then
  echo "tidy: repair what is above, or say in a NOLINT why it is right" >&2
  exit 1
fi
echo "tidy: ${#files[@]} files"
