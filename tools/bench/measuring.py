# SPDX-License-Identifier: Apache-2.0
"""What the Python benchmarks share: running `lockstep train`, its step times, medians, tables, JSON.

Only Python's standard library. Every benchmark prints a table for people and writes the same figures with --json.
"""
import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent


class BenchError(Exception):
    """One line for the user."""


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected an integer >= 1")
    return value


def parser(description, json_file=True):
    """--json, --lockstep and --mpirun, as every benchmark has them."""
    result = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    if json_file:
        result.add_argument("--json", metavar="FILE", help="write the figures to this file")
    result.add_argument("--lockstep", metavar="FILE", default=str(ROOT / "build/release/lockstep"),
                        help="the command to measure (default: build/release/lockstep)")
    result.add_argument("--mpirun", metavar="COMMAND", default="mpirun",
                        help="launcher, with its own flags if it needs any (default: mpirun)")
    return result


def main(run):
    """Runs a benchmark; what the user can have got wrong is one line and exit code 2."""
    try:
        sys.exit(run())
    except BenchError as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


def lockstep_command(options, ranks):
    """The beginning of the command line: `ranks` 0 is one process without mpirun."""
    if not os.access(options.lockstep, os.X_OK):
        raise BenchError(f"there is no command {options.lockstep}; run tools/build.sh or name it with --lockstep")
    if ranks == 0:
        return [options.lockstep]
    launcher = shlex.split(options.mpirun)
    if not launcher or not shutil.which(launcher[0]):
        raise BenchError(f"there is no launcher {options.mpirun}; install MPICH or name it with --mpirun")
    return launcher + ["-n", str(ranks), options.lockstep]


def train_command(options, config, overrides, ranks, folder, flags=()):
    """`lockstep train` into the new folder `folder`; metrics in folder/metrics.jsonl."""
    command = lockstep_command(options, ranks) + ["train", str(config), *flags]
    for key, value in {**overrides, "run_dir": folder}.items():
        command += ["--set", f"{key}={value}"]
    return command


def check(code, command, output):
    if code != 0:
        last = [line for line in output.splitlines() if line.strip()][-8:]
        raise BenchError("\n  ".join([f"exit code {code} from: {shlex.join(command)}", *last]))


def step_lines(metrics):
    """The metrics lines of the training steps that are complete so far, in order."""
    lines = []
    if not os.path.exists(metrics):
        return lines
    with open(metrics, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n") and "step_ms" in (values := json.loads(line)) and "step" in values:
                lines.append(values)
    return lines


def run_command(command, environment=None, timeout_s=None):
    """What it printed, errors too. A command that fails, or takes longer, is a BenchError; nothing of it is left running."""
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{shlex.join(command)}\n  took longer than {timeout_s:.0f} s") from error
        finally:
            end(process)
    check(process.returncode, command, output)
    return output


def end(process):
    """Ends a process of a session of its own with all that it started: asked first, so that mpirun can end its ranks."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass


@dataclasses.dataclass
class Trained:
    steps: list  # lines of metrics.jsonl, one per step
    summary: dict  # its last line
    output: str

    def step_ms(self, skip):
        """Time of every step after the first `skip`."""
        if len(self.steps) <= skip:
            raise BenchError(f"{len(self.steps)} steps in the metrics, expected more than {skip}")
        return [line["step_ms"] for line in self.steps[skip:]]


def train(options, config, overrides, ranks, folder, flags=(), environment=None, timeout_s=None):
    """Trains once, into the new folder `folder`, or on there with --resume."""
    output = run_command(train_command(options, config, overrides, ranks, folder, flags), environment, timeout_s)
    metrics = os.path.join(folder, "metrics.jsonl")
    with open(metrics, encoding="utf-8") as file:
        summary_line = json.loads(file.readlines()[-1]).get("summary", {})
    return Trained(step_lines(metrics), summary_line, output)


def lockstep_steps(options, config, overrides, ranks, skip, flags=()):
    """Trains once and returns the time of every step after the first `skip`, in ms."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as scratch:
        return train(options, config, overrides, ranks, os.path.join(scratch, "run"), flags).step_ms(skip)


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def in_ms(values):
    return f"{values['median']:.1f} [{values['min']:.1f}, {values['max']:.1f}]"


def in_ratios(values):
    return f"{values['median']:.3f} [{values['min']:.3f}, {values['max']:.3f}]"


def print_table(head, rows):
    """Columns as wide as they need; the first one to the left, the others to the right."""
    cells = [head] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        texts = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(texts).rstrip())
    sys.stdout.flush()


def say(text):
    """Progress; tables go to the standard output."""
    print(text, file=sys.stderr, flush=True)


def cpu_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def commit():
    try:
        git = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True,
                             check=False)
    except OSError:  # no git
        return "unknown"
    return git.stdout.strip() if git.returncode == 0 else "unknown"


def busy_cores():
    """How many cores' worth of work this machine does right now, over one second; None where /proc/stat is not."""
    def jiffies():
        with open("/proc/stat", encoding="utf-8") as file:
            times = [int(text) for text in file.readline().split()[1:9]]
        return sum(times), times[3] + times[4]
    try:
        total, idle = jiffies()
        time.sleep(1)
        total_then, idle_then = jiffies()
    except OSError:
        return None
    return round((1 - (idle_then - idle) / max(total_then - total, 1)) * (os.cpu_count() or 1), 2)


def machine():
    """Where and when. Work that is going on before we start means that the figures are not worth much."""
    busy = busy_cores()
    if busy is not None and busy > 0.2:
        say(f"note: {busy:.1f} cores are busy before anything starts: other jobs will disturb the figures")
    return {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)), "busy_cores_at_start": busy, "commit": commit(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def write_json(path, figures):
    if not path:
        return
    try:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}") from error
