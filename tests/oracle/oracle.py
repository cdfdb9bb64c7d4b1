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
from cli import CliTest, steps_of  # noqa: E402

STEPS = 3  # the last one is looked at: by then no bias is 0 and no norm's weight 1
TINY = 1e-30


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


class OracleTest(CliTest):
    runs = 0

    def step_of(self, model, x, targets, loss, precision, stages=3, micro_batches=2, lr=0.3, schedule="1f1b"):
        """The last of STEPS steps over all samples at once."""
        self.runs += 1
        run = self.folder / f"run-{self.runs}"
        save_file({"x": x, "targets": targets}, self.folder / "data.safetensors")
        config = {
            "model": model, "data": {"type": "safetensors", "train": "data.safetensors"},
            "train": {"steps": STEPS, "batch": len(x), "micro_batches": micro_batches, "loss": loss, "precision": precision,
                      "optimizer": {"type": "sgd", "lr": lr, "momentum": TINY}},
            "pipeline": {"stages": stages, "schedule": schedule}, "checkpoint": {"every": "1", "keep": 2}, "run_dir": run.name}
        self.write("config.yaml", json.dumps(config))
        self.succeeds("train", "config.yaml")
        before, after = (run / "checkpoints" / f"step-{step:08d}" for step in (STEPS - 1, STEPS))
        buffers = tensors_in(after, "optimizer")
        self.assertTrue(buffers and all(name.endswith(".momentum_buffer") for name in buffers), buffers.keys())
        gradients = {name.removesuffix(".momentum_buffer"): value for name, value in buffers.items()}
        return Step(before, tensors_in(before, "model"), tensors_in(after, "model"), gradients,
                    steps_of(run / "metrics.jsonl")[-1]["loss"])
