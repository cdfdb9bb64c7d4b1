#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills at random moments, half of them while a checkpoint is being written: each run must resume to the bits of an unbroken one.

One round: a fresh run that saves every other step is killed with SIGKILL (under mpirun one of its ranks is), every published
checkpoint is verified, and `--resume auto` goes on with another number of stages to the end. Its fingerprint (losses of all
steps, every weight) must be byte for byte that of the run that was never killed. A kill that comes too late counts as `late`
and is repeated.

  tools/bench/kill_bench.py --kills 100 --json out/bench/kills.json
  tools/bench/kill_bench.py --kills 20 --ranks 2
"""
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

import measuring

CONFIG = """\
name: kill
model: {type: gpt, layers: 4, heads: 4, width: 64, context: 32, vocab: 128, dropout: 0.1}
data: {type: synthetic, task: tokens, samples: 300, context: 32, vocab: 128}
train: {steps: %(steps)d, batch: 16, micro_batches: 4, loss: sparse_categorical_cross_entropy, clip_grad_norm: 1.0, log_every: 1000}
pipeline: {stages: 4, schedule: 1f1b}
checkpoint: {every: 2, keep: 3}
"""
POLL_S = 0.0005


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--kills", type=measuring.positive, default=100)
    parser.add_argument("--steps", type=measuring.positive, default=60)
    parser.add_argument("--ranks", type=int, default=0, help="0: in process; else under mpirun, where one rank is killed")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def train(options, folder, ranks, settings, resume):
    """The command line; every rank writes down its process id before it becomes the command."""
    line = measuring.lockstep_command(options, ranks)
    arguments = ["train", "kill.yaml", *(["--resume", "auto"] if resume else [])]
    for setting in settings:
        arguments += ["--set", setting]
    return line[:-1] + ["sh", "-c", 'echo > pid.$$; exec "$0" "$@"', os.path.abspath(options.lockstep), *arguments]


def finish(options, folder, ranks, settings, resume=False):
    command = train(options, folder, ranks, settings, resume)
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    measuring.check(done.returncode, command, done.stdout)
    return done.stdout


def is_saving(checkpoints):
    try:
        return any(name.endswith(".part") for name in os.listdir(checkpoints))
    except OSError:
        return False


def kill_once(options, folder, chance, whole_s, while_saving):
    """Starts a run and kills it. Returns what happened: saving, other, or late."""
    for old in folder.glob("pid.*"):
        old.unlink()
    checkpoints = folder / "run/checkpoints"
    command = train(options, folder, options.ranks, ["run_dir=run"], resume=False)
    with open(folder / "output.txt", "w", encoding="utf-8") as output, \
            subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
        start = time.monotonic()
        due_s = chance.uniform(0.05, 0.95) * whole_s
        while process.poll() is None and time.monotonic() - start < due_s:
            time.sleep(POLL_S)
        if while_saving:
            while process.poll() is None and not is_saving(checkpoints):
                time.sleep(POLL_S)
            time.sleep(chance.uniform(0, 0.003))  # anywhere in the save, not always at its beginning
        else:
            while process.poll() is None and is_saving(checkpoints):
                time.sleep(POLL_S)
        saving = is_saving(checkpoints)
        pids = [int(path.suffix[1:]) for path in folder.glob("pid.*")]
        if process.poll() is None and pids:
            os.kill(chance.choice(pids), signal.SIGKILL)
        process.wait()
        for pid in pids:  # mpirun has ended; its other ranks may be on their way out
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(POLL_S)
        if process.returncode == 0:
            return "late"
    return "saving" if saving else "other"


def verify_all(options, folder):
    published = sorted((folder / "run/checkpoints").glob("step-????????"))
    for checkpoint in published:
        done = subprocess.run([options.lockstep, "checkpoint", "verify", str(checkpoint)], capture_output=True, text=True,
                              check=False)
        measuring.check(done.returncode, ["lockstep", "checkpoint", "verify", str(checkpoint)], done.stdout + done.stderr)
    return len(published)


def run():
    options = options_of()
    options.lockstep = os.path.abspath(options.lockstep)
    machine = measuring.machine()
    chance = random.Random(options.seed)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="lockstep-kill-") as scratch:
        folder = pathlib.Path(scratch)
        (folder / "kill.yaml").write_text(CONFIG % {"steps": options.steps}, encoding="utf-8")
        start = time.monotonic()
        finish(options, folder, options.ranks, ["run_dir=unbroken"])
        whole_s = time.monotonic() - start
        expected = (folder / "unbroken/fingerprint.json").read_bytes()
        while len(rounds) < options.kills:
            shutil.rmtree(folder / "run", ignore_errors=True)
            how = kill_once(options, folder, chance, whole_s, while_saving=len(rounds) % 2 == 0)
            if how == "late":
                continue
            published = verify_all(options, folder)
            stages = chance.randint(max(1, options.ranks), 4)
            schedule = chance.choice(["gpipe", "1f1b"])
            said = finish(options, folder, options.ranks,
                          ["run_dir=run", f"pipeline.stages={stages}", f"pipeline.schedule={schedule}"], resume=True)
            resumed = re.search(r"resumed after step (\d+)", said)
            same = (folder / "run/fingerprint.json").read_bytes() == expected
            rounds.append({"killed": how, "checkpoints": published, "resumed_after": int(resumed.group(1)) if resumed else 0,
                           "stages": stages, "schedule": schedule, "same_bits": same})
            measuring.say(f"kill {len(rounds)} of {options.kills}: {rounds[-1]}")
            if not same:
                break
    table = []
    for how in ("saving", "other"):
        of_kind = [r for r in rounds if r["killed"] == how]
        table.append([f"while {how}" if how == "saving" else "at another moment", len(of_kind),
                      sum(r["resumed_after"] > 0 for r in of_kind), sum(r["same_bits"] for r in of_kind)])
    measuring.print_table(["killed", "kills", "resumed from a checkpoint", "same bits"], table)
    measuring.write_json(options.json, {"bench": "kills", "machine": machine, "seed": options.seed, "ranks": options.ranks,
                                        "rounds": rounds})
    return 0 if all(r["same_bits"] for r in rounds) else 1


if __name__ == "__main__":
    measuring.main(run)
