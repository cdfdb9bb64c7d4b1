#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Set-up, configure and build of one preset: quiet when it works, everything when it does not.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

usage() {
  cat <<'TEXT'
Usage: tools/build.sh [--no-install] [PRESET] [cmake --build arguments ...]

Runs tools/setup.sh, configures PRESET (release, debug, asan-ubsan, tsan; default release) and builds it in build/PRESET.

  --no-install  install nothing; stop when something is missing
  --help        this text

Environment: LOCKSTEP_JOBS   compilers at once (default: the smaller of the cores and memory / 2 GB)
Example: tools/build.sh release --target lockstep_command
TEXT
}

say() { printf 'build: %s\n' "$*"; }
fail() { printf 'build: error: %s\n' "$@" >&2; exit 1; }

# min(cores, memory / 2 GB), at least 1; a container's limits count.
jobs_here() {
  local cores kib limit quota period
  cores=$(nproc)
  kib=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
  if limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null) && [[ $limit =~ ^[0-9]+$ ]] && ((limit / 1024 < kib)); then
    kib=$((limit / 1024))
  fi
  if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [[ $quota != max ]]; then
    quota=$(((quota + period - 1) / period))
    cores=$((quota < cores ? quota : cores))
  fi
  local by_memory=$((kib / 2000000))
  cores=$((by_memory < cores ? by_memory : cores))
  echo $((cores > 0 ? cores : 1))
}

heartbeat=
stop_heartbeat() {
  [[ -z $heartbeat ]] || kill "$heartbeat" 2>/dev/null || true
  heartbeat=
}
trap stop_heartbeat EXIT

# logged NAME LOG command...: the output goes to LOG and, when the command fails, to the terminal as well. Every 30 s a
# line says how far it is, so that nobody takes a long compile for a hang.
logged() {
  local name=$1 log=$2 start=$SECONDS status=0
  shift 2
  {
    while sleep 30 >/dev/null 2>&1 && [[ -d $(dirname "$log") ]]; do
      say "${name/#build/compiling}: $((SECONDS - start)) s $(sed -n 's/^\(\[[0-9]*\/[0-9]*\]\).*/\1/p' "$log" 2>/dev/null | tail -n 1)"
    done
  } 9>&- &
  heartbeat=$!
  "$@" >"$log" 2>&1 </dev/null || status=$?
  stop_heartbeat
  if ((status)); then
    cat "$log" >&2
    fail "$name failed (exit code $status); the output above is in ${log#"$root"/}"
  fi
}

cached() { sed -n "s/^$1:[A-Z]*=//p" "$directory/CMakeCache.txt" 2>/dev/null; }

preset=release
setup_arguments=()
while (($#)); do
  case $1 in
    --no-install) setup_arguments+=(--no-install) ;;
    --help | -h) usage; exit 0 ;;
    *) break ;;
  esac
  shift
done
if (($#)) && [[ $1 != -* ]]; then
  preset=$1
  shift
fi
jobs=${LOCKSTEP_JOBS:-$(jobs_here)}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "LOCKSTEP_JOBS=$jobs: a number >= 1 is expected"

cd "$root"
tools/setup.sh "${setup_arguments[@]}" </dev/null
prefix=$(tools/setup.sh --print-prefix)
if ! grep -qx "  \"$preset\"" < <(cmake --list-presets=configure 2>/dev/null); then
  fail "no preset '$preset'; there are:$(cmake --list-presets=configure | sed -n 's/^  "\(.*\)".*/ \1/p' | tr -d '\n')"
fi

if [[ $preset == *san* ]] && ! clang++-19 -fsanitize=thread -x c++ - -o /dev/null <<<'int main() {}' 2>/dev/null; then
  fail "$preset is built with clang 19 and its sanitizers, which are not here: apt-get install clang-19 libclang-rt-19-dev"
fi

readonly directory="$root/build/$preset"
mkdir -p "$directory"
exec 9>"$root/build/.$preset.lock"
if command -v flock >/dev/null; then
  flock -n 9 || { say "another build of $preset is running: waiting for it"; flock 9 || true; }
fi

# Another LibTorch, or a tree that was moved or copied: CMake would go on with the old paths of its cache.
fresh=()
if [[ -f $directory/CMakeCache.txt ]] &&
    [[ $(cached CMAKE_PREFIX_PATH) != "$prefix" || $(cached CMAKE_HOME_DIRECTORY) != "$root" ]]; then
  say "build/$preset was configured for other paths: configuring afresh"
  fresh=(--fresh)
fi
start=$SECONDS
logged configure "$directory/configure.log" cmake --preset "$preset" "${fresh[@]}" -DCMAKE_PREFIX_PATH="$prefix"
say "building $preset with $jobs jobs (log: build/$preset/build.log)"
logged build "$directory/build.log" cmake --build "$directory" --parallel "$jobs" "$@"
say "build/$preset is ready ($((SECONDS - start)) s)"
