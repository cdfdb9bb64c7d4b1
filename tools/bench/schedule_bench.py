#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How close every schedule comes to its own simulation: sleeping layers, many workers on few cores.

One layer a stage sleeps for given times in F, I and W; with v stages per worker each sleeps 1/v of them, so that every
schedule has the same work. Every case (schedule x workers x micro-batches x times) is run in process, and with --mpi
with one rank per worker too, interleaved: each round runs every case once. The median step is compared with what
`lockstep simulate` says for the same times: the period of steps that follow one another.

  tools/bench/schedule_bench.py --workers 4 --workers 8 --micro-batches 8 --micro-batches 16 --json out/bench/schedules.json
"""
import argparse
import itertools
import re
import subprocess

import measuring

SCHEDULES = {"gpipe": 1, "1f1b": 1, "interleaved_1f1b": 2, "looped_bfs": 2, "zb_h1": 1, "interleaved_zb": 2, "zbv": 2,
             "dualpipev": 2}  # name: stages per worker


def three_times(text):
    times = [float(part) for part in text.split(",")]
    if len(times) != 3 or min(times) <= 0:
        raise argparse.ArgumentTypeError(f"got {text}, expected F,I,W in milliseconds, such as 20,20,20")
    return tuple(times)


def schedule_of(text):
    """NAME, or NAME:STAGES_PER_WORKER."""
    name, _, number = text.partition(":")
    return name, int(number) if number else SCHEDULES.get(name, 1)


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--workers", type=measuring.positive, action="append", help="repeatable (default: 4)")
    parser.add_argument("--micro-batches", type=measuring.positive, action="append", help="repeatable (default: 8)")
    parser.add_argument("--times", type=three_times, action="append", metavar="F,I,W",
                        help="ms that a worker sleeps in F, I and W of a micro-batch; repeatable (default: 20,20,20)")
    parser.add_argument("--schedule", type=schedule_of, action="append", metavar="NAME[:STAGES]",
                        help=f"repeatable (default: {', '.join(SCHEDULES)}); stages per worker after a colon")
    parser.add_argument("--mpi", action="store_true", help="with one rank per worker too")
    parser.add_argument("--steps", type=measuring.positive, default=5, help="measured steps per run (default: 5)")
    parser.add_argument("--rounds", type=measuring.positive, default=2)
    options = parser.parse_args()
    options.workers = options.workers or [4]
    options.micro_batches = options.micro_batches or [8]
    options.times = options.times or [(20.0, 20.0, 20.0)]
    options.schedule = options.schedule or list(SCHEDULES.items())
    return options


class Case:
    def __init__(self, times, workers, micro_batches, schedule, ranks):
        self.times, self.workers, self.micro_batches, self.ranks = times, workers, micro_batches, ranks
        self.schedule, self.virtual_stages = schedule
        self.stage_ms = [time / self.virtual_stages for time in times]
        self.steps = []

    def legal(self):
        return self.schedule != "dualpipev" or self.micro_batches >= 2 * self.workers

    def transport(self):
        return f"mpirun -n {self.ranks}" if self.ranks else "in process"

    def __str__(self):
        stages = f" x {self.virtual_stages} stages" if self.virtual_stages > 1 else ""
        return f"{self.schedule}, {self.workers} workers{stages}, {self.micro_batches} micro-batches, {self.transport()}"

    def overrides(self, steps):
        names = ("forward", "input_grad", "weight_grad")
        stages = self.workers * self.virtual_stages
        overrides = {**{f"model.{name}_ms": time for name, time in zip(names, self.stage_ms)},
                     "model.layers": stages, "train.steps": steps + 1, "train.batch": self.micro_batches,
                     "train.micro_batches": self.micro_batches, "pipeline.stages": stages,
                     "pipeline.schedule": self.schedule}
        if self.virtual_stages > 1:
            overrides["pipeline.virtual_stages"] = self.virtual_stages
        return overrides

    def simulate(self, options):
        """(isolated step, period) in ms, and the share that is idle in the period."""
        command = measuring.lockstep_command(options, 0) + [
            "simulate", "--schedule", self.schedule, "--stages", str(self.workers * self.virtual_stages),
            "--virtual-stages", str(self.virtual_stages), "--micro-batches", str(self.micro_batches)]
        for flag, time in zip(("--forward-ms", "--input-grad-ms", "--weight-grad-ms"), self.stage_ms):
            command += [flag, str(time)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        measuring.check(done.returncode, command, done.stdout + done.stderr)
        figures = {name: float(value) for name, value in re.findall(r"^(step|period|bubble_steady) +([0-9.]+)",
                                                                    done.stdout, re.MULTILINE)}
        return figures["step"], figures["period"], figures["bubble_steady"] / 100


def measure(options, cases):
    for number in range(1, options.rounds + 1):
        for case in cases:
            measuring.say(f"round {number} of {options.rounds}: {case}")
            case.steps += measuring.lockstep_steps(options, measuring.HERE / "delay.yaml",
                                                   case.overrides(options.steps), case.ranks, skip=1)


def result_of(options, case):
    step, period, bubble = case.simulate(options)
    measured = measuring.summary(case.steps)
    return {"schedule": case.schedule, "workers": case.workers, "virtual_stages": case.virtual_stages,
            "micro_batches": case.micro_batches, "times_ms": case.times, "transport": case.transport(),
            "simulated_step_ms": step, "simulated_period_ms": period, "simulated_bubble_steady": bubble,
            "measured_bubble_steady": 1 - case.micro_batches * sum(case.times) / measured["median"],
            "step_ms": measured, "steps": case.steps, "over_simulation": measured["median"] / period - 1}


def run():
    options = options_of()
    machine = measuring.machine()
    cases = [Case(times, workers, micro_batches, schedule, ranks)
             for times, workers, micro_batches, schedule in itertools.product(
                 options.times, options.workers, options.micro_batches, options.schedule)
             for ranks in ([0, workers] if options.mpi else [0])]
    cases = [case for case in cases if case.legal()]
    measure(options, cases)
    results = [result_of(options, case) for case in cases]
    print(f"sleeping stages on {machine['cores']} cores, {options.rounds} rounds of {options.steps} steps")
    measuring.print_table(
        ["schedule", "P", "v", "M", "F,I,W ms", "workers", "ms a step [min, max]", "simulated", "over it", "idle"],
        [[r["schedule"], r["workers"], r["virtual_stages"], r["micro_batches"],
          ",".join(f"{time:g}" for time in r["times_ms"]), r["transport"], measuring.in_ms(r["step_ms"]),
          f"{r['simulated_period_ms']:.1f}", f"{100 * r['over_simulation']:+.1f} %",
          f"{100 * r['measured_bubble_steady']:.1f} %"] for r in results])
    measuring.write_json(options.json, {"bench": "schedule", "machine": machine, "rounds": options.rounds,
                                        "steps": options.steps, "results": results})
    return 0


if __name__ == "__main__":
    measuring.main(run)
