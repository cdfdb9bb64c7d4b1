#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A large checkpoint on two workers: time against plain writing and reading, the stall of training, memory of loading.

Plain: two processes that write (fsync at the end) and read files of the same sizes, in blocks of 8 MiB. Ours: the workers' own
times from log.txt (hashing included) and, for stalls, the step times of the metrics: the steps that save against the median of
those that do not. Loading is measured by a job that resumes where nothing is left to train; the peak is VmHWM of each rank
less what its checkpoint files hold. Files are read from the page cache in both cases, unless --drop-caches (as root).

  tools/bench/checkpoint_bench.py --megabytes 1000 --json out/bench/checkpoint.json
"""
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import measuring

WIDTH = 2048
BLOCK = 8 << 20
CONFIG = """\
name: large
model: {type: mlp, inputs: %(width)d, width: %(width)d, layers: %(layers)d, outputs: 8}
data: {type: synthetic, task: regression, inputs: %(width)d, outputs: 8, samples: 64}
train: {steps: %(steps)d, batch: 8, micro_batches: 2, loss: mean_squared_error}
pipeline: {stages: 2, schedule: 1f1b}
checkpoint: {every: 4, keep: 1}
"""
PLAIN = """\
import os, sys, time
mode, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
block = os.urandom(8 << 20)
buffer = bytearray(8 << 20)
start = time.monotonic()
left = size
with open(path, "rb" if mode == "read" else "wb", buffering=0) as file:
    while left > 0:
        left -= file.readinto(buffer) if mode == "read" else file.write(block[:min(left, len(block))])
    if mode == "write":
        os.fsync(file.fileno())
print(time.monotonic() - start)
"""


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--megabytes", type=measuring.positive, default=1000, help="size of the checkpoint, about")
    parser.add_argument("--steps", type=measuring.positive, default=16)
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    parser.add_argument("--drop-caches", action="store_true", help="empty the page cache before reading (root)")
    return parser.parse_args()


def train(options, folder, settings, resume=False):
    """Two ranks; returns the peak memory of each rank in bytes, as /proc last said."""
    command = measuring.lockstep_command(options, 2)
    arguments = ["train", "large.yaml", *(["--resume", "auto"] if resume else [])]
    for setting in settings:
        arguments += ["--set", setting]
    command = command[:-1] + ["sh", "-c", 'echo > "pid.$PMI_RANK.$$"; exec "$0" "$@"', os.path.abspath(options.lockstep),
                              *arguments]
    for old in folder.glob("pid.*"):
        old.unlink()
    peaks = {}
    with open(folder / "output.txt", "w+", encoding="utf-8") as output, \
            subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
        while process.poll() is None:
            for path in folder.glob("pid.*"):
                rank, pid = path.name.split(".")[1:]
                try:
                    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                except OSError:
                    continue
                if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                    peaks[rank] = int(found.group(1)) * 1024
            time.sleep(0.002)
        output.seek(0)
        measuring.check(process.returncode, command, output.read())
    return [peaks[rank] for rank in sorted(peaks)]


def logged_ms(folder, run, what):
    """The longest of the workers' times per event: they work at the same time."""
    times = []
    for log in sorted((folder / run).glob("log*.txt")):
        times.append([float(ms) for ms in re.findall(rf"checkpoint of step \d+: .* {what} in ([\d.]+) ms",
                                                     log.read_text(encoding="utf-8"))])
    return [max(each) for each in zip(*times)]


def plain_s(mode, paths, sizes):
    """Two processes at once; the longer one counts."""
    processes = [subprocess.Popen([sys.executable, "-c", PLAIN, mode, str(path), str(size)], stdout=subprocess.PIPE, text=True)
                 for path, size in zip(paths, sizes)]
    return max(float(process.communicate()[0]) for process in processes)


def stalls(folder, run):
    """(median step, [step that saves - median], [step after - median]) in ms; a step that saves ends with its copy."""
    steps = {line["step"]: line["step_ms"] for line in measuring.step_lines(folder / run / "metrics.jsonl")}
    plain = [ms for step, ms in steps.items() if step > 2 and step % 4 not in (0, 1)]
    median = statistics.median(plain)
    return median, [ms - median for step, ms in steps.items() if step % 4 == 0], \
        [ms - median for step, ms in steps.items() if step > 4 and step % 4 == 1]


