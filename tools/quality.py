#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains configs/quality/*.yaml on real data, and compares what came out with the quality that each states.

The data are those that scikit-learn and palmerpenguins ship; they are divided into training and held-out sets here, always in the
same way. tools/setup_tests.sh installs both in .venv:

  .venv/bin/python tools/quality.py            all of them, about a minute each
  .venv/bin/python tools/quality.py digits     one
  .venv/bin/python tools/quality.py --quick    a few epochs, with lower bars: what the tests run

Exit codes: 0 all are as good as stated, 1 one is not, 2 something is missing.
"""
import argparse
import csv
import json
import os
import pathlib
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCKSTEP = os.environ.get("LOCKSTEP", str(ROOT / "build/release/lockstep"))

# name: (metric of the held-out set, at least; --quick: epochs, at least)
BARS = {
    "digits": ("accuracy", 0.97, 6, 0.88),
    "diabetes": ("r2", 0.40, 40, 0.35),
    "penguins": ("roc_auc", 0.95, 30, 0.92),
    "scenes": ("mean_iou", 0.70, 3, 0.35),
}


def save_tensors(path, tensors):
    """NumPy arrays as safetensors."""
    header, at = {}, 0
    for name, array in tensors.items():
        dtype = {"float32": "F32", "int64": "I64"}[str(array.dtype)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in tensors.values()))


def held_out(count):
    """Every fifth sample."""
    return [number % 5 == 4 for number in range(count)]


def make_digits(folder):
    import numpy
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[:, None] / 16).astype(numpy.float32)
    out = numpy.array(held_out(len(x)))
    for name, which in (("train", ~out), ("eval", out)):
        save_tensors(folder / f"digits-{name}.safetensors", {"x": x[which], "targets": digits.target[which].astype(numpy.int64)})


def make_diabetes(folder):
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    rows = [[*map(float, x), float(y)] for x, y in zip(data.data, data.target)]
    save_table(folder, "diabetes", [*data.feature_names, "progression"], rows)


def make_penguins(folder):
    import importlib.resources

    text = importlib.resources.files("palmerpenguins").joinpath("data/penguins.csv").read_text()
    names, *rows = csv.reader(text.splitlines())
    save_table(folder, "penguins", names, rows)


def save_table(folder, name, names, rows):
    out = held_out(len(rows))
    for part, wanted in (("train", False), ("eval", True)):
        with open(folder / f"{name}-{part}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(row for row, is_out in zip(rows, out) if is_out == wanted)


def make_scenes(folder):
    """24 x 24 pixels of noise, in which one to four digits stand; a pixel of a digit has the class digit + 1."""
    import numpy
    from sklearn.datasets import load_digits

    digits = load_digits()
    out = numpy.array(held_out(len(digits.images)))
    random = numpy.random.default_rng(1)
    for name, which, count in (("train", ~out, 1600), ("eval", out, 320)):
        images, labels = digits.images[which] / 16, digits.target[which]
        x = random.normal(0, 0.15, (count, 1, 24, 24)).astype(numpy.float32)
        targets = numpy.zeros((count, 24, 24), numpy.int64)
        for scene in range(count):
            cells = random.permutation(4)[: random.integers(1, 5)]
            for cell in cells:
                number = random.integers(len(images))
                row, column = 12 * (cell // 2) + random.integers(5), 12 * (cell % 2) + random.integers(5)
                place = numpy.s_[row:row + 8, column:column + 8]
                x[scene, 0][place] += images[number]
                targets[scene][place][images[number] > 0.25] = labels[number] + 1
        save_tensors(folder / f"scenes-{name}.safetensors", {"x": x, "targets": targets})


MAKERS = {"digits": make_digits, "diabetes": make_diabetes, "penguins": make_penguins, "scenes": make_scenes}


def measure(name, folder, quick):
    """(value of the metric, the bar, seconds)"""
    metric, bar, epochs, quick_bar = BARS[name]
    run = folder / "runs" / name
    subprocess.run(["rm", "-rf", str(run)], check=True)
    line = [LOCKSTEP, "train", str(ROOT / f"configs/quality/{name}.yaml"), "--set", f"run_dir={run}"]
    if quick:
        line += ["--set", f"train.epochs={epochs}"]
    start = time.monotonic()
    result = subprocess.run(line, cwd=folder, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"quality: {' '.join(line)}\n{result.stdout}{result.stderr}")
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["eval"] for line in lines if "eval" in line][-1]["metrics"][metric], quick_bar if quick else bar, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BARS))
    parser.add_argument("--quick", action="store_true", help="a few epochs, with lower bars")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/quality"), help="for data and runs (%(default)s)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BARS]
    if unknown:
        parser.error(f"got {unknown[0]}, expected some of {', '.join(BARS)}")
    data = options.folder.resolve() / "data"
    data.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in options.names or BARS:
        try:
            MAKERS[name](data)
        except ImportError as error:
            print(f"quality: {error}: tools/setup_tests.sh installs it in .venv; then .venv/bin/python {sys.argv[0]}", file=sys.stderr)
            return 2
        value, bar, seconds = measure(name, options.folder.resolve(), options.quick)
        failed |= not value >= bar
        print(f"{name:10} {BARS[name][0]:9} {value:.4f}  stated: {bar:.2f}  {seconds:5.1f} s  {'ok' if value >= bar else 'BELOW'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
