# SPDX-License-Identifier: Apache-2.0
"""GPT against Hugging Face's GPT-2; MLP, CNN and U-Net against PyTorch, written here from their pictures: the same weights
and batch, the loss and every gradient. In float64 they agree; in float32 we are no further from that than PyTorch is."""
import unittest

from oracle import GradientTest, classes, loss_and_gradients  # first: it says what is missing

import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel
from transformers.utils.logging import disable_progress_bar

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "tanh": torch.tanh,
               "sigmoid": torch.sigmoid, "silu": F.silu}


class Network:
    """Layers of given weights by name. `norm`: batch, group:N or none."""

    def __init__(self, weights, norm):
        self.weights, self.norm_kind = weights, norm
        self.running = {}

    def convolution(self, x, name, stride=1):
        weight = self.weights[name + ".weight"]
        return F.conv2d(x, weight, self.weights.get(name + ".bias"), stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, x, name):
        if self.norm_kind == "none":
            return x
        affine = self.weights[name + ".weight"], self.weights[name + ".bias"]
        if self.norm_kind != "batch":
            return F.group_norm(x, int(self.norm_kind.removeprefix("group:")), *affine)
        running = [self.weights[f"{name}.running_{what}"].detach().clone() for what in ("mean", "var")]
        self.running |= {name + ".running_mean": running[0], name + ".running_var": running[1]}
        return F.batch_norm(x, *running, *affine, training=True, momentum=0.1)

    def unit(self, x, prefix, suffix, stride=1, act=True):
        x = self.norm(self.convolution(x, f"{prefix}conv{suffix}", stride), f"{prefix}norm{suffix}")
        return F.relu(x) if act else x


class Cnn(Network):
    """models/cnn.cpp: a stem, levels of residual blocks, the mean over all positions, a linear layer."""

    depth, blocks = 2, 2

    def __call__(self, x):
        x = self.unit(x, "stem.", "")
        for level in range(self.depth):
            for block in range(self.blocks):
                stride = 2 if level > 0 and block == 0 else 1
                prefix = f"{level}.{block}."
                h = self.unit(self.unit(x, prefix, "1", stride), prefix, "2", act=False)
                if prefix + "down.weight" in self.weights:
                    x = self.norm(self.convolution(x, prefix + "down", stride), prefix + "down_norm")
                x = F.relu(h + x)
        return F.linear(x.mean((2, 3)), self.weights["out.weight"], self.weights["out.bias"])


class Unet(Network):
    """models/unet.cpp: what is put out, deepest head first, the model's own last."""

    depth = 2

    def two(self, x, prefix):
        return self.unit(self.unit(x, prefix, "1"), prefix, "2")

    def up(self, x, level):
        name = f"up.{level}"
        if name + ".conv.weight" in self.weights:
            return self.convolution(F.interpolate(x, scale_factor=2, mode="nearest"), name + ".conv")
        return F.conv_transpose2d(x, self.weights[name + ".weight"], self.weights[name + ".bias"], stride=2)

    def __call__(self, x):
        skips, outputs = [], []
        for level in range(self.depth):
            skips.append(self.two(x, f"enc.{level}."))
            x = F.max_pool2d(skips[-1], 2)
        x = self.two(x, "bottom.")
        for level in reversed(range(self.depth)):
            x = self.two(torch.cat([self.up(x, level), skips[level]], 1), f"dec.{level}.")
            if f"aux.{level}.weight" in self.weights:
                outputs.append(F.interpolate(self.convolution(x, f"aux.{level}"), scale_factor=2**level, mode="nearest"))
        return [*outputs, self.convolution(x, "out")]