def drop_caches(options):
    os.sync()
    if options.drop_caches:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


def run():
    options = options_of()
    options.lockstep = os.path.abspath(options.lockstep)
    machine = measuring.machine()
    layers = max(2, round(options.megabytes * 1e6 / (12 * WIDTH * WIDTH)))
    with tempfile.TemporaryDirectory(prefix="lockstep-checkpoint-", dir=options.folder) as scratch:
        folder = pathlib.Path(scratch)
        (folder / "large.yaml").write_text(CONFIG % {"width": WIDTH, "layers": layers, "steps": options.steps}, encoding="utf-8")
        results = {}
        for background in ("never", "always"):
            measuring.say(f"training, checkpoint.background={background}")
            train(options, folder, [f"run_dir={background}", f"checkpoint.background={background}"])
            median, saving, after = stalls(folder, background)
            results[background] = {"step_ms": median, "save_step_extra_ms": statistics.median(saving),
                                   "next_step_extra_ms": statistics.median(after),
                                   "written_ms": statistics.median(logged_ms(folder, background, "written")),
                                   "copied_ms": statistics.median(logged_ms(folder, background, "copied") or [0])}
        checkpoint = sorted((folder / "always/checkpoints").glob("step-????????"))[-1]
        shards = [[path for path in sorted(checkpoint.glob("*.safetensors")) if f"-0000{row}-of-" in path.name] for row in (1, 2)]
        sizes = [sum(path.stat().st_size for path in row) for row in shards]
        files = [folder / f"plain.{row}" for row in range(2)]
        measuring.say("plain writing and reading")
        write_s = [plain_s("write", files, sizes) for _ in range(3)]
        read_s = []
        for _ in range(3):
            drop_caches(options)
            read_s.append(plain_s("read", files, sizes))
        measuring.say("loading")
        drop_caches(options)
        step = int(checkpoint.name[5:])
        peaks = train(options, folder, ["run_dir=always", f"train.steps={step}", "checkpoint.every=never"], resume=True)
        load_ms = max(logged_ms(folder, "always", "read"))
        results["sizes_bytes"] = sizes
        results["plain_write_ms"] = statistics.median(write_s) * 1e3
        results["plain_read_ms"] = statistics.median(read_s) * 1e3
        results["load_ms"] = load_ms
        results["peak_bytes"] = peaks
        results["peak_over_own_bytes"] = [peak - size for peak, size in zip(peaks, sizes)]
    mib = 1 << 20
    print(f"checkpoint of {sum(sizes) / 1e6:.0f} MB on 2 workers ({' + '.join(f'{size / 1e6:.0f}' for size in sizes)} MB)")
    never, always = results["never"], results["always"]
    measuring.print_table(["", "ms", "against plain"], [
        ["plain write and fsync", f"{results['plain_write_ms']:.0f}", ""],
        ["written in place", f"{never['written_ms']:.0f}", f"{never['written_ms'] / results['plain_write_ms']:.2f}"],
        ["written in the background", f"{always['written_ms']:.0f}", f"{always['written_ms'] / results['plain_write_ms']:.2f}"],
        ["plain read", f"{results['plain_read_ms']:.0f}", ""],
        ["loaded", f"{load_ms:.0f}", f"{load_ms / results['plain_read_ms']:.2f}"],
        ["a step without saving", f"{always['step_ms']:.0f}", ""],
        ["stall in place", f"{never['save_step_extra_ms']:.0f}", ""],
        ["stall in the background: copy", f"{always['save_step_extra_ms']:.0f}", ""],
        ["  and the step after", f"{always['next_step_extra_ms']:.0f}", ""]])
    print("peak memory of a loading worker over its own tensors: "
          + ", ".join(f"{over / mib:.0f} MiB" for over in results["peak_over_own_bytes"]))
    measuring.write_json(options.json, {"bench": "checkpoint", "machine": machine, "results": json.loads(json.dumps(results))})
    return 0


if __name__ == "__main__":
    measuring.main(run)
