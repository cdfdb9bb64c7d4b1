#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What Lockstep does on a GPU: against PyTorch, on several workers of the one card, its waits, its figures and its bits.

Needs a lockstep command for the LibTorch that is there (docs/gpus.md), and for PyTorch's side a Python with torch and
transformers. Parts run in order of worth until the time is up; each writes its figures at once to gpu_bench.jsonl in
--out, and the tables to gpu_bench.md. Where two sides are compared they take turns, and medians [min, max] of the rounds
count. Every line names the card and what it made of a product of two 8192 x 8192 bf16 matrices just before that part.

  a  GPT-2 124M in bf16 against PyTorch, eager and compiled
  b  the same in float32 with exact products, 16 sequences a step
  c  several workers on the one card against one: schedules, in process and over ranks
  d  where the host waits for the device, and bytes that come back, per step and worker
  e  planned against measured: bytes and time; whether the reported times add up
  f  the same bits on any number of workers, schedule and ranks; CPU against device; a checkpoint from one to the other
  g  the device and the CPU as two workers, cut by plan, against all on one

  tools/bench/gpu_bench.py --lockstep lockstep-torch2.11.0 --out out/gpu
  tools/bench/gpu_bench.py --device cpu --tiny --out out/gpu     # no GPU: shows that every part runs
