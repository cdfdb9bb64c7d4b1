# SPDX-License-Identifier: Apache-2.0
"""The example of docs/cpp_api.md: it learns, saves and goes on.

OWN_MODEL  path of the program
"""
import os
import re
import shutil
import unittest

from cli import ROOT, CliTest, metrics

OWN_MODEL = os.environ.get("OWN_MODEL", str(ROOT / "build/release/own_model"))


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


if __name__ == "__main__":
    unittest.main()
