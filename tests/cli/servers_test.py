# SPDX-License-Identifier: Apache-2.0
"""Servers of weights, as a user has them: alone and over ranks, looked at, stopped, killed, gone on with. Nothing is ordered by
sleep."""
import json
import os
import re
import signal
import unittest

from cli import ENDLESS, LIMIT_S, MPIEXEC, CliTest, command, metrics, overrides, steps_of

SMALL = """\
name: served
model: {type: mlp, inputs: 4, width: 8, layers: 2, outputs: 2}
data: {type: synthetic, task: regression, inputs: 4, outputs: 2, samples: 64, eval_samples: 10}
train: {steps: 6, batch: 16, micro_batches: 8, gradient_groups: 4, loss: mean_squared_error, eval_every: 3}
replicas: {strategy: parameter_server, count: 4, servers: 2, max_staleness: 3}
"""
SERVERS = "replicas: {strategy: parameter_server, count: 2, servers: 1, max_staleness: 2}"


class ServersTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("small.yaml", SMALL)
        self.write("endless.yaml", ENDLESS.replace("pipeline: {stages: 2, schedule: 1f1b}", SERVERS))

    def test_a_run_says_how_stale_its_updates_were_and_what_travelled(self):
        result = self.succeeds("train", "small.yaml", settings=["run_dir=run"])
        self.assertIn("4 workers and 2 servers on 1 rank(s)", result.stderr)
        said = re.search(r"4 replicas, 2 servers: \d+\.\d % of the workers' time is waiting for servers; a step sends them "
                         r"\d+\.?\d* \w+ and gets \d+\.?\d* \w+; staleness (\d\.\d\d) in the mean, (\d) at most", result.stderr)
        self.assertTrue(said, result.stderr)
        self.assertLessEqual(int(said[2]), 3)
        self.assertNotIn("simulated", result.stderr)
        lines = metrics(self.folder / "run/metrics.jsonl")
        for line in steps_of(self.folder / "run/metrics.jsonl"):
            self.assertEqual(sum(line["staleness"]), 4 * 2)
            self.assertLessEqual(len(line["staleness"]), 4)
            self.assertNotIn("bubble", line)
            self.assertEqual(len(line["workers"]), 6)
            self.assertGreater(sum(worker.get("sent_bytes", 0) for worker in line["workers"][:4]), 0)
        summary = lines[-1]["summary"]["servers"]
        self.assertEqual((summary["count"], sum(summary["staleness"])), (2, 5 * 8))
        self.succeeds("report", "run", "-o", "page.html")
        page = (self.folder / "page.html").read_text()
        self.assertIn("server 1", page)
        self.assertIn("Staleness", page)
        story = self.succeeds("why", "run").stdout
        self.assertIn("the job came to its end in good order: done: 6 steps", story)

    def test_staleness_0_has_the_bits_of_mirrored_and_its_checkpoints_go_on_there(self):
        settings = ["replicas.max_staleness=0", "replicas.servers=1", "checkpoint.every=3"]
        mirrored = ["replicas={count: 2}", "checkpoint.every=3"]
        whole = self.train("small.yaml", "mirrored", settings=mirrored)
        for ranks, servers in ((0, 1), (2, 1), (3, 2), (6, 2)):
            with self.subTest(ranks=ranks):
                run = self.train("small.yaml", f"served-{ranks}", ranks=ranks, settings=[*settings, f"replicas.servers={servers}"])
                self.assertEqual((run / "fingerprint.json").read_bytes(), (whole / "fingerprint.json").read_bytes())
        run = self.train("small.yaml", "half", settings=[*settings, "train.stop_after=3"])
        line = command("train", "small.yaml", "--resume", "auto", *overrides([*mirrored, "run_dir=half"]))
        result = self.run_command(line)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((run / "fingerprint.json").read_bytes(), (whole / "fingerprint.json").read_bytes())

    def test_a_checkpoint_of_servers_evaluates_answers_and_is_exported(self):
        self.train("small.yaml", "run", settings=["checkpoint.every=end"])
        checkpoint = self.folder / "run/checkpoints/step-00000006"
        loss = json.loads((self.folder / "run/metrics.jsonl").read_text().splitlines()[-2])["eval"]["eval_loss"]
        said = self.succeeds("eval", "small.yaml", "--checkpoint", checkpoint)
        self.assertIn(f"{loss:.6g}"[:6], said.stdout + said.stderr)
        self.write("inputs.csv", "0.1,0.2,0.3,0.4\n")
        self.succeeds("checkpoint", "export", checkpoint, "-o", self.folder / "weights.safetensors")

    def test_sigterm_stops_it_and_a_checkpoint_stays(self):
        for ranks in (0, 3):
            with self.subTest(ranks=ranks):
                run = f"stopped-{ranks}"
                process = self.start(command("train", "endless.yaml", *overrides(["checkpoint.every=end", f"run_dir={run}"]), ranks=ranks))
                self.wait_until(lambda: metrics(self.folder / run / "metrics.jsonl"), "its first step", process)
                process.send_signal(signal.SIGTERM)
                _, stderr = process.communicate(timeout=LIMIT_S)
                self.assertEqual(process.returncode, 0, stderr)
                last = steps_of(self.folder / run / "metrics.jsonl")[-1]["step"]
                self.assertRegex(stderr, f"(?m)^stopped by a signal after step {last} of 10000$")
                self.assertTrue((self.folder / run / f"checkpoints/step-{last:08}").exists())

    def test_a_rank_that_stands_still_is_named_when_somebody_has_to_wait_for_it(self):
        run = "still"
        process = self.start(command("train", "endless.yaml", *overrides(["comm.watchdog_s=2", f"run_dir={run}"]), ranks=3))
        self.wait_until(lambda: metrics(self.folder / run / "metrics.jsonl"), "its first step", process)
        pids = {int(rank): int(pid) for rank, pid in re.findall(r"rank (\d) on \S+, process (\d+)", self.why(run))}
        os.kill(pids[2], signal.SIGSTOP)  # ranks 1 and 2 have the workers
        _, stderr = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 4, stderr)
        self.assertRegex(stderr, r"(?m)^lockstep: .*for worker 1 \(replica 1, stage 1: .*rank 2\), which has made no progress for \d")

    def test_a_dead_worker_or_server_ends_the_job_and_launch_goes_on_from_the_checkpoint(self):
        for victim in range(3):
            with self.subTest(victim=victim):
                run = f"killed-{victim}"
                settings = ["train.steps=100", "checkpoint.every=5", f"run_dir={run}"]
                process = self.start(command("launch", "-n", 3, "--mpiexec", MPIEXEC, "--restarts", 1, "train", "endless.yaml",
                                             *overrides(settings)))
                self.wait_until(lambda: list((self.folder / run / "checkpoints").glob("step-????????")), "its first checkpoint", process)
                pids = {int(rank): int(pid) for rank, pid in re.findall(r"rank (\d) on \S+, process (\d+)", self.why(run))}
                os.kill(pids[victim], signal.SIGKILL)
                _, stderr = process.communicate(timeout=LIMIT_S)
                self.assertEqual(process.returncode, 0, stderr)
                self.assertRegex(stderr, r"(?m)^killed: rank \d on \S+, process \d+,.* died first")
                self.assertRegex(stderr, r"(?m)^lockstep: launch: restart 1 of 1")
                self.assertIn("done: 100 steps", stderr)


if __name__ == "__main__":
    unittest.main()
