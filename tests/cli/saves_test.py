# SPDX-License-Identifier: Apache-2.0
"""What is not a hang (a slow disk, a suspended job), and what is not a checkpoint (weights that are not finite). Seconds pass here
because they are what is tested; nothing is ordered by them."""
import os
import re
import signal
import time
import unittest

from cli import ENDLESS, LIMIT_S, MLP, CliTest, command, metrics, overrides, steps_of

SLOW_DISK = os.environ.get("SLOW_DISK", "")  # tests/cli/slow_disk.cpp
# One sample: the loss (1e36) and the gradient (1e22) are finite in float32, the square of the gradient is not.
HUGE = """\
model: {type: mlp, inputs: 1, width: 1, layers: 0, outputs: 1}
data: {type: csv, train: huge.csv, targets: [1], task: regression, header: false}
train: {steps: 3, batch: 2, micro_batches: 2, loss: mean_squared_error, optimizer: {type: adam, lr: 1.0e-3}}
pipeline: {stages: 1, schedule: gpipe}
"""


class SavesTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("small.yaml", MLP)
        self.write("endless.yaml", ENDLESS)

    def train_on_slow_disk(self, of, seconds, settings, ranks):
        """The run folder's name must not contain `of`: all of its files would be slow."""
        self.assertTrue(SLOW_DISK, "SLOW_DISK is not set: run it by ctest")
        line = command("train", "small.yaml", *overrides(["checkpoint.every=end", *settings]), ranks=ranks)
        return self.run_command(line, {"LD_PRELOAD": SLOW_DISK, "SLOW_FSYNC_OF": of, "SLOW_FSYNC_S": str(seconds)})

    # ---- saves ----

    def test_a_save_that_takes_longer_than_the_watchdogs_limit_is_no_hang(self):
        # Of a worker's own part, and of the publication, which the worker of row 0 waits for at the end.
        cases = ((0, "never", "model-00002"), (2, "never", "model-00001"), (2, "always", "manifest.json"))
        for run, (ranks, background, of) in enumerate(cases):
            with self.subTest(ranks=ranks, of=of):
                settings = ["comm.watchdog_s=2", f"checkpoint.background={background}", f"run_dir=run-{run}"]
                result = self.train_on_slow_disk(of, 5, settings, ranks)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.succeeds("checkpoint", "verify", f"run-{run}/checkpoints/step-00000004")

    def test_a_save_that_stands_still_ends_the_job_and_is_named(self):
        for run, (ranks, of) in enumerate(((0, "model-00002"), (2, "model-00001"), (0, "manifest.json"))):
            with self.subTest(ranks=ranks, of=of):
                started = time.monotonic()
                result = self.train_on_slow_disk(of, 10 * LIMIT_S, ["comm.save_s=2", f"run_dir=run-{run}"], ranks)
                self.assertEqual(result.returncode, 4, result.stderr)
                self.assertLess(time.monotonic() - started, LIMIT_S / 2)
                self.assertRegex(result.stderr, r"(saves a checkpoint|its own save of a checkpoint): for \d+\.\d s no byte was written "
                                                r"and no file synced; the limit is comm\.save_s: 2")
                self.assertNotIn("layer '", result.stderr)
                self.assertEqual(list((self.folder / f"run-{run}/checkpoints").glob("step-????????")), [])

    # ---- suspension ----

    def test_a_job_that_is_suspended_and_continued_goes_on(self):
        process = self.start(command("train", "endless.yaml", "--set", "run_dir=run", "--set", "comm.watchdog_s=3", ranks=2))
        file = self.folder / "run/metrics.jsonl"
        self.wait_until(lambda: metrics(file), "its first step", process)
        pids = [int(pid) for pid in re.findall(r"process (\d+)", self.run_command(command("why", "run")).stdout)]
        self.assertEqual(len(set(pids)), 2)
        os.kill(pids[0], signal.SIGSTOP)
        self.wait_until(lambda: "waiting for worker 0" in self.run_command(command("why", "run")).stdout, "the other waits", process)
        os.kill(pids[1], signal.SIGSTOP)
        time.sleep(10)  # three times the limit
        steps = len(steps_of(file))
        os.kill(pids[1], signal.SIGCONT)  # the one that waits is the first to look
        time.sleep(0.3)
        os.kill(pids[0], signal.SIGCONT)
        self.wait_until(lambda: len(steps_of(file)) > steps + 20, "steps after it", process)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0, stderr)

    # ---- what is not finite ----

    def test_state_that_is_not_finite_is_not_published_though_every_loss_was(self):
        self.write("huge.yaml", HUGE)
        self.write("huge.csv", "1e4,1e18\n" * 2)
        for name, settings in (("all", ["checkpoint.every=1"]), ("end", ["checkpoint.every=end"])):
            with self.subTest(name):
                result = self.run_command(command("train", "huge.yaml", *overrides([*settings, f"run_dir={name}"])))
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertRegex(result.stderr, r"checkpoint of step [13]: on worker 0 \S+weight\.exp_avg_sq\[0, 0\] is inf, though every "
                                                r"loss and gradient was finite: no checkpoint is published from here on")
                self.assertEqual(list((self.folder / name / "checkpoints").glob("step-????????")), [])
                self.assertNotIn("nan", [line["loss"] for line in steps_of(self.folder / name / "metrics.jsonl")])
        # Who goes on after NaN is told once.
        result = self.run_command(command("train", "huge.yaml", *overrides(["checkpoint.every=1", "train.stop_on_nan=false",
                                                                            "run_dir=on"])))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(re.findall("no checkpoint is published from here on", result.stderr)), 1, result.stderr)
        self.assertEqual(list((self.folder / "on/checkpoints").glob("step-????????")), [])

    def test_weights_that_the_last_step_broke_are_told_without_checkpoints_too(self):
        self.write("huge.yaml", HUGE.replace("layers: 0", "layers: 1").replace("stages: 1", "stages: 2"))
        self.write("huge.csv", "1e4,1e18\n" * 2)
        settings = ["train.steps=1", "train.optimizer={type: sgd, lr: 1.0e+30}"]
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                result = self.run_command(command("train", "huge.yaml", *overrides([*settings, f"run_dir=run-{ranks}"]), ranks=ranks))
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertRegex(result.stderr, r"(?m)^broken weights after step 1: \S+\[\d+(, \d+)?\] is -?(inf|nan), though every loss and "
                                                r"gradient was finite; lower the learning rate")

    def test_an_evaluation_that_is_not_finite_names_the_place(self):
        self.write("table.yaml", HUGE.replace("huge.csv", "good.csv").replace("header: false", "header: false, eval: huge.csv"))
        self.write("good.csv", "1,1\n" * 4)
        self.write("huge.csv", "3e38,-3e38\n" * 4)
        result = self.run_command(command("train", "table.yaml", *overrides(["checkpoint.every=end", "run_dir=run"])))
        self.assertEqual(result.returncode, 0, result.stderr)
        for ranks in (0, 1):
            with self.subTest(ranks=ranks):
                result = self.run_command(command("eval", "table.yaml", "--checkpoint", "run/checkpoints/step-00000003", ranks=ranks))
                self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
                self.assertRegex(result.stderr, r"(?m)^lockstep: the evaluation after step 3 is not finite: first in the loss, "
                                                r"micro-batch 0 \(huge\.csv:1\); ")
        result = self.run_command(command("train", "table.yaml", *overrides(["train.eval_every=3", "run_dir=evaluated"])))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stderr, r"(?m)^stopped: not finite in the evaluation after step 3: first in the loss, micro-batch 0 \(huge\.csv:1\); ")

    def test_an_eps_that_is_0_in_float32_is_refused(self):
        for eps in ("0", "1.0e-50"):
            for kind in ("adam", "adamw"):
                with self.subTest(eps=eps, kind=kind):
                    result = self.run_command(command("train", "small.yaml", "--set", f"train.optimizer={{type: {kind}, eps: {eps}}}"))
                    self.assertEqual(result.returncode, 2, result.stderr)
                    self.assertRegex(result.stderr, r"\Alockstep: .*train\.optimizer\.eps: got (0|1\.0e-50), expected more than 1e-45: it is 0 "
                                                    r"in float32.*\n\Z")
        self.succeeds("train", "small.yaml", "--dry-run", settings=["train.optimizer={type: adam, eps: 1.0e-44}"])


if __name__ == "__main__":
    unittest.main()
