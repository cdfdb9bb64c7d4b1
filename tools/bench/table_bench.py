#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rows per second of the table reader, from the file to float32 in memory, against pandas with the same result.

A table of numbers, one with names and gaps, each as CSV, CSV with gzip, Parquet and Arrow. Each round reads every file once with both,
each time in a new process; medians of the rounds with [min, max], and the ratio round by round.

  tools/bench/table_bench.py --rounds 5 --rows 300000        # needs build/<preset>/table_bench (LOCKSTEP_BENCH=ON)
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import measuring

PANDAS = """\
import sys, time
import numpy, pandas, pyarrow.feather
path, mixed = sys.argv[1], sys.argv[2] == "mixed"
start = time.perf_counter()
if ".csv" in path:
    frame = pandas.read_csv(path)
elif path.endswith(".parquet"):
    frame = pandas.read_parquet(path)
else:
    frame = pandas.read_feather(path)
targets = frame.pop("y").to_numpy(dtype="float32")
if mixed:
    frame["gaps"] = frame["gaps"].fillna(frame["gaps"].mean())
    frame = pandas.get_dummies(frame, columns=["name"], dtype="float32")
x = frame.to_numpy(dtype="float32")
print(len(x), time.perf_counter() - start)
"""


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--rows", type=measuring.positive, default=300_000)
    parser.add_argument("--columns", type=measuring.positive, default=10, help="of numbers (default: 10)")
    parser.add_argument("--rounds", type=measuring.positive, default=5)
    parser.add_argument("--python", default=sys.executable, help="one that has pandas and pyarrow (default: this one)")
    return parser.parse_args()


MAKE = """\
import sys
import numpy, pandas
folder, rows, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pick = numpy.random.default_rng(1)
numbers = pandas.DataFrame({f"x{i}": pick.normal(0, 100, rows).round(4) for i in range(columns)})
numbers["y"] = pick.normal(0, 1, rows).round(4)
mixed = numbers[["x0", "y"]].copy()
mixed["name"] = pick.choice(["red", "green", "blue", "deep blue"], rows)
mixed["gaps"] = numpy.where(pick.random(rows) < 0.1, numpy.nan, mixed["x0"])
for name, frame in (("numbers", numbers), ("mixed", mixed)):
    for ending in ("csv", "csv.gz"):
        frame.to_csv(f"{folder}/{name}.{ending}", index=False)
    frame.to_parquet(f"{folder}/{name}.parquet")
    frame.to_feather(f"{folder}/{name}.feather")
"""


def output_of(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    measuring.check(result.returncode, list(map(str, command)), result.stdout + result.stderr)
    return [float(word) for word in result.stdout.split()]


def run():
    options = options_of()
    program = pathlib.Path(options.lockstep).parent / "table_bench"
    if not program.exists():
        raise measuring.BenchError(f"there is no {program}; configure with -DLOCKSTEP_BENCH=ON and build table_bench")
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        output_of([options.python, "-c", MAKE, folder, options.rows, options.columns])
        files = [f"{name}.{ending}" for name in ("numbers", "mixed") for ending in ("csv", "csv.gz", "parquet", "feather")]
        rounds = {file: {"ours": [], "pandas": [], "peak_mib": []} for file in files}
        for number in range(options.rounds):
            for file in files:
                keys = {"missing": {"gaps": "mean"}} if file.startswith("mixed") else {}
                (folder / "config.yaml").write_text(json.dumps({"data": {
                    "type": "table", "train": str(folder / file), "task": "regression", "targets": ["y"], **keys}}))
                theirs = [options.python, "-c", PANDAS, folder / file, file.split(".")[0]]
                for who in ("ours", "pandas") if number % 2 else ("pandas", "ours"):
                    rows, seconds, *more = output_of([program, folder / "config.yaml"] if who == "ours" else theirs)
                    if rows != options.rows:
                        raise measuring.BenchError(f"{file}: {who} read {rows} rows of {options.rows}")
                    rounds[file][who].append(rows / seconds)
                    rounds[file]["peak_mib"] += more
        print(f"{options.rows} rows, {options.rounds} rounds; million rows a second\n"
              f"{'file':<16} {'lockstep':>24} {'pandas':>24}  of pandas' [min, max]   peak MiB")
        for file, found in rounds.items():
            ratios = [a / b for a, b in zip(found["ours"], found["pandas"])]
            shown = [f"{statistics.median(found[who]) / 1e6:.2f} [{min(found[who]) / 1e6:.2f}, {max(found[who]) / 1e6:.2f}]"
                     for who in ("ours", "pandas")]
            print(f"{file:<16} {shown[0]:>24} {shown[1]:>24}  {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
                  f"{statistics.median(found['peak_mib']):11.0f}")
            figures[file] = found
    measuring.write_json(options.json, {"rows": options.rows, "rounds": figures})
    return 0


if __name__ == "__main__":
    measuring.main(run)
