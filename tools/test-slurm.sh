#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The sbatch script of docs/cluster.md on a real Slurm, of two nodes that are both this machine. Starts munged, slurmctld and a
# slurmd for each node by hand in a folder of its own, without systemd, and ends them again. Needs root. By hand, not part of CI.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

usage() {
  cat <<'TEXT'
Usage: tools/test-slurm.sh [--lockstep FILE]

Tries `lockstep` under srun (with and without a matching PMI, and with replicas on two nodes), salloc + mpirun, and sbatch with
--signal, on a Slurm that it starts for the purpose, whose two nodes are this machine. Needs root and the packages slurm-wlm and munge:

  apt-get install slurm-wlm munge
TEXT
}

lockstep=$root/build/release/lockstep
while (($#)); do
  case $1 in
    --lockstep) lockstep=$(realpath "$2"); shift ;;
    --help | -h) usage; exit 0 ;;
    *) echo "test-slurm: unknown argument $1" >&2; exit 2 ;;
  esac
  shift
done
((EUID == 0)) || { echo "test-slurm: needs root, to start Slurm's daemons" >&2; exit 2; }
for tool in munged slurmctld slurmd srun sbatch mpirun; do
  command -v "$tool" >/dev/null || { echo "test-slurm: there is no $tool; apt-get install slurm-wlm munge mpich" >&2; exit 2; }
done
[[ -x $lockstep ]] || { echo "test-slurm: there is no $lockstep; run tools/build.sh" >&2; exit 2; }

work=$(mktemp -d /tmp/lockstep-slurm-XXXXXX)
readonly work
chmod 755 "$work"
pids=()
finish() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do
    for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT

