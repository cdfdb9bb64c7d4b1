#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real model under several schedules, in turns: step time, and bytes in flight against the simulation of the same run.

  tools/bench/model_schedules_bench.py configs/quickstart.yaml --set train.clip_grad_norm=0 --json out/bench/gpt.json
"""
import json
import os
import statistics
import subprocess
import tempfile

import measuring
from schedule_bench import schedule_of


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run; repeatable")
    parser.add_argument("--workers", type=measuring.positive, default=2)
    parser.add_argument("--schedule", type=schedule_of, action="append", metavar="NAME[:STAGES]",
                        help="repeatable; stages per worker after a colon (default: gpipe, 1f1b, zb_h1, zbv:2)")
    parser.add_argument("--mpi", action="store_true", help="one rank per worker instead of one process")
    parser.add_argument("--steps", type=measuring.positive, default=20, help="measured steps per run (default: 20)")
    parser.add_argument("--rounds", type=measuring.positive, default=5)
    options = parser.parse_args()
    options.schedule = options.schedule or [schedule_of(text) for text in ("gpipe", "1f1b", "zb_h1", "zbv:2")]
    return options


def one_run(options, schedule, virtual_stages):
    """(median step in ms, the summary of the metrics)"""
    overrides = dict(text.split("=", 1) for text in options.set)
    overrides |= {"pipeline.schedule": schedule, "pipeline.stages": options.workers * virtual_stages,
                  "pipeline.virtual_stages": virtual_stages, "train.steps": options.steps + 1, "train.eval_every": 0}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as scratch:
        folder = os.path.join(scratch, "run")
        command = measuring.train_command(options, options.config, overrides, options.workers if options.mpi else 0, folder)
        done = subprocess.run(command, cwd=measuring.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        measuring.check(done.returncode, command, done.stdout + done.stderr)
        metrics = os.path.join(folder, "metrics.jsonl")
        steps = [line["step_ms"] for line in measuring.step_lines(metrics)]
        with open(metrics, encoding="utf-8") as file:
            last = json.loads(file.readlines()[-1])["summary"]
    return statistics.median(steps[1:]), last


def run():
    options = options_of()
    machine = measuring.machine()
    runs = {case: [] for case in options.schedule}
    for number in range(1, options.rounds + 1):
        for case in options.schedule:
            measuring.say(f"round {number} of {options.rounds}: {case[0]}, {case[1]} stages a worker")
            runs[case].append(one_run(options, *case))
    base = [step for step, _ in runs[options.schedule[0]]]
    results, table = [], []
    for (schedule, virtual_stages), measured in runs.items():
        steps, last = [step for step, _ in measured], measured[-1][1]
        held, simulated = last["in_flight_bytes"], last["predicted"]["in_flight_bytes"]
        ratios = measuring.summary([step / first for step, first in zip(steps, base)])
        off = max(abs(a / b - 1) for a, b in zip(held, simulated))
        results.append({"schedule": schedule, "virtual_stages": virtual_stages, "step_ms": measuring.summary(steps), "ratio": ratios,
                        "simulated_step_ms": last["predicted"]["step_ms"], "in_flight_bytes": held,
                        "simulated_in_flight_bytes": simulated, "in_flight_off": off})
        table.append([schedule, virtual_stages, measuring.in_ms(measuring.summary(steps)), measuring.in_ratios(ratios),
                      f"{last['predicted']['step_ms']:.1f}", " ".join(f"{b / 2**20:.2f}" for b in held),
                      " ".join(f"{b / 2**20:.2f}" for b in simulated), f"{100 * off:.1f} %"])
    print(f"{options.config}, {options.workers} workers {'over MPI' if options.mpi else 'in process'}; bytes in flight in MiB, by worker")
    measuring.print_table(["schedule", "v", "ms a step [min, max]", f"ratio to {options.schedule[0][0]}", "simulated", "in flight",
                           "simulated", "off"], table)
    measuring.write_json(options.json, {"bench": "model_schedules", "machine": machine, "config": options.config,
                                        "settings": options.set, "results": results})
    return 0


if __name__ == "__main__":
    measuring.main(run)
