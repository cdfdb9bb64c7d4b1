#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adding up gradients over ranks, in the order that all numbers of replicas share, against plain MPI_Allreduce.

Each round starts both once (build/<preset>/reduce_bench); medians of the rounds' medians, ratios round by round.

  tools/bench/reduce_bench.py --ranks 2 --rounds 5
  UCX_TLS=tcp,self tools/bench/reduce_bench.py --ranks 2 --rounds 5        # over TCP
"""
import pathlib
import shlex
import statistics
import subprocess

import measuring

KINDS = ("tree", "mpi")


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--ranks", type=measuring.positive, default=2)
    parser.add_argument("--rounds", type=measuring.positive, default=5)
    parser.add_argument("--size", type=measuring.positive, action="append", help="MiB, repeatable (default: 1 to 256)")
    return parser.parse_args()


def times(options, kind):
    """Microseconds by size."""
    program = pathlib.Path(options.lockstep).parent / "reduce_bench"
    command = [*shlex.split(options.mpirun), "-n", str(options.ranks), str(program), kind, *map(str, options.size or [])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    measuring.check(result.returncode, command, result.stdout + result.stderr)
    return {int(size): float(us) for size, us in (line.split() for line in result.stdout.splitlines())}


def run():
    options = options_of()
    rounds = [{kind: times(options, kind) for kind in (KINDS if number % 2 else KINDS[::-1])}
              for number in range(options.rounds)]
    print(f"{options.ranks} ranks, {options.rounds} rounds\n{'MiB':>5} {'tree ms':>9} {'MPI ms':>9}  speed of MPI's [min, max]")
    for size in rounds[0]["mpi"]:
        tree, mpi = ([each[kind][size] for each in rounds] for kind in KINDS)
        speeds = [b / a for a, b in zip(tree, mpi)]
        print(f"{size:5} {statistics.median(tree) / 1e3:9.2f} {statistics.median(mpi) / 1e3:9.2f}  "
              f"{statistics.median(speeds):.2f} [{min(speeds):.2f}, {max(speeds):.2f}]")
    measuring.write_json(options.json, {"ranks": options.ranks, "rounds": rounds})
    return 0


if __name__ == "__main__":
    measuring.main(run)
