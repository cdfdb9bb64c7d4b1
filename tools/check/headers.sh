#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every header of the given folders (default: the torch-free ones) compiles alone.
# Usage: tools/check/headers.sh [FOLDER ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folders=("$@")
((${#folders[@]})) || mapfile -t folders < <(tools/check/includes.py --torch-free)
mapfile -t headers < <(find "${folders[@]}" -name '*.hpp' | sort)
((${#headers[@]})) || { echo "headers: no header in ${folders[*]}" >&2; exit 1; }

# The header is included, not compiled itself: '#pragma once' in a main file is a warning.
# shellcheck disable=SC2016
printf '%s\0' "${headers[@]}" | xargs -0 -P "$(nproc)" -I '{}' bash -c '
  ${CXX:-c++} -std=c++20 -Wall -Wextra -Wpedantic -Werror -I . -fsyntax-only -x c++ -include "$1" /dev/null ||
    { echo "headers: $1 does not compile alone (the compiler says why, above): include what it uses" >&2; exit 1; }
' _ '{}'
echo "headers: ${#headers[@]} compile alone"
