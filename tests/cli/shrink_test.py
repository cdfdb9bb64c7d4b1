# SPDX-License-Identifier: Apache-2.0
"""`lockstep launch --shrink`: a job goes on without the ranks that were killed, to the same bits. Lost hosts: hosts_test.py."""
import os
import pathlib
import re
import signal
import unittest

from cli import LIMIT_S, MPIEXEC, CliTest, command, metrics, overrides

# Four replicas of one worker, a rank each; steps of some 50 ms.
FOUR = """\
name: four
model: {type: delay, layers: 2, width: 8, forward_ms: 3, input_grad_ms: 3, weight_grad_ms: 3}
data: {type: synthetic, task: regression, inputs: 8, outputs: 8, samples: 64}
train: {steps: 60, batch: 8, micro_batches: 4, loss: mean_squared_error, log_every: 1000}
pipeline: {stages: 1, schedule: 1f1b}
replicas: {count: 4}
checkpoint: {every: 5}
"""
# Who it was is faults_test.py's business. On a busy machine another that mpiexec kills may be gone before the one that was killed.
SOMEBODY = r"rank \d \((probably first; )?(SIGKILL|SIGSEGV|killed)\)"


class ShrinkTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("four.yaml", FOUR)
        self.ended = set()  # processes of starts before

    def launch(self, *arguments, ranks=4, settings=(), mpiexec=MPIEXEC):
        return self.start(command("launch", "-n", ranks, "--mpiexec", mpiexec, *arguments, "train", "four.yaml",
                                  *overrides([*settings, "run_dir=run"])))

    def ranks(self):
        """Their processes, in order. At once: a short job would be over before `why` has said who is there."""
        found = {}
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").samefile(self.folder) and (process / "comm").read_text() == "lockstep\n":
                    if rank := re.search(rb"(?:^|\0)PMI_RANK=(\d+)", (process / "environ").read_bytes()):
                        found[int(rank[1])] = int(process.name)
            except OSError:  # it is no more
                pass
        return [found[rank] for rank in sorted(found)]

    def kill(self, rank, number, process, ranks):
        """When a start with so many ranks makes a step."""
        seen, least = [], 0

        def is_killed():
            nonlocal seen, least
            made, pids = len(metrics(self.folder / "run/metrics.jsonl")), self.ranks()
            if len(pids) != ranks or self.ended.intersection(pids):
                return False
            if pids != seen:
                seen, least = pids, made
            least = min(least, made)  # who goes on from a checkpoint takes back the steps behind it
            if made == least:
                return False
            self.ended.update(pids)
            os.kill(pids[rank], number)
            return True
        self.wait_until(is_killed, f"it runs on {ranks} ranks", process)

    def refusal(self, *flags, settings=()):
        result = self.run_command(command("launch", *flags, "train", "four.yaml", *overrides([*settings, "run_dir=run"])))
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertFalse((self.folder / "run").exists())
        return result.stderr.rstrip()

    def test_a_job_shrinks_twice_and_ends_with_the_same_bits(self):
        settings = ["train.steps=150"]
        process = self.launch("--restarts", 3, "--shrink", settings=settings)
        self.wait_until(lambda: list((self.folder / "run/checkpoints").glob("step-????????")), "its first checkpoint", process)
        self.kill(2, signal.SIGKILL, process, ranks=4)
        self.kill(0, signal.SIGSEGV, process, ranks=3)
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0, stderr)
        restarts = re.findall(r"(?m)^lockstep: launch: (restart .*)$", stderr)
        self.assertEqual(len(restarts), 2, stderr)
        self.assertRegex(restarts[0], rf"^restart 1 of 3 without {SOMEBODY}: 3 ranks, 3 replicas of 1 worker$")
        self.assertRegex(restarts[1], rf"^restart 2 of 3 without {SOMEBODY}: 2 ranks, 2 replicas of 1 worker$")
        self.train("four.yaml", "one", settings=[*settings, "replicas.count=1", "train.gradient_groups=4"])
        self.assertEqual((self.folder / "run/fingerprint.json").read_bytes(), (self.folder / "one/fingerprint.json").read_bytes())

    def test_before_the_first_checkpoint_it_begins_anew_with_the_groups_of_the_first_start(self):
        model = "model={type: mlp, inputs: 8, width: 16, layers: 2, outputs: 8}"  # whose sums show it
        settings = ["checkpoint.every=end", "train.steps=1500", model]
        process = self.launch("--restarts", 1, "--shrink", settings=[*settings, "workers.per_rank=1"])
        self.kill(1, signal.SIGKILL, process, ranks=4)
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertRegex(stderr, rf"restart 1 of 1 without {SOMEBODY}: 3 ranks, 3 replicas of 1 worker\n")
        for name, groups in (("one", 4), ("other", 3)):
            self.train("four.yaml", name, settings=[*settings, "replicas.count=1", f"train.gradient_groups={groups}"])
        self.assertNotEqual((self.folder / "one/fingerprint.json").read_bytes(), (self.folder / "other/fingerprint.json").read_bytes())
        self.assertEqual((self.folder / "run/fingerprint.json").read_bytes(), (self.folder / "one/fingerprint.json").read_bytes())

    def test_where_no_pipeline_fits_ranks_hold_more_workers(self):
        settings = ["pipeline.stages=2", "replicas.count=1"]
        process = self.launch("--restarts", 1, "--shrink", ranks=2, settings=settings)
        self.kill(1, signal.SIGKILL, process, ranks=2)
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertRegex(stderr, rf"restart 1 of 1 without {SOMEBODY}: 1 rank, 1 replica of 2 workers, up to 2 workers on a rank "
                                 r"\(1 before\)\n")

    def test_nothing_is_left_of_one_rank(self):
        process = self.launch("--restarts", 3, "--shrink", ranks=1)
        self.kill(0, signal.SIGKILL, process, ranks=1)
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 4, stderr)
        self.assertTrue(stderr.endswith("\nlockstep: launch: no restart: nothing is left without rank 0 (SIGKILL)\n"), stderr)

    def test_a_launcher_that_stays_when_its_job_has_failed_is_ended(self):
        script = self.folder / "mpi.sh"
        script.write_text(f'#!/bin/sh\n"{MPIEXEC}" "$@"\nsleep 1000\n')
        script.chmod(0o755)
        process = self.launch(mpiexec=str(script))
        self.kill(3, signal.SIGKILL, process, ranks=4)
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 4, stderr)
        self.assertIn("\nlockstep: launch: the job has failed, and mpiexec waited for a host that does not answer: ended it\n", stderr)
        self.assertRegex(stderr, r"(?m)^killed: rank \d on .* died first")

    def test_a_restart_does_not_begin_anew_what_went_on_from_another_run(self):
        self.train("four.yaml", "before", settings=["train.stop_after=5"])
        process = self.start(command("launch", "-n", 4, "--mpiexec", MPIEXEC, "--restarts", 1, "train", "four.yaml", "--resume",
                                     "before/checkpoints/step-00000005", *overrides(["checkpoint.every=end", "run_dir=run"])))
        self.kill(1, signal.SIGKILL, process, ranks=4)
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 4, stderr)
        self.assertTrue(stderr.endswith("no restart: the job went on from before/checkpoints/step-00000005, and run has no checkpoint "
                                        "of its own yet; start it again with another run_dir\n"), stderr)

    def test_what_does_not_go_together_is_refused(self):
        shrink = ["-n", 4, "--restarts", 1, "--shrink"]
        for flags, settings, expected in (
                (["-n", 4, "--shrink"], [], "got --shrink without --restarts, expected how often"),
                ([*shrink, "--ranks-after-restart", 2], [], "got --shrink and --ranks-after-restart 2, expected one of them"),
                ([*shrink, "--mpiexec", "mpiexec -f hosts"], [], "got -f in --mpiexec 'mpiexec -f hosts', expected the hosts in launch's own"),
                ([*shrink, "--hosts", "a:2,b:1"], [], "got 4 ranks on a:2,b:1, which has room for 3; the number behind"),
                ([*shrink, "--hosts", "a:2,b:x"], [], "--hosts: got 'b:x', expected HOST or HOST:RANKS"),
                ([*shrink, "--hosts", "a:4", "--hostfile", "hosts"], [], "got --hosts and --hostfile, expected one of them"),
                ([*shrink, "--hostfile", "hosts"], [], "--hostfile: cannot read hosts"),
                (["-n", 4, "--hosts", "a:2,b:2", "--mpiexec", "false"], [], "host a does not answer: 'false -host a -n 1 true' ended with "
                 "code 1, nor do 1 more; try that command, or leave the host out"),
                (["-n", 4, "--hosts", "a:4", "--mpiexec", "srun --mpi=pmi2"], [], "got --hosts or --hostfile with srun"),
                (shrink, ["workers.per_rank=[1, 1, 1, 1]"], "per_rank: got a list of 4 ranks with launch --shrink, expected auto or one number"),
                (shrink, ["workers.devices=[cuda, cpu]"], "devices: got cpu beside other devices with launch --shrink")):
            with self.subTest(expected):
                self.assertIn(expected, self.refusal(*flags, settings=settings))


if __name__ == "__main__":
    unittest.main()
