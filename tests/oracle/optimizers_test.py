# SPDX-License-Identifier: Apache-2.0
"""Optimizers and the average of weights against torch.optim: ten steps with the same gradients, values and state."""
import os
import pathlib
import subprocess
import tempfile
import unittest

from oracle import ROOT, load_file, save_file  # first: it says what is missing

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

TOOL = os.environ.get("OPTIMIZER_STEPS", str(ROOT / "build/release/optimizer_steps"))
STEPS = 10
# A scalar, a vector, odd sizes that leave a tail behind every vector register, a convolution's kernel, rows of zeros.
SIZES = {"scalar": (), "norm": (33,), "matrix": (7, 5), "wide": (64, 48), "kernel": (3, 4, 2, 2)}


def inputs():
    torch.manual_seed(7)
    tensors = {name: torch.randn(sizes) for name, sizes in SIZES.items()}
    for step in range(1, STEPS + 1):
        for name, sizes in SIZES.items():
            gradient = torch.randn(sizes) * 0.3 ** (step % 4)
            if gradient.dim() == 2:
                gradient[0] = 0  # as a token that does not occur
            tensors[f"{name}.gradient.{step}"] = gradient
    return tensors


def distance_in_ulps(ours, theirs):
    """The largest difference, in units of the last place of the largest magnitude in the tensor."""
    scale = theirs.abs().max().clamp(min=1e-30)
    return ((ours - theirs).abs().max() / (scale * torch.finfo(torch.float32).eps)).item()


class RowwiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one sum a row, of the mean of its squares."""

    def __init__(self, parameters, lr=0.01, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
        super().__init__(parameters, {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps})
        self.steps = 0
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"] = torch.full(p.shape[:1] if p.dim() > 1 else p.shape, initial_accumulator_value)

    @torch.no_grad()
    def step(self):
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                gradient = p.grad + group["weight_decay"] * p
                squares, total = gradient**2, self.state[p]["sum"]
                total += squares.flatten(1).mean(1) if p.dim() > 1 else squares
                root = total.sqrt().view(-1, *[1] * (p.dim() - 1)) if p.dim() > 1 else total.sqrt()
                p -= group["lr"] / (1 + (self.steps - 1) * group["lr_decay"]) * gradient / (root + group["eps"])


class Optimizers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.folder.name)
        cls.inputs = inputs()
        save_file(cls.inputs, cls.path / "in.safetensors")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def ours(self, optimizer, more="", gemm="default"):
        """`gemm: auto` lets MKL take another path on AMD's CPUs, and LibTorch's square root is MKL's."""
        (self.path / "config.yaml").write_text(
            f"model: {{type: none}}\ndata: {{type: none}}\n"
            f"train: {{steps: {STEPS}, batch: 1, loss: none, optimizer: {{{optimizer}}}{more}}}\n")
        subprocess.run([TOOL, self.path / "config.yaml", self.path / "in.safetensors", self.path / "out.safetensors"],
                       check=True, env={**os.environ, "LOCKSTEP_GEMM": gemm})
        return load_file(self.path / "out.safetensors")

    def theirs(self, make, averaged=None):
        module = torch.nn.ParameterDict({name: torch.nn.Parameter(self.inputs[name].clone()) for name in SIZES})
        optimizer = make(module)
        average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(averaged)) if averaged else None
        results = {}
        for step in range(1, STEPS + 1):
            for name in SIZES:
                module[name].grad = self.inputs[f"{name}.gradient.{step}"].clone()
            optimizer.step()
            if average:
                average.update_parameters(module)
            for name in SIZES:
                results[f"{name}.{step}"] = module[name].detach().clone()
        for name in SIZES:
            for key, value in optimizer.state[module[name]].items():
                if key != "step" and value is not None:
                    results[f"{name}.{key}"] = value
            if average:
                results[f"{name}.ema"] = average.module[name].detach()
        return results

    def compare(self, ours, theirs, ulps):
        self.assertEqual(sorted(ours), sorted(theirs))
        for name, tensor in theirs.items():
            self.assertEqual(ours[name].shape, tensor.shape, name)
            if ulps == 0:
                self.assertTrue(torch.equal(ours[name], tensor), f"{name}: {distance_in_ulps(ours[name], tensor)} ulps")
            else:
                self.assertLessEqual(distance_in_ulps(ours[name], tensor), ulps, name)

    def check(self, keys, make, ulps=0, **settings):
        with self.subTest(keys, **{name: str(value) for name, value in settings.items()}):
            self.compare(self.ours(keys), self.theirs(lambda module: make(module.parameters(), **settings)), ulps)

    def check_fused(self, keys, make, **settings):
        """The bits of the fused kernels, and the numbers of the loops that torch.optim runs by itself: off by 1.8 ulps."""
        self.check(keys, make, fused=True, **settings)
        self.check(keys, make, ulps=3, foreach=False, **settings)

    def test_sgd(self):
        sgd = torch.optim.SGD
        self.check_fused("type: sgd", sgd)
        self.check_fused("type: sgd, lr: 0.1, weight_decay: 0.01", sgd, lr=0.1, weight_decay=0.01)
        self.check_fused("type: sgd, lr: 0.1, momentum: 0.9", sgd, lr=0.1, momentum=0.9)
        self.check_fused("type: sgd, lr: 0.1, momentum: 0.9, dampening: 0.5", sgd, lr=0.1, momentum=0.9, dampening=0.5)
        self.check_fused("type: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01", sgd, lr=0.1,
                         momentum=0.9, nesterov=True, weight_decay=0.01)

    def test_adam(self):
        for name, make in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
            self.check_fused(f"type: {name}", make)
            self.check_fused(f"type: {name}, lr: 0.05, betas: [0.8, 0.95], eps: 1.0e-6, weight_decay: 0.1", make,
                             lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)

    def test_adagrad(self):
        self.check_fused("type: adagrad", torch.optim.Adagrad)
        self.check_fused("type: adagrad, lr: 0.1, lr_decay: 0.05, initial_accumulator_value: 0.2, eps: 1.0e-8, "
                         "weight_decay: 0.01", torch.optim.Adagrad, lr=0.1, lr_decay=0.05,
                         initial_accumulator_value=0.2, eps=1e-8, weight_decay=0.01)

    def test_rowwise_adagrad(self):
        self.check("type: rowwise_adagrad", RowwiseAdagrad, ulps=3)
        self.check("type: rowwise_adagrad, lr: 0.1, lr_decay: 0.05, initial_accumulator_value: 0.2, eps: 1.0e-8, weight_decay: 0.01",
                   RowwiseAdagrad, ulps=3, lr=0.1, lr_decay=0.05, initial_accumulator_value=0.2, eps=1e-8, weight_decay=0.01)

    def test_rows_of_a_sparse_table(self):
        """Of what PyTorch does to sparse gradients; its sparse Adam adds eps in another place, so it is next to nothing here."""
        table, gradients = torch.randn(40, 8), []
        given = {"table": table}
        for step in range(1, STEPS + 1):
            rows = torch.randperm(40)[:6].sort().values
            gradients.append((rows, torch.randn(6, 8)))
            given |= {f"table.rows.{step}": rows, f"table.gradient.{step}": gradients[-1][1]}
        save_file(given, self.path / "in.safetensors")
        try:
            for keys, make in (("type: adam, eps: 1.0e-30", lambda p: torch.optim.SparseAdam([p], eps=1e-30)),
                               ("type: adagrad", lambda p: torch.optim.Adagrad([p])),
                               ("type: sgd, lr: 0.1", lambda p: torch.optim.SGD([p], lr=0.1))):
                with self.subTest(keys):
                    parameter = torch.nn.Parameter(table.clone())
                    optimizer, results = make(parameter), {}
                    for step, (rows, gradient) in enumerate(gradients, 1):
                        parameter.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), gradient, (40, 8))
                        optimizer.step()
                        results[f"table.{step}"] = parameter.detach().clone()
                    results |= {f"table.{key}": value for key, value in optimizer.state[parameter].items()
                                if key != "step" and value is not None}
                    self.compare(self.ours(keys), results, ulps=3)
        finally:
            save_file(self.inputs, self.path / "in.safetensors")

    def test_rmsprop(self):
        rmsprop = torch.optim.RMSprop
        self.check("type: rmsprop", rmsprop)
        self.check("type: rmsprop, alpha: 0.9, eps: 1.0e-6, weight_decay: 0.01", rmsprop, alpha=0.9, eps=1e-6,
                   weight_decay=0.01)
        self.check("type: rmsprop, momentum: 0.9", rmsprop, momentum=0.9)
        self.check("type: rmsprop, centered: true", rmsprop, centered=True)
        self.check("type: rmsprop, lr: 0.001, momentum: 0.9, centered: true, weight_decay: 0.1", rmsprop, lr=0.001,
                   momentum=0.9, centered=True, weight_decay=0.1)

    def test_mkl_on_its_vector_path_is_as_near(self):
        ours = self.ours("type: rmsprop, centered: true", gemm="auto")
        self.compare(ours, self.theirs(lambda module: torch.optim.RMSprop(module.parameters(), centered=True)), 3)

    def test_adafactor(self):
        adafactor = torch.optim.Adafactor
        self.check("type: adafactor", adafactor)
        self.check("type: adafactor, lr: 0.5, beta2_decay: -0.5, eps: [1.0e-4, 0.01], d: 1.5, weight_decay: 0.1",
                   adafactor, lr=0.5, beta2_decay=-0.5, eps=(1e-4, 0.01), d=1.5, weight_decay=0.1)

    def test_groups(self):
        """lr_scale, weight_decay of a group, and none for vectors, as parameter groups of torch.optim."""
        keys = ("type: rmsprop, lr: 0.01, weight_decay: 0.1, decay_norms_and_biases: false, "
                "groups: [{match: [wide], lr_scale: 0.5, weight_decay: 0.2}]")
        make = lambda module: torch.optim.RMSprop([  # noqa: E731
            {"params": [module["wide"]], "lr": 0.005, "weight_decay": 0.2},
            {"params": [module["scalar"], module["norm"]], "weight_decay": 0.0},
            {"params": [module["matrix"], module["kernel"]]}], lr=0.01, weight_decay=0.1)
        self.compare(self.ours(keys), self.theirs(make), 0)

    def test_ema(self):
        for decay in (0.999, 0.5):
            for keys, make in (("type: adamw", torch.optim.AdamW), ("type: adafactor", torch.optim.Adafactor)):
                settings = {"fused": True} if make is torch.optim.AdamW else {}
                with self.subTest(keys, decay=decay):
                    theirs = self.theirs(lambda module: make(module.parameters(), **settings), averaged=decay)
                    self.compare(self.ours(keys, f", ema: {{decay: {decay}}}"), theirs, 0)

    def test_a_difference_is_found(self):
        """The comparison can fail: another rate, and one bit."""
        ours = self.ours("type: rmsprop")
        with self.assertRaises(AssertionError):
            self.compare(ours, self.theirs(lambda module: torch.optim.RMSprop(module.parameters(), lr=0.0101)), 1000)
        ours["matrix.10"][3, 2] *= 1 + 2 ** -23
        with self.assertRaises(AssertionError):
            self.compare(ours, self.theirs(lambda module: torch.optim.RMSprop(module.parameters())), 0)


if __name__ == "__main__":
    unittest.main()
