# SPDX-License-Identifier: Apache-2.0
"""What the tests of the `lockstep` command share. ctest runs each file as `python3 tests/cli/NAME.py` with

LOCKSTEP  path of the command (default: build/release/lockstep)
MPIEXEC   the MPI launcher (default: mpirun)
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOCKSTEP = str(pathlib.Path(os.environ.get("LOCKSTEP", ROOT / "build/release/lockstep")).resolve())
MPIEXEC = os.environ.get("MPIEXEC", "mpirun")
LIMIT_S = 90  # of one command: generous, tests may share the machine

# Small and quick; every test changes what it is about with --set.
MLP = """\
name: small
model: {type: mlp, inputs: 4, width: 8, layers: 2, outputs: 2}
data: {type: synthetic, task: regression, inputs: 4, outputs: 2, samples: 64, eval_samples: 10}
train:
  steps: 4
  batch: 10
  micro_batches: 3
  loss: mean_squared_error
pipeline: {stages: 2, schedule: 1f1b}
"""
# Ten thousand steps of about 40 ms: a job that runs until it is told to stop.
ENDLESS = """\
name: endless
model: {type: delay, layers: 2, width: 2, forward_ms: 5, input_grad_ms: 5, weight_grad_ms: 5}
data: {type: synthetic, task: regression, inputs: 2, outputs: 2, samples: 64}
train: {steps: 10000, batch: 4, micro_batches: 2, loss: mean_squared_error}
pipeline: {stages: 2, schedule: 1f1b}
"""


def command(*arguments, ranks=0):
    launch = [MPIEXEC, "-n", str(ranks)] if ranks else []
    return [*launch, LOCKSTEP, *map(str, arguments)]


def overrides(settings):
    return [part for setting in settings for part in ("--set", setting)]


class CliTest(unittest.TestCase):
    """Every test has a folder of its own, where its commands run."""

    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return name

    def run_command(self, line, environment=None, cwd=None):
        return subprocess.run(line, cwd=cwd or self.folder, env={**os.environ, **(environment or {})}, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S)

    def succeeds(self, *arguments, ranks=0, settings=(), cwd=None):
        line = command(*arguments, *overrides(settings), ranks=ranks)
        result = self.run_command(line, cwd=cwd)
        self.assertEqual(result.returncode, 0, f"{' '.join(line)}\n{result.stdout}{result.stderr}")
        return result

    def train(self, config, name, *arguments, ranks=0, settings=()):
        """Trains into the run folder `name` and returns its path."""
        self.succeeds("train", config, *arguments, ranks=ranks, settings=[*settings, f"run_dir={name}"])
        return self.folder / name

    def start(self, line):
        """A command in the background. Whatever is left of it ends with the test."""
        process = subprocess.Popen(line, cwd=self.folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def why(self, run):
        return self.run_command(command("why", run)).stdout

    def wait_until(self, condition, what, process=None):
        """Polls; fails when `process` ends before, or after LIMIT_S."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if process and process.poll() is not None:
                self.fail(f"the command ended before {what}: {process.communicate()}")
            self.assertLess(time.monotonic(), deadline, f"waited in vain until {what}")
            time.sleep(0.02)


def metrics(path):
    """Whole lines only: a running job may be in the middle of one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def steps_of(path):
    return [line for line in metrics(path) if "step" in line]


def losses_in_log(path):
    """(step, loss) as printed, evaluations left out."""
    return re.findall(r"step (\d+)/\d+  loss (\S+)", path.read_text())
