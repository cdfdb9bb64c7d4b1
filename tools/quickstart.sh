#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# From a checkout to a trained model: set-up, build, and the same small training twice, in one process and under mpirun,
# to show that both give the same loss and the same weights, bit by bit.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root config=configs/quickstart.yaml
readonly runs=runs/quickstart-twice  # this script's own: cleared at the start

usage() {
  cat <<'TEXT'
Usage: tools/quickstart.sh [--steps N] [--no-install]

Sets up, builds, and trains configs/quickstart.yaml in one process and with mpirun -n 2; compares losses and weights.
Runs go to runs/quickstart-twice, which is cleared first: in-process and mpirun-2.

  --steps N     train N steps instead of what the config says
  --no-install  install nothing; stop when something is missing
  --help        this text
TEXT
}

say() { printf 'quickstart: %s\n' "$*"; }
fail() { printf 'quickstart: error: %s\n' "$@" >&2; exit 1; }

steps=()
build_arguments=()
while (($#)); do
  case $1 in
    --steps | --steps=*)
      if [[ $1 == --steps ]]; then
        shift
        value=${1:-}
      else
        value=${1#*=}
      fi
      [[ $value =~ ^[1-9][0-9]*$ ]] || { echo "quickstart: --steps wants a number >= 1, got '$value'" >&2; exit 2; }
      steps=(--set "train.steps=$value")
      ;;
    --no-install) build_arguments+=(--no-install) ;;
    --help | -h) usage; exit 0 ;;
    *) echo "quickstart: unknown argument '$1' (--steps N, --no-install, --help)" >&2; exit 2 ;;
  esac
  shift
done

# train NAME [launcher ...]: one run, in $runs/NAME.
train() {
  local name=$1 status=0
  shift
  say "training: ${*:+$* }build/release/lockstep train $config ${steps[*]:+${steps[*]} }--set run_dir=$runs/$name"
  "$@" build/release/lockstep train "$config" "${steps[@]}" --set "run_dir=$runs/$name" \
    --fingerprint "$runs/$name.fingerprint.json" --metrics "$runs/$name.metrics.jsonl" </dev/null || status=$?
  ((status == 0)) || fail "the run '$name' ended with exit code $status; its messages are above, its folder is $runs/$name"
}

# Exit code 1 when the two runs differ; says what differs.
compare() {
  "$python" - "$runs/in-process" "$runs/mpirun-2" <<'PYTHON'
import json, sys

def last_loss(path):
    records = [json.loads(line) for line in open(path) if line.strip()]
    losses = [r["loss"] for r in records if "step" in r and "loss" in r]
    if not losses:
        sys.exit(f"quickstart: error: no step in {path}")
    return len(losses), losses[0], losses[-1]

def fingerprint(path):
    content = json.load(open(path))
    if not content.get("parameters"):
        sys.exit(f"quickstart: error: no parameters in {path}")
    return {"loss history": content["loss"], **content["parameters"]}

one, two = sys.argv[1:]
(steps, first, loss), (steps_two, _, loss_two) = (last_loss(f"{run}.metrics.jsonl") for run in (one, two))
a, b = (fingerprint(f"{run}.fingerprint.json") for run in (one, two))
different = [name for name in {**a, **b} if a.get(name) != b.get(name)]
print(f"  loss      {first:.4f} -> {loss!r} in process, {loss_two!r} under mpirun, {steps} steps")
print(f"  weights   {len(a) - 1} parameters, {len([d for d in different if d != 'loss history'])} of them different")
if different or (steps, loss) != (steps_two, loss_two):
    sys.exit(f"quickstart: error: the two runs differ: {', '.join(different[:5]) or 'the last loss'}")
PYTHON
}

cd "$root"
[[ -f $config ]] || fail "$config is not there: is this a whole checkout?"
tools/build.sh "${build_arguments[@]}" release --target lockstep_command
[[ -x build/release/lockstep ]] || fail "the build did not make build/release/lockstep"
launcher=$(command -v mpirun || command -v mpiexec) || fail "no mpirun in PATH: see tools/setup.sh --no-install"
python=$(command -v python3 || echo .venv/bin/python)

rm -rf "$runs"
mkdir -p "$runs"
start=$SECONDS
train in-process
train mpirun-2 "$(basename "$launcher")" -n 2

echo
say "both runs are done ($((SECONDS - start)) s)"
compare
cat <<TEXT
  the same  every loss and every weight, bit by bit: where the workers live does not change the result

Next
  $runs/in-process              the run folder: config as run, log, metrics
  build/release/lockstep --help                  all commands
  build/release/lockstep train $config --set pipeline.schedule=gpipe --set run_dir=runs/gpipe
  configs/reference.yaml                         every key, explained
TEXT
