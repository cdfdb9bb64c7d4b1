#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What recording a timeline costs: the same run with every step recorded and with the first step alone.

8 x (Linear, GELU) on two workers in 8 micro-batches, at the benchmark's width and at one so small that instructions, not
arithmetic, fill the step: the worst case. Interleaved; the ratio is taken round by round.

  tools/bench/recording_bench.py --json out/bench/recording.json
"""
import statistics

import measuring


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--width", type=measuring.positive, action="append", help="repeatable (default: 1024 and 32)")
    parser.add_argument("--steps", type=measuring.positive, default=60, help="measured steps per run (default: 60)")
    parser.add_argument("--rounds", type=measuring.positive, default=5)
    return parser.parse_args()


def one_run(options, width, recorded):
    widths = {key: width for key in ("model.inputs", "model.width", "model.outputs", "data.inputs", "data.outputs")}
    steps = options.steps + 5
    flags = ["--trace-steps", f"1-{steps}" if recorded else "1"]
    return measuring.lockstep_steps(options, measuring.HERE / "mlp-1024.yaml", {**widths, "train.steps": steps}, 0,
                                    skip=5, flags=flags)


def run():
    options = options_of()
    machine = measuring.machine()
    results = []
    for width in options.width or [1024, 32]:
        times = {True: [], False: []}
        for number in range(1, options.rounds + 1):
            measuring.say(f"width {width}: round {number} of {options.rounds}")
            for recorded in (False, True):
                times[recorded].append(statistics.median(one_run(options, width, recorded)))
        ratios = [on / off for on, off in zip(times[True], times[False])]
        results.append({"width": width, "plain_ms": measuring.summary(times[False]),
                        "recorded_ms": measuring.summary(times[True]), "ratio": measuring.summary(ratios)})
    measuring.print_table(["width", "plain, ms a step", "recorded, ms a step", "ratio"],
                          [[r["width"], f"{r['plain_ms']['median']:.3f}", f"{r['recorded_ms']['median']:.3f}",
                            measuring.in_ratios(r["ratio"])] for r in results])
    measuring.write_json(options.json, {"bench": "recording", "machine": machine, "results": results})
    return 0


if __name__ == "__main__":
    measuring.main(run)
