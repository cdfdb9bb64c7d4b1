#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two replicas of a model that is not cut, one thread each, against torch's DistributedDataParallel over gloo.

An MLP (mlp-1024.yaml), a GPT (gpt-256.yaml) and a CNN (cnn-32.yaml), the same batch, micro-batches and optimizer on both sides.
Torch: two processes, DistributedDataParallel as it comes (buckets of 25 MB), gradients of the micro-batches but the last added up
under no_sync(). Lockstep: two replicas in process, as two ranks, as two ranks with a sharded optimizer, and the first two without
the AMD GEMM cure, so that what the runtime gives and what the faster matrix products give are seen apart. Beside them what a step
is made of: one worker with half of the micro-batches and the whole update, while the other core runs the same.

Each round runs every variant once; medians [min, max] of the rounds' medians, ratios round by round.

  .venv/bin/python tools/bench/replicas_bench.py --json out/bench/replicas.json
"""
import functools
import json
import subprocess
import sys
import tempfile
import time

import cpu_bench
import measuring
import pipelining_bench

BASELINE = "torch DDP, 2 processes"
CONFIGS = {"mlp": "mlp-1024.yaml", "gpt": "gpt-256.yaml", "cnn": "cnn-32.yaml"}
SIZES = {"mlp": {"width": 1024, "batch": 256}, "gpt": {"width": 256, "batch": 32, "context": 64, "vocab": 256, "heads": 4},
         "cnn": {"batch": 64}}
LOCKSTEP = {  # name: (ranks, settings)
    "lockstep, in process": (0, {}),
    "lockstep, mpirun -n 2": (2, {}),
    "lockstep, mpirun -n 2, sharded": (2, {"replicas.shard_optimizer": "true"}),
    "lockstep, in process, gemm=default": (0, {"kernels.gemm": "default"}),
    "lockstep, mpirun -n 2, gemm=default": (2, {"kernels.gemm": "default"}),
}
HALVES = "lockstep, half of it twice, apart"


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--model", action="append", choices=list(CONFIGS), help="repeatable (default: all)")
    parser.add_argument("--micro-batches", type=measuring.positive, default=8, help="of both replicas (default: 8)")
    parser.add_argument("--steps", type=measuring.positive, default=20, help="measured steps per run (default: 20)")
    parser.add_argument("--skip", type=measuring.positive, default=4, help="steps before them (default: 4)")
    parser.add_argument("--rounds", type=measuring.positive, default=5)
    options = parser.parse_args()
    options.model = options.model or list(CONFIGS)
    if options.micro_batches % 2:
        raise measuring.BenchError(f"--micro-batches {options.micro_batches}: two replicas need an even number of them")
    return options


# ---- torch: this file, started once per rank ----


def torch_cnn():
    """models/cnn.cpp with the options of cnn-32.yaml."""
    import torch
    from torch import nn

    def unit(inputs, outputs, stride=1):
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.body = nn.Sequential(*unit(inputs, outputs, stride), nn.ReLU(), *unit(outputs, outputs))
            same = inputs == outputs and stride == 1
            self.down = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                                                 nn.BatchNorm2d(outputs))

        def forward(self, x):
            return torch.relu(self.body(x) + self.down(x))

    blocks = [Block(16, 16, 1), Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1)]
    return nn.Sequential(*unit(3, 16), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def torch_side(job):
    """Model, batch of one rank and optimizer."""
    import torch
    rows = job["batch"] // 2
    if job["model"] == "cnn":
        torch.manual_seed(1)
        module = torch_cnn()
        batch = torch.randn(rows, 3, 32, 32), torch.randint(10, (rows,))
        loss = torch.nn.functional.cross_entropy
        optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True)
    else:
        module = torch.nn.Sequential(*pipelining_bench.torch_parts(job))
        batch = pipelining_bench.torch_batch(job, rows)
        loss = pipelining_bench.torch_loss
        optimizer = functools.partial(torch.optim.AdamW, lr=1e-4, weight_decay=0.01, fused=True)
    return module, batch, loss, optimizer


def ddp_steps(job, _):
    """Times of all steps on this rank, in ms."""
    import contextlib

    import torch
    module, (x, target), loss, optimizer = torch_side(job)
    model = torch.nn.parallel.DistributedDataParallel(module)
    optimizer = optimizer(model.parameters())
    count = job["micro_batches"] // 2
    slices = list(zip(x.chunk(count), target.chunk(count)))
    times = []
    for _ in range(job["steps"]):
        start = time.perf_counter()
        for number, (rows, targets) in enumerate(slices):
            last = number + 1 == len(slices)
            with contextlib.nullcontext() if last else model.no_sync():
                (loss(model(rows), targets) / len(slices)).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def run_torch(options, name):
    job = {**SIZES[name], "model": name, "workers": 2, "micro_batches": options.micro_batches,
           "steps": options.steps + options.skip, "optimizer": "adamw"}
    return pipelining_bench.run_ranks(__file__, job)[options.skip:]


# ---- lockstep ----


def settings(options, name):
    size = SIZES[name]
    values = {"train.batch": size["batch"], "train.micro_batches": options.micro_batches, "train.steps": options.steps + options.skip,
              "pipeline": "{stages: 1, schedule: 1f1b}", "replicas.count": 2}
    return {**values, "data.samples": max(512, 2 * size["batch"])}


def run_lockstep(options, name, variant):
    ranks, more = LOCKSTEP[variant]
    return measuring.lockstep_steps(options, measuring.HERE / CONFIGS[name], {**settings(options, name), **more}, ranks, options.skip)


def run_halves(options, name):
    """One worker with half of the batch, twice at the same time: nobody waits for the other."""
    half = {**settings(options, name), "train.batch": SIZES[name]["batch"] // 2, "train.micro_batches": options.micro_batches // 2,
            "replicas.count": 1}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as scratch:
        other = subprocess.Popen(measuring.train_command(options, measuring.HERE / CONFIGS[name], {**half, "train.steps": 100000}, 0,
                                                         f"{scratch}/other", ()),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(2)  # until it trains; what comes before the measured steps here is longer
            return measuring.train(options, measuring.HERE / CONFIGS[name], half, 0, f"{scratch}/run").step_ms(options.skip)
        finally:
            other.kill()
            other.wait()


# ---- both ----


def variants_of(options, name):
    variants = {BASELINE: functools.partial(run_torch, options, name)}
    variants |= {variant: functools.partial(run_lockstep, options, name, variant) for variant in LOCKSTEP}
    return {**variants, HALVES: functools.partial(run_halves, options, name)}


def conclude(name, medians):
    results = [{"variant": variant, "step_ms": measuring.summary(rounds), "ratio_to_ddp": cpu_bench.ratios(medians, variant, BASELINE),
                "ratio_to_halves": cpu_bench.ratios(medians, variant, HALVES)} for variant, rounds in medians.items()]
    print(f"\n{name}: ms a step; ratio to {BASELINE}, and to {HALVES}")
    measuring.print_table(["variant", "ms a step", "to DDP", "to halves"],
                          [[r["variant"], measuring.in_ms(r["step_ms"]), measuring.in_ratios(r["ratio_to_ddp"]),
                            measuring.in_ratios(r["ratio_to_halves"])] for r in results])
    return results


def run():
    if len(sys.argv) == 4 and sys.argv[1] == "--torch-rank":
        pipelining_bench.torch_rank(json.loads(sys.argv[2]), int(sys.argv[3]), ddp_steps)
        return 0
    options = options_of()
    torch = pipelining_bench.check_torch()
    figures = {"bench": "replicas", "machine": measuring.machine(), "torch": torch, "micro_batches": options.micro_batches,
               "rounds": options.rounds, "steps": options.steps, "models": {}}
    cure = "WITH the AMD GEMM cure preloaded" if torch["gemm_cure"] else "as it comes, without the AMD GEMM cure"
    print(f"torch {torch['version']}: {cure}; CPU: {figures['machine']['cpu']}")
    for name in options.model:
        figures["models"][name] = {**SIZES[name], "results": conclude(name, cpu_bench.measure(options, name, variants_of(options, name)))}
        measuring.write_json(options.json, figures)
    return 0


if __name__ == "__main__":
    measuring.main(run)