"""
import argparse
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import gpu_torch
import measuring

CONFIG = measuring.ROOT / "configs/gpt2-124m.yaml"
RUN_LIMIT_S = 150  # of one command
PROFILE_LIMIT_S = 60
SKIP = 2  # steps at the start of a run that do not count
FAILURES = (measuring.BenchError, OSError, ArithmeticError, LookupError, TypeError, ValueError)
GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Shape:
    """A GPT and its batch."""
    rows: int = 16  # of a micro-batch
    micro_batches: int = 8
    precision: str = "bf16"
    layers: int = 12
    heads: int = 12
    width: int = 768
    context: int = 1024
    vocab: int = 50304

    def tokens(self):
        return self.rows * self.micro_batches * self.context

    def flops_per_token(self):
        """6 N + 6 L C T, N without the table of positions."""
        block = 12 * self.width * self.width + 13 * self.width
        parameters = self.vocab * self.width + self.layers * block + 2 * self.width
        return 6 * parameters + 6 * self.layers * self.width * self.context

    def settings(self):
        return {**{f"model.{key}": getattr(self, key) for key in ("layers", "heads", "width", "context", "vocab")},
                "data.vocab": min(50257, self.vocab), "train.batch": self.rows * self.micro_batches,
                "train.micro_batches": self.micro_batches, "train.precision": self.precision}


SMALL = Shape(rows=2, layers=6, heads=4, width=256, context=128, vocab=512)  # bits do not need a large one
TINY = {"layers": 6, "heads": 2, "width": 32, "context": 16, "vocab": 64, "rows": 2}


@dataclasses.dataclass(frozen=True)
class Pipeline:
    workers: int = 1
    schedule: str = "1f1b"
    over_ranks: bool = False

    def __str__(self):
        where = f"{self.workers} ranks" if self.over_ranks else "in process"
        return f"P={self.workers}, {self.schedule}, {where}" if self.workers > 1 else "P=1"

    def settings(self):
        virtual = 1 if self.schedule == "1f1b" else 2
        return {"pipeline.schedule": self.schedule, "pipeline.stages": self.workers * virtual,
                "pipeline.virtual_stages": virtual, "pipeline.partition": "{by: layers}"}


def options_of():
    parser = measuring.parser(__doc__, json_file=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.set_defaults(mpirun=None)
    if (measuring.ROOT / "lockstep").exists():  # this file is in a portable folder
        parser.set_defaults(lockstep=str(measuring.ROOT / "lockstep"))
    parser.add_argument("--out", metavar="FOLDER", default="out/gpu",
                        help="for gpu_bench.jsonl and gpu_bench.md (default: out/gpu)")
    parser.add_argument("--seconds", type=measuring.positive, default=480, help="when to stop (default: 480)")
    parser.add_argument("--compile-seconds", type=measuring.positive, default=120, help="most that torch.compile may take")
    parser.add_argument("--parts", default="abcdefg", metavar="LETTERS", help="which, in this order (default: abcdefg)")
    parser.add_argument("--rounds", type=measuring.positive, default=1, help="this many times the rounds of each part")
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu (default: cuda:0)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: the figures mean nothing")
    options = parser.parse_args()
    if set(options.parts) - set(PARTS):
        raise measuring.BenchError(f"--parts {options.parts}: expected letters of {''.join(PARTS)}")
    if os.path.isdir(options.lockstep):  # a portable folder
        options.lockstep = os.path.join(options.lockstep, "lockstep")
    options.lockstep = os.path.abspath(options.lockstep)
    beside = os.path.join(os.path.dirname(options.lockstep), "mpirun")
    options.mpirun = options.mpirun or (beside if os.access(beside, os.X_OK) else "mpirun")
    return options


class Bench:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, pathlib.Path(scratch)
        self.until = time.monotonic() + options.seconds
        self.folder = pathlib.Path(options.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines = open(self.folder / "gpu_bench.jsonl", "w", encoding="utf-8")
        self.sides, self.tables, self.card, self.runs = {}, [], {}, itertools.count(1)
        version = measuring.run_command([*measuring.lockstep_command(options, 0), "--version"])
        self.version = version.strip().splitlines()[-1]

    # ---- time ----

    def left(self):
        return self.until - time.monotonic()

    def limit(self):
        if self.left() < 3:
            raise measuring.BenchError("no time left")
        return min(RUN_LIMIT_S, self.left())

    # ---- the two sides ----

    def shape(self, **changes):
        return Shape(**{**changes, **(TINY if self.options.tiny else {})})

    def small(self, precision):
        return dataclasses.replace(SMALL, precision=precision, **(TINY if self.options.tiny else {}))

    def settings(self, shape, pipeline, device=None):
        return {**shape.settings(), **pipeline.settings(), "workers.devices": f"[{device or self.options.device}]",
                "train.eval_every": 0, "train.log_every": 1000000}

    def command(self, *arguments, most_s=RUN_LIMIT_S):
        limit_s = min(most_s, self.limit())
        return measuring.run_command([self.options.lockstep, *map(str, arguments)], self.environment(), limit_s)

    def environment(self):
        return {"XDG_CACHE_HOME": str(self.scratch / "cache")}

    def train(self, shape, pipeline, steps, settings=None, flags=(), device=None, folder=None, environment=None):
        """Returns what was trained; `folder`: where, if somebody wants to look into it."""
        settings = {**self.settings(shape, pipeline, device), "train.steps": steps, **(settings or {})}
        return measuring.train(self.options, CONFIG, settings, pipeline.workers if pipeline.over_ranks else 0,
                               folder or self.scratch / f"run-{next(self.runs)}", flags,
                               {**self.environment(), **(environment or {})}, self.limit())

    def torch(self, name):
        """A process of torch, started when it is first needed and again when it has ended."""
        if name not in self.sides or self.sides[name].process.poll() is not None:
            self.sides[name] = gpu_torch.TorchSide(self.options.device)
        return self.sides[name]

    def look_at_card(self):
        try:
            self.card = self.torch("eager").ask(60, do="matmul", size=256 if self.options.tiny else 8192)
        except FAILURES as error:
            self.card = {"card": card_without_torch(self.options.device), "matmul_tflops": None, "why": last_lines(error)}

    def close(self):
        for side in self.sides.values():
            side.end()
        self.lines.close()

    # ---- what came out ----

    def begin(self, letter, title):
        tflops = self.card["matmul_tflops"]
        speed = f"{tflops:.0f} TFLOP/s in bf16" if tflops else f"not measured: {self.card['why']}"
        self.tables.append((f"{letter}. {title}", f"{self.card['card']}; product of matrices: {speed}.", []))

    def row(self, figures, **cells):
        """A line of the table, and one of the file, which has the figures too."""
        title, _, rows = self.tables[-1]
        rows.append(cells)
        measuring.say("  " + "  ".join(str(cell) for cell in cells.values()))
        card = {key: self.card[key] for key in ("card", "matmul_tflops")}
        line = {"part": title[0], **card, "device": self.options.device, **cells, "figures": figures}
        self.lines.write(json.dumps(line) + "\n")
        self.lines.flush()

    def failed(self, case, error):
        text = last_lines(error)
        what = "" if text.startswith("skipped") else "skipped: " if "No module named" in text else "failed: "
        self.row({"error": str(error)}, case=case, remark=what + text)

    def write_tables(self):
        tiny = "Tiny sizes: the figures mean nothing. " if self.options.tiny else ""
        text = [f"# gpu_bench: {self.card.get('card', self.options.device)}", "", f"{tiny}{self.version}, commit "
                f"{measuring.commit()}, device {self.options.device}. Medians [min, max] of rounds in turns."]
        for title, card, rows in self.tables:
            head = list(dict.fromkeys(key for cells in rows for key in cells if key != "remark"))
            head += ["remark"] if any("remark" in cells for cells in rows) else []
            text += ["", f"## {title}", "", card, ""]
            if rows:
                text += [f"| {' | '.join(key.replace('_', ' ') for key in head)} |", "|---" * len(head) + "|"]
            text += ["| " + " | ".join(str(cells.get(key, "")).replace("|", "/") for key in head) + " |" for cells in rows]
        (self.folder / "gpu_bench.md").write_text("\n".join([*text, ""]), encoding="utf-8")


def last_lines(error, most=300):
    """Without the command line that measuring.check() begins with, where something follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " / ".join((lines[1:] or lines)[-3:])[-most:]


