#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How good predictions and planned cuts are: predicted against measured, and planned cuts against others.

--predict CONFIG   profile, plan for two workers and train, in process and on two ranks: step time and peak bytes
--delay WORKERS    the same for layers that sleep for random times, planned from hand-written costs
--cutters          step times of the plan's cuts and of those by layers, params and block on models that are hard to cut

Each case is trained once a round, interleaved, and medians over all its steps count. With --predict every round measures a
profile, without the cache, plans and trains; a round's figure is its median step over the step that it predicted, and
the median of the rounds counts.

  tools/bench/planning_bench.py --predict configs/unet.yaml --delay 4 --cutters --json out/bench/planning.json
"""
import functools
import json
import pathlib
import random
import statistics
import subprocess
import tempfile

import measuring

BIG_HEAD = """\
name: big-head
model: {type: gpt, layers: 8, heads: 4, width: 128, context: 64, vocab: 16384, tie_embeddings: false}
data: {type: synthetic, task: tokens, vocab: 16384, samples: 512}
train: {steps: 6, batch: 16, micro_batches: 8, loss: sparse_categorical_cross_entropy, log_every: 1000000}
pipeline: {stages: 2, schedule: 1f1b}
"""
CUTTERS = ("planned", "layers", "params", "block")


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--predict", action="append", default=[], metavar="CONFIG", help="repeatable")
    parser.add_argument("--delay", action="append", default=[], type=measuring.positive, metavar="WORKERS",
                        help="repeatable")
    parser.add_argument("--cutters", action="store_true")
    parser.add_argument("--steps", type=measuring.positive, default=12, help="measured steps per run (default: 12)")
    parser.add_argument("--rounds", type=measuring.positive, default=3)
    parser.add_argument("--layers", type=measuring.positive, default=24, help="of the sleeping models (default: 24)")
    parser.add_argument("--seeds", type=measuring.positive, default=3, help="sleeping models per case (default: 3)")
    options = parser.parse_args()
    if not (options.predict or options.delay or options.cutters):
        raise measuring.BenchError("nothing to do: give --predict CONFIG, --delay WORKERS or --cutters")
    return options


def run_lockstep(options, arguments, ranks=0):
    command = measuring.lockstep_command(options, ranks) + [str(argument) for argument in arguments]
    done = subprocess.run(command, cwd=measuring.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    measuring.check(done.returncode, command, done.stdout + done.stderr)
    return done.stdout


class Case:
    """One config and one plan, trained in one way. `make_plan`: makes the plan anew before each round; or a path."""

    def __init__(self, name, config, make_plan, ranks, measured_bytes=True):
        self.name, self.config, self.make_plan, self.ranks = name, config, make_plan, ranks
        self.measured_bytes = measured_bytes
        self.steps, self.predicted_ms, self.over, self.bytes_over = [], [], [], []
        self.peaks, self.plan, self.predicted = [], None, None

    def transport(self):
        return f"mpirun -n {self.ranks}" if self.ranks else "in process"

    def train(self, options):
        self.plan = self.make_plan() if callable(self.make_plan) else self.make_plan
        with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as scratch:
            folder = pathlib.Path(scratch) / "run"
            settings = {"train.steps": options.steps + 1, "train.eval_every": 0, "train.log_every": 1000000}
            command = measuring.train_command(options, self.config, settings, self.ranks, folder,
                                              ["--plan", str(self.plan)])
            done = subprocess.run(command, cwd=measuring.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=False)
            measuring.check(done.returncode, command, done.stdout)
            steps = [line["step_ms"] for line in measuring.step_lines(folder / "metrics.jsonl")][1:]
            summary = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["summary"]
        self.predicted, self.peaks = summary["predicted"], summary["peak_bytes"]
        if self.predicted["by"] != "plan":
            raise measuring.BenchError(f"{self.name}: the plan's prediction was dropped")
        self.steps += steps
        self.predicted_ms.append(self.predicted["step_ms"])
        self.over.append(statistics.median(steps) / self.predicted["step_ms"] - 1)
        # Costs by hand say nothing of bytes.
        if self.measured_bytes:
            self.bytes_over += [measured / predicted - 1
                                for measured, predicted in zip(self.peaks, self.predicted["peak_bytes"])]

    def result(self):
        return {"case": self.name, "workers": self.transport(), "predicted_ms": measuring.summary(self.predicted_ms),
                "step_ms": measuring.summary(self.steps), "over_prediction": measuring.summary(self.over),
                "predicted_peak_bytes": self.predicted["peak_bytes"], "peak_bytes": self.peaks,
                "bytes_over_prediction": max(self.bytes_over, key=abs, default=None),
                "layers": self.predicted["layers"], "plan": pathlib.Path(self.plan).read_text()}


def measure(options, cases):
    for number in range(1, options.rounds + 1):
        for case in cases:
            measuring.say(f"round {number} of {options.rounds}: {case.name}, {case.transport()}")
            case.train(options)


def planned(options, scratch, name, config, workers, profile, flags=()):
    plan = scratch / f"{name}.plan.yaml"
    run_lockstep(options, ["plan", config, "--profile", profile, "--workers", workers, "--all-workers", "-o", plan, *flags])
    return plan


def one_way(ranks):
    return ["--ranks", "per-worker" if ranks else "one"]


def profiled(options, scratch, name, config, ranks):
    """As many threads measure at once as train later."""
    profile = scratch / f"{name}-{ranks}.json"
    measuring.say(f"profile: {name}, {ranks or 1} rank(s)")
    run_lockstep(options, ["profile", config, "-o", profile, "--no-cache", "--set", "pipeline={stages: 2}"], ranks)
    return profile


def model_cases(options, scratch):
    def plan_of(name, config, ranks):
        profile = profiled(options, scratch, name, config, ranks)
        return planned(options, scratch, f"{name}-{ranks}", config, 2, profile, one_way(ranks))

    cases = []
    for config in options.predict:
        name = pathlib.Path(config).stem
        for ranks in (0, 2):
            cases.append(Case(name, config, functools.partial(plan_of, name, config, ranks), ranks))
    return cases


def delay_model(scratch, name, times, micro_batches):
    """A config of layers that sleep for these times in F, I and W, and its costs."""
    text = ["name: delay", "model:", "  type: delay", f"  layers: {len(times)}", "  width: 4"]
    for key, column in zip(("forward_ms", "input_grad_ms", "weight_grad_ms"), zip(*times)):
        text.append(f"  {key}: [{', '.join(f'{time:g}' for time in column)}]")
    text += ["data: {type: synthetic, task: regression, inputs: 4, outputs: 4, samples: 1024}",
             f"train: {{steps: 6, batch: {micro_batches}, micro_batches: {micro_batches}, loss: mean_squared_error, "
             "optimizer: {type: sgd, lr: 1.0e-3}}", "pipeline: {stages: 1, schedule: 1f1b}", ""]
    config = scratch / f"{name}.yaml"
    config.write_text("\n".join(text))
    costs = scratch / f"{name}.costs.yaml"
    lines = ["format: 1", "costs:"]
    lines += [f"  {layer}: {{forward_ms: {f:g}, input_grad_ms: {i:g}, weight_grad_ms: {w:g}}}"
              for layer, (f, i, w) in zip(layer_names(len(times)), times)]
    costs.write_text("\n".join([*lines, ""]))
    return config, costs


def layer_names(layers):
    return [f"delay.{layer}" for layer in range(layers)]


def random_times(seed, layers):
    """2 to 12 ms in each direction."""
    numbers = random.Random(seed)
    return [tuple(round(numbers.uniform(2, 12), 1) for _ in range(3)) for _ in range(layers)]


def delay_cases(options, scratch):
    cases = []
    for workers in options.delay:
        for seed in range(options.seeds):
            name = f"delay-{workers}-{seed}"
            config, costs = delay_model(scratch, name, random_times(seed, options.layers), 4 * workers)
            for ranks in (0, workers):
                plan = planned(options, scratch, f"{name}-{ranks}", config, workers, costs, one_way(ranks))
                cases.append(Case(name, config, plan, ranks, measured_bytes=False))
    return cases


def uneven_times(layers):
    """Most of the work at the end, where parameters and layers say nothing of it."""
    return [(1.0, 1.0, 1.0) if layer < layers * 2 // 3 else (6.0, 6.0, 6.0) for layer in range(layers)]


def cutter_cases(options, scratch):
    big_head = scratch / "big-head.yaml"
    big_head.write_text(BIG_HEAD)
    delay, costs = delay_model(scratch, "uneven-delay", uneven_times(options.layers), 16)
    unet = measuring.ROOT / "tools/bench/unet-64.yaml"
    models = [("uneven delay", delay, 4, costs), ("big head", big_head, 2, profiled(options, scratch, "big-head", big_head, 0)),
              ("unet", unet, 2, profiled(options, scratch, "unet", unet, 0))]
    cases = []
    for name, config, workers, profile in models:
        for cutter in CUTTERS:
            flags = [] if cutter == "planned" else ["--partition", f"by:{cutter}"]
            # The same schedule for all, so that only the cuts differ.
            flags += ["--schedule", "1f1b", "--virtual-stages", "1", "--recompute", "never", "--ranks", "one"]
            plan = planned(options, scratch, f"{name.replace(' ', '-')}-{cutter}", config, workers, profile, flags)
            cases.append(Case(f"{name}, {cutter}", config, plan, 0, measured_bytes=profile != costs))
    return cases


def percent(share):
    return f"{100 * share:+.1f} %"


def in_percent(shares):
    return f"{percent(shares['median'])} [{percent(shares['min'])}, {percent(shares['max'])}]"


def print_predictions(title, results):
    print(title)
    measuring.print_table(["case", "workers", "predicted ms", "ms a step [min, max]", "over it [min, max]", "bytes over it"],
                          [[r["case"], r["workers"], measuring.in_ms(r["predicted_ms"]), measuring.in_ms(r["step_ms"]),
                            in_percent(r["over_prediction"]),
                            "-" if r["bytes_over_prediction"] is None else percent(r["bytes_over_prediction"])]
                           for r in results])


def run():
    options = options_of()
    machine = measuring.machine()
    figures = {"bench": "planning", "machine": machine, "rounds": options.rounds, "steps": options.steps}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        scratch = pathlib.Path(folder)
        groups = [("models", "predicted and measured, two workers", model_cases(options, scratch)),
                  ("delay", "predicted and measured, layers that sleep for random times", delay_cases(options, scratch)),
                  ("cutters", "cuts of the plan and of others", cutter_cases(options, scratch) if options.cutters else [])]
        for key, title, cases in groups:
            if not cases:
                continue
            measure(options, cases)
            figures[key] = [case.result() for case in cases]
            print_predictions(title, figures[key])
    measuring.write_json(options.json, figures)
    return 0


if __name__ == "__main__":
    measuring.main(run)
