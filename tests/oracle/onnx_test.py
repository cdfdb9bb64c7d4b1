# SPDX-License-Identifier: Apache-2.0
"""`lockstep export --onnx` against what `lockstep predict` answers: every family, in batches and lengths that it was not trained
with, by ONNX Runtime; and the files by the checker of the onnx package."""
import json
import os
import shutil
import unittest

from oracle import ROOT, CliTest, command  # first: it says what is missing

import onnx
import onnxruntime
import torch
import transformers
from safetensors.torch import load_file, save_file

EXTRAS_PLUGIN = os.environ.get("EXTRAS_PLUGIN", str(ROOT / "build/release/libextras_plugin.so"))
CLOSE = 1e-5  # of the largest output
LENGTHS = 24, 11
BATCHES = 1, 3, 8

FIELDS = 40, 7, 3
GPT = {"type": "gpt", "layers": 2, "heads": 4, "width": 32, "context": 24, "vocab": 61, "dropout": 0.1}
LLAMA = {"type": "llama", "layers": 2, "heads": 4, "width": 32, "hidden": 48, "context": 24, "vocab": 61}
BERT = {"type": "bert", "layers": 2, "heads": 4, "width": 32, "context": 24, "vocab": 61}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6}
LONGROPE = {"rope_type": "longrope", "factor": 2.0, "original_max_position_embeddings": 12, "short_factor": [1.0] * 4,
            "long_factor": [1.0, 1.5, 2.5, 4.0]}


def tokens(rows, length):
    """Rows that end in padding, token 0, which also ends a document."""
    x = torch.randint(1, 61, (rows, length))
    return torch.where(torch.arange(length) < torch.randint(1, length + 1, (rows, 1)), x, 0)


def text(rows, length):
    return {"x": tokens(rows, length)}


def text_of_two_kinds(rows, length):
    x = tokens(rows, length)
    return {"x": x, "token_type_ids": x % 2, "attention_mask": (x != 0).long()}


def fields(rows, length):
    return {"x": torch.stack([torch.randint(count, (rows,)) for count in FIELDS], 1), "numbers": torch.randn(rows, 2)}


def series(rows, length):
    return {"x": torch.randn(rows, length, 5)}


def numbers(rows, length):
    return {"x": torch.randn(rows, 7)}


def images(rows, length):
    return {"x": torch.randn(rows, 3, 20 if length == LENGTHS[0] else 16, 28)}  # halves cannot be halved again


def images_of_one_size(rows, length):
    return {"x": torch.randn(rows, 1, 8, 8)}


def sequential(*layers):
    return {"type": "sequential", "layers": list(layers)}


def of_tokens(rows, length):
    return rows, length, 61


def of_row(count):
    return lambda rows, length: (rows, count)


def of_image(count):
    return lambda rows, length: (rows, count, *images(1, length)["x"].shape[2:])


