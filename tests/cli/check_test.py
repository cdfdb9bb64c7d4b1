# SPDX-License-Identifier: Apache-2.0
"""`lockstep check`: each planted fault is named, with what to change; a sound config passes; nothing is written."""
import json
import random
import struct
import unittest

from cli import CliTest, command, overrides

CONFIG = """\
name: small
model: {type: mlp, inputs: 3, width: 16, layers: 1, outputs: 2, activation: relu}
data: {type: csv, train: t.csv, eval: e.csv, targets: [kind], task: classification}
train: {task: multiclass, steps: 500, batch: 16, micro_batches: 2, optimizer: {type: adam, lr: 0.01}}
pipeline: {stages: 2, schedule: 1f1b}
"""


class CheckTest(CliTest):
    def setUp(self):
        super().setUp()
        self.random = random.Random(1)
        self.write("c.yaml", CONFIG)
        self.table("t.csv", 80)
        self.table("e.csv", 20)

    def table(self, name, rows, scale=1.0, kind=None, repeat=1):
        lines = ["a,b,c,kind"]
        for _ in range(rows // repeat):
            x = [self.random.gauss(0, 1) for _ in range(3)]
            lines += [",".join(f"{scale * value:.5f}" for value in x) + f",{int(x[0] > x[1]) if kind is None else kind}"] * repeat
        self.write(name, "\n".join(lines) + "\n")

    def check(self, *settings, code=1):
        line = command("check", "c.yaml", *overrides(settings))
        result = self.run_command(line)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout

    def test_a_sound_config_passes_and_nothing_is_written(self):
        before = sorted(path.name for path in self.folder.iterdir())
        said = self.check(code=0)
        self.assertEqual([line.split("\t")[0] for line in said.splitlines()], ["ok"] * 6)
        for topic in ("data", "memory", "start", "layers", "learning", "rate"):
            self.assertIn(f"ok\t{topic}: ", said)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), before)

    def test_a_learning_rate_that_explodes(self):
        said = self.check("train.optimizer={type: sgd, lr: 30000}")
        self.assertRegex(said, r"wrong\trate: learning rate 3e\+04, \d+ steps: .*: it explodes\n\t-> train.optimizer.lr: \S+ does not")

    def test_one_batch_that_cannot_be_learnt(self):
        said = self.check("train.optimizer.lr=1.0e-9")
        self.assertRegex(said, r"wrong\tlearning: one batch, \d+ times: its loss goes from \S+ to \S+\n\t-> a batch that cannot be learnt")

    def test_one_class_only_and_hardly_another(self):
        self.table("t.csv", 80, kind=1)
        self.assertIn("wrong\tdata: all of the first 80 samples are of one class, 1\n\t-> look at the targets", self.check())
        with open(self.folder / "t.csv", "a") as file:
            file.write("1,2,3,0\n")
        self.assertIn("doubt\tdata: 98.8 % of the samples are of the class 1\n\t-> who always says so", self.check(code=0))

    def test_data_that_repeats(self):
        self.table("t.csv", 80, repeat=4)
        self.assertIn("wrong\tdata: 60 of the first 80 samples have the inputs of an earlier one, such as 1 and 0", self.check())

    def test_an_evaluation_set_of_training_samples(self):
        (self.folder / "e.csv").write_text((self.folder / "t.csv").read_text())
        self.assertIn("doubt\tdata: 80 of 80 samples of the evaluation set are in the training set too", self.check(code=0))

    def test_inputs_that_are_not_scaled(self):
        self.table("t.csv", 80, scale=3000)
        said = self.check(code=0)
        self.assertRegex(said, r"doubt\tdata: inputs go from -\S+ to \S+\n\t-> scale them")
        self.assertRegex(said, r"doubt\tstart: the loss of the first batch is \S+, of outputs of 0 it would be 0.693")

    def test_dead_layers_and_parameters_without_a_gradient(self):
        blob = struct.pack("<16f", *([-1e4] * 16))
        header = json.dumps({"fc.0.bias": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}).encode()
        header += b" " * (-len(header) % 8)
        (self.folder / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + blob)
        said = self.check("train.init_from=w.safetensors", "train.init={missing: allow}")
        self.assertIn("wrong\tlayers: no gradient reaches fc.0.bias, fc.0.weight", said)
        self.assertIn("wrong\tlayers: outputs that are 0 for every sample of the batch: act.0 (100.0 %)", said)
        self.assertIn("wrong\tlayers: outputs that are the same for every sample: out", said)

    def test_memory_that_will_not_do(self):
        said = self.check("workers.memory_limit=600", "model.width=64")
        self.assertIn("wrong\tmemory: ", said)
        self.assertIn("memory_limit", said)

    def test_a_config_that_cannot_be_read(self):
        self.assertIn("steps", self.run_command(command("check", "c.yaml", "--set", "train.stps=3")).stderr)
        result = self.run_command(command("check", "c.yaml", ranks=2))
        self.assertIn("check: got 2 ranks, expected one process", result.stderr)
        self.assertEqual(result.returncode, 2)


if __name__ == "__main__":
    unittest.main()
