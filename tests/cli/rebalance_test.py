# SPDX-License-Identifier: Apache-2.0
"""A worker that is slower than its plan says: the run tells what that costs, and --replan moves layers without changing a bit."""
import json
import os
import re
import unittest

from cli import CliTest, command, metrics, overrides, steps_of

# The plan believes in six equal layers; the last three take twice as long.
CONFIG = """\
name: uneven
model: {type: delay, layers: 6, width: 4, forward_ms: [2, 2, 2, 4, 4, 4], input_grad_ms: [2, 2, 2, 4, 4, 4],
        weight_grad_ms: [2, 2, 2, 4, 4, 4]}
data: {type: synthetic, task: regression, inputs: 4, outputs: 4, samples: 64, eval_samples: 8}
train: {steps: 100, batch: 8, micro_batches: 4, loss: mean_squared_error, eval_every: 20, clip_grad_norm: 0.1}
pipeline: {stages: 2, schedule: 1f1b}
checkpoint: {every: 5}
"""
COSTS = """\
format: 2
costs:
  "*": {forward_ms: 2, input_grad_ms: 2, weight_grad_ms: 2}
"""
SLOW = r"worker 1 has been (\d\.\d\d) times slower than expected since step 3: by simulation a step takes [\d.]+ ms, and [\d.]+ ms " \
       r"if it were not; layers per stage \[4, 2\] instead of \[3, 3\] would take [\d.]+ ms"


class RebalanceTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("uneven.yaml", CONFIG)
        self.write("costs.yaml", COSTS)
        self.succeeds("plan", "uneven.yaml", "--profile", "costs.yaml", "--workers", 2, "--schedule", "1f1b", "--virtual-stages", 1,
                      "--recompute", "never", "-o", "plan.yaml")

    def train_planned(self, name, *arguments, ranks=0):
        line = command("train", "uneven.yaml", "--plan", "plan.yaml", *arguments, *overrides([f"run_dir={name}"]), ranks=ranks)
        result = self.run_command(line)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stderr

    def test_a_slow_worker_is_told_and_its_layers_move_at_a_checkpoint(self):
        said = self.train_planned("stays")
        found = re.findall(SLOW, said)
        self.assertEqual(len(found), 1, said)
        self.assertGreater(float(found[0]), 1.5)
        self.assertIn("--replan moves them at a checkpoint", said)
        stays = self.folder / "stays"
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                name = f"moves-{ranks}"
                said = self.train_planned(name, "--replan", ranks=ranks)
                self.assertEqual(len(re.findall(SLOW + "; they are moved at the next checkpoint", said)), 1, said)
                # Five windows of two seconds and at least ten steps, then the next checkpoint.
                stopped = int(re.search(r"(?m)^stopped after step (\d+) of 100 to move layers$", said)[1])
                self.assertTrue(52 <= stopped <= 95 and stopped % 5 == 0, stopped)
                self.assertIn("layers per stage from here on: [4, 2]", said)
                moves = self.folder / name
                self.assertEqual((moves / "fingerprint.json").read_bytes(), (stays / "fingerprint.json").read_bytes())
                self.assertEqual(*[[(line["step"], line["loss"], line["grad_norm"]) for line in steps_of(run / "metrics.jsonl")]
                                   for run in (moves, stays)])
                self.assertEqual(*[[line["eval"] for line in metrics(run / "metrics.jsonl") if "eval" in line]
                                   for run in (moves, stays)])
                self.assertIn("partition: [4, 2]", (moves / "config.yaml").read_text())
                timeline = json.loads((moves / "timeline.json").read_text())
                self.assertEqual([stage["layers"] for stage in timeline["stages"]], ["delay.0 .. delay.3", "delay.4 .. delay.5"])

    def test_more_workers_than_cores_are_told_once_and_none_is_called_slow(self):
        cpu = min(os.sched_getaffinity(0))
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                line = ["taskset", "-c", str(cpu), *command("train", "uneven.yaml", "--plan", "plan.yaml", *overrides(
                    ["train.steps=5", f"run_dir=shared-{ranks}"]), ranks=ranks)]
                result = self.run_command(line)
                self.assertEqual(result.returncode, 0, result.stderr)
                told = re.findall(r"(?m)^warning: 2 workers of 1 thread\(s\) are more than the 1 cores of \S+: they share them", result.stderr)
                self.assertEqual(len(told), 1, result.stderr)

    def test_moving_layers_needs_checkpoints(self):
        result = self.run_command(command("train", "uneven.yaml", "--replan", "--set", "checkpoint.every=never"))
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("--replan: got checkpoint.every: never, expected a number of steps or minutes", result.stderr)
        self.assertFalse((self.folder / "runs").exists())


if __name__ == "__main__":
    unittest.main()
