#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Starting from the weights of a large folder (--init-from): time and memory of two ranks against one process.

The folder has two safetensors files and their index, as save_pretrained writes them, and is in the page cache. One process reads
all of it on one worker, two ranks a half each, at the same time; times are the workers' own (log.txt), the longer one counts.
All but the last layer is frozen, so that weights are nearly all there is; the peak is VmHWM of each rank less that of a rank
of the same job with narrow layers, over the bytes of its weights. As bfloat16 the same weights are half as many bytes, and cast.

  tools/bench/start_bench.py --megabytes 1000 --rounds 5 --json out/bench/start.json
"""
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import measuring

WIDTH, NARROW = 2048, 8
CONFIG = """\
name: large
model: {type: mlp, inputs: %(width)d, width: %(width)d, layers: %(layers)d, outputs: 8}
data: {type: synthetic, task: regression, inputs: %(width)d, outputs: 8, samples: 8}
train: {steps: 1, batch: 2, micro_batches: 2, loss: mean_squared_error, freeze: ["fc.*"], optimizer: {type: sgd}}
pipeline: {stages: 2, schedule: 1f1b}
"""


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--megabytes", type=measuring.positive, default=1000, help="size of the folder, about")
    parser.add_argument("--rounds", type=measuring.positive, default=5)
    return parser.parse_args()


def train(options, folder, config, name, ranks, settings):
    """(the longest time of reading in ms, by rank the peak memory in bytes)"""
    shutil.rmtree(folder / name, ignore_errors=True)
    for old in folder.glob("pid.*"):
        old.unlink()
    command = [*measuring.lockstep_command(options, ranks)[:-1], "sh", "-c", 'echo > "pid.${PMI_RANK:-0}.$$"; exec "$0" "$@"',
               os.path.abspath(options.lockstep), "train", config, "--set", f"run_dir={name}"]
    for setting in settings:
        command += ["--set", setting]
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
    times = []
    for log in (folder / name).glob("log*.txt"):
        times += [float(ms) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]
                  for ms, unit in re.findall(r"initial weights: .* read in ([\d.]+) (us|ms|s)", log.read_text(encoding="utf-8"))]
    return max(times, default=0.0), [peaks[rank] for rank in sorted(peaks)]


def make_folders(options, folder, layers):
    """float32 in two files, and as bfloat16; returns the bytes of each rank's weights."""
    (folder / "large.yaml").write_text(CONFIG % {"width": WIDTH, "layers": layers}, encoding="utf-8")
    (folder / "narrow.yaml").write_text(CONFIG % {"width": NARROW, "layers": layers}, encoding="utf-8")
    train(options, folder, "large.yaml", "made", 0, ["checkpoint.every=end"])
    checkpoint = folder / "made/checkpoints/step-00000001"
    for dtype in ("float32", "bfloat16"):
        (folder / dtype).mkdir()
        shutil.copy(checkpoint / "model.safetensors.index.json", folder / dtype)
    sizes = []
    for path in sorted(checkpoint.glob("model-*.safetensors")):
        os.link(path, folder / "float32" / path.name)
        sizes.append(path.stat().st_size)
        halve(path, folder / "bfloat16" / path.name)
    return sizes


def halve(path, to):
    """The upper halves of all numbers: bfloat16, rounded to zero."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    for entry in header.values():
        if "dtype" in entry:
            entry["dtype"], entry["data_offsets"] = "BF16", [offset // 2 for offset in entry["data_offsets"]]
    numbers = data[8 + length:]
    halves = bytearray(len(numbers) // 2)
    halves[0::2], halves[1::2] = numbers[2::4], numbers[3::4]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    to.write_bytes(len(text).to_bytes(8, "little") + text + halves)


def run():
    options = options_of()
    machine = measuring.machine()
    layers = max(2, round(options.megabytes * 1e6 / (4 * WIDTH * WIDTH)))
    results = {}
    with tempfile.TemporaryDirectory(prefix="lockstep-start-") as scratch:
        folder = pathlib.Path(scratch)
        measuring.say("making the folder")
        sizes = make_folders(options, folder, layers)
        _, idle = train(options, folder, "narrow.yaml", "idle", 2, [])
        for dtype in ("float32", "bfloat16"):
            one, two, peaks = [], [], []
            for turn in range(options.rounds):
                measuring.say(f"{dtype}: round {turn + 1} of {options.rounds}")
                settings = [f"train.init_from={dtype}"]
                one.append(train(options, folder, "large.yaml", "one", 0, [*settings, "pipeline.stages=1"])[0])
                ms, peak = train(options, folder, "large.yaml", "two", 2, settings)
                two.append(ms)
                peaks.append([(rank - idle[i]) / sizes[i] for i, rank in enumerate(peak)])
            ratios = sorted(b / a for a, b in zip(one, two))
            results[dtype] = {"one_ms": statistics.median(one), "two_ms": statistics.median(two), "ratios": ratios,
                              "peak_over_own": [statistics.median(column) for column in zip(*peaks)]}
    print(f"{sum(sizes) / 1e6:.0f} MB of float32 weights, {' + '.join(f'{size / 1e6:.0f}' for size in sizes)} MB on two ranks")
    measuring.print_table(["files", "one process, ms", "two ranks, ms", "ratio [least, most]", "peak over its own bytes"], [
        [dtype, f"{of['one_ms']:.0f}", f"{of['two_ms']:.0f}",
         f"{statistics.median(of['ratios']):.2f} [{of['ratios'][0]:.2f}, {of['ratios'][-1]:.2f}]",
         ", ".join(f"{peak:.3f}" for peak in of["peak_over_own"])] for dtype, of in results.items()])
    measuring.write_json(options.json, {"bench": "start", "machine": machine, "results": results})
    return 0


if __name__ == "__main__":
    measuring.main(run)
