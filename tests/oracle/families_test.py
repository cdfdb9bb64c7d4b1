# SPDX-License-Identifier: Apache-2.0
"""Llama, Mistral, Qwen 2 and BERT against Hugging Face's classes, which read our checkpoints; LSTM and GRU against torch.nn's;
ResNet against one of torch.nn modules under torchvision's names; wide_deep against one of torch.nn modules."""
import unittest

from oracle import GradientTest, classes, loss_and_gradients  # first: it says what is missing

import torch
import torch.nn.functional as F
import transformers
from torch_models import Recurrent, ResNet, WideDeep, exact_norms
from transformers.utils.logging import disable_progress_bar

TOKENS = "sparse_categorical_cross_entropy"
LLAMA = {"type": "llama", "layers": 3, "heads": 4, "width": 32, "hidden": 48, "context": 24, "vocab": 61}
BERT = {"type": "bert", "layers": 3, "heads": 4, "width": 32, "context": 24, "vocab": 61}


class FamiliesTest(GradientTest):
    def check_hub(self, model, kind, inputs=lambda x: {}, targets=None, x=None, more=None):
        """Against a class of transformers, which reads our checkpoint's config.json and weights."""
        x = torch.randint(61, (6, 24)) if x is None else x
        targets = classes(6, 24, count=61, ignored=0.2) if targets is None else targets

        def python(step, dtype):
            net = kind.from_pretrained(step.folder, attn_implementation="sdpa").to(dtype).train()
            self.assertEqual(type(net), kind)

            def run(x, targets):
                with exact_norms(dtype):
                    logits = net(input_ids=x, **inputs(x)).logits
                    loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-100)
                    return loss_and_gradients(loss, dict(net.named_parameters()))

            return run

        # What is added to all keys alike changes no softmax.
        zero = [f"bert.encoder.layer.{i}.attention.self.key.bias" for i in range(3)] if model["type"] == "bert" else []
        self.check(model, x, targets, TOKENS, python, zero=zero, more=more)

    def test_llama(self):
        self.check_hub(LLAMA, transformers.LlamaForCausalLM)

    def test_llama_with_grouped_queries_a_tie_and_biases(self):
        self.check_hub({**LLAMA, "kv_heads": 2, "tie_embeddings": True, "attention_bias": "all", "mlp_bias": True, "head_width": 12,
                        "epsilon": 1e-6, "rope_theta": 500000.0}, transformers.LlamaForCausalLM)

    def test_llama_with_stretched_positions(self):
        pairs = 4  # of a head of 8
        scalings = {"linear": {"factor": 4.0},
                    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 12},
                    "yarn": {"factor": 4.0, "original_max_position_embeddings": 6},
                    "longrope": {"factor": 2.0, "original_max_position_embeddings": 12, "short_factor": [1.0] * pairs,
                                 "long_factor": [1.0, 1.5, 2.5, 4.0]}}
        for kind, keys in scalings.items():
            with self.subTest(kind):
                self.check_hub({**LLAMA, "layers": 1, "rope_scaling": {"rope_type": kind, **keys}}, transformers.LlamaForCausalLM)

    def test_mistral_sees_a_window(self):
        self.check_hub({**LLAMA, "kv_heads": 1, "window": 7}, transformers.MistralForCausalLM)

    def test_qwen2(self):
        self.check_hub({**LLAMA, "kv_heads": 2, "attention_bias": "qkv"}, transformers.Qwen2ForCausalLM)

    def padded(self):
        """Tokens of rows that end in padding, token 0."""
        x = torch.randint(1, 61, (6, 24))
        x[torch.arange(24) >= torch.tensor([24, 20, 7, 1, 13, 24]).unsqueeze(1)] = 0
        return x

    def test_bert_guesses_tokens(self):
        self.check_hub(BERT, transformers.BertForMaskedLM, lambda x: {"attention_mask": (x != 0).long()}, x=self.padded())

    def test_bert_classifies(self):
        x = self.padded()
        self.check_hub({**BERT, "classes": 5, "pad": -1, "token_types": True, "attention_mask": True},
                       transformers.BertForSequenceClassification,
                       lambda x: {"attention_mask": (x != 0).long(), "token_type_ids": x % 2}, classes(6, count=5), x,
                       {"token_type_ids": x % 2, "attention_mask": (x != 0).long()})

    def check_module(self, model, make, x, targets, loss=F.cross_entropy, **how):
        def python(step, dtype):
            net = make().to(dtype).train()
            net.load_state_dict({**net.state_dict(), **step.weights})

            def run(x, targets):
                outputs = net(x.to(dtype) if x.is_floating_point() else x)
                if outputs.dim() == 3:
                    outputs, targets = outputs.flatten(0, 1), targets.flatten()
                return loss_and_gradients(loss(outputs, targets), dict(net.named_parameters()))

            return run

        self.check(model, x, targets, TOKENS, python, **how)

    def test_recurrent_language_models(self):
        for kind, tied in (("lstm", True), ("gru", False)):
            with self.subTest(kind):
                model = {"type": kind, "vocab": 31, "width": 24, "layers": 3, "tie_embeddings": tied}
                make = lambda: Recurrent(kind, 24, 3, 31, vocab=31, tied=tied)  # noqa: B023, E731
                self.check_module(model, make, torch.randint(31, (6, 12)), classes(6, 12, count=31, ignored=0.2))

    def test_recurrent_classifiers_of_padded_rows(self):
        x = self.padded() % 31
        x[x == 0] = 1
        x[self.padded() == 0] = 0
        for kind in ("lstm", "gru"):
            for both in (False, True):
                with self.subTest(kind=kind, bidirectional=both):
                    model = {"type": kind, "vocab": 31, "width": 16, "layers": 2, "outputs": 5, "pad": 0, "bidirectional": both}
                    make = lambda: Recurrent(kind, 16, 2, 5, vocab=31, bidirectional=both, pad=0)  # noqa: B023, E731
                    # Their rows are computed one by one here. In a batch LibTorch's oneDNN, on both sides, adds up the gradients
                    # of biases with twice the error.
                    self.check_module(model, make, x, classes(6, count=5), factor=4)

    def test_recurrent_models_of_series(self):
        for kind in ("lstm", "gru"):
            with self.subTest(kind):
                model = {"type": kind, "inputs": 3, "width": 16, "layers": 2, "outputs": 5, "bidirectional": True}
                make = lambda: Recurrent(kind, 16, 2, 5, inputs=3, bidirectional=True)  # noqa: B023, E731
                self.check_module(model, make, torch.randn(6, 10, 3), classes(6, count=5))

    def test_wide_deep(self):
        fields = [7, 3, 40]
        x = torch.stack([torch.randint(count, (16,)) for count in fields], 1)
        self.check_module({"type": "wide_deep", "fields": fields, "embedding": 4, "hidden": [9, 8], "outputs": 5},
                          lambda: WideDeep(fields, 4, [9, 8], 5), x, classes(16, count=5))

    def test_resnet(self):
        # Batch norm knows the micro-batches, whose samples are not known here.
        for depth, small, size in ((18, True, 16), (50, False, 64)):
            with self.subTest(depth=depth):
                model = {"type": "resnet", "depth": depth, "classes": 5, "stem": "small" if small else "imagenet"}
                self.check_module(model, lambda: ResNet(depth, 5, small), torch.randn(8, 3, size, size), classes(8, count=5),
                                  micro_batches=1, lr=0.02)

    def test_every_resnet_has_the_parameters_of_torchvision(self):
        """torchvision's own counts, for 1000 classes."""
        counts = {18: 11689512, 34: 21797672, 50: 25557032, 101: 44549160, 152: 60192808}
        for depth, count in counts.items():
            self.assertEqual(sum(value.numel() for value in ResNet(depth, 1000).parameters()), count)
            self.write("config.yaml", f"""
model: {{type: resnet, depth: {depth}, classes: 1000}}
data: {{type: synthetic, task: image_classification, channels: 3, size: 64, classes: 1000, samples: 8}}
train: {{steps: 1, batch: 2, loss: {TOKENS}}}
""")
            said = self.succeeds("train", "config.yaml", "--dry-run")
            self.assertIn(f"{count / 1e6:.1f} M parameters", said.stdout + said.stderr)


if __name__ == "__main__":
    disable_progress_bar()
    unittest.main()