def card_without_torch(device):
    if device == "cpu" or not shutil.which("nvidia-smi"):
        return measuring.cpu_name() if device == "cpu" else "unknown card"
    return measuring.run_command(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]).splitlines()[0]


def mean_ms(trained):
    return statistics.mean(trained.step_ms(SKIP))


def interleaved(bench, variants, rounds):
    """{name: [figure of each round]}. One that fails is left out from then on; no round begins that would end too late."""
    times, longest = {name: [] for name in variants}, 0
    for number in range(rounds * bench.options.rounds):
        if number and bench.left() < 1.2 * longest:
            break
        start = time.monotonic()
        for name, run in list(variants.items()):
            try:
                times[name].append(run())
            except FAILURES as error:
                bench.failed(name, error)
                del variants[name], times[name]
        longest = max(longest, time.monotonic() - start)
    return times


def ratios(theirs, ours):
    """Of speeds, round by round: above 1, ours is faster. None where a side has nothing."""
    each = [a / b for a, b in zip(theirs or [], ours)]
    return measuring.summary(each) if each else None


def in_ratios(values):
    return measuring.in_ratios(values) if values else "-"


def in_gib(size):
    return "-" if size is None else f"{size / GIB:.3f}"


# ---- a, b: against PyTorch ----


def torch_variants(bench, shape, names):
    """{name: how it is measured} of those that can be made; making and compiling are not measured."""
    variants = {}
    for name in names:
        try:
            compiles = name == "compiled"
            limit = min(bench.options.compile_seconds if compiles else RUN_LIMIT_S, bench.left() / 2)
            made = bench.torch(name).ask(limit, do="make", compile=compiles, **dataclasses.asdict(shape))
            measuring.say(f"  torch {name}: made in {made['seconds']:.0f} s")
        except FAILURES as error:
            bench.failed(f"torch, {name}", error)
            continue
        variants[f"torch, {name}"] = functools.partial(torch_steps, bench, name)
    return variants


def torch_steps(bench, name):
    answer = bench.torch(name).ask(bench.limit(), do="steps", steps=5)
    return answer["step_ms"], answer["peak_bytes"]


def lockstep_steps(bench, shape, settings):
    trained = bench.train(shape, Pipeline(), SKIP + 5, settings)
    return mean_ms(trained), trained.summary["peak_bytes"][0]


def against_torch(bench, shape, ours, names):
    variants = {case: functools.partial(lockstep_steps, bench, shape, settings) for case, settings in ours.items()}
    variants.update(torch_variants(bench, shape, names))
    found = interleaved(bench, variants, rounds=3)
    times = {case: [ms for ms, _ in each] for case, each in found.items()}
    for case, each_ms in times.items():
        peak_bytes = found[case][-1][1]
        speed = measuring.summary([shape.tokens() / ms * 1e3 for ms in each_ms])
        tflops = speed["median"] * shape.flops_per_token() / 1e12
        matmul = bench.card["matmul_tflops"]
        to = {name: ratios(times.get(f"torch, {name}"), each_ms) for name in names}
        bench.row({"step_ms": each_ms, "tokens_per_s": speed, "tflops": tflops, "ratio_to": to, "peak_bytes": peak_bytes},
                  case=case, tokens_per_s=f"{speed['median']:.0f} [{speed['min']:.0f}, {speed['max']:.0f}]",
                  ms_a_step=f"{statistics.median(each_ms):.1f}", **{"TFLOP/s": f"{tflops:.1f}"},
                  of_the_product=f"{tflops / matmul:.1%}" if matmul else "-",
                  peak_GiB=in_gib(peak_bytes), **{f"times_{name}": in_ratios(to[name]) for name in names})


