# SPDX-License-Identifier: Apache-2.0
"""Losses and their gradients against PyTorch in float64 (Keras' formulas where it has none), metrics against scikit-learn.

Every case is cut into micro-batches at random places; losses and metrics must not know.
"""
import json
import math
import os
import pathlib
import random
import subprocess
import tempfile
import unittest

from oracle import ROOT, save_file  # first: it says what is missing

import numpy
import sklearn.metrics as theirs
import torch
import torch.nn.functional as F

TOOL = os.environ.get("SCORE", str(ROOT / "build/release/score"))
ROWS, CLASSES = 37, 5
IGNORED = -100


def one_hot(targets, classes=CLASSES):
    return F.one_hot(targets, classes).double()


def keras_hinge(output, targets):
    return torch.clamp(1 - (2 * targets - 1) * output, min=0)


def keras_categorical_hinge(output, targets):
    return torch.clamp(1 + ((1 - targets) * output).max(-1).values - (targets * output).sum(-1), min=0)


class Scores(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        torch.manual_seed(3)
        cls.random = random.Random(5)
        cls.output = torch.randn(ROWS, CLASSES, dtype=torch.float64) * 3
        cls.classes = torch.randint(0, CLASSES, (ROWS,))
        cls.numbers = torch.randn(ROWS, CLASSES, dtype=torch.float64) * 2
        cls.answers = torch.randint(0, 2, (ROWS, CLASSES)).double()
        cls.shares = torch.softmax(torch.randn(ROWS, CLASSES, dtype=torch.float64), -1)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_tool(self, what, kind, output, targets, code=0):
        path = pathlib.Path(self.folder.name) / "data.safetensors"
        save_file({"output": output.contiguous(), "targets": targets.contiguous()}, path)
        cuts = sorted(self.random.sample(range(1, len(output)), min(3, len(output) - 1)))
        result = subprocess.run([TOOL, what, kind, path, ",".join(map(str, cuts))], capture_output=True, text=True)
        self.assertEqual(result.returncode, code, result.stderr)
        return json.loads(result.stdout) if code == 0 else result.stderr

    # ---- losses ----

    def check_loss(self, kind, output, targets, sum_of, denominator):
        output = output.clone().requires_grad_()
        expected = sum_of(output)
        expected.backward()
        ours = self.run_tool("loss", kind, output.detach(), targets)
        self.assertAlmostEqual(ours["numerator"] / expected.item(), 1, delta=1e-12)
        self.assertAlmostEqual(ours["denominator"], denominator, delta=1e-12 * denominator)
        apart = (torch.tensor(ours["gradient"], dtype=torch.float64) - output.grad.flatten()).abs().max().item()
        self.assertLess(apart, 1e-12 * max(1.0, output.grad.abs().max().item()), kind)

    def test_losses_of_numbers(self):
        elements = self.output.numel()
        for kind, theirs_of in (("mean_squared_error", F.mse_loss), ("mean_absolute_error", F.l1_loss), ("huber", F.huber_loss),
                                ("{type: huber, delta: 0.3}", lambda *a, **k: F.huber_loss(*a, delta=0.3, **k))):
            self.check_loss(kind, self.output, self.numbers, lambda output: theirs_of(output, self.numbers, reduction="sum"), elements)

    def test_losses_of_yes_and_no(self):
        elements, answers = self.output.numel(), self.answers
        bce = F.binary_cross_entropy_with_logits
        smooth = answers * 0.8 + 0.1
        for kind, sum_of in (
                ("binary_cross_entropy", lambda output: bce(output, answers, reduction="sum")),
                ("{type: binary_cross_entropy, positive_weight: 3}",
                 lambda output: bce(output, answers, pos_weight=torch.tensor(3.0, dtype=torch.float64), reduction="sum")),
                ("{type: binary_cross_entropy, label_smoothing: 0.2}", lambda output: bce(output, smooth, reduction="sum")),
                ("hinge", lambda output: keras_hinge(output, answers).sum()),
                ("squared_hinge", lambda output: keras_hinge(output, answers).square().sum())):
            self.check_loss(kind, self.output, answers, sum_of, elements)

    def test_losses_of_shares(self):
        self.check_loss("categorical_cross_entropy", self.output, self.shares,
                        lambda output: F.cross_entropy(output, self.shares, reduction="sum"), ROWS)
        self.check_loss("{type: categorical_cross_entropy, label_smoothing: 0.1}", self.output, one_hot(self.classes),
                        lambda output: F.cross_entropy(output, one_hot(self.classes), label_smoothing=0.1, reduction="sum"), ROWS)
        self.check_loss("categorical_hinge", self.output, one_hot(self.classes),
                        lambda output: keras_categorical_hinge(output, one_hot(self.classes)).sum(), ROWS)

    def test_losses_of_class_indices(self):
        some = self.classes.clone()
        some[[0, 5, 36]] = IGNORED
        zeros = self.classes.clone()
        weights = [0.5, 1, 2, 0, 3]
        w = torch.tensor(weights, dtype=torch.float64)
        counted = some[some != IGNORED]
        for kind, targets, options, denominator in (
                ("sparse_categorical_cross_entropy", some, {}, ROWS - 3),
                ("{type: sparse_categorical_cross_entropy, ignore_index: 0}", zeros, {"ignore_index": 0}, int((zeros != 0).sum())),
                ("{type: sparse_categorical_cross_entropy, label_smoothing: 0.1}", some, {"label_smoothing": 0.1}, ROWS - 3),
                (f"{{type: sparse_categorical_cross_entropy, class_weights: {weights}}}", some, {"weight": w}, w[counted].sum().item()),
                (f"{{type: sparse_categorical_cross_entropy, class_weights: {weights}, label_smoothing: 0.2}}", some,
                 {"weight": w, "label_smoothing": 0.2}, w[counted].sum().item())):
            self.check_loss(kind, self.output, targets, lambda output: F.cross_entropy(output, targets, reduction="sum", **options), denominator)
            # PyTorch's own mean is ours.
            ours = self.run_tool("loss", kind, self.output, targets)
            self.assertAlmostEqual(ours["numerator"] / ours["denominator"], F.cross_entropy(self.output, targets, **options).item(), delta=1e-12)

    def test_losses_of_pixels(self):
        output = torch.randn(6, 3, 4, 5, dtype=torch.float64)
        targets = torch.randint(0, 3, (6, 4, 5))
        targets[0, 0] = IGNORED
        for more, options in (("", {}), (", label_smoothing: 0.1", {"label_smoothing": 0.1})):
            self.check_loss(f"{{type: segmentation_cross_entropy{more}}}", output, targets,
                            lambda output: F.cross_entropy(output, targets, reduction="sum", **options), 6 * 20 - 5)

    def test_a_batch_of_ignored_targets_is_zero(self):
        ours = self.run_tool("loss", "sparse_categorical_cross_entropy", self.output, torch.full((ROWS,), IGNORED))
        self.assertEqual((ours["numerator"], ours["denominator"], set(ours["gradient"])), (0, 0, {0}))

    def test_wrong_options_are_named(self):
        for kind, said in (("{type: huber, delta: 0}", r"kind.delta: got 0, expected a number > 0"),
                           ("{type: huber, epsilon: 1}", "epsilon"),
                           ("{type: sparse_categorical_cross_entropy, class_weights: [1, 2]}", "5 classes, class_weights has 2 numbers")):
            targets = self.classes if "sparse" in kind else self.numbers
            self.assertRegex(self.run_tool("loss", kind, self.output, targets, code=1), said)

    # ---- metrics ----

    def check_metric(self, kind, output, targets, expected, name=None):
        ours = self.run_tool("metric", kind, output, targets)
        self.assertAlmostEqual(ours["value"], expected, delta=1e-12, msg=kind)
        self.assertEqual(ours["name"], name or kind)
        return ours

    def test_metrics_of_classes(self):
        truth, output = self.classes.numpy(), self.output
        # A class that is never there, and one that is nowhere.
        truth = numpy.where(truth == 3, 2, truth)
        output = output.clone()
        output[:, 4] = -50
        truth = numpy.where(truth == 4, 0, truth)
        predicted = output.argmax(-1).numpy()
        targets = torch.tensor(truth)
        self.check_metric("accuracy", output, targets, theirs.accuracy_score(truth, predicted))
        self.check_metric("{type: top_k_accuracy, k: 2}", output, targets,
                          theirs.top_k_accuracy_score(truth, output.numpy(), k=2, labels=range(CLASSES)), "top_2_accuracy")
        for name, function in (("precision", theirs.precision_score), ("recall", theirs.recall_score), ("f1", theirs.f1_score)):
            self.check_metric(name, output, targets, function(truth, predicted, average="macro", zero_division=0))
            for average in ("macro", "micro", "weighted"):
                self.check_metric(f"{{type: {name}, average: {average}}}", output, targets,
                                  function(truth, predicted, average=average, zero_division=0), f"{name}_{average}")
        self.check_metric("mean_iou", output, targets, theirs.jaccard_score(truth, predicted, average="macro", zero_division=0))
        matrix = theirs.confusion_matrix(truth, predicted, labels=range(CLASSES))
        ours = self.check_metric("confusion_matrix", output, targets, theirs.accuracy_score(truth, predicted))
        self.assertEqual(ours["picture"], matrix.flatten().tolist())

    def test_ignored_targets_do_not_count(self):
        targets = self.classes.clone()
        targets[[1, 20]] = IGNORED
        kept = targets != IGNORED
        truth, predicted = targets[kept].numpy(), self.output[kept].argmax(-1).numpy()
        self.check_metric("accuracy", self.output, targets, theirs.accuracy_score(truth, predicted))
        self.check_metric("f1", self.output, targets, theirs.f1_score(truth, predicted, average="macro"))
        self.check_metric("perplexity", self.output, targets, math.exp(F.cross_entropy(self.output, targets).item()))
        probabilities = torch.softmax(self.output[kept], -1).numpy()
        self.check_metric("roc_auc", self.output, targets, theirs.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro"))

    def test_metrics_of_yes_and_no(self):
        # Few different scores: ties.
        output = (self.output[:, :1] * 2).round() / 2 + 0.25
        targets = self.answers[:, :1]
        truth, predicted, scores = targets[:, 0].numpy(), (output[:, 0] > 0).numpy(), output[:, 0].numpy()
        for name, function in (("accuracy", theirs.accuracy_score), ("precision", theirs.precision_score), ("recall", theirs.recall_score),
                               ("f1", theirs.f1_score)):
            self.check_metric(name, output, targets, function(truth, predicted))
        self.check_metric("roc_auc", output, targets, theirs.roc_auc_score(truth, scores))
        self.check_metric("pr_auc", output, targets, theirs.average_precision_score(truth, scores))
        ours = self.check_metric("confusion_matrix", output, targets, theirs.accuracy_score(truth, predicted))
        self.assertEqual(ours["picture"], theirs.confusion_matrix(truth, predicted).flatten().tolist())

    def test_metrics_of_labels(self):
        truth, predicted = self.answers.numpy(), (self.output > 0).numpy()
        self.check_metric("accuracy", self.output, self.answers, 1 - theirs.hamming_loss(truth, predicted))
        for average in ("macro", "micro", "weighted"):
            self.check_metric(f"{{type: f1, average: {average}}}", self.output, self.answers,
                              theirs.f1_score(truth, predicted, average=average, zero_division=0), f"f1_{average}")
        self.check_metric("roc_auc", self.output, self.answers, theirs.roc_auc_score(truth, self.output.numpy()))
        self.check_metric("pr_auc", self.output, self.answers, theirs.average_precision_score(truth, self.output.numpy()))

    def test_metrics_of_numbers(self):
        targets = self.numbers + 1e4  # the mean must not cost the deviations their digits
        output = self.output + 1e4
        truth, predicted = targets.numpy(), output.numpy()
        self.check_metric("mean_absolute_error", output, targets, theirs.mean_absolute_error(truth, predicted))
        self.check_metric("root_mean_squared_error", output, targets, math.sqrt(theirs.mean_squared_error(truth, predicted)))
        self.check_metric("r2", output, targets, theirs.r2_score(truth, predicted))

    def test_what_is_not_defined_is_no_number(self):
        self.assertIsNone(self.run_tool("metric", "roc_auc", self.output[:, :1], torch.ones(ROWS, 1, dtype=torch.float64))["value"])
        self.assertIsNone(self.run_tool("metric", "accuracy", self.output, torch.full((ROWS,), IGNORED))["value"])

    def test_what_does_not_fit_is_refused(self):
        for kind, targets, said in (("accuracy", self.classes.double(), "it wants classes with an output for each, or yes and no"),
                                    ("r2", self.classes, "it wants numbers of the shape of the output"),
                                    ("{type: top_k_accuracy, k: 6}", self.classes, "k is 6, but the model puts out 5 classes"),
                                    ("{type: f1, average: mean}", self.classes, "expected one of macro, micro, weighted")):
            self.assertRegex(self.run_tool("metric", kind, self.output, targets, code=1), said)


if __name__ == "__main__":
    unittest.main()
