# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and --resume, as a user meets them; bit for bit is tests/parity/resume_test.cpp's business."""
import json
import os
import random
import re
import shlex
import signal
import struct
import unittest

from cli import ENDLESS, MLP, ROOT, CliTest, command, metrics, overrides, steps_of

STEPS = 7
TABLE = """\
model: {type: mlp, inputs: 2, width: 4, layers: 1, outputs: 1}
data: {type: csv, train: t.csv, eval: e.csv, targets: [y], task: regression, normalize: true}
train: {steps: 5, batch: 6, loss: mean_squared_error, eval_every: 1}
checkpoint: {every: 1, keep: 9}
"""
SAVE = ["checkpoint.every=2", f"train.steps={STEPS}", "train.eval_every=2", "model.dropout=0.2"]


def read_safetensors(path):
    """{name: (dtype, shape)}, by the format's own words."""
    data = path.read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    return {name: (entry["dtype"], entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def fields(message):
    """(number, value) of a protocol buffer; integers, and bytes of everything else."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (message[at] & 0x7f) << shift
            shift += 7
            at += 1
            if message[at - 1] < 0x80:
                return value, at
    at, found = 0, []
    while at < len(message):
        key, at = varint(at)
        size = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            value, at = varint(at)
        else:
            if size is None:
                size, at = varint(at)
            value, at = message[at:at + size], at + size
        found.append((key >> 3, value))
    return found


def shown_by_tensorboard(folder):
    """{tag: steps}, as TensorBoard's reader takes event files: a SessionLog with status START forgets what was from its step on."""
    points = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            length, = struct.unpack("<Q", data[:8])
            event = dict(fields(data[12:12 + length]))
            data = data[16 + length:]
            if event.get(7) == b"\x08\x01":
                points = [(tag, step) for tag, step in points if step < event[2]]
            if 5 in event:
                points.append((dict(fields(dict(fields(event[5]))[1]))[1].decode(), event[2]))
    return {tag: [step for other, step in points if other == tag] for tag, _ in points}


class ResumeTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("small.yaml", MLP)

    def resume(self, settings, *arguments, ranks=0):
        return self.succeeds("train", "small.yaml", "--resume", "auto", *arguments, ranks=ranks,
                             settings=[*SAVE, *settings, "run_dir=run"])

    def refuses(self, *arguments, settings=()):
        result = self.run_command(command("train", "small.yaml", *arguments, *overrides(settings)))
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("lockstep: "), 1, result.stderr)
        return result.stderr

    def checkpoint(self, step):
        return self.folder / f"run/checkpoints/step-{step:08d}"

    def table(self, seed):
        """t.csv and e.csv, of another seed with the same names and sizes."""
        numbers = random.Random(seed)
        for name, rows in (("t.csv", 20), ("e.csv", 6)):
            lines = ["%.3f,%.3f,%.3f\n" % tuple(numbers.uniform(1, 9) for _ in range(3)) for _ in range(rows)]
            if name == "t.csv" or seed == 1:
                self.write(name, "a,b,y\n" + "".join(lines))

    def damage(self, step):
        """One bit of a shard; returns its path."""
        shard = sorted(self.checkpoint(step).glob("optimizer-*.safetensors"))[0]
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        return shard

    def check_same_as_unbroken(self):
        unbroken = self.folder / "unbroken"
        if not unbroken.exists():
            self.train("small.yaml", "unbroken", settings=SAVE)
        run = self.folder / "run"
        self.assertEqual((run / "fingerprint.json").read_bytes(), (unbroken / "fingerprint.json").read_bytes())
        curves = [[(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in steps_of(folder / "metrics.jsonl")]
                  for folder in (run, unbroken)]
        self.assertEqual(curves[0], curves[1])
        evaluations = [[line["eval"] for line in metrics(folder / "metrics.jsonl") if "eval" in line]
                       for folder in (run, unbroken)]
        self.assertEqual(evaluations[0], evaluations[1])

    # ---- going on ----

    def test_stopping_twice_and_going_on_elsewhere_gives_the_same_bytes(self):
        self.train("small.yaml", "run", settings=[*SAVE, "train.stop_after=3"])
        self.assertTrue((self.checkpoint(3) / "manifest.json").exists())
        result = self.resume(["train.stop_after=2", "pipeline.stages=3", "pipeline.schedule=gpipe"], ranks=2)
        self.assertIn("resumed after step 3 from run/checkpoints/step-00000003", result.stderr)
        self.assertIn(f"stopped after step 5 of {STEPS} (train.stop_after)", result.stderr)
        self.resume(["pipeline.stages=1"])
        self.check_same_as_unbroken()

    def test_images_that_change_at_random_go_on_as_they_would_have(self):
        settings = ["train.steps=6", "train.stop_after=0", "checkpoint.every=end", "train.eval_every=0"]
        images = "configs/images.yaml"
        self.succeeds("train", images, settings=[*settings, f"run_dir={self.folder}/whole"], cwd=ROOT)
        parts = [*settings, f"run_dir={self.folder}/parts"]
        self.succeeds("train", images, settings=[*parts, "train.stop_after=3"], cwd=ROOT)  # in the middle of the second epoch
        self.succeeds("train", images, "--resume", "auto", settings=[*parts, "pipeline.stages=1", "workers.readers=3"], cwd=ROOT)
        prints = [(self.folder / name / "fingerprint.json").read_bytes() for name in ("whole", "parts")]
        self.assertEqual(prints[0], prints[1])

    def test_a_fresh_folder_starts_from_the_beginning_and_a_finished_run_has_nothing_left(self):
        self.resume([])
        self.check_same_as_unbroken()
        result = self.resume([])
        self.assertIn(f"nothing is left to train: the checkpoint is of step {STEPS} of {STEPS}", result.stderr)
        self.check_same_as_unbroken()

    def test_a_checkpoint_can_be_gone_on_from_in_another_folder(self):
        self.train("small.yaml", "first", settings=[*SAVE, "train.stop_after=3"])
        self.train("small.yaml", "run", "--resume", "first/checkpoints/step-00000003", settings=SAVE)
        self.assertEqual([line["step"] for line in steps_of(self.folder / "run/metrics.jsonl")], list(range(4, STEPS + 1)))
        self.train("small.yaml", "unbroken", settings=SAVE)
        self.assertEqual((self.folder / "run/fingerprint.json").read_bytes(),
                         (self.folder / "unbroken/fingerprint.json").read_bytes())

    def test_a_job_killed_while_it_saves_goes_on_to_the_same_bytes(self):
        settings = ["checkpoint.every=1", "train.steps=2000", "train.log_every=1000", "checkpoint.background=never"]
        process = self.start(command("train", "small.yaml", *overrides([*settings, "run_dir=run"])))
        folder = self.folder / "run/checkpoints"

        def saves_again():
            names = os.listdir(folder) if folder.exists() else []
            return any(name.endswith(".part") for name in names) and any(len(name) == len("step-00000001") for name in names)

        self.wait_until(saves_again, "it saves again", process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        steps = [int(path.name[5:]) for path in folder.glob("step-????????")]
        for path in folder.glob("step-????????"):
            self.succeeds("checkpoint", "verify", path)
        # As far as the killed job came, and a little further.
        last = max(steps) + 3
        more = ["checkpoint.every=1", f"train.steps={last}", "pipeline.stages=3"]
        self.succeeds("train", "small.yaml", "--resume", "auto", settings=[*more, "run_dir=run"])
        self.assertEqual(list(folder.glob("*.part*")), [])
        self.train("small.yaml", "unbroken", settings=[f"train.steps={last}"])
        self.assertEqual((self.folder / "run/fingerprint.json").read_bytes(),
                         (self.folder / "unbroken/fingerprint.json").read_bytes())
        self.assertEqual([line["step"] for line in steps_of(self.folder / "run/metrics.jsonl")], list(range(1, last + 1)))

    def test_a_signal_leaves_a_checkpoint_on_every_rank(self):
        self.write("endless.yaml", ENDLESS)
        line = command("train", "endless.yaml", *overrides(["checkpoint.every=end", "run_dir=run"]), ranks=2)
        process = self.start(line)
        self.wait_until(lambda: metrics(self.folder / "run/metrics.jsonl"), "its first step", process)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, stderr)
        last = steps_of(self.folder / "run/metrics.jsonl")[-1]["step"]
        self.assertIn("good", self.succeeds("checkpoint", "verify", self.checkpoint(last)).stdout)

    def test_a_save_that_does_not_fit_on_the_disk_ends_the_job_and_leaves_the_older_one(self):
        # A file may not be larger than 1 MiB, in place of a full disk: for that a test would have to be root.
        for background in ("always", "never"):
            with self.subTest(background):
                settings = [*SAVE, "model.width=512", f"checkpoint.background={background}", f"run_dir={background}"]
                self.train("small.yaml", background, settings=[*settings, "train.stop_after=2"])
                line = command("train", "small.yaml", "--resume", "auto", *overrides(settings))
                result = self.run_command(["bash", "-c", "trap '' XFSZ; ulimit -f 1024; exec \"$@\"", "limited", *line])
                said = re.findall(r"(?m)^lockstep: .*$", result.stderr)
                self.assertEqual((result.returncode, len(said)), (1, 1), result.stderr)
                self.assertRegex(said[0], r"after step \d: checkpoint: cannot write \S+step-00000004\.part/\S+\.safetensors: "
                                          r"File too large")
                kept = [path.name for path in (self.folder / background / "checkpoints").glob("step-*") if path.suffix != ".part"]
                self.assertEqual(kept, ["step-00000002"])
                result = self.succeeds("train", "small.yaml", "--resume", "auto", settings=settings)
                self.assertIn("resumed after step 2", result.stderr)

    # ---- refusals ----

    def test_damage_is_named_and_an_older_one_offered(self):
        self.train("small.yaml", "run", settings=SAVE)
        shard = self.damage(STEPS)
        said = self.refuses("--resume", f"run/checkpoints/step-{STEPS:08d}", settings=[*SAVE, "run_dir=run"])
        self.assertRegex(said, rf"--resume: run/checkpoints/step-{STEPS:08d}/{shard.name}: tensor 'fc\.\d\.\w+\.exp_avg(_sq)?' "
                               rf"at byte \d+: has other bytes .*; the newest good one beside it is run/checkpoints/step-00000006")
        result = self.resume([])
        self.assertRegex(result.stderr, rf"a damaged checkpoint is passed over: run/checkpoints/step-{STEPS:08d}/{shard.name}: tensor")
        self.assertIn("resumed after step 6", result.stderr)
        self.check_same_as_unbroken()
        self.assertTrue((self.folder / f"run/checkpoints/superseded-step-{STEPS:08d}").exists())
        curves = shown_by_tensorboard(self.folder / "run/tensorboard")
        self.assertEqual(curves.pop("eval/loss"), [2, 4, 6, 7])
        self.assertLessEqual({"train/loss", "time/bubble", "time/samples_per_s", "memory/peak_bytes"}, set(curves))
        for tag, steps in curves.items():
            self.assertEqual(steps, list(range(1, STEPS + 1)), tag)

    def test_what_would_compute_something_else_is_refused_by_its_key(self):
        self.train("small.yaml", "run", settings=SAVE)
        for setting, key in (("train.batch=8", r"train\.batch: got 8, expected 10 as in the checkpoint"),
                             ("model.width=16", r"model\.width: got 16, expected 8"),
                             ("seed=2", r"seed: got 2, expected 1")):
            said = self.refuses("--resume", "auto", settings=[*SAVE, "run_dir=run", setting])
            self.assertRegex(said, rf"--set {setting}: {key}")
        self.assertRegex(self.refuses("--resume", "run", settings=[*SAVE, "run_dir=run"]), "run: is no checkpoint: ")
        self.assertRegex(self.refuses("--resume", "none", settings=[*SAVE, "run_dir=run"]), "none: there is no such checkpoint")
        self.assertRegex(self.refuses(settings=[*SAVE, "run_dir=run"]), "already holds a run; go on with it")

    def test_other_data_is_refused_by_its_file_and_taken_knowingly(self):
        self.table(seed=1)
        self.write("table.yaml", TABLE)
        self.train("table.yaml", "run", settings=["train.stop_after=2"])
        resume = ["--resume", "auto"]

        def says(*arguments, settings=(), code):
            result = self.run_command(command("train", "table.yaml", *resume, *arguments,
                                              *overrides([*settings, "train.stop_after=1", "run_dir=run"])))
            self.assertEqual(result.returncode, code, result.stderr)
            return result.stderr

        says(settings=[f"data.train={self.folder}/t.csv"], code=0)
        self.table(seed=2)
        said = says(code=2)
        self.assertRegex(said, r"table\.yaml:2:\d+: data\.train: got t\.csv \(\d+ bytes, hash \w+\), expected \S*t\.csv \(.*\) as in the "
                               r"checkpoint run/checkpoints/step-00000003: .*knowingly: --change data\n")
        self.assertIn("changed knowingly: data.train: t.csv (", says("--change", "data", code=0))
        seen = self.succeeds("checkpoint", "inspect", self.checkpoint(4)).stdout
        self.assertRegex(seen, r"(?s)data\n  train: t\.csv, \d+ bytes, hash .*scaling of a: mean .*after step 3: data\.train: ")
        self.write("e.csv", (self.folder / "e.csv").read_text().replace("1", "2"))
        self.assertIn("the evaluation data is e.csv (", says(code=0))

    def test_every_key_can_be_changed_knowingly_with_the_flags_that_the_refusal_names(self):
        self.train("small.yaml", "run", settings=[*SAVE, "train.stop_after=3"])
        wanted = ["train.optimizer.lr=0.01", "train.lr_schedule={type: cosine, warmup_steps: 2}", "train.batch=8"]
        said = self.refuses("--resume", "auto", settings=[*SAVE, *wanted, "run_dir=run"])
        flags = shlex.split(re.search(r"knowingly: (.*)", said)[1])
        self.assertIn("train.batch=8", flags)
        result = self.succeeds("train", "small.yaml", "--resume", "auto", *flags, settings=[*SAVE, "run_dir=run", *wanted[1:2]])
        self.assertIn("changed knowingly: train.batch: 8 instead of 10", result.stderr)
        self.assertEqual(steps_of(self.folder / "run/metrics.jsonl")[-1]["step"], STEPS)
        self.assertIn("after step 3: train.batch: 8 instead of 10", self.succeeds("checkpoint", "inspect", self.checkpoint(STEPS)).stdout)
        # The same command again, as a launcher starts it: nothing is left to change.
        result = self.succeeds("train", "small.yaml", "--resume", "auto", *flags, settings=[*SAVE, "run_dir=run", *wanted[1:2]])
        self.assertIn("--change train.batch: nothing that a resume compares differs there", result.stderr)

    def test_a_change_that_cannot_be_meant_is_named(self):
        self.train("small.yaml", "run", settings=[*SAVE, "train.stop_after=3"])
        for arguments, said in (
                (["--change", "train.batch=8"], r"--change: got train\.batch=8 without --resume, expected a checkpoint to go on from; "),
                (["--resume", "auto", "--change", "train.bach=8"], r"--change train\.bach=8: train\.bach: got an unknown key, .*'batch'\?"),
                (["--resume", "auto", "--change", "dtaa"], r"--change: got dtaa, expected KEY=VALUE or .*; did you mean 'data'\?")):
            self.assertRegex(self.refuses(*arguments, settings=[*SAVE, "run_dir=run"]), said)

    def test_kernels_that_compute_other_bits_are_a_warning_with_both_values(self):
        self.train("small.yaml", "run", settings=[*SAVE, "train.stop_after=3"])
        line = command("train", "small.yaml", "--resume", "auto", *overrides([*SAVE, "train.stop_after=1", "run_dir=run"]))
        environment = json.loads((self.checkpoint(3) / "trainer.json").read_text())["environment"]
        for variable, value, expected in (("ATEN_CPU_CAPABILITY", "default", r"aten DEFAULT instead of \w+, .*operator\.\w+ \w{8} instead of "),
                                          ("MKL_CBWR", "COMPATIBLE", r"operator\.matmul \w{8} instead of \w{8}")):
            with self.subTest(variable):
                result = self.run_command(line, environment={variable: value})
                self.assertEqual(result.returncode, 0, result.stderr)
                if environment["isa"] != "default":  # else this processor has one set of kernels only
                    self.assertRegex(result.stderr, r"bits may differ from an unbroken run: .*" + expected)

    def test_a_run_folder_in_use_is_not_resumed(self):
        self.write("endless.yaml", ENDLESS)
        process = self.start(command("train", "endless.yaml", "--set", "run_dir=run"))
        self.wait_until(lambda: metrics(self.folder / "run/metrics.jsonl"), "its first step", process)
        said = self.refuses("--resume", "auto", settings=["run_dir=run"])
        self.assertIn("another job is running in run", said)

    # ---- looking at one ----

    def test_a_checkpoint_can_be_inspected_verified_exported_and_fingerprinted(self):
        run = self.train("small.yaml", "run", settings=SAVE)
        last = self.checkpoint(STEPS)
        seen = self.succeeds("checkpoint", "inspect", last).stdout
        self.assertRegex(seen, rf"step {STEPS}, 64 samples consumed \(64 per epoch\)")
        self.assertRegex(seen, r"fc\.0\.weight +F32 \[8, 4\]")
        self.assertIn("train.batch: 10", seen)
        self.assertEqual(len(self.succeeds("checkpoint", "inspect", run).stdout.splitlines()), 3)  # keep: 3
        self.assertEqual(self.succeeds("checkpoint", "fingerprint", last).stdout, (run / "fingerprint.json").read_text())
        self.succeeds("checkpoint", "export", last, "-o", "weights.safetensors")
        self.assertEqual(read_safetensors(self.folder / "weights.safetensors")["fc.0.weight"], ("F32", [8, 4]))
        shard = self.damage(STEPS)
        result = self.run_command(command("checkpoint", "verify", last))
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"DAMAGED: {last}/{shard.name}: tensor", result.stdout)

    def test_eval_gives_the_loss_that_training_saw(self):
        run = self.train("small.yaml", "run", settings=SAVE)
        losses = {line["eval"]["step"]: line["eval"]["eval_loss"] for line in metrics(run / "metrics.jsonl") if "eval" in line}
        for ranks in (0, 2):
            result = self.succeeds("eval", "small.yaml", "--checkpoint", self.checkpoint(6), settings=SAVE, ranks=ranks)
            found = re.fullmatch(r"step 6  eval loss (\S+)  \(10 samples\)\n", result.stdout)
            self.assertAlmostEqual(float(found.group(1)), losses[6], places=7)

    def test_eval_and_export_take_the_averages_in_place_of_the_weights(self):
        settings = [*SAVE, "train.ema.decay=0.5", "train.optimizer={type: adafactor}"]
        self.train("small.yaml", "run", settings=settings)
        last = self.checkpoint(STEPS)
        losses = [self.succeeds("eval", "small.yaml", "--checkpoint", last, *flag, ranks=ranks, settings=SAVE).stdout
                  for flag, ranks in (((), 0), (("--ema",), 0), (("--ema",), 2))]
        self.assertNotEqual(losses[0], losses[1])
        self.assertEqual(losses[1], losses[2])
        for flag, file in (((), "weights"), (("--ema",), "averages")):
            self.succeeds("checkpoint", "export", last, *flag, "-o", file)
        contents = [(self.folder / file).read_bytes() for file in ("weights", "averages")]
        self.assertEqual(len(contents[0]), len(contents[1]))
        self.assertNotEqual(*contents)
        self.train("small.yaml", "plain", settings=SAVE)
        plain = self.folder / f"plain/checkpoints/step-{STEPS:08}"
        for line in (["eval", "small.yaml", "--checkpoint", plain, "--ema", *overrides(SAVE)], ["checkpoint", "export", plain, "--ema", "-o", "x"]):
            result = self.run_command(command(*line))
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn("has no averages of its weights: it was trained without train.ema", result.stderr)
        result = self.run_command(command("train", "small.yaml", "--resume", plain, *overrides([*settings, "run_dir=on"])))
        self.assertIn("--change train.ema.decay=0.5", result.stderr)

    def test_eval_needs_no_training_file_and_no_scaling_but_the_checkpoints(self):
        self.table(seed=1)
        self.write("table.yaml", TABLE)
        self.train("table.yaml", "run")

        def loss(*settings):
            return self.succeeds("eval", "table.yaml", "--checkpoint", self.checkpoint(5), settings=settings).stdout

        expected = loss()
        self.assertIn("step 5  eval loss ", expected)
        self.assertEqual(loss("train.optimizer.lr=0.5", "train.steps=1"), expected)
        self.table(seed=2)
        self.assertEqual(loss(), expected)
        (self.folder / "t.csv").unlink()
        self.assertEqual(loss(), expected)
        scaling = json.loads((self.checkpoint(5) / "data.json").read_text())["scaling"]
        self.assertEqual([column["column"] for column in scaling], ["a", "b"])

    def test_eval_speaks_of_evaluating(self):
        self.train("small.yaml", "run", settings=SAVE)
        for checkpoint, settings, said in (
                ("none", [], r"lockstep: --checkpoint: none: there is no such checkpoint folder"),
                (self.checkpoint(6), ["model.width=16"], r"model\.width: got 16, expected 8 as in the checkpoint .*: the evaluation would ")):
            result = self.run_command(command("eval", "small.yaml", "--checkpoint", checkpoint, *overrides([*SAVE, *settings])))
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertRegex(result.stderr, said)
            self.assertNotIn("resum", result.stderr)

    def test_a_folder_of_something_else_is_not_called_damaged(self):
        (self.folder / "other").mkdir()
        result = self.run_command(command("checkpoint", "verify", "other"))
        self.assertEqual((result.returncode, result.stdout), (2, ""), result.stderr)
        self.assertIn("other: is no checkpoint: it has no manifest.json", result.stderr)

    def test_a_gpt_checkpoint_is_a_hugging_face_folder(self):
        self.write("gpt.yaml", """\
model: {type: gpt, layers: 2, heads: 2, width: 8, context: 8, vocab: 11}
data: {type: synthetic, task: tokens, samples: 16, context: 8, vocab: 11}
train: {steps: 2, batch: 4, micro_batches: 2, loss: sparse_categorical_cross_entropy}
pipeline: {stages: 3, schedule: 1f1b}
checkpoint: {every: end}
""")
        self.train("gpt.yaml", "run")
        folder = self.checkpoint(2)
        config = json.loads((folder / "config.json").read_text())
        self.assertEqual((config["model_type"], config["architectures"], config["tie_word_embeddings"]),
                         ("gpt2", ["GPT2LMHeadModel"], True))
        index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        names = {f"transformer.h.{layer}.{name}" for layer in range(2) for name in (
            "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
            "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")}
        self.assertEqual(set(index), names | {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight",
                                              "transformer.ln_f.bias"})
        tensors = {name: entry for file in set(index.values()) for name, entry in read_safetensors(folder / file).items()}
        self.assertEqual(tensors["transformer.h.1.attn.c_attn.weight"], ("F32", [8, 24]))  # Conv1D: [in, out]
        self.assertEqual(tensors["transformer.wte.weight"], ("F32", [11, 8]))


if __name__ == "__main__":
    unittest.main()