class ModelsTest(GradientTest):
    def check_network(self, kind, norm, model, x, targets, loss, weigh=lambda losses: losses[-1], **how):
        def python(step, dtype):
            weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in step.weights.items()}
            parameters = {name: weights[name].requires_grad_(True) for name in step.gradients}
            network = kind(weights, norm)

            def run(x, targets):
                outputs = network(x.to(dtype))
                losses = [F.cross_entropy(output, targets) for output in (outputs if isinstance(outputs, list) else [outputs])]
                for name, running in network.running.items():
                    torch.testing.assert_close(step.after[name].to(dtype), running, rtol=1e-5, atol=1e-6, msg=name)
                return loss_and_gradients(weigh(losses), parameters)

            return run

        self.check({**model, "norm": norm.partition(":")[0], **({"groups": 2} if ":" in norm else {})}, x, targets, loss, python, **how)

    def check_mlp(self, activation, loss, targets, python_loss):
        def python(step, dtype):
            parameters = {name: step.weights[name].to(dtype).requires_grad_(True) for name in step.gradients}

            def run(x, targets):
                x = x.to(dtype)
                for i in range(3):
                    x = ACTIVATIONS[activation](F.linear(x, parameters[f"fc.{i}.weight"], parameters[f"fc.{i}.bias"]))
                x = F.linear(x, parameters["out.weight"], parameters["out.bias"])
                return loss_and_gradients(python_loss(x, targets), parameters)

            return run

        model = {"type": "mlp", "inputs": 12, "width": 24, "layers": 3, "outputs": 7, "activation": activation}
        self.check(model, torch.randn(20, 12), targets, loss, python)

    def test_mlp_with_every_activation(self):
        for activation in ACTIVATIONS:
            with self.subTest(activation=activation):
                self.check_mlp(activation, "mean_squared_error", torch.randn(20, 7), lambda x, y: F.mse_loss(x, y.to(x.dtype)))
        listed = self.succeeds("list", "activations").stdout.splitlines()[1:]
        self.assertEqual([line.split()[0] for line in listed], list(ACTIVATIONS))

    def test_mlp_with_every_loss(self):
        losses = {"mean_squared_error": (torch.randn(20, 7), lambda x, y: F.mse_loss(x, y.to(x.dtype))),
                  "sparse_categorical_cross_entropy": (classes(20, count=7, ignored=0.3), F.cross_entropy),
                  "binary_cross_entropy": (torch.rand(20, 7), lambda x, y: F.binary_cross_entropy_with_logits(x, y.to(x.dtype)))}
        for loss, (targets, python_loss) in losses.items():
            with self.subTest(loss=loss):
                self.check_mlp("tanh", loss, targets, python_loss)

    def test_a_difference_is_seen(self):
        with self.assertRaisesRegex(AssertionError, "fc.0"):
            self.check_mlp("gelu", "mean_squared_error", torch.randn(20, 7),
                           lambda x, y: F.mse_loss(x, y.to(x.dtype)) + 1e-8 * (x - x.detach()).sum())

    def check_gpt(self, **keys):
        x, targets = torch.randint(61, (6, 24)), classes(6, 24, count=61, ignored=0.2)
        model = {"type": "gpt", "layers": 3, "heads": 4, "width": 32, "context": 24, "vocab": 61, **keys}

        def python(step, dtype):
            attention = "eager" if dtype == torch.float64 else "sdpa"
            gpt = GPT2LMHeadModel.from_pretrained(step.folder, attn_implementation=attention).to(dtype)

            def run(x, targets):
                loss = F.cross_entropy(gpt(x).logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
                return loss_and_gradients(loss, dict(gpt.named_parameters()))

            return run

        self.check(model, x, targets, "sparse_categorical_cross_entropy", python)

    def test_gpt_is_gpt2(self):
        self.check_gpt()

    def test_gpt_with_a_head_of_its_own_is_gpt2(self):
        self.check_gpt(tie_embeddings=False)

    def test_cnn(self):
        # Batch norm knows the micro-batches, whose samples are not known here.
        model = {"type": "cnn", "inputs": 3, "classes": 5, "channels": 16, "depth": 2, "blocks": 2}
        x, targets = torch.randn(8, 3, 12, 12), classes(8, count=5)
        for norm, micro_batches in (("batch", 1), ("group:2", 3), ("none", 3)):
            with self.subTest(norm=norm):
                self.check_network(Cnn, norm, model, x, targets, "sparse_categorical_cross_entropy", micro_batches=micro_batches, lr=0.05)

    def test_unet(self):
        model = {"type": "unet", "inputs": 2, "classes": 4, "channels": 16, "depth": 2}
        x, targets = torch.randn(5, 2, 12, 12), classes(5, 12, 12, count=4, ignored=0.2)
        for up, norm, micro_batches in (("transposed", "batch", 1), ("nearest", "group:2", 2)):
            with self.subTest(up=up):
                self.check_network(Unet, norm, {**model, "up": up}, x, targets, "segmentation_cross_entropy", micro_batches=micro_batches)

    def test_unet_with_deep_supervision(self):
        model = {"type": "unet", "inputs": 2, "classes": 4, "channels": 16, "depth": 2, "deep_supervision": True, "auxiliary_weight": 0.3}
        x, targets = torch.randn(5, 2, 12, 12), classes(5, 12, 12, count=4)
        self.check_network(Unet, "batch", model, x, targets, "segmentation_cross_entropy", micro_batches=1,
                           weigh=lambda losses: losses[-1] + 0.3 * sum(losses[:-1]))


if __name__ == "__main__":
    disable_progress_bar()
    unittest.main()
