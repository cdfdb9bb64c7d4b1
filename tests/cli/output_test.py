# SPDX-License-Identifier: Apache-2.0
"""What a run writes: metrics, logs, fingerprint, resolved config, progress line."""
import fcntl
import json
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import termios
import unittest

from cli import (ENDLESS, LIMIT_S, LOCKSTEP, MLP, MPIEXEC, CliTest, command, losses_in_log, metrics, overrides,
                 steps_of)

STEP_FIELDS = ["step", "loss", "grad_norm", "lr", "step_ms", "samples_per_s", "tflop_per_s", "product_share", "bubble",
               "workers"]
WORKER_FIELDS = ["compute_ms", "wait_ms", "peak_bytes", "peak_by_kind"]
COLUMNS = 40
GPT = """\
name: gpt
model: {type: gpt, layers: 1, heads: 2, width: 16, context: 8}
data: {type: synthetic, task: tokens, vocab: 256, samples: 64}
train: {batch: 16, micro_batches: 4, loss: sparse_categorical_cross_entropy}
pipeline: {stages: 2, schedule: 1f1b}
"""


class OutputTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("small.yaml", MLP)

    def test_metrics_have_a_line_per_step_and_end_with_the_summary(self):
        run = self.train("small.yaml", "run", settings=["train.steps=5", "train.eval_every=2"])
        lines = metrics(run / "metrics.jsonl")
        steps = [line for line in lines if "step" in line]
        self.assertEqual([line["step"] for line in steps], [1, 2, 3, 4, 5])
        for line in steps:
            self.assertEqual(list(line), STEP_FIELDS)
            self.assertEqual([list(worker) for worker in line["workers"]], [[*WORKER_FIELDS, "data_ms"], WORKER_FIELDS])  # one reads
            self.assertGreater(line["step_ms"], 0)
        self.assertEqual([line["eval"]["step"] for line in lines if "eval" in line], [2, 4, 5])
        self.assertEqual([line["eval"]["samples"] for line in lines if "eval" in line], [10, 10, 10])
        self.assertEqual([list(line) for line in lines if "summary" in line], [["summary"]])
        summary = lines[-1]["summary"]
        # 64 samples in batches of 10; the first epoch is not over yet.
        self.assertEqual((summary["steps"], summary["samples"], summary["loss"]), (5, 50, steps[-1]["loss"]))

    def test_a_step_line_says_how_fast_the_step_was(self):
        begin, end = r"(?m)^step 1/\d+  loss \S+  grad \S+  \S+ ms  ", r"  bubble \d+ %$"
        operations = r"  \S+ [kMGT]FLOP/s \(\d+ %\)"
        self.write("gpt.yaml", GPT)
        self.write("delay.yaml", ENDLESS)
        for config, ranks, line in (("small.yaml", 0, r"\S+ samples/s" + operations),
                                    ("small.yaml", 2, r"\S+ samples/s" + operations),
                                    ("gpt.yaml", 0, r"\S+ tokens/s" + operations), ("delay.yaml", 0, r"\S+ samples/s")):
            with self.subTest(config, ranks=ranks):
                result = self.succeeds("train", config, ranks=ranks, settings=["train.steps=3", f"run_dir={config}-{ranks}"])
                self.assertRegex(result.stderr, begin + line + end)
                self.assertRegex(result.stderr, r"(?m)^communication that compute does not hide: at most \d+\.\d % of a step$")
        # 16 samples of 8 tokens: 6 N + 6 L C T operations for each.
        step = steps_of(self.folder / "gpt.yaml-0/metrics.jsonl")[-1]
        self.assertAlmostEqual(step["tokens_per_s"] / (16 * 8 / step["step_ms"] * 1e3), 1)
        per_token = 6 * (12 * 16 * 16 + 256 * 16) + 6 * 16 * 8
        self.assertAlmostEqual(step["tflop_per_s"] * 1e12 / step["tokens_per_s"] / per_token, 1)
        summary = metrics(self.folder / "gpt.yaml-0/metrics.jsonl")[-1]["summary"]
        self.assertEqual(len(summary["product_tflop_per_s"]), 2)
        self.assertAlmostEqual(summary["product_share"] * sum(summary["product_tflop_per_s"]) / summary["tflop_per_s"], 1)
        self.assertGreaterEqual(summary["exposed_communication"], 0)

    def test_metrics_and_fingerprint_go_where_the_flags_say(self):
        run = self.train("small.yaml", "run", "--metrics", "m.jsonl", "--fingerprint", "f.json")
        self.assertEqual(len(metrics(self.folder / "m.jsonl")), 5)
        self.assertFalse((run / "metrics.jsonl").exists())
        self.assertEqual((self.folder / "f.json").read_bytes(), (run / "fingerprint.json").read_bytes())

    def test_a_run_folder_holds_config_log_metrics_fingerprint_and_tensorboard(self):
        run = self.train("small.yaml", "run")
        names = {path.name for path in run.iterdir()}
        self.assertLessEqual({"config.yaml", "log.txt", "metrics.jsonl", "fingerprint.json", "tensorboard"}, names)
        self.assertEqual([name for name in names if name.endswith(".part")], [])
        self.assertEqual(len(list((run / "tensorboard").iterdir())), 1)

    def test_workers_are_bound_to_cores_of_their_own_and_only_where_they_fit(self):
        self.write("endless.yaml", ENDLESS)
        allowed = sorted(os.sched_getaffinity(0))
        for ranks, stages in ((0, 2), (2, 2), (0, 3)):
            with self.subTest(ranks=ranks, stages=stages):
                run = self.folder / f"run-{ranks}-{stages}"
                settings = ["workers.bind=cores", "model.layers=3", f"pipeline.stages={stages}", f"run_dir={run}"]
                process = self.start(command("train", "endless.yaml", *overrides(settings), ranks=ranks))
                self.wait_until(lambda: metrics(run / "metrics.jsonl"), "its first step", process)
                bound = sorted(cpu for mask in self.masks_of_threads() if len(mask) == 1 for cpu in mask)
                process.terminate()
                _, stderr = process.communicate(timeout=LIMIT_S)
                if stages <= len(allowed):
                    self.assertEqual(bound, allowed[:stages])
                else:
                    self.assertIn(f"not bound: {stages} workers", stderr)
                    self.assertEqual(bound, allowed if len(allowed) == 1 else [])

    def masks_of_threads(self):
        """The CPUs of every thread of every `lockstep` process that runs in this test's folder."""
        masks = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").resolve() != self.folder or not (process / "exe").resolve().samefile(LOCKSTEP):
                    continue
                masks += [os.sched_getaffinity(int(thread.name)) for thread in (process / "task").iterdir()]
            except OSError:
                pass  # gone meanwhile
        return masks

    def test_the_resolved_config_trains_to_the_same_bits(self):
        settings = ["train.optimizer={type: sgd, lr: 0.1, momentum: 0.9, nesterov: true}", "train.clip_grad_norm=0.3",
                    "train.lr_schedule={type: cosine, warmup_steps: 2}", "pipeline.placement=[1,0]", "model.dropout=0.1"]
        first = self.train("small.yaml", "first", settings=settings)
        second = self.train("first/config.yaml", "second")
        self.assertEqual((first / "fingerprint.json").read_bytes(), (second / "fingerprint.json").read_bytes())
        resolved = [(run / "config.yaml").read_text().splitlines() for run in (first, second)]
        self.assertEqual([(a, b) for a, b in zip(*resolved) if a != b], [("run_dir: first", "run_dir: second")])

    def test_every_rank_logs_the_same_losses(self):
        run = self.train("small.yaml", "run", ranks=2)
        losses = losses_in_log(run / "log.txt")
        self.assertEqual([step for step, _ in losses], ["1", "2", "3", "4"])
        self.assertEqual(losses_in_log(run / "log.rank1.txt"), losses)
        printed = [f"{line['loss']:.4f}" for line in metrics(run / "metrics.jsonl") if "step" in line]
        self.assertEqual([loss for _, loss in losses], printed)

    def test_only_one_rank_speaks_to_the_console(self):
        result = self.succeeds("train", "small.yaml", ranks=2)
        self.assertEqual(len(re.findall(r"^step 1/4 ", result.stderr, re.M)), 1, result.stderr)

    def test_stages_and_schedule_do_not_change_a_bit(self):
        prints = {}
        for schedule in ("gpipe", "1f1b"):
            for stages in (1, 2, 3):
                run = self.train("small.yaml", f"{schedule}-{stages}", settings=[
                    f"pipeline.stages={stages}", f"pipeline.schedule={schedule}", "model.dropout=0.2"])
                prints[schedule, stages] = (run / "fingerprint.json").read_bytes()
        self.assertEqual(len(set(prints.values())), 1)
        fingerprint = json.loads(prints["gpipe", 1])
        self.assertEqual(len(fingerprint["parameters"]), 6)
        self.assertTrue(all(re.fullmatch("[0-9a-f]{16}", hash) for hash in fingerprint["parameters"].values()))

    def test_another_seed_or_micro_batch_count_changes_the_fingerprint(self):
        runs = [self.train("small.yaml", setting, settings=[setting])
                for setting in ("seed=1", "seed=2", "train.micro_batches=5")]
        prints = [json.loads((run / "fingerprint.json").read_text())["parameters"] for run in runs]
        self.assertNotEqual(prints[0], prints[1])
        self.assertNotEqual(prints[0], prints[2])

    def on_terminal(self, line):
        """The bytes that reach a terminal of 40 columns."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        process = subprocess.Popen(line, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
        os.close(slave)
        seen = b""
        try:
            while chunk := os.read(master, 65536):
                seen += chunk
        except OSError:  # Linux says so when the other side is closed
            pass
        os.close(master)
        self.assertEqual(process.wait(LIMIT_S), 0, seen)
        return seen.decode()

    def test_the_progress_line_never_wraps_and_ends_at_the_last_step(self):
        settings = ["train.steps=300", "train.eval_every=100", "run_dir=run"]
        seen = self.on_terminal(command("train", "small.yaml", *overrides(settings)))
        drawn = re.findall(r"\r([^\r\n]*)\x1b\[K", seen)
        self.assertGreater(len(drawn), 2, seen)
        for line in drawn:
            self.assertLess(len(line), COLUMNS)
        self.assertRegex(seen, r"\x1b\[Kstep 300/300 [^\r\n]*\r\n")  # stays, as a line
        # Nothing may stand on the progress line's own line when a log line comes.
        for line in re.findall(r"[^\n]*eval loss", seen):
            self.assertRegex(line, r"\x1b\[K[^\r]*step \d+/300  eval loss$")
        self.assertEqual(len(re.findall(r"eval loss", seen)), 3)
        self.assertEqual(len(losses_in_log(self.folder / "run/log.txt")), 300)

    def test_without_a_terminal_there_is_no_progress_line(self):
        result = self.succeeds("train", "small.yaml")
        self.assertNotIn("\r", result.stderr)
        self.assertNotIn("\x1b", result.stderr)
        self.assertEqual(result.stdout, "")

    # ---- standard files ----

    def with_output(self, target, *arguments):
        """Standard output goes to `target`, as subprocess takes it."""
        return subprocess.run(command(*arguments), cwd=self.folder, text=True, stdin=subprocess.DEVNULL, stdout=target,
                              stderr=subprocess.PIPE, timeout=LIMIT_S)

    def results(self):
        """What prints a result, each cheaply."""
        self.train("small.yaml", "run", settings=["checkpoint.every=end"])
        checkpoint = "run/checkpoints/step-00000004"
        return [["--version"], ["--help"], ["list"], ["train", "--help"], ["train", "small.yaml", "--dry-run"],
                ["simulate", "--schedule", "1f1b", "--stages", 2, "--micro-batches", 4], ["why", "run"], ["report", "run"],
                ["checkpoint", "inspect", "run"], ["checkpoint", "inspect", checkpoint], ["checkpoint", "verify", checkpoint],
                ["checkpoint", "fingerprint", checkpoint], ["checkpoint", "export", checkpoint, "-o", "weights"],
                ["eval", "small.yaml", "--checkpoint", checkpoint], ["verify", "small.yaml", "--steps", 1]]

    def test_a_result_that_standard_output_does_not_take_is_an_error(self):
        for arguments in self.results():
            with self.subTest(arguments=arguments), open("/dev/full", "w") as full:
                result = self.with_output(full, *arguments)
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertRegex(result.stderr, r"(?m)^lockstep: cannot write to standard output: No space left on device\n\Z")

    def test_a_reader_that_has_enough_ends_a_command_as_it_ends_any_other(self):
        for arguments in (["list"], ["--help"], ["simulate", "--schedule", "1f1b", "--stages", 2, "--micro-batches", 4]):
            with self.subTest(arguments=arguments):
                result = self.with_output(self.without_reader(), *arguments)
                self.assertEqual((result.returncode, result.stderr), (-signal.SIGPIPE, ""))

    def without_reader(self):
        """The end of a pipe that nobody reads."""
        reading, writing = os.pipe()
        os.close(reading)
        self.addCleanup(os.close, writing)
        return writing

    def test_a_run_whose_console_is_lost_goes_on(self):
        settings = ["checkpoint.every=end", "train.log_every=1"]
        launch = command("launch", "-n", 2, "--mpiexec", MPIEXEC, "train", "small.yaml")
        for name, line in (("alone", command("train", "small.yaml")), ("launched", launch)):
            with self.subTest(name):
                lost = self.without_reader()
                line = [*line, *overrides([*settings, f"run_dir={name}"])]
                self.assertEqual(subprocess.run(line, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=lost, stderr=lost,
                                                timeout=LIMIT_S).returncode, 0)
                self.assertTrue((self.folder / name / "checkpoints/step-00000004").is_dir())
                self.assertEqual(len(steps_of(self.folder / name / "metrics.jsonl")), 4)

    def test_standard_files_that_are_closed_are_nobody_elses(self):
        line = command("train", "small.yaml", *overrides(["run_dir=run", "train.log_every=1"]))
        result = self.run_command(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *line])
        self.assertEqual(result.returncode, 0)
        self.assertEqual(len(steps_of(self.folder / "run/metrics.jsonl")), 4)  # every line is JSON
        self.assertEqual((self.folder / "run/lock").read_bytes(), b"")
        # A result that has nowhere to go was not written.
        result = self.run_command(["sh", "-c", 'exec "$@" >&-', "sh", *command("list")])
        self.assertEqual((result.returncode, result.stderr),
                         (1, "lockstep: cannot write to standard output: Bad file descriptor\n"))

    # ---- where files go (how each kind of target is written: tests/unit/output_file_test.cpp) ----

    def test_links_are_followed_and_a_fifo_is_written_in_place(self):
        for name in ("print", "trace", "page", "weights"):
            (self.folder / name).symlink_to(f"real-{name}")
        self.train("small.yaml", "run", "--fingerprint", "print", "--trace", "trace", settings=["checkpoint.every=end"])
        checkpoint = "run/checkpoints/step-00000004"
        self.succeeds("simulate", "--schedule", "1f1b", "--stages", 2, "--micro-batches", 4, "--html", "page")
        self.succeeds("checkpoint", "export", checkpoint, "-o", "weights")
        refused = self.run_command(command("checkpoint", "export", checkpoint, "-o", "/dev/stdout"))  # its summary goes there
        self.assertEqual((refused.returncode, refused.stdout), (2, ""), refused.stderr)
        self.assertIn("is an open descriptor; name a file or a FIFO", refused.stderr)
        for name in ("print", "trace", "page", "weights"):
            self.assertTrue((self.folder / name).is_symlink())
            self.assertGreater((self.folder / f"real-{name}").stat().st_size, 100)
        os.mkfifo(self.folder / "fifo")
        process = self.start(command("checkpoint", "export", checkpoint, "-o", "fifo"))
        self.assertEqual((self.folder / "fifo").read_bytes(), (self.folder / "real-weights").read_bytes())
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0, stderr)

    def test_metrics_and_fingerprint_go_to_standard_output_behind_what_is_there(self):
        piped = self.succeeds("train", "small.yaml", "--metrics", "/dev/stdout", settings=["run_dir=piped"]).stdout
        self.assertEqual([json.loads(line).get("step") for line in piped.splitlines()], [1, 2, 3, 4, None])
        with open(self.folder / "all", "a") as file:  # as >> does
            file.write("before\n")
            file.flush()
            line = command("train", "small.yaml", "--metrics", "/dev/stdout", "--set", "run_dir=run")
            self.assertEqual(subprocess.run(line, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=file,
                                            stderr=subprocess.DEVNULL, timeout=LIMIT_S).returncode, 0)
        self.assertEqual(len((self.folder / "all").read_text().splitlines()), 6)
        fingerprint = self.succeeds("train", "small.yaml", "--fingerprint", "/dev/stdout", settings=["run_dir=other"]).stdout
        self.assertEqual(fingerprint, (self.folder / "other/fingerprint.json").read_text())

    def test_a_file_that_a_full_disk_cuts_short_is_an_error(self):
        checkpoint = self.train("small.yaml", "run", settings=["checkpoint.every=end"]) / "checkpoints/step-00000004"
        for arguments in (["simulate", "--schedule", "1f1b", "--stages", 2, "--micro-batches", 4, "--html", "/dev/full"],
                          ["report", "run", "--trace", "/dev/full"],
                          ["checkpoint", "export", checkpoint, "-o", "/dev/full"],
                          ["train", "small.yaml", "--set", "run_dir=other", "--fingerprint", "/dev/full"]):
            with self.subTest(arguments=arguments):
                result = self.run_command(command(*arguments))
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertRegex(result.stderr, r"(?m)^lockstep: .*cannot write /dev/full: No space left on device")

    def test_the_command_is_the_one_under_test(self):
        self.assertTrue(os.access(LOCKSTEP, os.X_OK), LOCKSTEP)


if __name__ == "__main__":
    unittest.main()
