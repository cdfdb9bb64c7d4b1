#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A machine with eight or more cores: an MLP and a GPT on 1, 2, 4 and 8 workers against torch, and against predictions.

Scaling: Lockstep with 1F1B, in process and with a rank per worker, against torch.distributed.pipelining's 1F1B over gloo
with the same cuts (one worker: a plain loop over micro-batches), and against one torch process with eight threads,
micro-batch by micro-batch and the whole batch at once. What Lockstep would take is predicted from a profile that one worker
made.

One worker: what it takes bound to a core, on the other GEMM path, without looking for values that are not finite, as a
rank; torch's loop bound and not; and GFLOP/s of a linear layer of this width on both sides, in Lockstep from the profile
(with all that a layer needs besides its product).

Every round runs every variant once; medians [min, max] of the rounds' medians; one thread per worker.

  .venv/bin/python tools/bench/cpu_bench.py --json out/bench/cpu.json
"""
import functools
import json
import os
import pathlib
import re
import sys
import tempfile
import time

import measuring
import pipelining_bench
import planning_bench

MODELS = {"mlp": {"width": 1024, "batch": 1024},
          "gpt": {"width": 256, "batch": 64, "context": 64, "vocab": 256, "heads": 4}}
CONFIGS = {"mlp": "mlp-1024.yaml", "gpt": "gpt-256.yaml"}
TINY = {"mlp": {"width": 32, "batch": 16}, "gpt": {"width": 32, "batch": 16, "context": 8, "vocab": 64, "heads": 4}}
THREADS = 8  # of the one torch process


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--workers", type=int, action="append", choices=[1, 2, 4, 8], help="repeatable (default: all)")
    parser.add_argument("--model", action="append", choices=list(MODELS), help="repeatable (default: both)")
    parser.add_argument("--part", action="append", choices=["scaling", "one-worker"], help="repeatable (default: both)")
    parser.add_argument("--micro-batches", type=measuring.positive, default=32)
    parser.add_argument("--steps", type=measuring.positive, default=5, help="measured steps per run (default: 5)")
    parser.add_argument("--skip", type=measuring.positive, default=2, help="steps before them (default: 2)")
    parser.add_argument("--rounds", type=measuring.positive, default=3)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, two workers, one round: the figures mean nothing")
    options = parser.parse_args()
    options.workers = options.workers or ([1, 2] if options.tiny else [1, 2, 4, 8])
    options.model = options.model or list(MODELS)
    options.part = options.part or ["scaling", "one-worker"]
    if options.tiny:
        options.micro_batches, options.steps, options.rounds = 8, 2, 1
    return options


# ---- torch ----


def gemm_rates(job, _):
    """GFLOP/s of a linear layer's three products on the rows of a micro-batch: output, gradients of input and weight."""
    import torch
    rows, width = job["rows"], job["width"]
    x, gradient, weight = torch.randn(rows, width), torch.randn(rows, width), torch.randn(width, width)
    rates = []
    for product in (lambda: x @ weight.t(), lambda: gradient @ weight, lambda: gradient.t() @ x):
        times = []
        for _ in range(30):
            start = time.perf_counter()
            for _ in range(10):
                product()
            times.append((time.perf_counter() - start) / 10)
        rates.append(2 * rows * width * width / measuring.summary(times)["median"] / 1e9)
    return [*rates, torch.backends.cpu.get_cpu_capability()]


