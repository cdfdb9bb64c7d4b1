#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Lockstep is developed on MPICH. This builds it against Open MPI, in build/openmpi, and runs it there on two ranks.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: tools/test-openmpi.sh

Needs Open MPI beside the rest: apt-get install openmpi-bin libopenmpi-dev. (Where that makes it the system's MPI and you
want MPICH back: update-alternatives --config mpi, and --config mpirun.) It is not part of the tests.
TEXT
}
[[ ${1:-} != --help && ${1:-} != -h ]] || { usage; exit 0; }

compiler=$(command -v mpicc.openmpi || true)
launcher=$(command -v mpirun.openmpi || true)
if [[ -z $compiler || -z $launcher ]]; then
  echo "test-openmpi: no mpicc.openmpi and mpirun.openmpi here" >&2
  usage >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup.sh --no-install
cmake --preset release -B build/openmpi -DCMAKE_PREFIX_PATH="$(tools/setup.sh --print-prefix)" -DLOCKSTEP_TESTS=OFF \
  -DMPI_C_COMPILER="$compiler" >/dev/null
cmake --build build/openmpi --target lockstep_command --parallel "${LOCKSTEP_JOBS:-2}"
libraries=$(ldd build/openmpi/liblockstep.so)
grep -q 'libmpi\.so' <<<"$libraries" || { echo "test-openmpi: the build did not take Open MPI" >&2; exit 1; }

runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
launch=("$launcher" -n 2 --oversubscribe)
((EUID)) || launch+=(--allow-run-as-root)
"${launch[@]}" build/openmpi/lockstep verify configs/quickstart.yaml --steps 3
"${launch[@]}" build/openmpi/lockstep train configs/mlp-regression.yaml --set run_dir="$runs/run"
status=0
"${launch[@]}" build/openmpi/lockstep train configs/mlp-regression.yaml --set train.stesp=1 2>/dev/null || status=$?
((status == 2)) || { echo "test-openmpi: a mistake in the config ended with exit code $status, expected 2" >&2; exit 1; }
echo "test-openmpi: built, verified and trained on two ranks of Open MPI"
