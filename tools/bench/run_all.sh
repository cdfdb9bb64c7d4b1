#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every benchmark: tables on the terminal, figures as JSON. docs/performance.md says what each measures.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root here=$root/tools/bench

usage() {
  cat <<'TEXT'
Usage: tools/bench/run_all.sh [--build FOLDER] [--out FOLDER] [--python FILE] [--smoke]

  --build FOLDER  where lockstep, loop_bench and transport_bench are (default: build/release; configure it with
                  -DLOCKSTEP_BENCH=ON)
  --out FOLDER    for the JSON files, which are replaced (default: out/bench)
  --python FILE   a Python that has torch, for pipelining_bench.py (default: .venv/bin/python)
  --smoke         tiny sizes: shows that everything runs; the figures mean nothing

About 15 minutes on two cores. Nothing else may run on the machine meanwhile.
TEXT
}

build=$root/build/release out=$root/out/bench python=$root/.venv/bin/python smoke=0
while (($#)); do
  case $1 in
    --build | --out | --python)
      (($# > 1)) || { echo "run_all: $1 wants a value" >&2; exit 2; }
      declare "${1#--}=$2"
      shift
      ;;
    --smoke) smoke=1 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "run_all: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

for file in "$build/lockstep" "$build/loop_bench" "$build/transport_bench" "$python"; do
  [[ -x $file ]] || { echo "run_all: there is no $file (see --help)" >&2; exit 2; }
done
mkdir -p "$out"

loop=() schedule=(--workers 16 --micro-batches 32 --schedule 1f1b --mpi) launch=() pipelining=() transport=() recording=()
if ((smoke)); then
  loop=(--width 32 --batch 16 --steps 3 --skip 1 --rounds 1)
  schedule=(--workers 2 --micro-batches 4 --times "2,2,2" --schedule 1f1b --schedule zb_h1 --mpi --steps 2 --rounds 1)
  launch=(--repeats 1)
  pipelining=(--width 32 --batch 16 --steps 3 --skip 1 --rounds 1)
  transport=(--mode hog --ranks 2)
  recording=(--width 32 --steps 3 --rounds 1)
fi

# bench NAME COMMAND...: one section; a failure is remembered, the others still run.
failed=()
bench() {
  printf '\n== %s\n' "$1"
  "${@:2}" || { echo "run_all: $1 failed with exit code $?" >&2; failed+=("$1"); }
}

lockstep=(--lockstep "$build/lockstep")
bench transport "$here/transport_bench.py" --bench "$build/transport_bench" "${transport[@]}" --json "$out/transport.json"
bench loop "$build/loop_bench" "${loop[@]}" --json "$out/loop.json"
bench loop-sgd "$build/loop_bench" "${loop[@]}" --optimizer sgd --json "$out/loop-sgd.json"
bench loop-unchecked "$build/loop_bench" "${loop[@]}" --check-finite 0 --json "$out/loop-unchecked.json"
bench schedule "$here/schedule_bench.py" "${lockstep[@]}" "${schedule[@]}" --json "$out/schedule.json"
bench launch "$here/launch_bench.py" "${lockstep[@]}" "${launch[@]}" --json "$out/launch.json"
bench recording "$here/recording_bench.py" "${lockstep[@]}" "${recording[@]}" --json "$out/recording.json"
bench pipelining "$python" "$here/pipelining_bench.py" "${lockstep[@]}" "${pipelining[@]}" --json "$out/pipelining.json"

if ((${#failed[@]})); then
  echo "run_all: failed: ${failed[*]}" >&2
  exit 1
fi
printf '\nrun_all: the figures are in %s\n' "$out"
