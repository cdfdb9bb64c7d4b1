#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Servers of weights (replicas.strategy: parameter_server): memory, and how training goes.

  .venv/bin/python tools/bench/servers_bench.py memory         what a worker of a table that servers have takes (10 million rows)
  .venv/bin/python tools/bench/servers_bench.py convergence    strategies and staleness on handwritten digits; --plot FILE draws it

build/release/servers_bench measures what a slow worker costs the others, and the bytes of a sparse step.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import measuring

sys.path.insert(0, str(measuring.ROOT / "tools"))
import quality  # noqa: E402


def train(options, config, settings, folder):
    """Runs, and returns what metrics.jsonl says, line by line."""
    command = measuring.lockstep_command(options, 0)
    words = [f"--set={key}={value}" for key, value in {**settings, "run_dir": f"{folder}/run"}.items()]
    done = subprocess.run([*command, "train", str(config), *words], capture_output=True, text=True, cwd=config.parent)
    if done.returncode:
        raise measuring.BenchError(f"{' '.join([*command, 'train', str(config), *words])}: {done.stderr.strip()}")
    return [json.loads(line) for line in pathlib.Path(folder, "run/metrics.jsonl").read_text().splitlines()]


def servers(count, number=1, staleness=4):
    return {"pipeline.stages": 1, "replicas.strategy": "parameter_server", "replicas.count": count, "replicas.servers": number,
            "replicas.max_staleness": staleness}


# ---- memory ----

TABLE = """\
model:
  type: sequential
  layers:
    - {{type: embedding, count: {rows}, width: {width}, sparse: true}}
    - {{type: flatten}}
    - {{type: linear, in: {width}, out: 1}}
data: {{type: synthetic, task: clicks, fields: [{rows}], samples: {samples}}}
train: {{task: binary, steps: {steps}, batch: {batch}, micro_batches: 4, optimizer: {{type: rowwise_adagrad, lr: 0.05}}}}
"""


def memory(options):
    """Rank 0 has the server, rank 1 the worker; an idle rank is one that trains a table of 1000 rows."""
    peaks = {}
    for rows in (1000, options.rows):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder, "table.yaml")
            config.write_text(TABLE.format(rows=rows, width=64, samples=100_000, steps=20, batch=4000))
            settings = [f"--set={key}={value}" for key, value in {**servers(1), "run_dir": f"{folder}/run"}.items()]
            timed = ["/usr/bin/env", "time", "-f", "RSS %M"]
            command = [options.mpirun, "-n", "2", *timed, options.lockstep, "train", str(config), *settings]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise measuring.BenchError(done.stderr.strip())
            peaks[rows] = sorted(int(line.split()[1]) * 1024 for line in done.stderr.splitlines() if line.startswith("RSS "))
    table = options.rows * 64 * 4
    worker = peaks[options.rows][0] - peaks[1000][0]
    print(f"table {table / 2**20:.0f} MiB; peak RSS of the server {peaks[options.rows][1] / 2**20:.0f} MiB, of the worker "
          f"{peaks[options.rows][0] / 2**20:.0f} MiB, with a table of 1000 rows {peaks[1000][0] / 2**20:.0f} MiB: "
          f"{worker / 2**20:.1f} MiB more, {worker / table:.4f} of the table")


# ---- convergence ----

STRATEGIES = {
    "one worker": {"pipeline.stages": 1, "train.gradient_groups": 4},
    "mirrored": {"pipeline.stages": 1, "replicas.count": 4},
    "central_storage": {"pipeline.stages": 1, "replicas.count": 4, "replicas.strategy": "central_storage"},
    "staleness 0": servers(4, 1, 0),
    "staleness 4": servers(4, 1, 4),
    "staleness 16": servers(4, 1, 16),
}


def spread(values, digits):
    """Median [min, max]."""
    least, middle, most = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{least:.{digits}f}, {most:.{digits}f}]"


def curve_of(lines):
    """(samples, seconds, loss of the held-out set) of each evaluation, and its accuracy at the end."""
    points, seconds, accuracy = [], 0.0, None
    batch = 64
    for line in lines:
        if "step" in line:
            seconds += line["step_ms"] * 1e-3
        elif "eval" in line:
            points.append((line["eval"]["step"] * batch, seconds, line["eval"]["eval_loss"]))
            accuracy = line["eval"]["metrics"]["accuracy"]
    return points, accuracy


def convergence(options):
    curves = {name: [] for name in STRATEGIES}
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "digits.yaml")
        config.write_text((measuring.ROOT / "configs/quality/digits.yaml").read_text())
        pathlib.Path(folder, "data").mkdir()
        quality.make_digits(pathlib.Path(folder, "data"))
        for _ in range(options.rounds):
            for name, settings in STRATEGIES.items():
                lines = train(options, config, {**settings, "train.eval_every": 10}, tempfile.mkdtemp(dir=folder))
                curves[name].append(curve_of(lines))
    print("| | held-out loss at the end | accuracy | lowest loss | seconds |")
    print("|---|---|---|---|---|")
    for name, runs in curves.items():
        end = spread([points[-1][2] for points, _ in runs], 3)
        right = spread([accuracy for _, accuracy in runs], 3)
        lowest = spread([min(loss for _, _, loss in points) for points, _ in runs], 3)
        seconds = spread([points[-1][1] for points, _ in runs], 1)
        print(f"| {name} | {end} | {right} | {lowest} | {seconds} |")
    if options.plot:
        plot(curves, options.plot)


def plot(curves, path):
    import matplotlib  # pip install matplotlib; for the picture alone
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for name, runs in curves.items():
        points = runs[0][0]
        for side, at in ((0, 0), (1, 1)):
            axes[side].plot([point[at] for point in points], [point[2] for point in points], label=name, linewidth=1.2)
    for side, label in ((0, "samples"), (1, "seconds")):
        axes[side].set_xlabel(label)
        axes[side].set_yscale("log")
        axes[side].grid(alpha=0.3)
    axes[0].set_ylabel("loss of the held-out digits")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def run():
    parser = measuring.parser(__doc__, json_file=False)
    parser.add_argument("part", choices=["memory", "convergence"])
    parser.add_argument("--rounds", type=measuring.positive, default=3, help="of convergence (default: 3)")
    parser.add_argument("--rows", type=measuring.positive, default=10_000_000, help="of the table, for memory (default: 10 million)")
    parser.add_argument("--plot", metavar="FILE", help="a picture of convergence")
    options = parser.parse_args()
    {"memory": memory, "convergence": convergence}[options.part](options)
    return 0


if __name__ == "__main__":
    measuring.main(run)
