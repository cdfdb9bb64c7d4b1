# SPDX-License-Identifier: Apache-2.0
"""What the tests against Python share: one step of Lockstep, as its checkpoints show it.

With SGD whose momentum is so small that nothing of the step before is left, the buffer that it keeps is the gradient of
the step, to the last bit: checkpoint t has the gradients of step t, checkpoint t - 1 the weights that they belong to.
"""
import dataclasses
import json
import pathlib
import sys

try:
    import transformers  # noqa: F401
    import torch  # noqa: F401
    from safetensors.torch import load_file, save_file
except ImportError as error:
    sys.exit(f"{sys.executable} lacks {error.name}: run tools/setup_tests.sh, or configure with -DLOCKSTEP_ORACLE_PYTHON=PATH of a Python that has it")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))
from cli import CliTest, command, steps_of  # noqa: E402, F401

STEPS = 3  # the last one is looked at: by then no bias is 0 and no norm's weight 1
TINY = 1e-30
CLOSE = 1e-9  # of a tensor's norm, in float64
ROUNDING = 2**-24  # of a number in float32
ORDERS = 5  # of the samples, which decide what float32 rounds


@dataclasses.dataclass
class Step:
    folder: pathlib.Path  # of the weights, a checkpoint
    weights: dict
    after: dict  # weights and buffers behind the step
    gradients: dict
    loss: float


def tensors_in(folder, kind):
    tensors = {}
    for path in sorted(folder.glob(f"{kind}*.safetensors")):
        tensors |= load_file(path)
    return tensors


def weights_in(checkpoint):
    return {name.removeprefix("base_model.model."): value for name, value in tensors_in(checkpoint, "*model").items()}


class OracleTest(CliTest):
    runs = 0

    def fails(self, *arguments):
        result = self.run_command(command(*arguments))
        self.assertEqual(result.returncode, 2, result.stderr)
        return result.stderr

    def step_of(self, model, x, targets, loss, precision, stages=3, micro_batches=2, lr=0.3, schedule="1f1b", more=None,
                init_from="", init=None):
        """The last of STEPS steps over all samples at once. `more`: further entries of the data, by name. `init_from`: a folder; of an
        adapted model, whose weights here are those of the adapter, its base."""
        more = more or {}
        self.runs += 1
        run = self.folder / f"run-{self.runs}"
        save_file({"x": x, "targets": targets, **more}, self.folder / "data.safetensors")
        config = {
            "model": model, "data": {"type": "safetensors", "train": "data.safetensors", "more": list(more)},
            "train": {"steps": STEPS, "batch": len(x), "micro_batches": micro_batches, "loss": loss, "precision": precision,
                      "init_from": init_from, "init": init or {}, "optimizer": {"type": "sgd", "lr": lr, "momentum": TINY}},
            "pipeline": {"stages": stages, "schedule": schedule}, "checkpoint": {"every": "1", "keep": 2}, "run_dir": run.name}
        self.write("config.yaml", json.dumps(config))
        self.succeeds("train", "config.yaml")
        before, after = (run / "checkpoints" / f"step-{step:08d}" for step in (STEPS - 1, STEPS))
        buffers = tensors_in(after, "optimizer")
        self.assertTrue(buffers and all(name.endswith(".momentum_buffer") for name in buffers), buffers.keys())
        gradients = {name.removesuffix(".momentum_buffer"): value for name, value in buffers.items()}
        return Step(before, weights_in(before), weights_in(after), gradients,
                    steps_of(run / "metrics.jsonl")[-1]["loss"])


def loss_and_gradients(loss, parameters):
    names = list(parameters)
    return loss.item(), dict(zip(names, torch.autograd.grad(loss, [parameters[name] for name in names])))


def orders(samples):
    """Of samples; in which one a step has read them is not known here."""
    return [torch.arange(samples), *(torch.randperm(samples) for _ in range(ORDERS - 1))]


def classes(*shape, count, ignored=0.0):
    targets = torch.randint(count, shape)
    return torch.where(torch.rand(shape) < ignored, -100, targets)


class GradientTest(OracleTest):
    """The same weights and batch on both sides: the loss and every gradient. In float64 they agree; in float32 we are no further
    from that than PyTorch is."""

    largest = {"float64, over the norm": 0.0, "float32, over PyTorch's": 0.0}

    @classmethod
    def tearDownClass(cls):
        print("largest distances:", "; ".join(f"{what} {value:.2g}" for what, value in cls.largest.items()))

    def note(self, what, distances):
        self.largest[what] = max(self.largest[what], *distances)

    def setUp(self):
        super().setUp()
        torch.manual_seed(7)
        torch.set_num_threads(1)  # as ours: threads are part of the order of sums

    def distances(self, gradients, expected, zero):
        self.assertEqual(gradients.keys(), expected.keys())
        largest = max(value.norm().item() for value in expected.values())
        for name in zero:
            self.assertLess(max(gradients[name].norm().item(), expected[name].norm().item()), 1e-6 * largest, name)
        return {name: (gradients[name].double() - expected[name]).norm().item() / expected[name].norm().item()
                for name in expected if name not in zero}

    def check(self, model, x, targets, loss, python, zero=(), factor=2, **how):
        """`python(step, dtype)`: PyTorch's model with the weights of the step, (x, targets) -> loss, gradients. `zero`: parameters
        whose gradient is 0 but for rounding. `factor`: how much further than PyTorch's float32 ours may be from float64."""
        step = self.step_of(model, x, targets, loss, "fp64", **how)
        expected_loss, expected = python(step, torch.float64)(x, targets)
        self.assertAlmostEqual(step.loss, expected_loss, delta=CLOSE * abs(expected_loss))
        distances = self.distances(step.gradients, expected, zero)
        for name, distance in distances.items():
            self.assertLess(distance, CLOSE, name)
        self.note("float64, over the norm", distances.values())

        step = self.step_of(model, x, targets, loss, "fp32", **how)
        exact_loss, exact = python(step, torch.float64)(x, targets)
        ours, theirs = {"loss": abs(step.loss / exact_loss - 1), **self.distances(step.gradients, exact, zero)}, {}
        theirs_of = python(step, torch.float32)
        for order in orders(len(x)):
            loss, gradients = theirs_of(x[order], targets[order])
            for name, distance in {"loss": abs(loss / exact_loss - 1), **self.distances(gradients, exact, zero)}.items():
                theirs[name] = max(theirs.get(name, 0), distance)
        for name, distance in ours.items():
            self.assertLessEqual(distance, factor * theirs[name] + ROUNDING, name)
        self.note("float32, over PyTorch's", [distance / theirs[name] for name, distance in ours.items() if theirs[name] > 0])