CASES = {  # model, inputs, sizes of the output
    "gpt": (GPT, text, of_tokens),
    "gpt of documents": ({**GPT, "document_end": 0, "tie_embeddings": False}, text, of_tokens),
    "llama": (LLAMA, text, of_tokens),
    "llama with grouped queries": ({**LLAMA, "kv_heads": 2, "tie_embeddings": True, "attention_bias": "all", "mlp_bias": True,
                                    "head_width": 12, "epsilon": 1e-6, "document_end": 0}, text, of_tokens),
    "mistral": ({**LLAMA, "kv_heads": 1, "window": 7}, text, of_tokens),
    "llama with yarn": ({**LLAMA, "rope_scaling": YARN}, text, of_tokens),
    "llama with longrope": ({**LLAMA, "rope_scaling": LONGROPE}, text, of_tokens),
    "bert": (BERT, text, of_tokens),
    "bert that classifies": ({**BERT, "classes": 5, "pad": -1, "token_types": True, "attention_mask": True}, text_of_two_kinds, of_row(5)),
    "lstm": ({"type": "lstm", "inputs": 5, "outputs": 3, "width": 12, "layers": 2, "bidirectional": True}, series, of_row(3)),
    "lstm of tokens": ({"type": "lstm", "vocab": 61, "outputs": 3, "width": 12, "layers": 2, "bidirectional": True, "pad": 0,
                        "dropout": 0.2}, text, of_row(3)),
    "gru": ({"type": "gru", "vocab": 61, "width": 12, "layers": 2, "tie_embeddings": True}, text, of_tokens),
    "gru of tokens": ({"type": "gru", "vocab": 61, "outputs": 3, "width": 12, "layers": 2, "bidirectional": True, "pad": 0}, text,
                      of_row(3)),
    "wide_deep": ({"type": "wide_deep", "fields": list(FIELDS), "embedding": 4, "hidden": [9, 8], "numbers": 2, "dropout": 0.1}, fields,
                  of_row(1)),
    "mlp": ({"type": "mlp", "inputs": 7, "width": 9, "layers": 3, "outputs": 3}, numbers, of_row(3)),
    "cnn": ({"type": "cnn", "inputs": 1, "channels": 4, "classes": 3, "norm": "batch"}, images_of_one_size, of_row(3)),
    "resnet": ({"type": "resnet", "depth": 18, "inputs": 3, "classes": 4, "channels": 8, "stem": "small"}, images, of_row(4)),
    "unet": ({"type": "unet", "inputs": 3, "channels": 4, "depth": 2, "classes": 2, "norm": "group", "deep_supervision": True}, images,
             of_image(2)),
    "unet that doubles": ({"type": "unet", "inputs": 3, "channels": 4, "depth": 1, "classes": 2, "up": "nearest"}, images, of_image(2)),
    "layers of sequences": (sequential(
        {"type": "linear", "in": 5, "out": 8}, {"type": "positions", "context": 24, "width": 8},
        {"type": "residual", "layers": [{"type": "rms_norm", "width": 8}, {"type": "self_attention", "width": 8, "heads": 2, "causal": True},
                                        {"type": "dropout", "p": 0.1}]},
        {"type": "gelu"}, {"type": "layer_norm", "width": 8}, {"type": "silu"}), series, lambda rows, length: (rows, length, 8)),
    "layers of images": (sequential(
        {"type": "conv2d", "in": 3, "out": 8, "kernel": [3, 1], "stride": [1, 2], "padding": [1, 0], "groups": 1},
        {"type": "group_norm", "groups": 2, "channels": 8}, {"type": "gelu_tanh"},
        {"type": "avg_pool2d", "kernel": 3, "stride": 2, "padding": 1},
        {"type": "conv_transpose2d", "in": 8, "out": 4, "kernel": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"type": "batch_norm", "channels": 4}, {"type": "tanh"}, {"type": "max_pool2d", "kernel": 3, "stride": 2, "padding": 1},
        {"type": "sigmoid"}, {"type": "global_avg_pool"}, {"type": "relu"}), images, of_row(4)),
    "layers of one size": (sequential({"type": "flatten"}, {"type": "linear", "in": 64, "out": 3}), images_of_one_size, of_row(3)),
}
ENTRIES = {  # what is said of them
    "gpt": ("x int64 [batch, length]", "output float32 [batch, length, 61]"),
    "bert that classifies": ("token_type_ids int64 [batch, length]", "output float32 [batch, 5]"),
    "lstm": ("x float32 [batch, length, 5]", "output float32 [batch, 3]"),
    "wide_deep": ("x int64 [batch, 3]", "numbers float32 [batch, 2]", "output float32 [batch, 1]"),
    "mlp": ("x float32 [batch, 7]", "output float32 [batch, 3]"),
    "resnet": ("x float32 [batch, 3, height, width]", "output float32 [batch, 4]"),
    "unet": ("x float32 [batch, 3, height, width]", "output float32 [batch, 2, height, width]", "aux.1 float32 [batch, 2, height, width]"),
    "layers of one size": ("x float32 [batch, 1, 8, 8]",),
}
FIXED = ["wide_deep", "mlp", "cnn", "layers of one size"]  # their inputs have no length


