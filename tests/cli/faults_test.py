# SPDX-License-Identifier: Apache-2.0
"""What ends a job early: NaN, signals, waits without end, memory, killed and stopped ranks, and what is said of it. Bounds are
generous; nothing is ordered by sleep."""
import contextlib
import functools
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import time
import unittest

from cli import ENDLESS, LIMIT_S, LOCKSTEP, MLP, MPIEXEC, ROOT, CliTest, command, losses_in_log, metrics, overrides, steps_of

SECONDS = 30  # "in seconds", on a machine that does other things too


def stat_of(pid):
    """State and parent of a process; None when it is gone."""
    try:
        state, parent = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
        return state, int(parent)
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(pid):
    stat = stat_of(pid)
    return stat is not None and stat[0] not in "ZX"


def children_of(pid):
    others = [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()]
    return [other for other in others if (stat_of(other) or ("", 0))[1] == pid]


class FaultsTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("small.yaml", MLP)
        self.write("endless.yaml", ENDLESS)

    def start_endless(self, ranks):
        """A job of two workers that has finished a step."""
        process = self.start(command("train", "endless.yaml", "--set", "run_dir=run", ranks=ranks))
        self.wait_until(lambda: metrics(self.folder / "run/metrics.jsonl"), "its first step", process)
        return process

    # ---- NaN ----

    def test_a_run_that_blows_up_names_step_layer_and_micro_batch(self):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                run_dir = f"run-{ranks}"
                settings = ["train.optimizer={type: sgd, lr: 1e30}", "train.steps=50", f"run_dir={run_dir}"]
                result = self.run_command(command("train", "small.yaml", *overrides(settings), ranks=ranks))
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertRegex(result.stderr, r"(?m)^stopped: not finite in step 2: first in the output of layer \d 'fc\.\d', "
                                                r"micro-batch 0 \(samples \d+, \d+, \d+, \d+ of the training set\); lower the learning rate")
                lines = metrics(self.folder / run_dir / "metrics.jsonl")
                self.assertIn("nan", [line["loss"] for line in steps_of(self.folder / run_dir / "metrics.jsonl")])
                self.assertLess(lines[-1]["summary"]["steps"], 10)
                self.assertIn("stopped: not finite in step 2", (self.folder / run_dir / "log.txt").read_text())
                self.assertRegex(self.why(run_dir), r"\Athe job ended with exit code 1: stopped: not finite in step 2: first in the "
                                                    r"output of layer \d 'fc\.\d', micro-batch 0 \(samples .*\); lower")

    def test_the_samples_of_what_is_not_finite_are_named_where_they_stand(self):
        text = re.sub(r"^data: .*$", "data: {type: csv, train: x.csv, eval: y.csv, targets: [4], task: regression}", MLP, flags=re.M)
        self.write("x.yaml", text.replace("outputs: 2", "outputs: 1"))
        good = [f"0.{i},0.2,0.3,0.4,1\n" for i in range(23)]
        for name, bad in (("x.csv", 17), ("y.csv", 14)):
            self.write("x.csv", "".join(good))
            self.write("y.csv", "".join(good))
            self.write(name, "".join("3e38,-3e38,3e38,-3e38,1\n" if line == bad else row for line, row in enumerate(good, 1)))
            result = self.run_command(command("train", "x.yaml", *overrides(["train.eval_every=1", "train.steps=3", f"run_dir=run-{name}"])))
            self.assertEqual(result.returncode, 1, result.stderr)
            where = re.search(r"^stopped: not finite in (step|the evaluation after step) (\d): first in .*, micro-batch \d \((.*)\); lower",
                              result.stderr, re.M)
            self.assertTrue(where, result.stderr)
            self.assertEqual(where[1], "step" if name == "x.csv" else "the evaluation after step")
            self.assertIn(f"{name}:{bad}", where[3].split(", "))
            self.assertLessEqual(len(where[3].split(", ")), 4)

    def test_stop_on_nan_can_be_switched_off(self):
        settings = ["train.optimizer={type: sgd, lr: 1e30}", "train.stop_on_nan=false"]
        run = self.train("small.yaml", "run", settings=settings)
        self.assertEqual(metrics(run / "metrics.jsonl")[-1]["summary"]["steps"], 4)

    # ---- signals ----

    def check_stopped_by(self, number, ranks):
        process = self.start_endless(ranks)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 0, stderr)
        steps = [line["step"] for line in steps_of(self.folder / "run/metrics.jsonl")]
        self.assertEqual(steps, list(range(1, len(steps) + 1)))
        stopped = f"stopped by a signal after step {steps[-1]} of 10000"
        self.assertRegex(stderr, f"(?m)^{stopped}$")
        self.assertTrue(self.why("run").startswith(f"the job came to its end in good order: {stopped}\n"))
        self.assertIn("summary", metrics(self.folder / "run/metrics.jsonl")[-1])
        self.assertTrue((self.folder / "run/fingerprint.json").exists())

    def test_sigterm_finishes_the_step_and_leaves_with_0(self):
        self.check_stopped_by(signal.SIGTERM, ranks=0)

    def test_sigusr1_does_the_same(self):
        self.check_stopped_by(signal.SIGUSR1, ranks=0)

    def test_sigterm_to_mpirun_stops_all_ranks_after_the_same_step(self):
        self.check_stopped_by(signal.SIGTERM, ranks=2)
        logs = [losses_in_log(self.folder / "run" / name) for name in ("log.txt", "log.rank1.txt")]
        self.assertEqual(logs[0], logs[1])

    # ---- a wait without end ----

    def test_a_wait_past_the_watchdog_ends_with_code_4_and_names_who_waited(self):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                settings = ["model.forward_ms=[3000, 0]", "comm.watchdog_s=1", f"run_dir=run-{ranks}"]
                start = time.monotonic()
                result = self.run_command(command("train", "endless.yaml", *overrides(settings), ranks=ranks))
                self.assertLess(time.monotonic() - start, SECONDS)
                self.assertEqual(result.returncode, 4, result.stderr)
                said = re.findall(r"(?m)^lockstep: .*$", result.stderr)
                self.assertEqual(len(said), 1, result.stderr)
                self.assertRegex(said[0], r"worker 1 \(stage 1\), step 1, train, .*: waited \d\.\d s for worker 0 \(stage 0: "
                                          r"\S+.*\), which has made no progress for \d\.\d s, in layer '\S+': .*"
                                          r"comm\.watchdog_s: 1")

    def test_a_wait_for_a_slow_worker_that_moves_is_a_warning(self):
        # Three layers of 0.7 s in the first stage: the second waits for 2.1 s, and the limit is 1 s.
        self.write("slow.yaml", ENDLESS.replace("layers: 2", "layers: 4").replace("stages: 2", "stages: 2, partition: [3, 1]"))
        settings = ["model.forward_ms=[700, 700, 700, 0]", "train.steps=1", "train.micro_batches=1", "comm.watchdog_s=1"]
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                result = self.succeeds("train", "slow.yaml", ranks=ranks, settings=[*settings, f"run_dir=run-{ranks}"])
                said = re.findall(r"(?m)^warning: \[worker 1\] has waited \d\.\d s for worker 0 \(stage 0: .*slow, but moving", result.stderr)
                self.assertEqual(len(said), 1, result.stderr)

    def test_a_stopped_rank_ends_the_job_within_the_watchdogs_limit(self):
        process = self.start_two_ranks("comm.watchdog_s=2")
        stopped = max(self.pids)
        os.kill(stopped, signal.SIGSTOP)
        _, stderr = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 4, stderr)
        self.assertRegex(stderr, r"(?m)^lockstep: rank \d on \S+, worker \d .*for worker \d \(.*rank \d\), which has made no "
                                 r"progress for \d")
        self.wait_until(lambda: not os.path.exists(f"/proc/{stopped}"), "the stopped rank is gone")

    # ---- errors while the job runs ----

    def test_an_error_on_one_worker_ends_all_ranks_with_one_message(self):
        # The disk is full: the metrics cannot be written. (What a failing layer says: tests/parity/engine_test.cpp.)
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                line = command("train", "small.yaml", "--metrics", "/dev/full", "--set", f"run_dir=run-{ranks}", ranks=ranks)
                result = self.run_command(line)
                said = re.findall(r"(?m)^lockstep: .*$", result.stderr)
                self.assertEqual((result.returncode, len(said)), (1, 1), result.stderr)
                where = r"rank 0 on \S+, worker 0" if ranks else "worker 0"
                self.assertRegex(said[0], rf"^lockstep: {where} \(stage 0\), step 3, train, make_header: metrics: cannot "
                                          r"write /dev/full: No space left on device$")

    def test_ranks_that_fail_at_the_same_time_speak_once(self):
        settings = ["workers.memory_limit=1KiB", "model.width=64"]
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                line = command("train", "small.yaml", *overrides([*settings, f"run_dir=run-{ranks}"]), ranks=ranks)
                result = self.run_command(line)
                said = re.findall(r"(?m)^lockstep: .*$", result.stderr)
                self.assertEqual((result.returncode, len(said)), (1, 1), result.stderr)
                self.assertRegex(said[0], r"over the memory limit of this worker: asked for .* while holding .*\(parameters .*\) of "
                                          r"workers\.memory_limit: 1 KiB; raise it, .*more stages")
                story = self.succeeds("why", f"run-{ranks}").stdout
                self.assertRegex(story, r"\Afailed \(exit code 1\): rank \d on \S+: .*over the memory limit")

    # ---- killed ----

    def start_two_ranks(self, *settings):
        """A job of two ranks that has finished a step; self.pids are theirs."""
        # Every rank writes down its process id before it becomes the command.
        flags = " ".join(overrides([*settings, "run_dir=run"]))
        process = self.start(command(ranks=2)[:-1] + ["sh", "-c", f'echo > pid.$$; exec "{LOCKSTEP}" train endless.yaml {flags}'])
        self.wait_until(lambda: metrics(self.folder / "run/metrics.jsonl"), "its first step", process)
        self.pids = [int(path.suffix[1:]) for path in self.folder.glob("pid.*")]
        self.assertEqual(len(self.pids), 2)
        return process

    def test_a_killed_rank_ends_mpirun_in_seconds(self):
        process = self.start_two_ranks()
        killed = max(self.pids)
        os.kill(killed, signal.SIGKILL)
        process.communicate(timeout=SECONDS)
        self.assertNotEqual(process.returncode, 0)
        self.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in self.pids), "both ranks are gone")
        # The lock went with the process: the folder now holds a run, and says so.
        result = self.run_command(command("train", "small.yaml", "--set", "run_dir=run"))
        self.assertEqual(result.returncode, 2)
        self.assertIn("already holds a run", result.stderr)
        # Nobody could say anything, and yet it is known what each was doing.
        story = self.succeeds("why", "run").stdout
        self.assertRegex(story, r"\Akilled: rank \d on \S+, process \d+, .*probably died first")
        for worker in (0, 1):
            self.assertRegex(story, rf"(?m)^  worker {worker} \(stage {worker}: \S+\), rank {worker} on \S+, process \d+: step "
                                    r"\d+, \w+, .*last sign of life")
        self.assertIn(f"process {killed}", story)

    def start_launch(self, config, run, ranks):
        """A job under launch that has finished a step; and the processes of its ranks."""
        line = command("launch", "-n", ranks, "--mpiexec", MPIEXEC, "train", config, "--set", f"run_dir={run}")
        process = self.start(line)
        self.wait_until(lambda: metrics(self.folder / run / "metrics.jsonl"), "its first step", process)
        pids = [int(pid) for pid in re.findall(r"process (\d+)", self.why(run))]
        self.assertEqual(len(set(pids)), ranks)
        return process, pids

    def test_launch_names_whoever_of_four_ranks_died_and_leaves_with_4(self):
        # Messages of 8 MB, one nearly always under way: now and then MPI ends a rank that was reading from the victim.
        changes = [("layers: 2", "layers: 4"), ("stages: 2", "stages: 4"), ("batch: 4", "batch: 64"), ("_ms: 5", "_ms: 0.1"),
                   ("width: 2", "width: 65536"), ("puts: 2", "puts: 65536")]
        self.write("four.yaml", functools.reduce(lambda text, change: text.replace(*change), changes, ENDLESS))
        for victim in range(4):
            with self.subTest(victim=victim):
                run = f"run-{victim}"
                process, pids = self.start_launch("four.yaml", run, 4)
                os.kill(pids[victim], signal.SIGKILL)
                _, stderr = process.communicate(timeout=LIMIT_S)
                self.assertEqual(process.returncode, 4, stderr)
                name = rf"rank {victim} on \S+, process {pids[victim]},"
                self.assertRegex(stderr, rf"(?m)^killed: {name} died first \(SIGKILL\): worker {victim} \(stage {victim}: \S+\), "
                                         r"step \d+|^killed: .*probably died first")
                self.assertNotRegex(stderr, "BAD TERMINATION|backtrace|libucs")
                self.assertIn(self.why(run).splitlines()[0], stderr)
                # Without what launch saw there are only the recorders.
                (self.folder / run / "recorder/launcher").unlink()
                self.assertRegex(self.why(run), r"\Akilled: rank \d on \S+, process \d+, .*probably died first")

    def test_ranks_end_when_launch_is_killed(self):
        # A step takes half a minute: nobody waits for its end. And launch may start a script that starts mpiexec.
        self.write("long.yaml", ENDLESS.replace("forward_ms: 5", "forward_ms: [5, 30000]"))
        script = self.folder / "launcher.sh"
        script.write_text(f'#!/bin/sh\n"{MPIEXEC}" "$@"\nexit $?\n')
        script.chmod(0o755)
        for launcher in (MPIEXEC, str(script)):
            with self.subTest(launcher=launcher):
                run = f"run-{pathlib.Path(launcher).stem}"
                line = command("launch", "-n", 2, "--mpiexec", launcher, "train", "long.yaml", "--set", f"run_dir={run}")
                process = self.start(line)
                self.wait_until(lambda: "layer 'delay.1'" in self.why(run), "the long layer", process)
                pids = [int(pid) for pid in re.findall(r"process (\d+)", self.why(run))]
                pids += children_of(process.pid)
                process.kill()
                process.wait()
                self.wait_until(lambda: not any(map(is_alive, pids)), "all processes of the job are gone")

    def test_launch_restarts_from_the_last_checkpoint_on_fewer_ranks_to_the_same_bits(self):
        settings = ["train.steps=60", "checkpoint.every=5"]
        process = self.start(command("launch", "-n", 2, "--mpiexec", MPIEXEC, "--restarts", 1, "--ranks-after-restart", 1, "train",
                                     "endless.yaml", *overrides([*settings, "run_dir=run"])))
        self.wait_until(lambda: list((self.folder / "run/checkpoints").glob("step-????????")), "its first checkpoint", process)
        pids = re.findall(r"process (\d+)", self.why("run"))
        os.kill(int(pids[1]), signal.SIGKILL)
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertRegex(stderr, r"(?m)^resume from run/checkpoints/step-\d{8}: the same command with --resume auto$")
        self.assertRegex(stderr, r"(?m)^lockstep: launch: restart 1 of 1 with 1 ranks$")
        self.assertTrue((self.folder / "run/recorder.1/worker-1.bin").exists())
        whole = self.train("endless.yaml", "whole", settings=settings)
        self.assertEqual((self.folder / "run/fingerprint.json").read_bytes(), (whole / "fingerprint.json").read_bytes())

    def test_launch_passes_signals_and_exit_codes_on(self):
        process = self.start(command("launch", "-n", 2, "--mpiexec", MPIEXEC, "--restarts", 3, "train", "endless.yaml", "--set",
                                     "run_dir=run"))
        self.wait_until(lambda: metrics(self.folder / "run/metrics.jsonl"), "its first step", process)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertRegex(stderr, r"(?m)^stopped by a signal after step \d+ of 10000$")
        # A used run folder is the user's input: not tried again.
        result = self.run_command(command("launch", "-n", 2, "--mpiexec", MPIEXEC, "--restarts", 3, "train", "endless.yaml",
                                          "--set", "run_dir=run"))
        self.assertEqual(result.returncode, 2)
        self.assertEqual(len(re.findall(r"(?m)^lockstep: .*already holds a run", result.stderr)), 1, result.stderr)
        self.assertNotIn("restart", result.stderr)

    def test_a_later_signal_leaves_at_once(self):
        # The step takes minutes: the first signal would wait for its end.
        settings = ["model.forward_ms=[5, 300000]", "comm.watchdog_s=1000"]
        launch = command("launch", "-n", 2, "--mpiexec", MPIEXEC)
        for name, line in (("alone", command("train")), ("mpirun", command("train", ranks=2)), ("launch", [*launch, "train"])):
            with self.subTest(name):
                process = self.start([*line, "endless.yaml", *overrides([*settings, f"run_dir={name}"])])
                self.wait_until(lambda: "layer 'delay.1'" in self.why(name), "the long layer", process)

                def is_over():  # what follows the first within a second is still the first
                    process.send_signal(signal.SIGTERM)
                    time.sleep(0.3)  # spares the launcher
                    return process.poll() is not None
                self.wait_until(is_over, "it leaves")
                self.assertEqual(process.returncode, 128 + signal.SIGTERM)

    def test_signals_that_come_together_are_one_request(self):
        for ranks in (0, 2):
            for first, second in ((signal.SIGUSR1, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM)):
                with self.subTest(ranks=ranks, first=first):
                    run = f"run-{ranks}-{first}"
                    settings = ["checkpoint.every=end", f"run_dir={run}"]
                    process = self.start(command("train", "endless.yaml", *overrides(settings), ranks=ranks))
                    self.wait_until(lambda: metrics(self.folder / run / "metrics.jsonl"), "its first step", process)
                    process.send_signal(first)
                    process.send_signal(second)
                    _, stderr = process.communicate(timeout=SECONDS)
                    self.assertEqual(process.returncode, 0, stderr)
                    step = steps_of(self.folder / run / "metrics.jsonl")[-1]["step"]
                    self.assertTrue((self.folder / run / f"checkpoints/step-{step:08}").is_dir(), stderr)
                    said = re.findall(r"(?m)^stopping after this step, with a checkpoint; signal again", stderr)
                    self.assertEqual(len(said), 1, stderr)

    def test_a_signal_before_training_leaves_at_once_with_its_number(self):
        # mpiexec would make a 0 of ranks that just end.
        line = command("profile", "endless.yaml", "-o", "p.json", "--no-cache", "--repeats", 10000, ranks=2)
        process = self.start(line)
        self.assertRegex(process.stderr.readline(), r"^1/\d+ ")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)
        self.assertFalse((self.folder / "p.json").exists())

    # ---- a terminal ----

    def at_a_terminal(self, *settings):
        """Trains there; the process and the terminal's other side."""
        terminal, inner = pty.openpty()
        line = ["setsid", "--ctty", "env", "--default-signal=HUP,INT", *command("train", "endless.yaml"),
                *overrides([*settings, "run_dir=run"])]
        process = subprocess.Popen(line, cwd=self.folder, stdin=inner, stdout=inner, stderr=inner)
        os.close(inner)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, terminal

    def test_ctrl_c_says_at_once_what_it_does_and_again_leaves(self):
        process, terminal = self.at_a_terminal("model.forward_ms=[5, 300000]", "comm.watchdog_s=1000")
        self.wait_until(lambda: "layer 'delay.1'" in self.why("run"), "the long layer", process)
        os.write(terminal, b"\x03")
        seen = b""
        while b"stopping after this step (checkpoint.every: never, so nothing is saved); signal again" not in seen:
            seen += os.read(terminal, 65536)

        def is_over():
            with contextlib.suppress(OSError):  # gone meanwhile
                os.write(terminal, b"\x03")
            return process.poll() is not None
        self.wait_until(is_over, "it leaves")
        os.close(terminal)
        self.assertEqual(process.returncode, 128 + signal.SIGINT)

    def test_a_hangup_ends_the_run_as_term_does(self):
        launch = command("launch", "-n", 2, "--mpiexec", MPIEXEC)
        for name, line in (("alone", command("train")), ("launch", [*launch, "train"])):
            with self.subTest(name):
                line = ["env", "--default-signal=HUP", *line, "endless.yaml", *overrides(["checkpoint.every=end", f"run_dir={name}"])]
                process = self.start(line)
                self.wait_until(lambda: metrics(self.folder / name / "metrics.jsonl"), "its first step", process)
                process.send_signal(signal.SIGHUP)
                _, stderr = process.communicate(timeout=SECONDS)
                self.assertEqual(process.returncode, 0, stderr)
                self.assertRegex(stderr, r"(?m)^stopped by a signal after step \d+ of 10000$")
                self.assertEqual(len(list((self.folder / name / "checkpoints").glob("step-????????"))), 1)

    def test_a_run_goes_on_after_a_hangup_that_nohup_ignores(self):
        launch = command("launch", "-n", 2, "--mpiexec", MPIEXEC)
        for name, line in (("alone", command("train")), ("launch", [*launch, "train"])):
            with self.subTest(name):
                line = ["env", "--ignore-signal=HUP", *line, "endless.yaml", *overrides(["train.steps=30", f"run_dir={name}"])]
                process = self.start(line)
                self.wait_until(lambda: metrics(self.folder / name / "metrics.jsonl"), "its first step", process)
                process.send_signal(signal.SIGHUP)
                _, stderr = process.communicate(timeout=LIMIT_S)
                self.assertEqual(process.returncode, 0, stderr)
                self.assertEqual(len(steps_of(self.folder / name / "metrics.jsonl")), 30)

    def test_closing_the_terminal_saves(self):
        process, terminal = self.at_a_terminal("checkpoint.every=end")
        self.wait_until(lambda: metrics(self.folder / "run/metrics.jsonl"), "its first step", process)
        os.close(terminal)
        self.assertEqual(process.wait(LIMIT_S), 0, (self.folder / "run/log.txt").read_text())
        self.assertEqual(len(list((self.folder / "run/checkpoints").glob("step-????????"))), 1)

    # ---- ranks that do not belong together ----

    def test_a_rank_with_another_config_is_named_before_training(self):
        ranks = [part for seed in (1, 2) for part in ("-n", "1", *command("train", "small.yaml", "--set", f"seed={seed}"), ":")]
        result = self.run_command([MPIEXEC, *ranks[:-1]])
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertRegex(result.stderr, r"\Alockstep: rank 1 differs from rank 0 in 'seed: 2' against 'seed: 1'; give every rank .*\n\Z")

    def test_singletons_of_srun_are_refused(self):
        result = self.run_command(command("train", "small.yaml"), {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"})
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertRegex(result.stderr, r"\Alockstep: srun started 2 tasks, but MPI sees a world of 1: .*--mpi=pmi2.*\n\Z")
        silent = self.run_command(command("train", "small.yaml"), {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"})
        self.assertEqual((silent.returncode, silent.stderr), (2, ""))

    # ---- for long ----

    def test_memory_open_files_and_threads_stay_flat(self):
        # The same with 10000 steps: tools/bench/endurance_bench.py.
        result = self.run_command([sys.executable, str(ROOT / "tools/bench/endurance_bench.py"), "--steps", "5000", "--grow-mb", "8",
                                   "--lockstep", LOCKSTEP, "--mpirun", MPIEXEC], {"PYTHONDONTWRITEBYTECODE": "1"})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    # ---- the machine ----

    def test_doctor_looks_at_everything_alone_and_under_mpirun(self):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                said = self.succeeds("doctor", ".", ranks=ranks).stdout
                for what in ("MPI", "launcher", "torch", "GEMM", "cores", "memory", "/dev/shm", "ulimit -n", "run folder", "disk"):
                    self.assertEqual(len(re.findall(rf"(?m)^(ok|warn) +{re.escape(what)} ", said)), 1, f"{what}: {said}")
                self.assertRegex(said, r"nothing is bad\n\Z")
        self.assertEqual(list(self.folder.glob(".lockstep*")), [])

    def test_doctor_leaves_with_1_when_something_is_bad(self):
        result = self.run_command(command("doctor", "/proc"))
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertRegex(result.stdout, r"(?m)^bad +run folder +/proc .*cannot be written.*\n +-> ")


if __name__ == "__main__":
    unittest.main()
