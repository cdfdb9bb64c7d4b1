#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# No file of the repository names a path of somebody's machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Written so that this file does not find itself.
readonly paths='(^|[^A-Za-z0-9_.$}-])/(hom[e]|User[s]|roo[t]|wor[k])/[A-Za-z0-9_.]'
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  mapfile -d '' files < <(git ls-files -z --cached --others --exclude-standard)
else
  mapfile -d '' files < <(find . -type d \( -name .git -o -name .venv -o -path ./build -o -path ./runs -o -path ./out \) -prune -o -type f -print0)
fi
((${#files[@]})) || { echo "paths: no file to check" >&2; exit 1; }
found=$(printf '%s\0' "${files[@]}" | xargs -0 grep -nIE "$paths" -- 2>/dev/null || true)
if [[ -n $found ]]; then
  echo "$found"
  echo "paths: the lines above name a path of one machine; write it relative to the repository, or \$HOME" >&2
  exit 1
fi
echo "paths: ${#files[@]} files name no path of one machine"
