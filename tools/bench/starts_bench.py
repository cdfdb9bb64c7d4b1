#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many starts and clean exits: a short job again and again, in process and under mpirun in turns; every exit code must be 0.

  tools/bench/starts_bench.py --starts 1000 --json out/bench/starts.json
"""
import collections
import os
import subprocess
import tempfile
import time

import measuring

CONFIG = """\
name: start
model: {type: mlp, inputs: 4, width: 8, layers: 2, outputs: 2}
data: {type: synthetic, task: regression, inputs: 4, outputs: 2, samples: 64}
train: {steps: 2, batch: 8, micro_batches: 2, loss: mean_squared_error}
pipeline: {stages: 2, schedule: 1f1b}
checkpoint: {every: end}
"""


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--starts", type=measuring.positive, default=1000, help="in all (default: 1000)")
    return parser.parse_args()


def run():
    options = options_of()
    options.lockstep = os.path.abspath(options.lockstep)
    machine = measuring.machine()
    codes, seconds, failures = collections.Counter(), {0: [], 2: []}, []
    with tempfile.TemporaryDirectory(prefix="lockstep-starts-") as folder:
        config = os.path.join(folder, "start.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG)
        for number in range(options.starts):
            ranks = 2 * (number % 2)
            command = measuring.train_command(options, config, {}, ranks, os.path.join(folder, f"run-{number}"))
            start = time.monotonic()
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            seconds[ranks].append(time.monotonic() - start)
            codes[ranks, done.returncode] += 1
            if done.returncode:
                failures.append(done.stderr[-2000:])
                measuring.say(f"start {number + 1}: exit code {done.returncode}\n{done.stderr[-2000:]}")
            if number % 100 == 99:
                measuring.say(f"{number + 1} of {options.starts}")
            subprocess.run(["rm", "-rf", os.path.join(folder, f"run-{number}")], check=True)
    rows = [["mpirun -n 2" if ranks else "in process", code, count, measuring.in_ratios(measuring.summary(seconds[ranks]))]
            for (ranks, code), count in sorted(codes.items())]
    measuring.print_table(["starts", "exit code", "times", "seconds"], rows)
    measuring.write_json(options.json, {"bench": "starts", "machine": machine, "failures": failures,
                                        "codes": {f"{ranks} ranks, code {code}": count for (ranks, code), count in codes.items()},
                                        "seconds": {ranks: measuring.summary(values) for ranks, values in seconds.items()}})
    return 1 if failures else 0


if __name__ == "__main__":
    measuring.main(run)
