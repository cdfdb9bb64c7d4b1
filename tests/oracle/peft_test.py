# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters against Hugging Face's PEFT, which reads our checkpoints and writes what we start from."""
import json
import unittest

from oracle import GradientTest, classes, loss_and_gradients, tensors_in  # first: it says what is missing

import torch
import torch.nn.functional as F
import transformers
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch_models import exact_norms
from transformers.utils.logging import disable_progress_bar

TOKENS = "sparse_categorical_cross_entropy"
SIZES = {"vocab_size": 61, "max_position_embeddings": 24}
PREFIX = "base_model.model."


def gpt():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_layer=2, n_head=4, n_embd=32, n_positions=24, vocab_size=61, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=None, eos_token_id=None))


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **SIZES, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2))


def bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(
        **SIZES, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=5,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


CASES = {  # base, model.lora
    "gpt": (gpt, {"rank": 3, "alpha": 7, "targets": ["c_attn", "mlp.c_proj"]}),
    "llama": (llama, {"rank": 4, "alpha": 4, "rank_stabilized": True}),
    "bert": (bert, {"rank": 2, "targets": ["query", "value"], "modules_to_save": ["classifier"]}),
}


def plain(name):
    """As our checkpoints call what PEFT has under `name`."""
    return name.removeprefix(PREFIX).replace(".default", "").replace(".modules_to_save", "")


def shaken(net):
    for value in net.parameters():  # no bias is 0, no norm's weight 1, no B 0
        value.data += 0.1 * torch.randn_like(value)
    return net


class PeftTest(GradientTest):
    def base_of(self, name):
        folder = self.folder / f"base-{name}"
        if not folder.exists():
            shaken(CASES[name][0]()).save_pretrained(folder, max_shard_size="20KB")
        return folder

    def batch_of(self, name):
        x = torch.randint(1, 61, (6, 24))
        return x, classes(6, count=5) if name == "bert" else classes(6, 24, count=61, ignored=0.2)

    def model_of(self, name, **lora):
        return {"from": str(self.base_of(name)), "lora": {**CASES[name][1], **lora}}

    def test_gradients(self):
        for name, (make, _) in CASES.items():
            with self.subTest(name):
                def python(step, dtype):
                    net = type(make()).from_pretrained(self.base_of(name), attn_implementation="sdpa")  # noqa: B023
                    net = PeftModel.from_pretrained(net, step.folder, is_trainable=True).to(dtype).train()
                    trained = {plain(key): value for key, value in net.named_parameters() if value.requires_grad}
                    for key, value in trained.items():  # PEFT has rounded what it has read to float32
                        value.data.copy_(step.weights[key])

                    def run(x, targets):
                        with exact_norms(dtype):
                            logits = net(input_ids=x, attention_mask=torch.ones_like(x)).logits
                            loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-100)
                            return loss_and_gradients(loss, trained)

                    return run

                x, targets = self.batch_of(name)
                self.check(self.model_of(name), x, targets, TOKENS, python, init_from=str(self.base_of(name)))

    def test_adapters_of_theirs(self):
        for name, (_, lora) in CASES.items():
            with self.subTest(name):
                net = type(CASES[name][0]()).from_pretrained(self.base_of(name))
                config = LoraConfig(r=lora["rank"], lora_alpha=lora.get("alpha", 8), target_modules=lora.get("targets", "all-linear"),
                                    use_rslora=lora.get("rank_stabilized", False), fan_in_fan_out=name == "gpt",
                                    modules_to_save=lora.get("modules_to_save"))
                theirs = get_peft_model(net, config)
                for value in theirs.parameters():
                    if value.requires_grad:
                        value.data += 0.1 * torch.randn_like(value)
                folder = self.folder / f"theirs-{name}"
                theirs.eval().save_pretrained(folder)
                # One step that moves nothing: what comes back are the same bits.
                x, targets = self.batch_of(name)
                step = self.step_of(self.model_of(name), x, targets, TOKENS, "fp32", init_from=str(folder), lr=1e-38)
                saved = load_file(folder / "adapter_model.safetensors")
                self.assertEqual(step.weights.keys(), {plain(key) for key in saved})
                for key, value in saved.items():
                    self.assertTrue(torch.equal(step.weights[plain(key)], value), key)
                logits = theirs(x, attention_mask=torch.ones_like(x)).logits
                self.assertAlmostEqual(step.loss, F.cross_entropy(logits.flatten(0, -2), targets.flatten()).item(), delta=1e-5)
                # Merged: theirs, and the checkpoint that we have made of it.
                expected = {plain(key): value for key, value in theirs.merge_and_unload().named_parameters()}
                for source in (folder, step.folder):
                    merged = self.folder / f"merged-{source.name}-{name}"
                    self.succeeds("export", str(source), "--merge", "--out", str(merged))
                    back, loading = type(net).from_pretrained(merged, output_loading_info=True)
                    self.assertFalse(any(loading.values()), loading)
                    for key, value in back.named_parameters():
                        self.assertTrue(torch.allclose(value, expected[key], rtol=1e-6, atol=1e-7), key)
                    self.assertTrue(torch.allclose(back.eval()(x, attention_mask=torch.ones_like(x)).logits, logits, atol=1e-4))

    def test_a_folder_of_ours_names_its_base(self):
        for name in ("gpt", "llama"):
            x, targets = self.batch_of(name)
            step = self.step_of(self.model_of(name), x, targets, TOKENS, "fp32", init_from=str(self.base_of(name)))
            net = AutoPeftModelForCausalLM.from_pretrained(step.folder)
            of_ours = {plain(key): value for key, value in net.named_parameters() if ".lora_" in key}
            self.assertEqual(of_ours.keys(), step.weights.keys())

    def test_a_new_head_on_a_base_without_one(self):
        base = self.folder / "base-headless"
        shaken(bert()).bert.save_pretrained(base)
        x, targets = self.batch_of("bert")
        x = x.clamp_min(1)
        model = {"from": str(base), "classes": 3, "lora": CASES["bert"][1]}
        step = self.step_of(model, x, targets % 3, TOKENS, "fp32", init_from=str(base), init={"missing": "allow"})
        self.succeeds("export", str(step.folder), "--merge", "--out", str(self.folder / "merged"))
        net = transformers.AutoModelForSequenceClassification.from_pretrained(self.folder / "merged").eval()
        logits = net(x, attention_mask=torch.ones_like(x)).logits
        self.assertAlmostEqual(step.loss, F.cross_entropy(logits, targets % 3).item(), delta=1e-5)
        described = json.loads((step.folder / "adapter_config.json").read_text())
        self.assertEqual(described["modules_to_save"], ["classifier"])

    def test_adapters_of_embeddings_are_not_merged(self):
        folder = self.folder / "theirs"
        net = transformers.GPT2LMHeadModel.from_pretrained(self.base_of("gpt"))
        get_peft_model(net, LoraConfig(target_modules=["c_attn", "wte"], fan_in_fan_out=True)).save_pretrained(folder)
        self.assertIn("is of an adapter of no linear part, which is not merged here",
                      self.fails("export", str(folder), "--merge", "--out", str(self.folder / "none")))

    def test_a_base_in_bfloat16(self):
        folder = self.folder / "base-bf16"
        shaken(llama()).to(torch.bfloat16).save_pretrained(folder)
        x, targets = self.batch_of("llama")
        model = {"from": str(folder), "lora": CASES["llama"][1]}
        step = self.step_of(model, x, targets, TOKENS, "bf16", init_from=str(folder))
        self.succeeds("export", str(step.folder), "--merge", "--out", str(self.folder / "merged"))
        base, merged = (tensors_in(each, "model") for each in (folder, self.folder / "merged"))
        self.assertEqual({(key, value.dtype) for key, value in base.items()}, {(key, value.dtype) for key, value in merged.items()})
        net = PeftModel.from_pretrained(transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16), step.folder)
        for key, value in net.merge_and_unload().named_parameters():
            self.assertTrue(torch.equal(merged[key], value), key)

    def test_what_is_not_computed_here_is_named(self):
        x, targets = self.batch_of("gpt")
        step = self.step_of(self.model_of("gpt"), x, targets, TOKENS, "fp32", init_from=str(self.base_of("gpt")))
        folder = self.folder / "other"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes((step.folder / "adapter_model.safetensors").read_bytes())
        described = json.loads((step.folder / "adapter_config.json").read_text())
        for keys, expected in (({"use_dora": True}, "use_dora is true, expected false"),
                               ({"peft_type": "ADALORA"}, 'peft_type is "ADALORA", expected "LORA"'),
                               ({"rank_pattern": {"c_attn": 2}}, "rank_pattern is"),
                               ({"base_model_name_or_path": "nowhere"}, "names the base 'nowhere', which is not there"),
                               ({"base_model_name_or_path": str(folder)}, "names its own folder as the base")):
            with self.subTest(expected):
                (folder / "adapter_config.json").write_text(json.dumps({**described, **keys}))
                self.assertIn(expected, self.fails("export", str(folder), "--merge", "--out", str(self.folder / "none")))
                self.assertFalse((self.folder / "none").exists())


if __name__ == "__main__":
    disable_progress_bar()
    unittest.main()
