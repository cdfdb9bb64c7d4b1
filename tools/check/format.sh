#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every C++ file is as clang-format 14 (Debian 12's) writes it; other versions write other things.
# Usage: tools/check/format.sh [--fix]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

formatter=
for candidate in clang-format-14 clang-format; do
  if "$candidate" --version 2>/dev/null | grep -q 'version 14\.'; then
    formatter=$candidate
    break
  fi
done
if [[ -z $formatter ]]; then
  echo "format: no clang-format 14 here (apt-get install clang-format-14)" >&2
  exit 1
fi
mapfile -t files < <(find runtime models partitioner tools tests examples cmake -name '*.[ch]pp' | sort)
if [[ ${1:-} == --fix ]]; then
  "$formatter" -i "${files[@]}"
elif ! "$formatter" --dry-run --Werror "${files[@]}" </dev/null; then
  echo "format: run tools/check/format.sh --fix" >&2
  exit 1
fi
echo "format: ${#files[@]} files"
