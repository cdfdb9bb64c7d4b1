# SPDX-License-Identifier: Apache-2.0
"""From transformers to Lockstep and back: a folder that save_pretrained wrote starts a training, and from_pretrained reads what
came of it. What was not trained keeps every byte."""
import json
import unittest

from oracle import OracleTest, load_file, save_file  # first: it says what is missing

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model
from transformers.utils.logging import disable_progress_bar

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 12, "vocab_size": 61}
MODEL = {"type": "gpt", "layers": 2, "heads": 2, "width": 16, "context": 12, "vocab": 61}
FROZEN = ["transformer.wte.*", "transformer.h.0.*", "*.ln_1.*"]


class WeightsTest(OracleTest):
    def setUp(self):
        super().setUp()
        torch.manual_seed(3)
        self.gpt = GPT2LMHeadModel(GPT2Config(**SIZES))
        self.write("words.txt", "".join(chr(32 + i % 29) for i in range(400)))  # bytes that the vocabulary has

    def train_from(self, folder, name, **keys):
        config = {"model": MODEL, "data": {"type": "text", "train": "words.txt"}, "checkpoint": {"every": "end"}, "run_dir": name,
                  "train": {"steps": 3, "batch": 4, "micro_batches": 2, "loss": "sparse_categorical_cross_entropy", "init_from": folder, **keys},
                  "pipeline": {"stages": 2, "schedule": "1f1b"}}
        self.write("config.yaml", json.dumps(config))
        self.succeeds("train", "config.yaml")
        return self.folder / name / "checkpoints/step-00000003"

    def check_kept(self, checkpoint, expected):
        back = dict(GPT2LMHeadModel.from_pretrained(checkpoint).named_parameters())
        self.assertEqual(back.keys(), expected.keys())
        kept = [name for name in back if any(part in name for part in ("wte", "h.0.", ".ln_1."))]
        self.assertGreater(len(kept), 10)
        for name, value in back.items():
            self.assertEqual(torch.equal(value, expected[name]), name in kept, name)

    def test_there_and_back(self):
        expected = dict(self.gpt.named_parameters())
        for name, how in (("one", {}), ("sharded", {"max_shard_size": "10KB"})):
            with self.subTest(name):
                self.gpt.save_pretrained(self.folder / name, **how)
                self.assertEqual((self.folder / name / "model.safetensors.index.json").exists(), name == "sharded")
                self.check_kept(self.train_from(name, f"run-{name}", freeze=FROZEN), expected)

    def test_half_precision_is_cast(self):
        for dtype in (torch.bfloat16, torch.float16):
            with self.subTest(dtype):
                name = str(dtype).removeprefix("torch.")
                gpt = GPT2LMHeadModel(self.gpt.config).to(dtype)
                gpt.save_pretrained(self.folder / name)
                expected = {name: value.float() for name, value in gpt.named_parameters()}
                self.check_kept(self.train_from(name, f"run-{name}", freeze=FROZEN), expected)

    def test_the_base_model_alone(self):
        """Without `transformer.` in front, and with masks, as the files of 2019 had them."""
        base = GPT2Model(GPT2Config(**SIZES))
        base.save_pretrained(self.folder / "base")
        tensors = load_file(self.folder / "base/model.safetensors")
        self.assertIn("h.0.attn.c_attn.weight", tensors)
        save_file({**tensors, "h.0.attn.bias": torch.ones(1, 1, 12, 12)}, self.folder / "base/model.safetensors")
        expected = {f"transformer.{name}": value for name, value in base.named_parameters()}
        self.check_kept(self.train_from("base", "run", freeze=FROZEN), expected)


if __name__ == "__main__":
    disable_progress_bar()
    unittest.main()
