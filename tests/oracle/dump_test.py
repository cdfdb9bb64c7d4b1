# SPDX-License-Identifier: Apache-2.0
"""--dump-step and predict against PyTorch, in float64, for every cut: activations and gradients of a step on the same batch; answers
from the weights of a checkpoint."""
import json
import unittest

from oracle import OracleTest, load_file, save_file  # first: it says what is missing

import torch
from cli import command  # oracle.py knows the way

CONFIG = """\
name: dump
model: {type: mlp, inputs: 5, width: 7, layers: 2, outputs: 3, activation: relu}
data: {type: csv, train: t.csv, targets: [y0, y1, y2], task: regression, sampling: {order: in_order}}
train: {steps: 2, batch: 10, micro_batches: 3, precision: fp64, loss: mean_squared_error, clip_grad_norm: 0.001}
checkpoint: {every: end}
"""


class DumpTest(OracleTest):
    def setUp(self):
        super().setUp()
        torch.manual_seed(1)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(5, 7), torch.nn.Linear(7, 7), torch.nn.Linear(7, 3)]).double()
        self.x, self.y = torch.randn(10, 5).double(), torch.randn(10, 3).float().double()  # as a table holds them
        self.x = self.x.float().double()
        self.write("dump.yaml", CONFIG)
        self.table("t.csv", "abcde", self.x, self.y)
        run = self.train("dump.yaml", "first", settings=["train.steps=1"])
        index = json.loads((run / "checkpoints/step-00000001/model.safetensors.index.json").read_text())
        modules = sorted({name.rpartition(".")[0] for name in index["weight_map"]}, key=lambda name: (not name.startswith("fc"), name))
        self.names = {name: layer for name, layer in zip(modules, self.layers)}

    def table(self, name, columns, x, y=None):
        head = [*columns, *([] if y is None else ["y0", "y1", "y2"])]
        rows = x if y is None else torch.cat([x, y], 1)
        self.write(name, "\n".join([",".join(head)] + [",".join(map(repr, row)) for row in rows.tolist()]) + "\n")

    def forward(self, x):
        """The output, and that of every layer by its name."""
        outputs = {}
        for number, (name, layer) in enumerate(self.names.items()):
            x = outputs[name] = layer(x)
            if number < 2:
                x = outputs[f"act.{number}"] = torch.relu(x)
        for tensor in outputs.values():
            tensor.retain_grad()
        return x, outputs

    def same(self, got, wanted, what):
        self.assertEqual(got.shape, wanted.shape, what)
        self.assertLess((got - wanted).abs().max().item(), 1e-12 * max(1, wanted.abs().max().item()), what)

    def test_a_step_is_that_of_pytorch(self):
        output, outputs = self.forward(self.x)
        torch.nn.functional.mse_loss(output, self.y).backward()
        weights = {f"{name}.{kind}": getattr(layer, kind) for name, layer in self.names.items() for kind in ("weight", "bias")}
        save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, self.folder / "w.safetensors")
        for stages in (1, 2, 3):
            run = self.train("dump.yaml", f"r{stages}", "--init-from", "w.safetensors", "--dump-step", 1, settings=[f"pipeline.stages={stages}"])
            files = sorted((run / "dump/step-1").glob("worker-*.safetensors"))
            self.assertEqual(len(files), stages)
            dumped = {}
            for file in files:
                dumped.update(load_file(file))
            self.assertEqual(len(dumped), 2 * len(outputs) + len(weights))
            for name, weight in weights.items():
                self.same(dumped[f"parameter_gradient/{name}"], weight.grad, name)
            for name, value in outputs.items():
                self.same(dumped[f"activation/{name}/x"], value.detach(), name)
                self.same(dumped[f"gradient/{name}/x"], value.grad, name)

    def test_a_step_that_is_not_of_the_run_is_refused(self):
        result = self.run_command(command("train", "dump.yaml", "--dump-step", 3))
        self.assertEqual(result.returncode, 2)
        self.assertIn("--dump-step: got 3, expected a step of this run, 1 to 2", result.stderr)

    def test_answers_are_those_of_pytorch(self):
        run = self.train("dump.yaml", "run", settings=["pipeline.stages=2"])
        checkpoint = run / "checkpoints/step-00000002"
        weights = {}
        for file in checkpoint.glob("model-*.safetensors"):
            weights.update(load_file(file))
        for name, layer in self.names.items():
            layer.load_state_dict({kind: weights[f"{name}.{kind}"] for kind in ("weight", "bias")})
        x = torch.randn(31, 5).float().double()
        self.table("new.csv", "abcde", x)
        self.succeeds("predict", "dump.yaml", "--checkpoint", checkpoint, "--input", "new.csv", "--output", "a.safetensors")
        self.same(load_file(self.folder / "a.safetensors")["prediction"], self.forward(x)[0].detach(), "answers")


if __name__ == "__main__":
    unittest.main()