class OnnxTest(CliTest):
    largest = 0.0

    @classmethod
    def tearDownClass(cls):
        print(f"largest distance, over the largest output: {cls.largest:.2g}")

    def setUp(self):
        super().setUp()
        torch.manual_seed(5)

    def trained(self, model, inputs, sizes, plugins=(), **train):
        """A checkpoint of a few steps on noise."""
        config = {"model": model, "plugins": list(plugins), "data": {"type": "safetensors", "train": "data.safetensors", "more": [name for name in inputs if name != "x"]},
                  "train": {"steps": 3, "batch": len(inputs["x"]), "loss": "mean_squared_error", "optimizer": {"type": "adam", "lr": 0.01}, **train},
                  "pipeline": {"stages": 2}, "checkpoint": {"every": "end"}, "run_dir": "run"}
        self.write("config.yaml", json.dumps(config))
        save_file({**inputs, "targets": torch.randn(sizes)}, self.folder / "data.safetensors")
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        self.succeeds("train", "config.yaml")
        (checkpoint,) = (self.folder / "run/checkpoints").glob("step-*")
        return checkpoint

    def answers(self, checkpoint, inputs, flags=()):
        save_file(inputs, self.folder / "new.safetensors")
        self.succeeds("predict", "config.yaml", "--checkpoint", str(checkpoint), "--input", "new.safetensors", "--output",
                      "answers.safetensors", *flags)
        return load_file(self.folder / "answers.safetensors")

    def refused(self, *arguments):
        result = self.run_command(command("export", *map(str, arguments), "--onnx", "--out", "refused"))
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertFalse(list(self.folder.glob("refused*")))
        return result.stderr

    def exported(self, checkpoint, *flags):
        folder = self.folder / "onnx"
        shutil.rmtree(folder, ignore_errors=True)
        return folder, self.succeeds("export", str(checkpoint), "--onnx", "--out", str(folder), *flags).stdout

    def check(self, checkpoint, folder, inputs, lengths=LENGTHS, flags=()):
        """Batches and lengths from one file, by ONNX Runtime and by ours."""
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        outputs = [output.name for output in session.get_outputs()]
        for length in lengths:
            x = inputs(max(BATCHES), length)
            ours = self.answers(checkpoint, x, flags)
            for rows in BATCHES:
                values = session.run(outputs, {key: each[:rows].numpy() for key, each in x.items()})
                for head, value in enumerate(values):
                    expected = ours["prediction" if len(outputs) == 1 else f"head_{head}_prediction"][:rows]
                    self.assertEqual(value.shape, tuple(expected.shape))
                    distance = ((torch.from_numpy(value) - expected).abs().max() / expected.abs().max()).item()
                    self.assertLess(distance, CLOSE, f"{rows} rows of length {length}")
                    OnnxTest.largest = max(OnnxTest.largest, distance)

    def test_every_family(self):
        for name, (model, inputs, sizes) in CASES.items():
            with self.subTest(name):
                checkpoint = self.trained(model, inputs(6, LENGTHS[0]), sizes(6, LENGTHS[0]))
                folder, said = self.exported(checkpoint)
                for entry in ENTRIES.get(name, ()):
                    self.assertIn(entry + "\n", said)
                self.assertLess((folder / "model.onnx").stat().st_size, 1 << 20)
                self.check(checkpoint, folder, inputs, LENGTHS[:1] if name in FIXED else LENGTHS)
                folder, _ = self.exported(checkpoint, "--copy")
                onnx.checker.check_model(folder / "model.onnx", full_check=True)

    def test_a_plug_in(self):
        model = sequential({"type": "linear", "in": 7, "out": 16}, {"type": "snake", "width": 16, "frequency": 2}, {"type": "sine"},
                           {"type": "linear", "in": 16, "out": 1})
        checkpoint = self.trained(model, numbers(6, 1), (6, 1), plugins=[EXTRAS_PLUGIN])
        folder, _ = self.exported(checkpoint)
        self.check(checkpoint, folder, numbers, lengths=[1])

    def test_names_do_not_meet(self):
        model = sequential({"type": "linear", "name": "b", "in": 7, "out": 7, "inputs": ["b.weight"], "outputs": ["h"]},
                           {"type": "add", "inputs": ["h", "output"], "outputs": ["h"]}, {"type": "add", "inputs": ["h", "x"]})

        def inputs(rows, length):
            return {"x": torch.randn(rows, 7), "b.weight": torch.randn(rows, 7), "output": torch.randn(rows, 7)}

        checkpoint = self.trained(model, inputs(6, 1), (6, 7))
        folder, said = self.exported(checkpoint)
        self.assertIn("gives   output_1 float32 [batch, 7]\n", said)
        self.check(checkpoint, folder, inputs, lengths=[1])

    # ---- the files ----

    def test_weights_are_those_of_the_checkpoint(self):
        model, inputs, sizes = CASES["lstm of tokens"]
        checkpoint = self.trained(model, inputs(6, 24), sizes(6, 24))
        folder, said = self.exported(checkpoint)
        files = sorted(path.name for path in checkpoint.glob("model-*"))
        self.assertEqual(len(files), 2)  # of two workers
        for name in files:
            self.assertTrue((folder / name).samefile(checkpoint / name))
            self.assertIn(f"weights {name}, a hard link\n", said)
        gates = sum(value.nbytes for name, value in load_file(checkpoint / files[0]).items() if name.startswith("rnn."))
        gates += sum(value.nbytes for name, value in load_file(checkpoint / files[1]).items() if name.startswith("rnn."))
        self.assertEqual((folder / "model.onnx.data").stat().st_size, gates)
        with self.assertRaisesRegex(onnx.checker.ValidationError, "multiple hard links"):  # why there is --copy
            onnx.checker.check_model(folder / "model.onnx")
        shutil.rmtree(checkpoint)  # as a later one would have it pruned
        onnxruntime.InferenceSession(folder / "model.onnx")

    def test_averages(self):
        model, inputs, sizes = CASES["gru of tokens"]
        checkpoint = self.trained(model, inputs(6, 24), sizes(6, 24), ema={"decay": 0.5})
        folder, said = self.exported(checkpoint, "--ema")
        self.assertIn("weights averages.safetensors, a copy\n", said)
        self.check(checkpoint, folder, inputs, flags=["--ema"])
        with self.assertRaises(AssertionError):
            self.check(checkpoint, folder, inputs)

    def test_averages_of_an_adapter(self):
        net = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=24, vocab_size=61))
        base = self.folder / "base"
        net.save_pretrained(base)  # one model.safetensors
        save_file({name if name != "transformer.wte.weight" else "lm_head.weight": value
                   for name, value in load_file(base / "model.safetensors").items()}, base / "model.safetensors")  # the tie's other name
        checkpoint = self.trained({"from": str(base), "lora": {"rank": 2}}, text(6, 24), (6, 24, 61), init_from=str(base),
                                  ema={"decay": 0.5})
        folder, said = self.exported(checkpoint, "--ema")
        self.assertIn("weights averages.safetensors, a copy\n", said)
        self.assertIn("weights model.safetensors, a hard link\n", said)
        self.check(checkpoint, folder, text, flags=["--ema"])

    def test_adapters_and_their_base(self):
        bases = {"gpt": transformers.GPT2LMHeadModel(transformers.GPT2Config(
                     n_layer=2, n_head=4, n_embd=32, n_positions=24, vocab_size=61, bos_token_id=None, eos_token_id=None)),
                 "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(
                     hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                     vocab_size=61, max_position_embeddings=24)).to(torch.bfloat16)}
        for name, net in bases.items():
            with self.subTest(name):
                base = self.folder / f"base-{name}"
                net.save_pretrained(base, max_shard_size="60KB")
                checkpoint = self.trained({"from": str(base), "lora": {"rank": 4, "dropout": 0.1}}, text(6, 24), (6, 24, 61),
                                          init_from=str(base))
                folder, said = self.exported(checkpoint)
                self.assertIn("weights adapter_model.safetensors, a hard link\n", said)
                self.check(checkpoint, folder, text)
                moved = self.folder / f"moved-{name}"
                base.rename(moved)
                self.assertIn("lockstep export takes --base DIR", self.refused(checkpoint))
                folder, _ = self.exported(checkpoint, "--base", str(moved), "--copy")
                onnx.checker.check_model(folder / "model.onnx", full_check=True)
                path = next(moved.glob("*.safetensors"))
                tensors = load_file(path)
                next(iter(tensors.values())).view(-1)[0] += 1
                save_file(tensors, path)
                self.assertIn("is not what the adapter was trained on", self.refused(checkpoint, "--base", moved))

    # ---- what is wrong ----

    def test_a_layer_without_a_form_is_named(self):
        model = {"type": "delay", "layers": 2, "width": 4, "forward_ms": 0, "input_grad_ms": 0, "weight_grad_ms": 0}
        checkpoint = self.trained(model, {"x": torch.randn(6, 4)}, (6, 4))
        self.assertIn("layer 'delay.0' (delay): a delay layer has no ONNX form", self.refused(checkpoint))

    def test_what_is_no_checkpoint(self):
        checkpoint = self.trained(CASES["mlp"][0], numbers(6, 1), (6, 3))
        self.assertIn("name a folder such as RUN_FOLDER/checkpoints/step-00000100", self.refused("run"))
        self.assertIn("nowhere", self.refused("nowhere"))
        folder, _ = self.exported(checkpoint)
        result = self.run_command(command("export", str(checkpoint), "--onnx", "--out", str(folder)))
        self.assertIn("is there already", result.stderr)
        self.assertIn("--onnx or --merge", self.run_command(command("export", str(checkpoint), "--out", "x")).stderr)
        self.assertIn("is no adapter", self.refused(checkpoint, "--base", "elsewhere"))
        path = next(checkpoint.glob("model-*"))
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        self.assertRegex(self.refused(checkpoint), "model-.*: tensor .* has other bytes than the manifest says")
        path.write_bytes(good)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        del manifest["files"]["model.yaml"]
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
        self.assertIn("has no model.yaml", self.refused(checkpoint))


if __name__ == "__main__":
    unittest.main()
