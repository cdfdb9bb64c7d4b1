#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lockstep against torch.distributed.pipelining: two workers, one thread each, the same model, interleaved.

The model of mlp-1024.yaml (eight linear layers of width 1024, GELU between them), cut in the middle, float32, fused
optimizer. Torch: two processes over gloo, Schedule1F1B and ScheduleGPipe. Lockstep: 1F1B with two workers in process
and as two ranks under mpirun, each with and without the AMD GEMM cure (kernels.gemm auto, default), so that what the
runtime gives and what the faster matrix products give are seen apart. Each round runs every variant once.

A step is timed on the first stage from one start to the next, in both. Torch's batch is ready in memory and its loss is
never read; Lockstep reads, shuffles and slices its batch and reports every loss.

  .venv/bin/python tools/bench/pipelining_bench.py --json out/bench/pipelining.json
"""
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings

import measuring

BASELINE = "torch 1f1b"
LOCKSTEP = {  # name: (ranks, kernels.gemm)
    "lockstep, in process": (0, "auto"),
    "lockstep, mpirun -n 2": (2, "auto"),
    "lockstep, in process, gemm=default": (0, "default"),
    "lockstep, mpirun -n 2, gemm=default": (2, "default"),
}
TORCH = {"torch 1f1b": "1f1b", "torch gpipe": "gpipe"}
RANK_LIMIT_S = 600


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--batch", type=measuring.positive, action="append", help="repeatable (default: 64 and 512)")
    parser.add_argument("--micro-batches", type=measuring.positive, default=8)
    parser.add_argument("--width", type=measuring.positive, default=1024)
    parser.add_argument("--optimizer", choices=["adamw", "sgd"], default="adamw")
    parser.add_argument("--steps", type=measuring.positive, default=30, help="measured steps per run (default: 30)")
    parser.add_argument("--skip", type=measuring.positive, default=5, help="steps before them (default: 5)")
    parser.add_argument("--rounds", type=measuring.positive, default=3)
    options = parser.parse_args()
    options.batch = options.batch or [64, 512]
    for batch in options.batch:
        if batch % options.micro_batches:
            raise measuring.BenchError(f"--batch {batch} does not divide by {options.micro_batches} micro-batches, as "
                                       "torch.distributed.pipelining needs it")
    return options


# ---- torch: this file, started once per rank ----


def torch_parts(job):
    """The model in eight parts of about the same work: an MLP of eight linear layers, or a GPT of eight blocks."""
    import torch
    from torch import nn
    width = job["width"]
    torch.manual_seed(1)
    if job["model"] == "mlp":
        return [nn.Sequential(nn.Linear(width, width), *([nn.GELU()] if number < 7 else [])) for number in range(8)]

    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(job["vocab"], width), nn.Embedding(job["context"], width)

        def forward(self, x):
            return self.tokens(x) + self.places.weight[:x.shape[1]]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

        def forward(self, x):
            rows, length, _ = x.shape
            query, key, value = (part.view(rows, length, job["heads"], -1).transpose(1, 2)
                                 for part in self.qkv(self.norm1(x)).chunk(3, -1))
            attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.out(attended.transpose(1, 2).reshape(rows, length, width))
            return x + self.mlp(self.norm2(x))

    blocks = [Block() for _ in range(8)]
    head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, job["vocab"], bias=False))
    return [nn.Sequential(Embedding(), blocks[0]), *blocks[1:7], nn.Sequential(blocks[7], head)]


def torch_stage(job, rank):
    import torch
    each = 8 // job["workers"]
    return torch.nn.Sequential(*torch_parts(job)[rank * each:(rank + 1) * each])


def torch_batch(job, rows):
    """(x, targets) of so many rows."""
    import torch
    if job["model"] == "mlp":
        return torch.randn(rows, job["width"]), torch.randn(rows, job["width"])
    return tuple(torch.randint(job["vocab"], (rows, job["context"])) for _ in range(2))


def torch_loss(output, target):
    import torch
    if target.is_floating_point():
        return torch.nn.functional.mse_loss(output, target)
    return torch.nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())


def torch_optimizer(job, parameters):
    import torch
    if job["optimizer"] == "sgd":
        return torch.optim.SGD(parameters, lr=1e-4, weight_decay=0.01, fused=True)
    return torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True)


def torch_schedule(job, rank, module):
    """schedule.step for this rank's part of the model."""
    import torch
    from torch.distributed import pipelining
    # With the shapes given, torch does not send Python objects to find them out, which would need NumPy.
    tokens, _ = torch_batch(job, job["batch"] // job["micro_batches"])
    inside = torch.zeros(*tokens.shape[:2], job["width"]) if job["model"] == "gpt" else tokens
    inputs = tokens if rank == 0 else inside.clone().requires_grad_()
    with torch.no_grad():
        outputs = module(inputs)
    stage = pipelining.PipelineStage(module, rank, job["workers"], torch.device("cpu"), input_args=inputs,
                                     output_args=outputs.requires_grad_())
    kind = {"1f1b": pipelining.Schedule1F1B, "gpipe": pipelining.ScheduleGPipe}[job["schedule"]]
    return kind(stage, job["micro_batches"], loss_fn=torch_loss).step


def torch_steps(job, rank):
    """Times of all steps on this rank, in ms. One worker has no schedule: it goes through its micro-batches in turn."""
    last = job["workers"] - 1
    module = torch_stage(job, rank)
    schedule = torch_schedule(job, rank, module) if last else None
    optimizer = torch_optimizer(job, module.parameters())
    x, target = torch_batch(job, job["batch"])
    slices = list(zip(x.chunk(job["micro_batches"]), target.chunk(job["micro_batches"])))

    def step():
        if schedule:
            schedule(*([x] if rank == 0 else []), **({"target": target} if rank == last else {}))
        else:
            for rows, targets in slices:
                (torch_loss(module(rows), targets) / len(slices)).backward()

    return timed_steps(job, rank, module, optimizer, step)


def timed_steps(job, rank, module, optimizer, step):
    """Times of `step`, which leaves gradients, with the update behind it, in ms."""
    times = []
    for number in range(job["steps"]):
        start = time.perf_counter()
        step()
        if number == 0 and any(parameter.grad is None for parameter in module.parameters()):
            raise RuntimeError(f"a parameter of stage {rank} got no gradient: this would compare something else")
        optimizer.step()
        optimizer.zero_grad()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def torch_rank(job, rank, steps):
    """One rank of run_ranks(): `steps(job, rank)` gives its step times."""
    import torch
    import torch.distributed as dist
    torch.set_num_threads(job.get("threads", 1))
    if job.get("bind"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:job.get("threads", 1)])
    dist.init_process_group("gloo", init_method=f"file://{job['folder']}/rendezvous", rank=rank,
                            world_size=job["workers"])
    times = steps(job, rank)
    if rank == 0:
        with open(f"{job['folder']}/times.json.part", "w", encoding="utf-8") as file:
            json.dump(times, file)
        os.rename(f"{job['folder']}/times.json.part", f"{job['folder']}/times.json")
    dist.barrier()
    dist.destroy_process_group()


