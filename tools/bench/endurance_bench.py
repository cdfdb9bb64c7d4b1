#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand tiny steps: resident memory, open files and threads of every process, and the tensors' peak, must stay flat.

Looks at /proc of each process at several steps, after the first tenth (warming up). Exit code 1 when something grows: memory
by more than --grow-mb, files or threads at all, the tensors' peak by a tenth.

  tools/bench/endurance_bench.py --steps 10000 --json out/bench/endurance.json
"""
import os
import pathlib
import re
import subprocess
import tempfile
import time

import measuring

MODEL = """\
name: tiny
model: {type: mlp, inputs: 4, width: 16, layers: 3, outputs: 2, dropout: 0.1}
data: {type: synthetic, task: regression, inputs: 4, outputs: 2, samples: 64, eval_samples: 10}
train: {steps: %d, batch: 10, micro_batches: 3, loss: mean_squared_error, clip_grad_norm: 1.0, eval_every: 100, log_every: 1000000}
pipeline: {stages: 2, schedule: 1f1b}
"""
LOOKS = 9


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--steps", type=measuring.positive, default=10000)
    parser.add_argument("--grow-mb", type=float, default=4.0, help="resident memory may grow by this much (default: 4)")
    return parser.parse_args()


def facts_of(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return {"rss_mb": int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024,
            "files": len(os.listdir(f"/proc/{pid}/fd")), "threads": int(re.search(r"Threads:\s+(\d+)", status).group(1))}


def last_step(metrics, position):
    """The last step in the file from `position` on, and where it ends."""
    with open(metrics, "rb") as file:
        file.seek(position)
        text = file.read()
    whole = text[:text.rfind(b"\n") + 1]
    steps = re.findall(rb'"step":(\d+),"loss"', whole)
    return (int(steps[-1]) if steps else None), position + len(whole)


def watch(options, ranks, scratch):
    (pathlib.Path(scratch) / "x.yaml").write_text(MODEL % options.steps, encoding="utf-8")
    command = measuring.lockstep_command(options, ranks) + ["train", "x.yaml", "--set", "run_dir=run"]
    metrics = os.path.join(scratch, "run/metrics.jsonl")
    looks, position, step = [], 0, None
    with open(os.path.join(scratch, "output.txt"), "w+", encoding="utf-8") as output:
        with subprocess.Popen(command, cwd=scratch, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
            while process.poll() is None:
                time.sleep(0.02)
                if not os.path.exists(metrics):
                    continue
                news, position = last_step(metrics, position)
                step = news or step
                if step is None or step < options.steps * (len(looks) + 1) / (LOOKS + 1):
                    continue
                said = subprocess.run([options.lockstep, "why", "run"], cwd=scratch, capture_output=True, text=True, check=True)
                try:
                    looks.append({"step": step, "processes": {pid: facts_of(pid) for pid in
                                                              sorted(set(re.findall(r"process (\d+)", said.stdout)))}})
                except (FileNotFoundError, ProcessLookupError, AttributeError):
                    break  # it has just ended
            code = process.wait()
        output.seek(0)
        measuring.check(code, command, output.read())
    steps = measuring.step_lines(metrics)
    at = max(len(steps) // 10, 1)
    peaks = [[worker["peak_bytes"] for worker in steps[i]["workers"]] for i in (at, -1)]
    if len(looks) < 2:
        raise measuring.BenchError("the job was over before it was looked at twice: take more --steps")
    return {"looks": looks, "peak_bytes": peaks}


def growth(options, found):
    """What grew, as text; and the table's row."""
    first, last = found["looks"][0], found["looks"][-1]
    grew = []
    for pid, before in first["processes"].items():
        after = last["processes"].get(pid, before)
        if after["rss_mb"] - before["rss_mb"] > options.grow_mb:
            grew.append(f"memory of process {pid}: {before['rss_mb']:.1f} to {after['rss_mb']:.1f} MB")
        grew += [f"{what} of process {pid}: {before[what]} to {after[what]}" for what in ("files", "threads")
                 if after[what] > before[what]]
    # Not to the byte: who frees first, sender or receiver, is a matter of timing.
    for before, after in zip(*found["peak_bytes"]):
        if after > 1.1 * before:
            grew.append(f"peak bytes of a worker's tensors: {before} to {after}")

    def pair(what, form):
        return ", ".join(f"{before[what]:{form}} -> {last['processes'].get(pid, before)[what]:{form}}"
                         for pid, before in first["processes"].items())
    return grew, [f"steps {first['step']} to {last['step']}", pair("rss_mb", ".1f"), pair("files", "d"), pair("threads", "d")]


def run():
    options = options_of()
    options.lockstep = os.path.abspath(options.lockstep)
    machine = measuring.machine()
    results, rows, grew = {}, [], []
    for name, ranks in {"in process": 0, "mpirun -n 2": 2}.items():
        measuring.say(f"{name}: {options.steps} steps")
        with tempfile.TemporaryDirectory(prefix="lockstep-endurance-") as scratch:
            results[name] = watch(options, ranks, scratch)
        more, row = growth(options, results[name])
        grew += [f"{name}: {text}" for text in more]
        rows.append([name, *row])
    measuring.print_table(["workers", "looked at", "memory, MB", "open files", "threads"], rows)
    for text in grew:
        print(f"grew: {text}")
    measuring.write_json(options.json, {"bench": "endurance", "machine": machine, "steps": options.steps, "results": results})
    return 1 if grew else 0


if __name__ == "__main__":
    measuring.main(run)
