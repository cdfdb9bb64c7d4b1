#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains configs/quality/*.yaml on real data, and compares what came out with the quality that each states.

The data are those that scikit-learn, palmerpenguins and vega_datasets ship, and sources of scikit-learn and torch; they are divided into
training and held-out sets here, always in the same way. tools/setup_tests.sh installs them in .venv:

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

# name: (metric of the held-out set, at least; --quick: epochs, or steps where they are many, at least)
BARS = {
    "digits": ("accuracy", 0.97, 6, 0.88),
    "diabetes": ("r2", 0.40, 40, 0.35),
    "penguins": ("roc_auc", 0.95, 30, 0.92),
    "scenes": ("mean_iou", 0.70, 3, 0.35),
    "lines": ("accuracy", 0.90, 1, 0.60),
    "weather": ("r2", 0.75, 10, 0.65),
    "bytes": ("accuracy", 0.45, 150, 0.28),
    "resnet": ("accuracy", 0.97, 4, 0.8),
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


def sources_of(package, pattern):
    """[(held out?, text)] of every file, every fifth of which is held out."""
    import importlib.util

    root = pathlib.Path(importlib.util.find_spec(package).submodule_search_locations[0])
    paths = sorted(root.glob(pattern))
    return [(is_out, path.read_text(errors="replace")) for path, is_out in zip(paths, held_out(len(paths)))]


def code_lines(text):
    """Of Python: without comments and what stands in strings of several lines."""
    import io
    import tokenize

    prose = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.end[0] > token.start[0]):
            prose.update(range(token.start[0], token.end[0] + 1))
    return [line for number, line in enumerate(text.splitlines(), 1) if number not in prose]


def make_lines(folder):
    import random

    import sklearn  # noqa: F401
    import torch  # noqa: F401

    parts = {False: [], True: []}
    for language, package, pattern in (("python", "sklearn", "**/*.py"), ("c++", "torch", "include/ATen/*.h"),
                                       ("english", "sklearn", "datasets/descr/*.rst")):
        for is_out, most in ((False, 2000), (True, 400)):
            lines_of = code_lines if language == "python" else str.splitlines
            lines = {line.strip() for out, text in sources_of(package, pattern) if out == is_out for line in lines_of(text)}
            lines = sorted(line for line in lines if len(line) >= 20 and line.isascii() and not line.startswith(("//", "*", "/*")))
            random.Random(1).shuffle(lines)
            parts[is_out] += [(line, language) for line in lines[:most]]
    for is_out, name in ((False, "train"), (True, "eval")):
        with open(folder / f"lines-{name}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["line", "language"])
            writer.writerows(parts[is_out])


def make_weather(folder):
    import importlib.resources
    import math

    text = importlib.resources.files("vega_datasets").joinpath("_data/seattle-weather.csv").read_text()
    parts = {"train": [], "eval": []}
    for row in csv.DictReader(text.splitlines()):
        year, month, day = map(int, row["date"].split("/"))
        angle = 2 * math.pi * (30.44 * (month - 1) + day) / 365.25
        parts["eval" if year == 2015 else "train"].append(
            {"date": f"{year}-{month:02}-{day:02}", "summer": f"{-math.cos(angle):.4f}", "spring": f"{math.sin(angle):.4f}",
             **{key: row[key] for key in ("precipitation", "temp_max", "temp_min", "wind")}})
    for name, rows in parts.items():
        with open(folder / f"weather-{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def make_bytes(folder):
    import sklearn  # noqa: F401

    texts = sources_of("sklearn", "*/*.py")
    for is_out, name, most in ((False, "train", 2000000), (True, "eval", 60000)):
        text = "".join(text for out, text in texts if out == is_out).encode("ascii", "replace")[:most]
        (folder / f"bytes-{name}.txt").write_bytes(text)


MAKERS = {"digits": make_digits, "diabetes": make_diabetes, "penguins": make_penguins, "scenes": make_scenes, "lines": make_lines,
          "weather": make_weather, "bytes": make_bytes, "resnet": make_digits}


def measure(name, folder, quick):
    """(value of the metric, the bar, seconds)"""
    metric, bar, epochs, quick_bar = BARS[name]
    run = folder / "runs" / name
    subprocess.run(["rm", "-rf", str(run)], check=True)
    line = [LOCKSTEP, "train", str(ROOT / f"configs/quality/{name}.yaml"), "--set", f"run_dir={run}"]
    if quick:
        most = f"train.epochs={epochs}" if epochs < 100 else f"train.epochs=none,train.steps={epochs}"
        line += [part for setting in most.split(",") for part in ("--set", setting)]
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
