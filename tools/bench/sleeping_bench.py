#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lockstep against torch.distributed.pipelining on sleeping stages: what each runtime makes of the same schedule.

Every stage sleeps for given times in F, I and W (1/v of them with v stages per worker) and computes next to nothing, so
many ranks can be timed on few cores. Both are compared with the simulation of the schedule: efficiency is the simulated
time over the measured median. Torch: one process per rank over gloo; its step ends when every rank is done, so it is
compared with the isolated step. Lockstep: one rank per worker under mpirun; steps follow one another, so it is compared
with the period. Interleaved: each round runs every variant once.

  .venv/bin/python tools/bench/sleeping_bench.py --workers 8 --micro-batches 16 --json out/bench/sleeping.json
"""
import json
import sys
import time

import measuring
import pipelining_bench
import schedule_bench

TORCH = {  # ours: (torch's class, stages per worker)
    "gpipe": ("ScheduleGPipe", 1), "1f1b": ("Schedule1F1B", 1), "interleaved_1f1b": ("ScheduleInterleaved1F1B", 2),
    "looped_bfs": ("ScheduleLoopedBFS", 2), "interleaved_zb": ("ScheduleInterleavedZeroBubble", 2),
    "zbv": ("ScheduleZBVZeroBubble", 2), "dualpipev": ("ScheduleDualPipeV", 2)}


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--workers", type=measuring.positive, default=8)
    parser.add_argument("--micro-batches", type=measuring.positive, default=16)
    parser.add_argument("--times", type=schedule_bench.three_times, default=(20.0, 20.0, 20.0), metavar="F,I,W")
    parser.add_argument("--schedule", choices=list(TORCH), action="append",
                        help="repeatable (default: 1f1b, interleaved_1f1b, interleaved_zb, zbv)")
    parser.add_argument("--steps", type=measuring.positive, default=5, help="measured steps per run (default: 5)")
    parser.add_argument("--rounds", type=measuring.positive, default=2)
    options = parser.parse_args()
    options.schedule = options.schedule or ["1f1b", "interleaved_1f1b", "interleaved_zb", "zbv"]
    return options


# ---- torch: this file, started once per rank ----


def sleeping_stage(job, index, rows):
    import torch
    from torch.distributed import pipelining
    forward_s, input_grad_s, weight_grad_s = (ms / 1e3 for ms in job["stage_ms"])

    class SleepingStage(pipelining.PipelineStage):
        def forward_one_chunk(self, *args, **kwargs):
            time.sleep(forward_s)
            return super().forward_one_chunk(*args, **kwargs)

        def backward_one_chunk(self, bwd_chunk_id, loss=None, full_backward=True, **kwargs):
            time.sleep(input_grad_s + (weight_grad_s if full_backward else 0))
            return super().backward_one_chunk(bwd_chunk_id, loss, full_backward, **kwargs)

        def backward_weight_one_chunk(self, *args, **kwargs):
            time.sleep(weight_grad_s)
            return super().backward_weight_one_chunk(*args, **kwargs)

    inputs = torch.zeros(rows, 4, requires_grad=index > 0)
    outputs = torch.zeros(rows, 4, requires_grad=True)
    return SleepingStage(torch.nn.Linear(4, 4), index, job["workers"] * job["virtual_stages"], torch.device("cpu"),
                         input_args=inputs, output_args=outputs)


def stages_of(job, rank):
    workers, number = job["workers"], job["virtual_stages"]
    if number == 1:
        return [rank]
    if job["schedule"] in ("zbv", "dualpipev"):
        return [rank, 2 * workers - 1 - rank]
    return [rank + workers * i for i in range(number)]


def torch_steps(job, rank):
    import torch
    import torch.distributed as dist
    from torch.distributed.pipelining import schedules
    stages = [sleeping_stage(job, index, 1) for index in stages_of(job, rank)]
    kind = getattr(schedules, job["class"])
    schedule = kind(stages[0] if job["virtual_stages"] == 1 else stages, job["micro_batches"],
                    loss_fn=torch.nn.functional.mse_loss)
    x, target = (torch.randn(job["micro_batches"], 4) for _ in range(2))
    last = max(index for index in range(job["workers"] * job["virtual_stages"]))
    indices = stages_of(job, rank)
    times = []
    for _ in range(job["steps"]):
        dist.barrier()
        start = time.perf_counter()
        schedule.step(*([x] if 0 in indices else []), **({"target": target} if last in indices else {}))
        dist.barrier()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def run_torch(options, case):
    """Step times of all steps but the first."""
    job = {"workers": case.workers, "schedule": case.schedule, "class": TORCH[case.schedule][0],
           "virtual_stages": case.virtual_stages, "micro_batches": case.micro_batches, "stage_ms": case.stage_ms,
           "steps": options.steps + 1}
    return pipelining_bench.run_ranks(__file__, job)[1:]


# ---- both ----


def measure(options, cases):
    for number in range(1, options.rounds + 1):
        for case in cases:
            measuring.say(f"round {number} of {options.rounds}: torch {TORCH[case.schedule][0]}")
            case.torch_steps += run_torch(options, case)
            measuring.say(f"round {number} of {options.rounds}: lockstep {case}")
            case.steps += measuring.lockstep_steps(options, measuring.HERE / "delay.yaml",
                                                   case.overrides(options.steps), case.ranks, skip=1)


def result_of(options, case):
    step, period, _ = case.simulate(options)
    theirs, ours = measuring.summary(case.torch_steps), measuring.summary(case.steps)
    return {"schedule": case.schedule, "virtual_stages": case.virtual_stages, "simulated_step_ms": step,
            "simulated_period_ms": period, "torch_ms": theirs, "lockstep_ms": ours,
            "torch_efficiency": step / theirs["median"], "lockstep_efficiency": period / ours["median"],
            "torch_steps": case.torch_steps, "lockstep_steps": case.steps}


def run():
    if len(sys.argv) == 4 and sys.argv[1] == "--torch-rank":
        pipelining_bench.torch_rank(json.loads(sys.argv[2]), int(sys.argv[3]), torch_steps)
        return 0
    options = options_of()
    torch = pipelining_bench.check_torch()
    machine = measuring.machine()
    cases = []
    for name in options.schedule:
        case = schedule_bench.Case(options.times, options.workers, options.micro_batches, (name, TORCH[name][1]),
                                   options.workers)
        case.torch_steps = []
        if case.legal():
            cases.append(case)
    measure(options, cases)
    results = [result_of(options, case) for case in cases]
    print(f"{options.workers} workers, {options.micro_batches} micro-batches, F, I, W of a worker "
          f"{','.join(f'{ms:g}' for ms in options.times)} ms; torch {torch['version']}")
    measuring.print_table(
        ["schedule", "simulated step", "torch ms", "efficiency", "simulated period", "lockstep ms", "efficiency"],
        [[r["schedule"], f"{r['simulated_step_ms']:.1f}", measuring.in_ms(r["torch_ms"]), f"{r['torch_efficiency']:.3f}",
          f"{r['simulated_period_ms']:.1f}", measuring.in_ms(r["lockstep_ms"]), f"{r['lockstep_efficiency']:.3f}"]
         for r in results])
    measuring.write_json(options.json, {"bench": "sleeping", "machine": machine, "torch": torch,
                                        "workers": options.workers, "micro_batches": options.micro_batches,
                                        "times_ms": options.times, "rounds": options.rounds, "results": results})
    return 0


if __name__ == "__main__":
    measuring.main(run)