# wait_for WHAT COMMAND...: polls for 30 s.
wait_for() {
  local what=$1
  shift
  for _ in {1..300}; do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  echo "test-slurm: waited in vain for $what" >&2
  tail -n 5 "$work"/*.log >&2 || true
  exit 1
}

start_munge() {
  local user
  user=$(id -un)
  mkdir -p "$work/munge"
  chmod 711 "$work/munge"
  dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
  chmod 400 "$work/munge/key"
  munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed" >"$work/munged.log" 2>&1 &
  pids+=($!)
  wait_for "munged ($user)" test -S "$work/munge/socket"
}

# shellcheck disable=SC2317  # called through wait_for
both_idle() { [[ $(sinfo -h -N -o %T | grep -c idle) == 2 ]]; }

start_slurm() {
  local host memory
  host=$(hostname -s)
  memory=$(($(getconf _PHYS_PAGES) * $(getconf PAGE_SIZE) * 9 / 10 / 1048576))
  mkdir -p "$work/state" "$work/spool-node1" "$work/spool-node2"
  cat >"$work/slurm.conf" <<CONF
ClusterName=lockstep
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=30
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16818 CPUs=$(nproc) RealMemory=$((memory / 2)) State=UNKNOWN
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16819 CPUs=$(nproc) RealMemory=$((memory / 2)) State=UNKNOWN
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
  export SLURM_CONF=$work/slurm.conf
  slurmctld -D -f "$SLURM_CONF" >"$work/slurmctld.log" 2>&1 &
  pids+=($!)
  local node
  for node in node1 node2; do
    slurmd -D -N "$node" -f "$SLURM_CONF" >"$work/$node.log" 2>&1 &
    pids+=($!)
  done
  wait_for "two idle nodes" both_idle
}

failed=0
# check NAME EXPECTED_CODE PATTERN CODE OUTPUT_FILE
check() {
  if [[ $2 == "$4" ]] && grep -Eq -- "$3" "$5"; then
    echo "ok    $1 (code $4)"
  else
    echo "BAD   $1: code $4, expected $2 and a line like '$3'; it said:"
    sed 's/^/      /' "$5" | tail -n 20
    failed=1
  fi
}

try() {
  local name=$1 code=$2 pattern=$3 got=0
  shift 3
  timeout 120 "$@" >"$work/out.txt" 2>&1 </dev/null || got=$?
  check "$name" "$code" "$pattern" "$got" "$work/out.txt"
}

cd "$work"
cat >small.yaml <<'YAML'
model: {type: mlp, inputs: 4, width: 8, layers: 2, outputs: 2}
data: {type: synthetic, task: regression, inputs: 4, outputs: 2, samples: 64}
train: {steps: 4, batch: 10, micro_batches: 3, loss: mean_squared_error}
pipeline: {stages: 2, schedule: 1f1b}
YAML
cat >endless.yaml <<'YAML'
model: {type: delay, layers: 2, width: 2, forward_ms: 5, input_grad_ms: 5, weight_grad_ms: 5}
data: {type: synthetic, task: regression, inputs: 2, outputs: 2, samples: 64}
train: {steps: 1000000, batch: 4, micro_batches: 2, loss: mean_squared_error, log_every: 1000000}
pipeline: {stages: 2, schedule: 1f1b}
YAML

cat >replicas.yaml <<'YAML'
model: {type: mlp, inputs: 16, width: 64, layers: 4, outputs: 2}
data: {type: synthetic, task: regression, inputs: 16, outputs: 2, samples: 256}
train: {steps: 30, batch: 32, micro_batches: 8, gradient_groups: 2, loss: mean_squared_error}
pipeline: {stages: 2, schedule: 1f1b}
replicas: {count: 2}
YAML

start_munge
start_slurm

try "srun --mpi=pmi2 trains on two ranks" 0 '^done: 4 steps' \
  srun -n 2 --mpi=pmi2 "$lockstep" train small.yaml --set run_dir=srun
# Two replicas of two stages, a task each; the same bits as one replica in one process.
two_nodes=(srun -N 2 --ntasks-per-node=2)
try "four tasks are on two nodes" 0 '^node1 node1 node2 node2 $' \
  sh -c "$(printf '%q ' "${two_nodes[@]}") printenv SLURMD_NODENAME | sort | tr '\n' ' '"
"$lockstep" train replicas.yaml --set replicas.count=1 --set run_dir=one >"$work/one.log" 2>&1
for placement in pipeline_first replicas_first; do
  try "srun trains replicas of a pipeline on two nodes, $placement" 0 '^done: 30 steps' \
    "${two_nodes[@]}" --mpi=pmi2 "$lockstep" train replicas.yaml --set run_dir="$placement" --set replicas.placement="$placement"
  try "to the same bits as one process" 0 '^same$' \
    sh -c "cmp one/fingerprint.json $placement/fingerprint.json && echo same"
done
try "srun without a PMI is refused" 2 'srun started 2 tasks, but MPI sees a world of 1' \
  srun -n 2 --mpi=none "$lockstep" train small.yaml --set run_dir=none
try "salloc and mpirun train on two ranks" 0 '^done: 4 steps' \
  salloc -n 2 mpirun -n 2 "$lockstep" train small.yaml --set run_dir=salloc
try "lockstep launch inside an allocation" 0 '^done: 4 steps' \
  salloc -n 2 "$lockstep" launch -n 2 --mpiexec mpirun train small.yaml --set run_dir=launch
try "the doctor under srun" 0 'nothing is bad' srun -n 2 --mpi=pmi2 "$lockstep" doctor "$work"

# What docs/cluster.md shows: Slurm sends TERM before the time is over (here: when scancel is asked to), the job finishes its
# step and leaves.
cat >job.sh <<SH
#!/usr/bin/env bash
#SBATCH --ntasks=2
#SBATCH --time=10
#SBATCH --signal=TERM@540
#SBATCH --output=$work/job.txt
srun --mpi=pmi2 "$lockstep" train endless.yaml --set run_dir=sbatch
echo "srun left with \$?"
SH
job=$(sbatch --parsable job.sh)
wait_for "the job's first step" grep -q '"step":1,' sbatch/metrics.jsonl
# Slurm's own signal comes up to a minute late; the same signal, now.
scancel --signal=TERM "$job"
wait_for "the job's end" sh -c "! squeue -h -j $job | grep -q ."
check "sbatch with a signal finishes the step and leaves" 0 '^stopped by a signal after step [0-9]+' \
  "$(sed -n 's/^srun left with //p' job.txt)" job.txt

if ((failed)); then
  echo "test-slurm: failed"
  exit 1
fi
echo "test-slurm: all of it works"