def bf16(bench):
    ours = {"lockstep": {}, "lockstep, deterministic: false": {"kernels.deterministic": "false"}}
    against_torch(bench, bench.shape(), ours, ["eager", "compiled"])
    if "compiled" in bench.sides:
        bench.sides.pop("compiled").end()


def float32(bench):
    against_torch(bench, bench.shape(precision="fp32", rows=4, micro_batches=4), {"lockstep": {}}, ["eager"])


# ---- c: several workers on one card ----


def workers(bench):
    shape = bench.shape()
    for over_ranks in (False, True):
        for count in (2, 4):
            if bench.left() < (5 if bench.options.tiny else 60):
                raise measuring.BenchError(f"no time for {count} workers{' over ranks' if over_ranks else ''}")
            schedules = ("1f1b", "zbv", "interleaved_1f1b")
            cases = [Pipeline(), *(Pipeline(count, schedule, over_ranks) for schedule in schedules)]
            times = interleaved(bench, {str(case): lambda case=case: mean_ms(bench.train(shape, case, SKIP + 4))
                                        for case in cases}, rounds=1 if over_ranks else 2)
            one = times.pop("P=1", [])
            for case, each_ms in times.items():
                speed = ratios(one, each_ms)
                bench.row({"step_ms": each_ms, "one_ms": one, "speed_of_one": speed}, case=case,
                          ms_a_step=f"{statistics.median(each_ms):.1f}",
                          **{"P=1, ms": f"{statistics.median(one):.1f}" if one else "-",
                             "speed of P=1 (aim: 0.95)": in_ratios(speed)})


# ---- d: waits ----


def shim(bench):
    """The counting library: of the portable folder, or compiled here."""
    beside = pathlib.Path(bench.options.lockstep).parent / "lib/cuda_counts.so"
    if beside.exists():
        return beside
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise measuring.BenchError(f"there is no {beside} and no compiler")
    made = bench.scratch / "cuda_counts.so"
    measuring.run_command([compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(measuring.HERE / "cuda_counts.c")])
    return made


def counts(bench, library, pipeline, steps):
    path = bench.scratch / f"counts-{next(bench.runs)}.jsonl"
    bench.train(bench.shape(), pipeline, steps, environment={"LD_PRELOAD": str(library), "CUDA_COUNTS": str(path)})
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: sum(line[name] for line in lines) for name in lines[0]}


def waits(bench):
    if bench.options.device == "cpu":
        raise measuring.BenchError("skipped: a CPU has no libcudart to count in")
    library, few, many = shim(bench), SKIP + 1, SKIP + 6
    for pipeline in (Pipeline(), Pipeline(2), Pipeline(2, over_ranks=True)):
        before, after = (counts(bench, library, pipeline, steps) for steps in (few, many))
        each = {name: (after[name] - before[name]) / (many - few) / pipeline.workers for name in after}
        if not any(after.values()):
            raise measuring.BenchError("nothing was counted: libcudart is no shared library here, or LD_PRELOAD was dropped")
        syncs = sum(each[f"cuda{what}Synchronize"] for what in ("Stream", "Event", "Device"))
        bench.row(each, case=str(pipeline), host_waits=f"{syncs:.1f}", event_looks=f"{each['cudaEventQuery']:.1f}",
                  copies=f"{each['cudaMemcpyAsync'] + each['cudaMemcpy']:.1f}",
                  allocations=f"{sum(each[name] for name in ('cudaMalloc', 'cudaFree', 'cudaHostAlloc')):.1f}",
                  bytes_to_host=f"{each['device_to_host_bytes']:.0f}")


# ---- e: planned and reported against measured ----


class DeviceMemory:
    """How much more of the card's memory is in use at most, in bytes, while the block runs; None without nvidia-smi."""

    def __init__(self, device):
        self.peak_bytes = self.process = None
        if device != "cpu" and shutil.which("nvidia-smi"):
            self.process = subprocess.Popen(
                ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "100", "-i",
                 device.partition(":")[2] or "0"], stdout=subprocess.PIPE, text=True, start_new_session=True)

    def __enter__(self):
        self.first = self.process.stdout.readline() if self.process else None
        return self

    def __exit__(self, *_):
        if self.process:
            measuring.end(self.process)
            mib = [int(line) for line in (self.first + self.process.stdout.read()).split() if line.isdigit()]
            self.peak_bytes = (max(mib) - mib[0]) * (1 << 20) if mib else None


