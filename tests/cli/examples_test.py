# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/cpp_api.md and docs/plugins.md: they learn, save, go on, and run on ranks.

OWN_MODEL, FROM_CONFIG, EXTRAS_PLUGIN, WAVE_PLUGIN  paths of the programs and plug-ins
"""
import os
import re
import shutil
import unittest

from cli import LOCKSTEP, MPIEXEC, ROOT, CliTest, metrics

OWN_MODEL = os.environ.get("OWN_MODEL", str(ROOT / "build/release/own_model"))
EXTRAS_PLUGIN = os.environ.get("EXTRAS_PLUGIN", str(ROOT / "build/release/libextras_plugin.so"))
WAVE_PLUGIN = os.environ.get("WAVE_PLUGIN", str(ROOT / "build/release/libwave_plugin.so"))
SLOW_DISK = os.environ.get("SLOW_DISK", str(ROOT / "build/release/libslow_disk.so"))  # a library that is no plug-in
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


class PluginsTest(CliTest):
    """examples/plugin/extras.cpp: one of everything that a config names, from a shared library."""

    def lockstep(self, *arguments, launcher=(), code=0):
        result = self.run_command([*launcher, LOCKSTEP, *arguments])
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout + result.stderr

    def extras(self, verb, *arguments, **options):
        return self.lockstep(verb, str(ROOT / "examples/plugin/extras.yaml"), "--set", f"plugins=[{EXTRAS_PLUGIN}]",
                             *arguments, **options)

    def test_all_that_a_config_names_comes_from_a_plug_in_and_keeps_its_bits_over_ranks(self):
        few = ("--set", "train.steps=4", "--set", "train.eval_every=2", "--set", "checkpoint.every=4")
        self.assertIn("eval loss", self.extras("train", *few, "--set", "run_dir=one"))
        self.extras("train", *few, "--set", "run_dir=two", launcher=(MPIEXEC, "-n", "2"))
        for file in ("fingerprint.json",):
            self.assertEqual((self.folder / "one" / file).read_text(), (self.folder / "two" / file).read_text())
        self.assertIn("plugins", (self.folder / "one/config.yaml").read_text())
        self.assertIn("identical", self.extras("verify", "--steps", "2"))
        self.assertRegex(self.extras("eval", "--checkpoint", "one/checkpoints/step-00000004"), r"\d")

    def test_list_shows_what_a_plug_in_has(self):
        for what, name in (("models", "funnel"), ("layers", "snake"), ("activations", "sine"), ("losses", "log_cosh"), ("metrics", "largest_error"),
                           ("readers", "waves"), ("optimizers", "lion"), ("lr_schedules", "inverse_sqrt")):
            self.assertNotIn(f"  {name} ", self.lockstep("list", what))
            self.assertIn(f"  {name} ", self.lockstep("list", what, "--plugin", EXTRAS_PLUGIN))

    def test_a_layer_of_a_plug_in_is_one_of_a_list(self):
        self.assertIn("    width, frequency: 1\n", self.lockstep("list", "layers", "--plugin", EXTRAS_PLUGIN))
        model = ("model={type: sequential, layers: [{type: linear, in: 8, out: 16}, {type: snake, width: 16, frequency: 2}, "
                 "{type: sine}, {type: linear, in: 16, out: 1}]}")
        self.assertIn("identical", self.extras("verify", "--steps", "2", "--set", model))
        text = self.extras("train", "--set", model.replace("2}", "0}"), code=2)
        self.assertRegex(text, r"model\.layers\[1\]\.frequency: got 0, expected a number > 0\n$")

    def test_a_library_of_models_alone_is_a_plug_in_too(self):
        self.assertIn("  wave ", self.lockstep("list", "models", "--plugin", WAVE_PLUGIN))

    def test_what_is_wrong_with_a_plug_in_is_said_with_its_place(self):
        for plugins, said in ((f"[{EXTRAS_PLUGIN}, {EXTRAS_PLUGIN}]", r"the activation 'sine' is there already"),
                              ("[nothing.so]", r"cannot load nothing\.so"),
                              (f"[{SLOW_DISK}]", r"is no plug-in for Lockstep; it needs LOCKSTEP_PLUGIN")):
            text = self.lockstep("train", str(ROOT / "examples/plugin/extras.yaml"), "--set", f"plugins={plugins}", code=2)
            self.assertRegex(text, r"^lockstep: --set plugins=.*: plugins: .*" + said)
            self.assertEqual(text.count("\n"), 1, text)
        self.assertFalse((self.folder / "runs").exists())

    def test_without_the_plug_in_its_names_are_unknown(self):
        text = self.lockstep("train", str(ROOT / "examples/plugin/extras.yaml"), "--set", "plugins=[]", code=2)
        self.assertIn("there is no model family 'funnel'", text)


if __name__ == "__main__":
    unittest.main()
