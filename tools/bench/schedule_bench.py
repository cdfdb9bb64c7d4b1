#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How close a schedule comes to its own bound: sleeping layers, many workers on few cores.

One layer a stage sleeps `--ms` in F, I and W. With equal stages neither GPipe nor 1F1B can take less than
(M + P - 1) x (f + i + w) a step; efficiency is that bound over the measured median step. In process and with one rank
per stage, one after the other, in every round.

  tools/bench/schedule_bench.py --json out/bench/schedule.json
"""
import statistics

import measuring


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--stages", type=measuring.positive, default=16)
    parser.add_argument("--micro-batches", type=measuring.positive, default=32)
    parser.add_argument("--ms", type=float, default=20.0, help="sleep in each of F, I and W (default: 20)")
    parser.add_argument("--schedule", action="append", help="repeatable (default: 1f1b)")
    parser.add_argument("--steps", type=measuring.positive, default=5, help="measured steps per run (default: 5)")
    parser.add_argument("--rounds", type=measuring.positive, default=2)
    return parser.parse_args()


def overrides_of(options, schedule):
    times = {f"model.{name}_ms": options.ms for name in ("forward", "input_grad", "weight_grad")}
    return {**times, "model.layers": options.stages, "train.steps": options.steps + 1,
            "train.batch": options.micro_batches, "train.micro_batches": options.micro_batches,
            "pipeline.stages": options.stages, "pipeline.schedule": schedule}


def measure(options, cases):
    steps = {case: [] for case in cases}
    for number in range(1, options.rounds + 1):
        for schedule, ranks in cases:
            measuring.say(f"round {number} of {options.rounds}: {schedule}, {transport(ranks)}")
            steps[schedule, ranks] += measuring.lockstep_steps(options, measuring.HERE / "delay.yaml",
                                                               overrides_of(options, schedule), ranks, skip=1)
    return steps


def transport(ranks):
    return f"mpirun -n {ranks}" if ranks else "in process"


def run():
    options = options_of()
    machine = measuring.machine()
    cases = [(schedule, ranks) for schedule in options.schedule or ["1f1b"] for ranks in (0, options.stages)]
    bound = (options.micro_batches + options.stages - 1) * 3 * options.ms
    results = []
    for (schedule, ranks), steps in measure(options, cases).items():
        results.append({"schedule": schedule, "transport": transport(ranks), "step_ms": measuring.summary(steps),
                        "steps": steps, "efficiency": bound / statistics.median(steps)})
    print(f"{options.stages} stages, {options.micro_batches} micro-batches, {options.ms:g} ms in each of F, I, W, "
          f"on {machine['cores']} cores; bound {bound:g} ms a step")
    measuring.print_table(["schedule", "workers", "ms a step [min, max]", "efficiency"],
                          [[r["schedule"], r["transport"], measuring.in_ms(r["step_ms"]), f"{r['efficiency']:.4f}"]
                           for r in results])
    measuring.write_json(options.json, {"bench": "schedule", "machine": machine, "stages": options.stages,
                                        "micro_batches": options.micro_batches, "ms": options.ms, "bound_ms": bound,
                                        "results": results})
    return 0


if __name__ == "__main__":
    measuring.main(run)