def sums(folder, trained):
    """Per worker: compute + wait over step in the metrics (median), and all spans of the timeline over its length."""
    shares = [[(worker["compute_ms"] + worker["wait_ms"]) / line["step_ms"] for worker in line["workers"]]
              for line in trained.steps[SKIP:]]
    metrics = [statistics.median(worker) for worker in zip(*shares)]
    measured = json.loads((folder / "timeline.json").read_text(encoding="utf-8"))["measured"]
    length = max(span[2] + span[3] for row in measured for span in row) - min(span[2] for row in measured for span in row)
    return metrics, [sum(span[3] for span in row) / length for row in measured]


def plan_of(bench, shape, pipeline, name):
    """Flags and settings of a run with a plan; without one where there is none, which is recorded."""
    settings = bench.settings(shape, pipeline)
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    profile, plan = bench.scratch / f"{name}.json", bench.scratch / f"{name}.yaml"
    try:
        bench.command("profile", CONFIG, *flags, "--no-cache", "-o", profile, most_s=PROFILE_LIMIT_S)
        bench.command("plan", CONFIG, *flags, "--profile", profile, "--workers", pipeline.workers, "--all-workers",
                      "--ranks", "one", "--schedule", "1f1b", "--virtual-stages", 1, "--recompute", "never", "-o", plan)
    except FAILURES as error:
        bench.failed(f"plan of {pipeline}", error)
        return [], settings
    return ["--plan", str(plan)], {key: value for key, value in settings.items() if not key.startswith("pipeline.")}


def planned(bench):
    shape = bench.shape()
    for count in (1, 2):
        folder = bench.scratch / f"planned-{count}"
        flags, settings = plan_of(bench, shape, Pipeline(count), f"plan-{count}")
        with DeviceMemory(bench.options.device) as memory:
            trained = measuring.train(bench.options, CONFIG, {**settings, "train.steps": SKIP + 5}, 0, folder, flags,
                                      bench.environment(), bench.limit())
        predicted, measured_ms = trained.summary["predicted"], mean_ms(trained)
        metrics, timeline = sums(folder, trained)
        bytes_of = {"planned": sum(predicted["peak_bytes"]) if flags else None, "run": sum(trained.summary["peak_bytes"]),
                    "card": memory.peak_bytes}
        bench.row({"predicted": predicted, "step_ms": measured_ms, "bytes": bytes_of, "metrics_share": metrics,
                   "timeline_share": timeline}, case=str(Pipeline(count)), predicted_by=predicted["by"],
                  predicted_ms=f"{predicted['step_ms']:.1f}", measured_ms=f"{measured_ms:.1f}",
                  over_it=f"{measured_ms / predicted['step_ms'] - 1:+.1%}",
                  **{f"{whose}_GiB": in_gib(size) for whose, size in bytes_of.items()},
                  compute_and_wait_of_step=", ".join(f"{share:.3f}" for share in metrics),
                  spans_of_timeline=", ".join(f"{share:.3f}" for share in timeline))


# ---- f: bits ----


def bits_of(bench, shape, pipeline, name):
    path = bench.scratch / f"{name}.fingerprint.json"
    bench.train(shape, pipeline, 5, flags=["--fingerprint", str(path)])
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["parameters"], found["losses"]


def same_bits(bench, precision):
    cases = [Pipeline(), Pipeline(2), Pipeline(4), Pipeline(2, "interleaved_1f1b"), Pipeline(4, "zbv"),
             Pipeline(2, over_ranks=True), Pipeline(4, "zbv", over_ranks=True)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(bits_of, bench, bench.small(precision), case, f"{precision}-{number}")
                for number, case in enumerate(cases)]
    one, *others = [run.exception() or run.result() for run in runs]
    if isinstance(one, Exception):
        raise one
    wrong = [f"{case}: {last_lines(bits) if isinstance(bits, Exception) else 'other bits'}"
             for case, bits in zip(cases[1:], others) if bits != one]
    bench.row({"differ": wrong, "tried": [str(case) for case in cases]}, case=f"{precision}: fingerprints equal to P=1",
              result=f"{len(others) - len(wrong)} of {len(others)}", remark="; ".join(wrong))


