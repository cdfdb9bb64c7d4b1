#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From starting the command to the first finished training step, in process and under mpirun.

The first line of metrics.jsonl is written when step 2 is over (results travel one step behind, so that nothing drains):
the end of step 1 is the moment that line is seen, less the time of step 2. Both are reported. Reading the data and
building the model are part of it. The file is looked at every 2 ms.

  tools/bench/launch_bench.py --json out/bench/launch.json
"""
import os
import subprocess
import tempfile
import time

import measuring

POLL_S = 0.002


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--config", default=str(measuring.ROOT / "configs/quickstart.yaml"))
    parser.add_argument("--ranks", type=measuring.positive, default=2)
    parser.add_argument("--repeats", type=measuring.positive, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of lockstep train")
    return parser.parse_args()


def first_line_s(process, metrics, start):
    """When the first step was in the metrics; None when the command ended without one."""
    while not measuring.step_lines(metrics):
        if process.poll() is not None:
            return None
        time.sleep(POLL_S)
    return time.monotonic() - start


def launch(options, ranks):
    # Enough steps that the first line does not wait for the end of the job; no evaluation at the end.
    overrides = {**dict(text.split("=", 1) for text in options.set), "train.steps": 4, "train.eval_every": 0}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as scratch:
        folder = os.path.join(scratch, "run")
        command = measuring.train_command(options, options.config, overrides, ranks, folder)
        metrics = os.path.join(folder, "metrics.jsonl")
        with open(os.path.join(scratch, "output.txt"), "w+", encoding="utf-8") as output:
            start = time.monotonic()
            with subprocess.Popen(command, cwd=measuring.ROOT, stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=output) as process:
                line_s = first_line_s(process, metrics, start)
                code = process.wait()
            whole_s = time.monotonic() - start
            output.seek(0)
            measuring.check(code, command, output.read())
        if line_s is None:
            raise measuring.BenchError("the job was over before its first metrics line was seen; take a larger model")
        return {"first_step_s": line_s - measuring.step_lines(metrics)[1]["step_ms"] / 1e3, "first_line_s": line_s,
                "whole_s": whole_s}


def run():
    options = options_of()
    for text in options.set:
        if "=" not in text:
            raise measuring.BenchError(f"--set {text}: expected KEY=VALUE")
    machine = measuring.machine()
    cases = {"in process": 0, f"mpirun -n {options.ranks}": options.ranks}
    times = {name: [] for name in cases}
    for number in range(1, options.repeats + 1):
        for name, ranks in cases.items():
            measuring.say(f"repeat {number} of {options.repeats}: {name}")
            times[name].append(launch(options, ranks))
    keys = ["first_step_s", "first_line_s", "whole_s"]
    results = {name: {key: measuring.summary([t[key] for t in list_]) for key in keys} for name, list_ in times.items()}
    print(f"{os.path.relpath(options.config, measuring.ROOT)}: seconds from the command, median [min, max] of "
          f"{options.repeats}")
    measuring.print_table(["workers", "first step finished", "first metrics line", "four steps, and out"],
                          [[name] + [seconds(results[name][key]) for key in keys] for name in cases])
    measuring.write_json(options.json, {"bench": "launch", "machine": machine, "config": options.config,
                                        "results": results, "repeats": times})
    return 0


def seconds(values):
    return f"{values['median']:.2f} [{values['min']:.2f}, {values['max']:.2f}]"


if __name__ == "__main__":
    measuring.main(run)
