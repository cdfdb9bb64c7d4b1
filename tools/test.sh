#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Set-up, build and all tests of one preset. The last thing it prints is ctest's own summary.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

usage() {
  cat <<'TEXT'
Usage: tools/test.sh [--preset PRESET] [--no-install] [ctest arguments ...]

Builds PRESET (release, debug, asan-ubsan, tsan; default release) with its tests and runs them. Fails when no test ran, and when one was
skipped or disabled. Without root cli_hosts, which makes hosts of network namespaces, is left out (but not where CI is set).

  --no-install  install nothing; stop when something is missing
  --help        this text

Example: tools/test.sh -L unit              the tests of one label
         tools/test.sh --preset tsan -R channel
TEXT
}

preset=release
build_arguments=()
while (($#)); do
  case $1 in
    --preset)
      (($# > 1)) || { echo "test: --preset needs a name" >&2; exit 2; }
      preset=$2
      shift
      ;;
    --preset=*) preset=${1#*=} ;;
    --no-install) build_arguments+=(--no-install) ;;
    --help | -h) usage; exit 0 ;;
    *) break ;;
  esac
  shift
done

cd "$root"
tools/build.sh "${build_arguments[@]}" "$preset"
tools/setup_tests.sh "${build_arguments[@]}"

# Only root can make the hosts of cli_hosts. CI is root; it fails there without.
left_out=()
if ((EUID != 0)) && [[ -z ${CI:-} ]]; then
  echo "test: cli_hosts is left out: it makes hosts of network namespaces, which needs root"
  left_out=(--exclude-regex '^cli_hosts$')
fi

readonly results="$root/build/$preset/test-results.xml"
rm -f "$results"
# ctest keeps a test that declares PROCESSORS n on n of these jobs.
status=0
ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --parallel "$(nproc)" --output-junit "$results" \
  "${left_out[@]}" "$@" </dev/null || status=$?

# The counts of the <testsuite> element: to ctest a skipped or disabled test is none that failed.
count() { sed -n "s/.*[[:space:]]$1=\"\([0-9]*\)\".*/\1/p" "$results" | head -n 1; }
if ((status == 0)) && (($(count tests) <= 0 || $(count skipped) + $(count disabled) > 0)); then
  echo "test: error: of $(count tests) tests $(count skipped) were skipped, $(count disabled) are disabled" >&2
  status=1
fi
exit "$status"