def run_ranks(script, job):
    """Runs `script --torch-rank JOB RANK` for each of the job's workers. Step times of rank 0."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        command = [sys.executable, script, "--torch-rank", json.dumps({**job, "folder": folder})]
        ranks = []
        outputs = [open(f"{folder}/output.{rank}.txt", "w+", encoding="utf-8") for rank in range(job["workers"])]
        try:
            for rank, output in enumerate(outputs):
                ranks.append(subprocess.Popen(command + [str(rank)],
                                              env={**os.environ, "OMP_NUM_THREADS": str(job.get("threads", 1))},
                                              stdin=subprocess.DEVNULL, stdout=output, stderr=output))
            wait_for(ranks)
            return torch_times(folder, ranks, outputs)
        finally:
            for process in ranks:
                process.kill()
                process.wait()
            for output in outputs:
                output.close()


def run_torch(options, batch, schedule):
    """Step times of rank 0."""
    job = {"model": "mlp", "workers": 2, "schedule": schedule, "batch": batch, "width": options.width,
           "micro_batches": options.micro_batches, "optimizer": options.optimizer, "steps": options.steps + options.skip}
    return run_ranks(__file__, job)[options.skip:]


def wait_for(ranks):
    """Until both have ended. One that fails leaves the other waiting: then both are ended by the caller."""
    until = time.monotonic() + RANK_LIMIT_S
    while any(process.poll() is None for process in ranks):
        if any(process.poll() not in (None, 0) for process in ranks) or time.monotonic() > until:
            time.sleep(2)  # the other one may be about to end too
            return
        time.sleep(0.05)


def torch_times(folder, ranks, outputs):
    # gloo sometimes aborts at exit, after all work was done: what was measured before counts.
    if os.path.exists(f"{folder}/times.json"):
        with open(f"{folder}/times.json", encoding="utf-8") as file:
            return json.load(file)
    lines = []
    for rank, output in enumerate(outputs):
        output.seek(0)
        last = [line for line in output.read().splitlines() if line.strip()][-3:]
        lines += [f"rank {rank}, exit code {ranks[rank].poll()}: {line}" for line in last]
    raise measuring.BenchError("\n  ".join(["torch.distributed.pipelining failed", *lines]))


def check_torch():
    """Its version, and whether this Python's MKL is told to take its fast path on AMD: only if something was preloaded."""
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    try:
        import torch
        import torch.distributed as dist
        import torch.distributed.pipelining
    except ImportError as error:
        raise measuring.BenchError(f"{sys.executable} cannot import torch.distributed.pipelining ({error}); take a "
                                   "Python that has torch, such as .venv/bin/python") from error
    if not dist.is_available() or not dist.is_gloo_available():
        raise measuring.BenchError(f"torch {torch.__version__} of {sys.executable} has no gloo backend")
    return {"version": torch.__version__, "python": sys.executable,
            "gemm_cure": hasattr(ctypes.CDLL(None), "mkl_serv_intel_cpu_true")}


