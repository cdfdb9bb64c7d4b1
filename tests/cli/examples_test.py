# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/cpp_api.md: they learn, save, go on, and run on ranks.

OWN_MODEL, FROM_CONFIG  paths of the programs
"""
import os
import re
import shutil
import unittest

from cli import MPIEXEC, ROOT, CliTest, metrics

OWN_MODEL = os.environ.get("OWN_MODEL", str(ROOT / "build/release/own_model"))
FROM_CONFIG = os.environ.get("FROM_CONFIG", str(ROOT / "build/release/from_config"))


class ExamplesTest(CliTest):
    def run_example(self, *arguments):
        result = self.run_command([OWN_MODEL, *arguments])
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return re.findall(r"^step (\d+)  loss (\S+)$", result.stdout, re.M)

    def test_it_learns(self):
        lines = self.run_example()
        self.assertEqual([int(step) for step, _ in lines], [50, 100, 150, 200])
        self.assertLess(float(lines[-1][1]), 0.01)

    def test_it_goes_on_from_its_newest_checkpoint_to_the_same_losses(self):
        whole = self.run_example("run")
        before = [(line["step"], line["loss"]) for line in metrics(self.folder / "run/metrics.jsonl") if "step" in line]
        for step in (150, 200):
            shutil.rmtree(self.folder / f"run/checkpoints/step-{step:08}")
        self.assertEqual(self.run_example("run"), whole[2:])
        after = [(line["step"], line["loss"]) for line in metrics(self.folder / "run/metrics.jsonl") if "step" in line]
        self.assertEqual(after, before)

    def test_two_ranks_are_one_run_of_the_same_losses(self):
        alone = self.run_example("alone")
        result = self.run_command([MPIEXEC, "-n", "2", OWN_MODEL, "two"])
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(re.findall(r"^step (\d+)  loss (\S+)$", result.stdout, re.M), alone)
        self.assertEqual(len(metrics(self.folder / "two/metrics.jsonl")), len(metrics(self.folder / "alone/metrics.jsonl")))

    def from_config(self, run, *launcher):
        text = (ROOT / "configs/quickstart.yaml").read_text()
        for longer, shorter in (("steps: 200", "steps: 50"), (": 128", ": 32")):  # width and context too
            self.assertIn(longer, text)
            text = text.replace(longer, shorter)
        (self.folder / "short.yaml").write_text(text)
        result = self.run_command([*launcher, FROM_CONFIG, "short.yaml", run])
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("<html", (self.folder / run / "timeline.html").read_text())
        self.assertIn("plan.yaml", os.listdir(self.folder / run))
        return re.search(r"^step 50  loss \S+  eval loss \S+$", result.stdout, re.M)[0]

    def test_from_config_plans_trains_evaluates_and_draws_in_process_and_under_mpirun_alike(self):
        self.assertEqual(self.from_config("one"), self.from_config("two", MPIEXEC, "-n", "2"))
        self.assertLess(len((ROOT / "examples/from_config/main.cpp").read_text().splitlines()), 60)

    def test_from_config_ends_all_ranks_with_one_message(self):
        result = self.run_command([MPIEXEC, "-n", "2", FROM_CONFIG, "nothing.yaml", "run"])
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("nothing.yaml"), 1, result.stderr)


if __name__ == "__main__":
    unittest.main()
