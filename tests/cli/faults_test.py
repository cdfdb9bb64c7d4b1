# SPDX-License-Identifier: Apache-2.0
"""What ends a job early: NaN, signals, a wait without end, a killed rank. Bounds are generous; nothing is ordered by sleep."""
import os
import re
import signal
import time
import unittest

from cli import ENDLESS, LOCKSTEP, MLP, CliTest, command, losses_in_log, metrics, overrides, steps_of

SECONDS = 30  # "in seconds", on a machine that does other things too


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
                                                r"micro-batch 0; lower the learning rate")
                lines = metrics(self.folder / run_dir / "metrics.jsonl")
                self.assertIn("nan", [line["loss"] for line in steps_of(self.folder / run_dir / "metrics.jsonl")])
                self.assertLess(lines[-1]["summary"]["steps"], 10)
                self.assertIn("stopped: not finite in step 2", (self.folder / run_dir / "log.txt").read_text())

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
        self.assertRegex(stderr, rf"(?m)^stopped by a signal after step {steps[-1]} of 10000$")
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
                self.assertRegex(said[0], r"worker 1 \(stage 1\), step 1, train, .*waited 1000 ms.*comm\.watchdog_s")

    # ---- errors while the job runs ----

    def test_an_error_on_one_worker_ends_all_ranks_with_one_message(self):
        # The disk is full: the metrics cannot be written. (What a failing layer says: tests/parity/engine_test.cpp.)
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                line = command("train", "small.yaml", "--metrics", "/dev/full", "--set", f"run_dir=run-{ranks}", ranks=ranks)
                result = self.run_command(line)
                said = re.findall(r"(?m)^lockstep: .*$", result.stderr)
                self.assertEqual((result.returncode, len(said)), (1, 1), result.stderr)
                where = "rank 0, worker 0" if ranks else "worker 0"
                self.assertRegex(said[0], rf"^lockstep: {where} \(stage 0\), step 3, train, make_header: metrics: cannot "
                                          r"write /dev/full: No space left on device$")

    def test_a_killed_rank_ends_mpirun_in_seconds(self):
        # Every rank writes down its process id before it becomes the command.
        wrapper = f'echo > pid.$$; exec "{LOCKSTEP}" train endless.yaml --set run_dir=run'
        line = command(ranks=2)[:-1] + ["sh", "-c", wrapper]
        process = self.start(line)
        self.wait_until(lambda: metrics(self.folder / "run/metrics.jsonl"), "its first step", process)
        pids = [int(path.suffix[1:]) for path in self.folder.glob("pid.*")]
        self.assertEqual(len(pids), 2)
        os.kill(max(pids), signal.SIGKILL)
        process.communicate(timeout=SECONDS)
        self.assertNotEqual(process.returncode, 0)
        self.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "both ranks are gone")
        # The lock went with the process: the folder now holds a run, and says so.
        result = self.run_command(command("train", "small.yaml", "--set", "run_dir=run"))
        self.assertEqual(result.returncode, 2)
        self.assertIn("already holds a run", result.stderr)


if __name__ == "__main__":
    unittest.main()