class Side:
    """One model on both sides."""

    def __init__(self, options, name):
        self.options, self.name = options, name
        self.size = (TINY if options.tiny else MODELS)[name]

    def job(self, **more):
        return {**self.size, "model": self.name, "schedule": "1f1b", "optimizer": "adamw", "workers": 1,
                "micro_batches": self.options.micro_batches, "steps": self.options.steps + self.options.skip, **more}

    def torch(self, **more):
        return pipelining_bench.run_ranks(pipelining_bench.__file__, self.job(**more))[self.options.skip:]

    def config(self):
        return measuring.HERE / CONFIGS[self.name]

    def settings(self, workers):
        # Eight parts of the same work, cut as torch_parts() are; the MLP's last one is its output layer.
        names = [f"fc.{part}" for part in range(7)] + ["out"] if self.name == "mlp" else [f"h.{part}" for part in range(8)]
        cuts = names[8 // workers::8 // workers]
        settings = {"model.width": self.size["width"], "train.batch": self.size["batch"],
                    "train.micro_batches": self.options.micro_batches, "pipeline.stages": workers,
                    "pipeline.partition": f"{{cut_before: [{', '.join(cuts)}]}}" if cuts else "params"}
        if self.name == "mlp":
            return {**settings, **{f"{part}.{key}": self.size["width"] for part in ("model", "data")
                                   for key in ("inputs", "outputs")}}
        return {**settings, "model.context": self.size["context"], "model.vocab": self.size["vocab"],
                "model.heads": self.size["heads"], "data.vocab": self.size["vocab"]}

    def lockstep(self, workers, ranks=0, **more):
        steps = {"train.steps": self.options.steps + self.options.skip}
        more = {key.replace("__", "."): value for key, value in more.items()}
        return measuring.lockstep_steps(self.options, self.config(), {**self.settings(workers), **steps, **more}, ranks,
                                        self.options.skip)

    def profile(self, scratch):
        """Made by one worker."""
        path = scratch / f"{self.name}.json"
        planning_bench.run_lockstep(self.options, ["profile", self.config(), *self.flags(1), "--no-cache", "-o", path])
        return path

    def flags(self, workers):
        return [part for key, value in self.settings(workers).items() for part in ("--set", f"{key}={value}")]

    def predicted_ms(self, scratch, profile, workers, ranks):
        cuts = re.findall(r"[\w.]+", self.settings(workers)["pipeline.partition"])[1:]
        plan = planning_bench.planned(
            self.options, scratch, f"{self.name}-{workers}-{ranks}", self.config(), workers, profile,
            [*planning_bench.one_way(ranks), *self.flags(workers), "--schedule", "1f1b", "--virtual-stages", 1,
             "--recompute", "never", *(["--partition", f"before:{','.join(cuts)}"] if cuts else [])])
        return float(re.search(r"^  step_ms: ([\d.e+]+)", plan.read_text(encoding="utf-8"), re.M)[1])


# ---- both ----


def measure(options, name, variants):
    """{variant: the median of each round}."""
    medians = {variant: [] for variant in variants}
    for number in range(1, options.rounds + 1):
        for variant, run in variants.items():
            measuring.say(f"{name}, round {number} of {options.rounds}: {variant}")
            medians[variant].append(measuring.summary(run())["median"])
    return medians


def ratios(medians, variant, baseline):
    return measuring.summary([ours / theirs for ours, theirs in zip(medians[variant], medians[baseline])])


def scaling(options, side, scratch, profile):
    variants, rows = {}, []
    for workers in options.workers:
        torch = f"torch 1f1b, {workers} processes" if workers > 1 else "torch, 1 process, 1 thread"
        variants[f"lockstep, {workers} in process"] = functools.partial(side.lockstep, workers)
        if workers > 1:
            variants[f"lockstep, mpirun -n {workers}"] = functools.partial(side.lockstep, workers, workers)
        variants[torch] = functools.partial(side.torch, workers=workers)
        rows += [(variant, workers, torch) for variant in list(variants)[len(rows):]]
    whole = f"torch, 1 process, {THREADS} threads, whole batch"
    variants[f"torch, 1 process, {THREADS} threads"] = functools.partial(side.torch, threads=THREADS)
    variants[whole] = functools.partial(side.torch, threads=THREADS, micro_batches=1)
    rows += [(variant, THREADS, None) for variant in list(variants)[len(rows):]]
    medians = measure(options, side.name, variants)
    results = []
    for variant, workers, torch in rows:
        result = {"variant": variant, "workers": workers, "step_ms": measuring.summary(medians[variant])}
        if torch:
            result["ratio_to_torch"] = ratios(medians, variant, torch)
        result["ratio_to_threads"] = ratios(medians, variant, whole)
        if variant.startswith("lockstep"):
            result["predicted_ms"] = side.predicted_ms(scratch, profile, workers, workers if "mpirun" in variant else 0)
            result["over_prediction"] = result["step_ms"]["median"] / result["predicted_ms"] - 1
        results.append(result)
    print(f"\n{side.name}: ms a step; ratio to torch with as many workers, and to {THREADS} threads on the whole batch")
    measuring.print_table(
        ["variant", "ms a step", "ratio to torch", "to threads", "predicted", "over it"],
        [[r["variant"], measuring.in_ms(r["step_ms"]),
          measuring.in_ratios(r["ratio_to_torch"]) if "ratio_to_torch" in r else "",
          measuring.in_ratios(r["ratio_to_threads"]), f"{r['predicted_ms']:.1f}" if "predicted_ms" in r else "",
          planning_bench.percent(r["over_prediction"]) if "predicted_ms" in r else ""] for r in results])
    return results


def layer_rates(side, profile):
    """GFLOP/s of F, I and W of a hidden layer of the MLP by the profile, and the rows that they are for."""
    layers = json.loads(profile.read_text(encoding="utf-8"))["layers"]
    hidden = next(layer for layer in layers if layer["name"].startswith("fc"))
    sample = max(hidden["samples"], key=lambda sample: sample["rows"])
    flops = 2 * sample["rows"] * side.size["width"]**2
    return sample["rows"], [flops / sample[f"{what}_us"] / 1e3 for what in ("forward", "input_grad", "weight_grad")]


def one_worker(options, side, profile):
    torch = "torch, 1 thread"
    run = functools.partial(side.lockstep, 1)
    variants = {torch: side.torch, "torch, bound": functools.partial(side.torch, bind=True), "lockstep": run,
                "lockstep, workers.bind cores": functools.partial(run, workers__bind="cores"),
                "lockstep, kernels.gemm default": functools.partial(run, kernels__gemm="default"),
                "lockstep, stop_on_nan false": functools.partial(run, train__stop_on_nan="false"),
                "lockstep, mpirun -n 1": functools.partial(run, 1)}
    medians = measure(options, side.name, variants)
    results = [{"variant": variant, "step_ms": measuring.summary(medians[variant]),
                "ratio_to_torch": ratios(medians, variant, torch)} for variant in variants]
    print(f"\n{side.name}: one worker, one thread; ratio to torch's loop")
    measuring.print_table(["variant", "ms a step", "ratio"], [[r["variant"], measuring.in_ms(r["step_ms"]),
                                                             measuring.in_ratios(r["ratio_to_torch"])] for r in results])
    if side.name != "mlp":
        return {"steps": results}
    rows, ours = layer_rates(side, profile)
    *theirs, capability = pipelining_bench.run_ranks(__file__, side.job(rows=rows))
    print(f"\nlinear layer of width {side.size['width']}, {rows} rows, one thread (torch: {capability}): GFLOP/s of the "
          "output and of the gradients of input and weight")
    measuring.print_table(["", "output", "input", "weight"],
                          [["torch, the products alone", *(f"{rate:.1f}" for rate in theirs)],
                           ["lockstep, the layer in its profile", *(f"{rate:.1f}" for rate in ours)]])
    return {"steps": results, "rows": rows, "torch_gflops": theirs, "lockstep_gflops": ours, "torch_capability": capability}


def print_environment(torch, profile):
    """What decides the kernels on both sides."""
    environment = json.loads(profile.read_text(encoding="utf-8"))["environment"]
    ours = ", ".join(f"{key} {environment[key]}" for key in ("cpu", "isa", "gemm", "torch"))
    names = ("MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS")
    print(f"lockstep: {ours}; torch {torch['version']}; "
          + ", ".join(f"{name} {os.environ.get(name, 'not set')}" for name in names))
    return environment


def run():
    if len(sys.argv) == 4 and sys.argv[1] == "--torch-rank":
        pipelining_bench.torch_rank(json.loads(sys.argv[2]), int(sys.argv[3]), gemm_rates)
        return 0
    options = options_of()
    torch = pipelining_bench.check_torch()
    figures = {"bench": "cpu", "machine": measuring.machine(), "torch": torch, "rounds": options.rounds,
               "steps": options.steps, "models": {}}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        scratch = pathlib.Path(folder)
        for name in options.model:
            side = Side(options, name)
            profile = side.profile(scratch)
            found = figures["models"][name] = {**side.size, "environment": print_environment(torch, profile)}
            if "scaling" in options.part:
                found["scaling"] = scaling(options, side, scratch, profile)
            if "one-worker" in options.part:
                found["one_worker"] = one_worker(options, side, profile)
            measuring.write_json(options.json, figures)
    return 0


if __name__ == "__main__":
    measuring.main(run)
