#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`lockstep predict` against `lockstep eval` on the same samples: what reading, answering and writing cost beside the forward.

Both run the same forward on the same workers; eval adds a loss, predict an activation, the way of the answers to rank 0, and the file.
Each is run on few and on many samples, and the difference is taken: start-up and loading do not count. Rounds interleave the two;
medians [min, max] of predict's samples per second over eval's.

  .venv/bin/python tools/bench/predict_bench.py --json out/bench/predict.json
"""
import json
import pathlib
import random
import statistics
import struct
import tempfile
import time

import measuring

# name: (config, floats of x, rows few, rows many, output)
SIDES = {
    "mlp, classes to csv": ("""\
model: {{type: mlp, inputs: 256, width: 1024, layers: 4, outputs: 10}}
data: {{type: safetensors, train: small.safetensors, eval: {eval}}}
train: {{task: multiclass, metrics: [], steps: 1, batch: 512, micro_batches: 4}}
""", [256], 4096, 24576, "csv"),
    "mlp, numbers to safetensors": ("""\
model: {{type: mlp, inputs: 256, width: 1024, layers: 4, outputs: 256}}
data: {{type: safetensors, train: small.safetensors, eval: {eval}}}
train: {{task: multiclass, metrics: [], activation: identity, steps: 1, batch: 512, micro_batches: 4}}
""", [256], 4096, 24576, "safetensors"),
    "cnn, classes to jsonl": ("""\
model: {{type: cnn, inputs: 3, classes: 10, channels: 16, depth: 3, norm: batch}}
data: {{type: safetensors, train: small.safetensors, eval: {eval}}}
train: {{task: multiclass, metrics: [], steps: 1, batch: 128, micro_batches: 4}}
""", [3, 32, 32], 512, 3072, "jsonl"),
}
TAIL = "checkpoint: {every: end}\npipeline: {stages: 2, schedule: 1f1b}\n"


def write_data(path, sizes, rows):
    elements = 1
    for size in sizes:
        elements *= size
    source = random.Random(1)
    sample = struct.pack(f"<{elements}f", *(source.gauss(0, 1) for _ in range(elements)))
    x = b"".join(sample[4 * (i % elements):] + sample[:4 * (i % elements)] for i in range(rows))  # all different
    targets = struct.pack(f"<{rows}q", *(i % 10 for i in range(rows)))
    header = {"x": {"dtype": "F32", "shape": [rows, *sizes], "data_offsets": [0, len(x)]},
              "targets": {"dtype": "I64", "shape": [rows], "data_offsets": [len(x), len(x) + len(targets)]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + x + targets)


def seconds(command):
    start = time.perf_counter()
    measuring.run_command(["env", "-C", *command])
    return time.perf_counter() - start


def measure(options, name, folder):
    text, sizes, few, many, form = SIDES[name]
    if options.tiny:
        few, many = 64, 192
    for data, rows in (("small", 512), ("few", few), ("many", many)):
        write_data(folder / f"{data}.safetensors", sizes, rows)
    for data in ("few", "many"):
        (folder / f"{data}.yaml").write_text(text.format(eval=f"{data}.safetensors") + TAIL)
    command = [str(folder), str(pathlib.Path(options.lockstep).resolve())]
    seconds([*command, "train", "few.yaml", "--set", "run_dir=run"])
    checkpoint = ["--checkpoint", "run/checkpoints/step-00000001"]
    ratios = []
    for number in range(options.rounds):
        times = {}
        for data in ("few", "many"):
            times["eval", data] = seconds([*command, "eval", f"{data}.yaml", *checkpoint])
            times["predict", data] = seconds([*command, "predict", f"{data}.yaml", *checkpoint, "--input", f"{data}.safetensors",
                                              "--output", f"answers.{form}", "--batch", "128" if len(sizes) > 1 else "512"])
        of = {verb: times[verb, "many"] - times[verb, "few"] for verb in ("eval", "predict")}
        ratios.append(of["eval"] / of["predict"])
        print(f"{name}, round {number + 1}: eval {(many - few) / of['eval']:.0f}/s, predict {(many - few) / of['predict']:.0f}/s", flush=True)
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def run():
    parser = measuring.parser(__doc__)
    parser.add_argument("--rounds", type=measuring.positive, default=5)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, one round: the figures mean nothing")
    options = parser.parse_args()
    if options.tiny:
        options.rounds = 1
    figures = {}
    for name in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measure(options, name, pathlib.Path(folder))
    for name, of in figures.items():
        print(f"{name:28} predict / eval, samples per second: {of['median']:.2f} [{of['min']:.2f}, {of['max']:.2f}]")
    measuring.write_json(options.json, figures)
    return 0


if __name__ == "__main__":
    measuring.main(run)