# ---- both ----


def run_lockstep(options, batch, name):
    ranks, gemm = LOCKSTEP[name]
    overrides = {"model.inputs": options.width, "model.width": options.width, "model.outputs": options.width,
                 "data.inputs": options.width, "data.outputs": options.width, "data.samples": max(1024, batch),
                 "train.batch": batch, "train.micro_batches": options.micro_batches,
                 "train.steps": options.steps + options.skip, "train.optimizer.type": options.optimizer,
                 "kernels.gemm": gemm}
    return measuring.lockstep_steps(options, measuring.HERE / "mlp-1024.yaml", overrides, ranks, options.skip)


def measure(options, batch):
    """Per variant the step times of every round."""
    steps = {name: [] for name in (*TORCH, *LOCKSTEP)}
    for number in range(1, options.rounds + 1):
        for name, rounds in steps.items():
            measuring.say(f"batch {batch}, round {number} of {options.rounds}: {name}")
            rounds.append(run_torch(options, batch, TORCH[name]) if name in TORCH
                          else run_lockstep(options, batch, name))
    return steps


def conclude(batch, steps):
    medians = {name: [measuring.summary(times)["median"] for times in rounds] for name, rounds in steps.items()}
    results = []
    for name, rounds in steps.items():
        ratios = [ours / theirs for ours, theirs in zip(medians[name], medians[BASELINE])]
        results.append({"variant": name, "step_ms": measuring.summary(medians[name]),
                        "ratio_to_torch_1f1b": measuring.summary(ratios),
                        "rounds": [measuring.summary(times) for times in rounds]})
    print(f"\nbatch {batch}: ms a step, median [min, max] of the rounds' medians; ratio to {BASELINE}, round by round")
    measuring.print_table(["variant", "ms a step", "ratio"],
                          [[r["variant"], measuring.in_ms(r["step_ms"]), measuring.in_ratios(r["ratio_to_torch_1f1b"])]
                           for r in results])
    return {"batch": batch, "results": results}


def run():
    if len(sys.argv) == 4 and sys.argv[1] == "--torch-rank":
        torch_rank(json.loads(sys.argv[2]), int(sys.argv[3]), torch_steps)
        return 0
    options = options_of()
    torch = check_torch()
    machine = measuring.machine()
    print(f"8 x Linear {options.width} with GELU between, 2 workers, {options.micro_batches} micro-batches, "
          f"{options.optimizer} (fused), 1 thread a worker, {options.rounds} rounds of {options.steps} steps after "
          f"{options.skip}")
    cure = "WITH the AMD GEMM cure preloaded" if torch["gemm_cure"] else "as it comes, without the AMD GEMM cure"
    print(f"torch {torch['version']}: {cure}; CPU: {machine['cpu']}")
    cases = [conclude(batch, measure(options, batch)) for batch in options.batch]
    measuring.write_json(options.json, {"bench": "pipelining", "machine": machine, "torch": torch,
                                        "width": options.width, "micro_batches": options.micro_batches,
                                        "optimizer": options.optimizer, "steps": options.steps,
                                        "skipped": options.skip, "cases": cases})
    return 0


if __name__ == "__main__":
    measuring.main(run)
