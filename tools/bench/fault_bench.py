#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every fault for real: seconds from the fault to the message and to the end, the exit code, and the message.

The job has two workers and steps of some 40 ms. A fault is made when its first step is in the metrics; faults of the
start are timed from the command. Messages come from `lockstep launch` where the ranks themselves cannot speak.

  tools/bench/fault_bench.py --repeats 5 --json out/bench/faults.json
  tools/bench/fault_bench.py --only sigkill,watchdog
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import measuring

WATCHDOG_S = 2
MODEL = """\
name: faults
model: {{type: delay, layers: 2, width: 2, forward_ms: {forward}, input_grad_ms: 5, weight_grad_ms: 5}}
data: {{type: synthetic, task: regression, inputs: 2, outputs: 2, samples: 64}}
train: {{steps: 10000, batch: 4, micro_batches: 2, loss: mean_squared_error, log_every: 1000000}}
pipeline: {{stages: 2, schedule: 1f1b}}
comm: {{watchdog_s: %d}}
""" % WATCHDOG_S
LIMIT_S = 60


class Job:
    """A command in a folder of its own; its output line by line, with the time of each."""

    def __init__(self, options, scratch, arguments, ranks=2, launch=False, environment=None, forward=5, line=None):
        self.options, self.folder = options, pathlib.Path(scratch)
        (self.folder / "x.yaml").write_text(MODEL.format(forward=forward), encoding="utf-8")
        if line is None:
            start = [options.lockstep, "launch", "-n", str(ranks), "--mpiexec", options.mpirun] if launch else \
                measuring.lockstep_command(options, ranks)
            line = start + ["train", "x.yaml", "--set", "run_dir=run", *arguments]
        self.lines = []
        self.began = time.monotonic()
        self.process = subprocess.Popen(line, cwd=scratch, env={**os.environ, **(environment or {})}, text=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        start_new_session=True)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))

    def wait_for_step(self):
        deadline = time.monotonic() + LIMIT_S
        while not measuring.step_lines(str(self.folder / "run/metrics.jsonl")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise measuring.BenchError(f"the job did not come to its first step: {self.lines[-5:]}")
            time.sleep(0.005)

    def pid_of(self, worker):
        said = subprocess.run([self.options.lockstep, "why", "run"], cwd=self.folder, text=True, capture_output=True, check=True)
        return int(re.search(rf"(?m)^  worker {worker} .*process (\d+)", said.stdout).group(1))

    def finish(self, fault, message):
        """Figures: `fault` is when it happened, `message` a pattern of the line that a person can act on."""
        try:
            code = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            code = None
        ended = time.monotonic()
        self.reader.join()
        said = [(moment, line) for moment, line in self.lines if re.search(message, line)]
        return {"exit_s": ended - fault, "message_s": said[0][0] - fault if said else None, "code": code,
                "message": said[0][1] if said else None, "messages": len(said)}


def now():
    return time.monotonic()


def kill_of(worker, number, launch):
    def fault(options, scratch):
        job = Job(options, scratch, [], launch=launch)
        job.wait_for_step()
        pid = job.pid_of(worker)
        moment = now()
        os.kill(pid, number)
        return job.finish(moment, r"died first|probably died" if launch else r"KILLED BY SIGNAL|EXIT CODE: 9")
    return fault


def stopped_rank(options, scratch):
    job = Job(options, scratch, [])
    job.wait_for_step()
    pid = job.pid_of(1)
    moment = now()
    os.kill(pid, signal.SIGSTOP)
    return job.finish(moment, r"^lockstep: .*no progress")


def endless_layer(options, scratch):
    job = Job(options, scratch, [], forward="[30000, 0]")
    return job.finish(job.began, r"^lockstep: .*no progress")


def exception(options, scratch):
    job = Job(options, scratch, ["--metrics", "/dev/full"])
    return job.finish(job.began, r"^lockstep: .*No space left")


def out_of_memory(options, scratch):
    job = Job(options, scratch, ["--set", "workers.memory_limit=10B"])
    return job.finish(job.began, r"^lockstep: .*memory limit")


def full_disk(options, scratch):
    """The disk under the run folder fills up while the job runs. Needs root, for a file system of its own."""
    if os.geteuid() != 0:
        return "skipped: only root can mount the small file system it needs"
    disk = pathlib.Path(scratch) / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        return f"skipped: {mounted.stderr.strip()}"
    try:
        (pathlib.Path(scratch) / "run").symlink_to(disk / "run")
        (disk / "run").mkdir()
        job = Job(options, scratch, [])
        job.wait_for_step()
        moment = now()
        with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        return job.finish(moment, r"^lockstep: .*No space left")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def other_rank(arguments, pattern):
    """Rank 1 differs from rank 0."""
    def fault(options, scratch):
        first = [options.lockstep, "train", "x.yaml", "--set", "run_dir=run"]
        line = options.mpirun.split() + ["-n", "1", *first, ":", "-n", "1", *first, *arguments]
        job = Job(options, scratch, [], line=line)
        return job.finish(job.began, pattern)
    return fault


def other_binary(options, scratch):
    """Rank 1 runs a copy whose library is one byte longer."""
    build = pathlib.Path(options.lockstep).resolve().parent
    copy = pathlib.Path(scratch) / "copy"
    copy.mkdir()
    library = next(iter(build.glob("liblockstep.so.*.*")), None)
    if library is None:
        return "skipped: no liblockstep.so beside the command"
    shutil.copy(library, copy / "liblockstep.so.0")
    with open(copy / "liblockstep.so.0", "ab") as file:
        file.write(b"\0")
    line = options.mpirun.split() + ["-n", "1", options.lockstep, "train", "x.yaml", "--set", "run_dir=run", ":", "-n", "1",
                                     "env", f"LD_LIBRARY_PATH={copy}", "LD_PRELOAD=" + str(copy / "liblockstep.so.0"),
                                     options.lockstep, "train", "x.yaml", "--set", "run_dir=run"]
    job = Job(options, scratch, [], line=line)
    return job.finish(job.began, r"^lockstep: rank 1 differs")


def two_jobs(options, scratch):
    first = Job(options, scratch, [])
    first.wait_for_step()
    second = Job(options, scratch, [])
    figures = second.finish(second.began, r"^lockstep: .*another job is running")
    first.process.terminate()
    first.finish(now(), "")
    return figures


def singletons(options, scratch):
    job = Job(options, scratch, [], ranks=0, environment={"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"})
    return job.finish(job.began, r"^lockstep: srun started 2 tasks")


def signal_through(number):
    def fault(options, scratch):
        job = Job(options, scratch, [])
        job.wait_for_step()
        moment = now()
        job.process.send_signal(number)
        return job.finish(moment, r"^stopped by a signal")
    return fault


def two_signals(options, scratch):
    """The step takes 20 s; a signal that comes a second after the first does not wait for it."""
    job = Job(options, scratch, ["--set", "comm.watchdog_s=300"], forward="[5, 20000]", ranks=0)
    deadline = now() + LIMIT_S
    while "layer" not in subprocess.run([options.lockstep, "why", "run"], cwd=scratch, text=True, capture_output=True,
                                        check=False).stdout and now() < deadline:
        time.sleep(0.02)
    job.process.send_signal(signal.SIGTERM)
    time.sleep(1.1)
    moment = now()
    job.process.send_signal(signal.SIGINT)
    return job.finish(moment, "$^")


FAULTS = {
    "sigkill": ("kill -9 of rank 1, lockstep launch", kill_of(1, signal.SIGKILL, True)),
    "sigkill-0": ("kill -9 of rank 0, lockstep launch", kill_of(0, signal.SIGKILL, True)),
    "sigkill-mpirun": ("kill -9 of rank 1, plain mpirun", kill_of(1, signal.SIGKILL, False)),
    "sigsegv": ("segmentation fault of rank 1, lockstep launch", kill_of(1, signal.SIGSEGV, True)),
    "sigstop": (f"SIGSTOP of rank 1 (watchdog_s {WATCHDOG_S})", stopped_rank),
    "watchdog": (f"a layer without end (watchdog_s {WATCHDOG_S}), from the command", endless_layer),
    "exception": ("an exception on a worker, from the command", exception),
    "memory": ("over the memory limit on both ranks, from the command", out_of_memory),
    "disk": ("the disk under the run folder is full", full_disk),
    "config": ("rank 1 with another config, from the command", other_rank(["--set", "seed=2"], r"^lockstep: rank 1 differs")),
    "plan": ("rank 1 with another cut, from the command",
             other_rank(["--set", "pipeline.placement=[1,0]"], r"^lockstep: rank 1 differs")),
    "binary": ("rank 1 with another binary, from the command", other_binary),
    "two-jobs": ("a second job in the run folder, from the command", two_jobs),
    "singletons": ("srun's singletons, from the command", singletons),
    "term": ("TERM to mpiexec", signal_through(signal.SIGTERM)),
    "int": ("INT to mpiexec", signal_through(signal.SIGINT)),
    "usr1": ("USR1 to mpiexec", signal_through(signal.SIGUSR1)),
    "two-signals": ("TERM, and INT a second later, in a step of 20 s, in process", two_signals),
}


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--repeats", type=measuring.positive, default=3)
    parser.add_argument("--only", metavar="A,B", help=f"some of {', '.join(FAULTS)}")
    return parser.parse_args()


def run():
    options = options_of()
    options.lockstep = os.path.abspath(options.lockstep)
    chosen = options.only.split(",") if options.only else list(FAULTS)
    for name in chosen:
        if name not in FAULTS:
            raise measuring.BenchError(f"--only: there is no fault '{name}'; there are: {', '.join(FAULTS)}")
    machine = measuring.machine()
    results, rows, messages = {}, [], []
    for name in chosen:
        what, make = FAULTS[name]
        repeats = []
        for number in range(1, options.repeats + 1):
            measuring.say(f"{name}: {number} of {options.repeats}")
            with tempfile.TemporaryDirectory(prefix="lockstep-fault-") as scratch:
                repeats.append(make(options, scratch))
            if isinstance(repeats[-1], str):
                break
        results[name] = repeats
        if isinstance(repeats[-1], str):
            rows.append([what, repeats[-1], "", ""])
            continue
        codes = sorted({str(figures["code"]) for figures in repeats})
        spoken = [figures["message_s"] for figures in repeats if figures["message_s"] is not None]
        rows.append([what, seconds(spoken), seconds([figures["exit_s"] for figures in repeats]), ", ".join(codes)])
        messages.append((name, repeats[0]["message"]))
    print(f"seconds from the fault, median [min, max] of {options.repeats}")
    measuring.print_table(["fault", "message", "end", "exit code"], rows)
    print()
    for name, message in messages:
        print(f"{name}: {message or '(nothing to say)'}")
    measuring.write_json(options.json, {"bench": "faults", "machine": machine, "results": results})
    return 0


def seconds(values):
    return measuring.in_ratios(measuring.summary(values)) if values else "-"


if __name__ == "__main__":
    measuring.main(run)
