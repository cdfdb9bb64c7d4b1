# SPDX-License-Identifier: Apache-2.0
"""`lockstep profile`: a file that reads well, from the cache the second time, on several ranks; and mistakes."""
import json
import os
import re
import unittest

from cli import MLP, CliTest, command
from errors_test import Refusals

GPT = """\
name: deep
model: {type: gpt, layers: 12, heads: 2, width: 16, context: 8, vocab: 32}
data: {type: synthetic, task: tokens, vocab: 32, samples: 64}
train: {steps: 4, batch: 8, micro_batches: 2, loss: sparse_categorical_cross_entropy, clip_grad_norm: 1.0}
pipeline: {stages: 4, schedule: 1f1b}
"""
COSTS = """\
format: 2
costs:
  h.*: {forward_ms: 10, activation_mib: 20}
links: {other_host: {latency_us: 2, gigabytes_per_s: 25}}
workers: [{count: 8, host: 0}, {count: 8, host: 1}]
"""


class ProfileTest(CliTest):
    def setUp(self):
        super().setUp()
        os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")
        self.addCleanup(os.environ.pop, "XDG_CACHE_HOME")
        self.write("small.yaml", MLP)
        self.write("deep.yaml", GPT)

    def profile(self, config, *arguments, ranks=0, output="profile.json"):
        result = self.succeeds("profile", config, "-o", output, "--repeats", 3, *arguments, ranks=ranks)
        return result, json.loads((self.folder / output).read_text())

    def test_every_layer_is_in_the_file_and_the_table(self):
        result, profile = self.profile("small.yaml")
        self.assertEqual([layer["name"] for layer in profile["layers"]], ["fc.0", "act.0", "fc.1", "out"])
        for layer in profile["layers"]:
            self.assertEqual([sample["rows"] for sample in layer["samples"]], [2, 4])
            self.assertGreater(layer["samples"][1]["forward_us"], 0)
            self.assertGreater(layer["samples"][1]["activation_bytes"], 0)
        self.assertEqual(profile["environment"]["threads"], "1")
        self.assertNotIn("assumed", profile["links"]["same_rank"])
        self.assertTrue(profile["links"]["same_host"]["assumed"])
        self.assertEqual(len(profile["workers"]), 1)
        for name in ("fc.0", "act.0", "fc.1", "act.1", "out", "all layers"):
            self.assertRegex(result.stdout, rf"(?m)^ +\d+ .*  {re.escape(name)}\b")
        self.assertIn("link same_host: 5.0 us, 6.00 GB/s (assumed, not measured)", result.stdout)

    def test_equal_layers_are_measured_once_and_known_the_next_time(self):
        first, profile = self.profile("deep.yaml")
        self.assertEqual([layer["name"] for layer in profile["layers"]], ["embed", "h.0", "ln_f", "head"])
        self.assertRegex(first.stdout, r"(?m)^ +12 .*  h\.0 \.\. h\.11\b")
        self.assertEqual(len(re.findall(r"(?m)^\d+/12  ", first.stderr)), 12, first.stderr)
        self.assertNotIn("cached", first.stderr)
        again, same = self.profile("deep.yaml", output="again.json")
        self.assertEqual(again.stderr.count("cached"), 12)
        self.assertEqual(same["layers"], profile["layers"])
        fresh, _ = self.profile("deep.yaml", "--no-cache")
        self.assertNotIn("cached", fresh.stderr)

    def test_ranks_share_the_layers_and_measure_the_link_between_them(self):
        _, profile = self.profile("deep.yaml", ranks=2)
        self.assertEqual(len(profile["layers"]), 4)
        self.assertNotIn("assumed", profile["links"]["same_host"])
        self.assertGreater(profile["links"]["same_host"]["gigabytes_per_s"], 0)
        self.assertTrue(profile["links"]["other_host"]["assumed"])
        self.assertEqual([worker["rank"] for worker in profile["workers"]], [0, 1])

    def test_tables_are_read_by_what_the_data_has(self):
        # Each field has a range of its own: no value that is made up fits them all.
        self.write("clicks.yaml", "model: {type: wide_deep, fields: [500, 7], embedding: 4, hidden: [8], sparse: true}\n"
                                  "data: {type: synthetic, task: clicks, fields: [500, 7], samples: 64}\n"
                                  "train: {task: binary, steps: 2, batch: 16, micro_batches: 2}\n")
        _, profile = self.profile("clicks.yaml")
        self.assertEqual(profile["layers"][0]["name"], "embed")

    def test_costs_by_hand_take_the_place_of_measured_ones(self):
        self.write("costs.yaml", COSTS)
        result, profile = self.profile("deep.yaml", "--costs", "costs.yaml", "--rows", "1,4")
        self.assertEqual(profile["costs"], {"h.*": {"forward_ms": 10.0, "activation_mib": 20.0}})
        self.assertEqual(len(profile["workers"]), 16)
        self.assertEqual(profile["links"]["other_host"], {"latency_us": 2.0, "gigabytes_per_s": 25.0})
        self.assertEqual([sample["rows"] for sample in profile["layers"][0]["samples"]], [1, 4])
        self.assertRegex(result.stdout, r"(?m)^ +12 +10\.000 .* 20\.00  h\.0 \.\. h\.11\b")


class RefusalsTest(Refusals):
    def test_mistakes_are_found_before_anything_is_measured(self):
        self.write("bad.yaml", "format: 2\ncosts: {h.*: {forward: 1}}\n")
        self.write("measured.yaml", "format: 2\nlayers: [{name: a, signature: b, samples: [{rows: 0}]}]\n")
        profile = ["profile", "small.yaml", "-o", "p.json"]
        self.refuses_all([(command(*arguments), pattern) for arguments, pattern in (
            (["profile", "small.yaml"], r"--output is required; see lockstep profile --help"),
            ([*profile, "--rows", "4,2"], r"--rows: got 4,2, expected one or two ascending numbers .*, such as 4,8"),
            ([*profile, "--rows", "0"], r"--rows: got 0, expected one or two .*"),
            ([*profile, "--repeats", "2"], r"--repeats: .*; see lockstep profile --help"),
            ([*profile, "--costs", "bad.yaml"], r"bad\.yaml:2:15: costs\.h\.\*\.forward: got an unknown key, .*; did you mean "
                                                r"'forward_ms'\?"),
            ([*profile, "--costs", "measured.yaml"], r"measured\.yaml:2:51: layers\[0\]\.samples\[0\]\.rows: got 0, .*"),
            ([*profile, "--costs", "none.yaml"], r"none\.yaml: got no file .*"),
            ([*profile, "--set", "model.widht=3"], r".*model\.widht: .*; did you mean 'width'\?"),
            (["profile", "small.yaml", "-o", "none/p.json"], r"-o: .*none/p\.json.*"))])

    def test_ranks_say_it_once(self):
        self.refuses(command("profile", "small.yaml", "-o", "p.json", "--rows", "4,2", ranks=2), r"--rows: got 4,2, .*")


if __name__ == "__main__":
    unittest.main()