def largest_difference(ours, theirs):
    if [line["step"] for line in ours.steps] != [line["step"] for line in theirs.steps]:
        raise measuring.BenchError(f"{len(ours.steps)} steps in one run, {len(theirs.steps)} in the other")
    return max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in zip(ours.steps, theirs.steps))


def bits(bench):
    for precision in ("bf16", "fp32"):
        same_bits(bench, precision)
    shape, steps = bench.small("fp32"), 6
    host = bench.train(shape, Pipeline(), steps, device="cpu")
    device = bench.train(shape, Pipeline(), steps)
    difference = largest_difference(device, host)
    bench.row({"difference": difference}, case="fp32: losses of the CPU and the device", result=f"{difference:.1e}",
              remark="aim: 1e-4" if difference <= 1e-4 else "more than 1e-4")
    folder, saves = bench.scratch / "from-cpu", {"checkpoint.every": 3}
    bench.train(shape, Pipeline(), steps, {**saves, "train.stop_after": 3}, device="cpu", folder=folder)
    resumed = bench.train(shape, Pipeline(2), steps, saves, flags=["--resume", "auto"], folder=folder)
    difference = largest_difference(resumed, host)
    bench.row({"difference": difference}, case="fp32: three steps on the CPU, resumed on the device with P=2",
              result=f"{difference:.1e}", remark="aim: 1e-4" if difference <= 1e-4 else "more than 1e-4")


# ---- g: device and CPU ----


def mixed(bench):
    shape, device, both = bench.small("fp32"), bench.options.device, f"{bench.options.device}, cpu"
    threads = {"workers.threads": 1 if bench.options.tiny else min(8, len(os.sched_getaffinity(0)))}
    planned_folder = bench.scratch / "mixed"

    def with_plan():
        shutil.rmtree(planned_folder, ignore_errors=True)
        return mean_ms(bench.train(shape, Pipeline(2), SKIP + 6, {**threads, "pipeline.partition": "auto"}, device=both,
                                   folder=planned_folder))

    def without_plan(pipeline, on):
        return lambda: mean_ms(bench.train(shape, pipeline, SKIP + 6, threads, device=on))

    variants = {f"all on {device}": without_plan(Pipeline(), device), "all on cpu": without_plan(Pipeline(), "cpu"),
                f"[{both}], the same number of layers": without_plan(Pipeline(2), both), f"[{both}], planned": with_plan}
    times = interleaved(bench, variants, 2)
    for case, each_ms in times.items():
        plan = planned_folder / "plan.yaml"
        cut = re.search(r"partition: (\[.*?\])", plan.read_text(encoding="utf-8"))[1] if case.endswith("planned") else ""
        speed = ratios(times.get(f"all on {device}"), each_ms)
        bench.row({"step_ms": each_ms, "speed_of_device": speed, "cut": cut}, case=case,
                  ms_a_step=f"{statistics.median(each_ms):.1f}", speed_of_all_on_device=in_ratios(speed), layers=cut)


PARTS = {  # letter: (title, seconds on a GPU of which it makes no sense to begin with fewer, function)
    "a": ("GPT-2 124M, bf16, against PyTorch", 90, bf16),
    "b": ("GPT-2 124M, float32, exact, against PyTorch", 50, float32),
    "c": ("Several workers on the one device", 60, workers),
    "d": ("Where the host waits, per step and worker", 60, waits),
    "e": ("Planned and reported against measured", 80, planned),
    "f": ("Bits", 60, bits),
    "g": ("Device and CPU as two workers", 60, mixed),
}


def run_part(bench, letter):
    title, least_s, function = PARTS[letter]
    measuring.say(f"{letter}. {title} ({bench.left():.0f} s left)")
    skipped = not bench.options.tiny and bench.left() < least_s
    if not skipped:
        bench.look_at_card()
    bench.begin(letter, title)
    start = time.monotonic()
    try:
        if skipped:
            raise measuring.BenchError(f"skipped: {max(bench.left(), 0):.0f} s are left of --seconds, it needs {least_s}")
        function(bench)
    except FAILURES as error:
        bench.failed("the part", error)
    measuring.say(f"  {time.monotonic() - start:.0f} s")
    bench.write_tables()


def run():
    options = options_of()
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as scratch:
        bench = Bench(options, scratch)
        try:
            for letter in options.parts:
                run_part(bench, letter)
        finally:
            bench.close()
    print((bench.folder / "gpu_bench.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    measuring.main(run)
