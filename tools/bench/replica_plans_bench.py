#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a plan says of replicas against what a run measures: steps, and the time that workers wait for other replicas.

--sleeping     four workers as 1, 2 and 4 replicas of 4, 2 and 1, on layers that sleep (any number of them share cores): is the
               measured order the predicted one?
--model NAME   two replicas of a model that is not cut (mlp-1024.yaml, gpt-256.yaml, cnn-32.yaml), in process and as two ranks: each
               round measures a profile, plans and trains
--stages V     the same as two ranks with V stages for each worker: as many buckets, whose sums travel while others compute

  tools/bench/replica_plans_bench.py --sleeping --model mlp --model gpt --model cnn --rounds 3
"""
import pathlib
import re
import statistics
import tempfile

import measuring
import planning_bench

CONFIGS = {"mlp": ("mlp-1024.yaml", {"train.batch": 256}), "gpt": ("gpt-256.yaml", {}), "cnn": ("cnn-32.yaml", {})}
SLEEPING = """\
name: sleeping
model: {type: delay, layers: 8, width: 4, forward_ms: 5, input_grad_ms: 5, weight_grad_ms: 5}
data: {type: synthetic, task: regression, inputs: 4, outputs: 4, samples: 1024}
train: {steps: 6, batch: 16, micro_batches: 16, gradient_groups: 4, loss: mean_squared_error, log_every: 1000000}
"""
COSTS = 'format: 2\ncosts: {"*": {forward_ms: 5, input_grad_ms: 5, weight_grad_ms: 5}}\n'


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--sleeping", action="store_true")
    parser.add_argument("--model", action="append", default=[], choices=list(CONFIGS), help="repeatable")
    parser.add_argument("--stages", action="append", default=[], type=measuring.positive, help="repeatable")
    parser.add_argument("--steps", type=measuring.positive, default=20, help="measured steps per run (default: 20)")
    parser.add_argument("--rounds", type=measuring.positive, default=3)
    return parser.parse_args()


class Case:
    """One shape, planned and trained once a round."""

    def __init__(self, name, config, ranks, settings=None, plan_flags=(), profile=None):
        self.name, self.config, self.ranks, self.settings = name, config, ranks, settings or {}
        self.plan_flags, self.profile = plan_flags, profile
        self.predicted_ms, self.measured_ms, self.simulated_wait_ms, self.measured_wait_ms = [], [], [], []

    def flags(self):
        return [part for key, value in self.settings.items() for part in ("--set", f"{key}={value}")]

    def run(self, options, scratch):
        profile = self.profile
        if profile is None:
            profile = scratch / "profile.json"
            planning_bench.run_lockstep(options, ["profile", self.config, *self.flags(), "--no-cache", "-o", profile,
                                                  *([] if self.ranks else ["--workers", 2])], self.ranks)
        plan = scratch / "plan.yaml"
        planning_bench.run_lockstep(options, ["plan", self.config, *self.flags(), "--profile", profile, "--all-workers", "-o", plan,
                                              *planning_bench.one_way(self.ranks), *self.plan_flags])
        settings = {**self.settings, "train.steps": options.steps + 4, "train.log_every": 1000000}
        with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
            trained = measuring.train(options, self.config, settings, self.ranks, folder + "/run", ["--plan", str(plan)])
        text = plan.read_text(encoding="utf-8")
        self.predicted_ms.append(float(re.search(r"^  step_ms: ([\d.e+]+)", text, re.M)[1]))
        waits = [float(ms) for ms in re.findall(r"wait_ms: ([\d.e+-]+)", text)]
        self.simulated_wait_ms.append(statistics.mean(waits))
        self.measured_ms.append(statistics.median(trained.step_ms(4)))
        self.measured_wait_ms.append(statistics.median(
            statistics.mean(worker.get("replica_wait_ms", 0) for worker in step["workers"]) for step in trained.steps[4:]))

    def row(self):
        over = [measured / predicted for measured, predicted in zip(self.measured_ms, self.predicted_ms)]
        return [self.name, f"mpirun -n {self.ranks}" if self.ranks else "in process",
                *(measuring.in_ms(measuring.summary(values)) for values in (self.predicted_ms, self.measured_ms)),
                measuring.in_ratios(measuring.summary(over)),
                *(measuring.in_ms(measuring.summary(values)) for values in (self.simulated_wait_ms, self.measured_wait_ms))]


def cases_of(options, scratch):
    cases = []
    if options.sleeping:
        (scratch / "sleeping.yaml").write_text(SLEEPING)
        (scratch / "costs.yaml").write_text(COSTS)
        for replicas in (1, 2, 4):
            cases.append(Case(f"sleeping, {replicas} x {4 // replicas}", scratch / "sleeping.yaml", 0, None,
                              ["--workers", 4, "--replicas", replicas, "--virtual-stages", 1, "--schedule", "1f1b",
                               "--recompute", "never"], scratch / "costs.yaml"))
    for name in options.model:
        config, settings = CONFIGS[name]
        for ranks, stages in [(0, 1), (2, 1)] + [(2, stages) for stages in options.stages]:
            cases.append(Case(name + (f", {stages} buckets" if stages > 1 else ""), measuring.HERE / config, ranks,
                              {**settings, "train.gradient_groups": 2, "pipeline": "{stages: 1}"},
                              ["--workers", 2, "--replicas", 2, "--virtual-stages", stages, "--recompute", "never",
                               "--schedule", "interleaved_1f1b" if stages > 1 else "1f1b"]))
    if not cases:
        raise measuring.BenchError("nothing to do: give --sleeping or --model NAME")
    return cases


def run():
    options = options_of()
    machine = measuring.machine()
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        scratch = pathlib.Path(folder)
        cases = cases_of(options, scratch)
        for number in range(1, options.rounds + 1):
            for case in cases:
                measuring.say(f"round {number} of {options.rounds}: {case.name}, {case.row()[1] if case.predicted_ms else ''}")
                case.run(options, scratch)
    rows = [case.row() for case in cases]
    measuring.print_table(["case", "workers", "predicted ms", "measured ms", "measured / predicted", "waiting, simulated",
                           "measured"], rows)
    measuring.write_json(options.json, {"machine": machine, "cases": [vars(case) | {"config": str(case.config), "profile": None}
                                                                      for case in cases]})
    return 0


if __name__ == "__main__":
    measuring.main(run)
