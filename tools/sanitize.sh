#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The tests under sanitizers, planted mistakes included. A clean run of everything is written down in docs/testing.md.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: tools/sanitize.sh [--last] [PRESET [ctest arguments ...]]

Builds and tests asan-ubsan (AddressSanitizer, LeakSanitizer, UndefinedBehaviorSanitizer; MPI too) and tsan (ThreadSanitizer;
without MPI), all but the labels cli, install and oracle. When both are clean, on a tree without changes, it writes commit and date
into docs/testing.md, for you to commit. With a PRESET, or arguments for ctest as well, it writes nothing.

  --last  what docs/testing.md says of the last clean run
  --help  this text

Example: tools/sanitize.sh tsan -R 'planted|contract'
TEXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC2016  # backquotes of the page
readonly page=docs/testing.md line='Last clean run of `tools/sanitize.sh`'
presets=(asan-ubsan tsan)
case ${1:-} in
  --help | -h) usage; exit 0 ;;
  --last) grep "^$line" "$page"; exit 0 ;;
  asan-ubsan | tsan) presets=("$1") ;;
  ?*) echo "sanitize: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
esac

record=1
(($# == 0)) || record=0
changes=$(git status --porcelain --untracked-files=no -- . ":!$page")
commit=$(git rev-parse --short=10 HEAD)
for preset in "${presets[@]}"; do
  tools/test.sh --preset "$preset" -LE 'cli|install|oracle' -E '^unit_test_without_searches$' "${@:2}"
  ((record == 0)) || grep -q 'testcase name="planted_' "build/$preset/test-results.xml" ||
    { echo "sanitize: error: no planted mistake was tried under $preset" >&2; exit 1; }
done

if ((record == 0)); then
  echo "sanitize: clean, of a part: nothing is written down"
elif [[ -n $changes || $(git rev-parse --short=10 HEAD) != "$commit" ]]; then
  echo "sanitize: clean, but the tree is not that of a commit: nothing is written down"
else
  sed -i "s|^$line:.*|$line: commit $commit, $(date -u +%Y-%m-%d).|" "$page"
  grep "^$line: commit $commit" "$page"
fi
