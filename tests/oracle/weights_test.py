# SPDX-License-Identifier: Apache-2.0
"""From transformers to Lockstep and back: a folder that save_pretrained wrote says what the model is and starts a training, and
from_pretrained reads what came of it. What was not trained keeps every byte."""
import json
import unittest

from oracle import OracleTest, load_file, save_file  # first: it says what is missing

import torch
import transformers
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


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "vocab_size": 61,
         "max_position_embeddings": 12}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 6}
BERT = {**SMALL, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAMILIES = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(**SIZES, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)),
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**SMALL, num_key_value_heads=2, rope_parameters=LLAMA3)),
    "llama with a tie and biases": (transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **SMALL, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=6)),
    "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig(**SMALL, num_key_value_heads=1, sliding_window=5)),
    "qwen2": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**SMALL, num_key_value_heads=2, tie_word_embeddings=True)),
    "bert": (transformers.BertForMaskedLM, transformers.BertConfig(**BERT)),
}


class FoldersTest(OracleTest):
    def setUp(self):
        super().setUp()
        torch.manual_seed(3)
        self.write("words.txt", "".join(chr(32 + i % 29) for i in range(400)))  # bytes that the vocabulary has

    def config(self, folder, name, model=None, **data):
        return {"model": model or {"from": folder}, "data": {"type": "text", "train": "words.txt", **data},
                "checkpoint": {"every": "end"}, "run_dir": name, "pipeline": {"stages": 2},
                "train": {"steps": 1, "batch": 4, "loss": "sparse_categorical_cross_entropy", "init_from": folder,
                          "optimizer": {"type": "sgd", "lr": 1e-38}}}

    def test_the_folder_says_what_the_model_is_and_both_compute_the_same(self):
        for number, (name, (kind, config)) in enumerate(FAMILIES.items()):
            with self.subTest(name):
                net = kind(config).eval()
                for value in net.parameters():  # no bias is 0 and no norm's weight 1
                    value.data += 0.1 * torch.randn_like(value)
                net.save_pretrained(self.folder / f"hub-{number}", max_shard_size="10KB")
                companions = {"tokenizer.json": b'{"version": "1.0"}', "tokenizer.model": bytes(range(256)), "vocab.txt": b"a\n"}
                for file, content in companions.items():
                    (self.folder / f"hub-{number}" / file).write_bytes(content)
                masking = {"masking": {"token": 60}} if name == "bert" else {}
                self.write("config.yaml", json.dumps(self.config(f"hub-{number}", f"run-{number}", **masking)))
                said = self.succeeds("train", "config.yaml")
                self.assertNotIn("with values of their own", said.stdout + said.stderr)
                checkpoint = self.folder / f"run-{number}/checkpoints/step-00000001"
                for file, content in companions.items():
                    self.assertEqual((checkpoint / file).read_bytes(), content)
                back, loading = kind.from_pretrained(checkpoint, output_loading_info=True)
                self.assertFalse(any(loading.values()), loading)
                expected = dict(net.named_parameters())
                for key, value in back.named_parameters():
                    self.assertTrue(torch.equal(value, expected[key]), key)
                tokens = torch.randint(1, 61, (3, 12))
                self.assertTrue(torch.equal(back.eval()(tokens).logits, net(tokens).logits))
                # A checkpoint of ours is such a folder, and its run has forgotten where the first one was.
                self.write("again.yaml", json.dumps(self.config(str(checkpoint), f"again-{number}", **masking)))
                self.succeeds("train", "again.yaml")
                self.assertNotIn('"from"', (self.folder / f"run-{number}/config.yaml").read_text())

    def test_old_spellings_of_norms(self):
        net = transformers.BertForMaskedLM(transformers.BertConfig(**BERT))
        net.save_pretrained(self.folder / "hub")
        tensors = load_file(self.folder / "hub/model.safetensors")
        old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
               for name, value in tensors.items()}
        self.assertNotEqual(old.keys(), tensors.keys())
        old["cls.seq_relationship.weight"] = torch.ones(2, 16)
        save_file(old, self.folder / "hub/model.safetensors")
        self.write("config.yaml", json.dumps(self.config("hub", "run", masking={"token": 60})))
        self.succeeds("train", "config.yaml")

    def test_what_a_family_cannot_do_is_named(self):
        llama = FAMILIES["llama"][1].to_dict()
        cases = [
            ({**llama, "model_type": "gemma"}, "model.from: hub/config.json is of the model_type gemma; known are gpt2, llama, "
                                               "mistral, qwen2, bert"),
            ({**llama, "hidden_act": "gelu"}, 'hub/config.json: hidden_act: got "gelu", expected "silu"'),
            ({**llama, "num_attention_heads": "four"}, 'num_attention_heads: got "four", which is of another type'),
            ({key: value for key, value in llama.items() if key != "hidden_size"}, "hub/config.json: hidden_size: is missing"),
            ({**llama, "rope_parameters": {"rope_type": "spiral"}}, "rope_parameters.rope_type: got spiral, expected one of"),
            ({**llama, "num_key_value_heads": 3}, "kv_heads: got 3, which does not divide the 4 heads"),
            ([1], "hub/config.json: is no JSON object"),
        ]
        (self.folder / "hub").mkdir()
        for content, expected in cases:
            with self.subTest(expected):
                (self.folder / "hub/config.json").write_text(json.dumps(content))
                self.write("config.yaml", json.dumps(self.config("hub", "run")))
                self.assertIn(expected, self.fails("train", "config.yaml"))
        self.write("config.yaml", json.dumps(self.config("nowhere", "run")))
        self.assertIn("nowhere/config.json: cannot be read", self.fails("train", "config.yaml"))
        (self.folder / "hub/config.json").write_text(json.dumps(llama))
        self.write("config.yaml", json.dumps(self.config("hub", "run", {"from": "hub", "type": "gpt"})))
        self.assertIn("model.type: got gpt, but hub/config.json is of a llama, which is a llama here", self.fails("train", "config.yaml"))


if __name__ == "__main__":
    disable_progress_bar()
    unittest.main()
