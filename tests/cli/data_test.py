# SPDX-License-Identifier: Apache-2.0
"""What the command does with data and with given weights: `lockstep data`, sizes and epochs, orders, several evaluation sets,
mixtures, --init-from."""
import json
import re
import struct
import unittest

from cli import MLP, CliTest, command, metrics, overrides, steps_of

TABLE = "name,weight,kind\n" + "".join(f"{i % 7}.5,{i * 3 % 11},{i % 2}\n" for i in range(20))
CLASSES = """\
name: small
model: {type: mlp, inputs: auto, width: 8, layers: 1, outputs: auto}
data: {type: csv, train: t.csv, eval: e.csv, targets: [kind], task: classification}
train: {epochs: 3, batch: 8, micro_batches: 3, loss: sparse_categorical_cross_entropy}
pipeline: {stages: 2, schedule: 1f1b}
"""


class DataTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("t.csv", TABLE)
        self.write("e.csv", "name,weight,kind\n0.5,0,0\n2.5,100,1\n")
        self.write("classes.yaml", CLASSES)
        self.write("small.yaml", MLP)

    # ---- lockstep data ----

    def test_data_says_what_it_is(self):
        said = self.succeeds("data", "classes.yaml", "--samples", 1).stdout
        self.assertEqual(said, """\
training set: 20 samples of t.csv, 179 B, in memory
  x         Float [rows, 2]  from 0 to 10, mean 4.1
  targets   Long [rows]  from 0 to 1, mean 0.5
  2 classes: 0 10 (50.0 %), 1 10 (50.0 %)
  x[0] column 'name': number
  x[1] column 'weight': number

evaluation set: 2 samples of e.csv, 35 B, in memory
  x         Float [rows, 2]  from 0 to 100, mean 25.75
  targets   Long [rows]  from 0 to 1, mean 0.5
  2 classes: 0 1 (50.0 %), 1 1 (50.0 %)
  1 of them are in the training set too, and say little: sample 0 (e.csv:2) is sample 0 (t.csv:2)

samples of the training set
  sample 0 (t.csv:2)
    x: 0.5, 0
    targets: 0
""")

    def test_data_says_what_became_of_columns_and_gaps(self):
        self.write("gaps.csv", "size,colour,age,kind\n1,red,3,yes\n,blue,,no\n3,,5,yes\n5,red,,no\nNA,blue,7,\n")
        data = ("data={type: table, train: gaps.csv, task: classification, targets: [kind], "
                "missing: {size: mean, colour: indicator, age: -1, kind: drop}}")
        said = self.succeeds("data", "classes.yaml", settings=[data]).stdout
        self.assertIn("""
  x[0] column 'size': number; 2 of 5 cells missing: the mean, 3
  x[1-2] column 'colour': category: blue, red; 1 of 5 cells missing: no category, indicator x[3]
  x[4] column 'age': number; 2 of 5 cells missing: taken for -1
  1 of 5 rows left out, for missing cells
""", said)

    def test_data_names_the_samples_of_a_step(self):
        steps = [self.succeeds("data", "classes.yaml", "--step", step).stdout for step in (1, 2, 3, 4)]
        self.assertRegex(steps[0], r"^step 1: epoch 1, draws 0 to 7 of 20\nmicro-batch 0\n(  sample \d+ \(t\.csv:\d+\)\n){3}micro-batch 1\n")
        self.assertIn("step 3: epoch 1, draws 16 to 19 of 20", steps[2])
        self.assertIn("step 4: epoch 2, draws 0 to 7 of 20", steps[3])
        epoch = re.findall(r"sample (\d+)", "".join(steps[:3]))
        self.assertEqual(sorted(map(int, epoch)), list(range(20)))

    def test_data_of_bytes_and_pictures(self):
        self.write("a.txt", "The quick brown fox\njumps over the lazy dog\n")
        said = self.succeeds("data", "classes.yaml", settings=["data={type: text, train: a.txt, context: 12}"]).stdout
        self.assertIn('x: "The quick br"', said)
        self.assertIn('targets: "he quick bro"', said)
        said = self.succeeds("data", "classes.yaml", settings=[
            "data={type: synthetic, task: image_classification, size: 8, classes: 3, samples: 4}"]).stdout
        self.assertRegex(said, r"x: image \[1, 8, 8\], from -?[\d.]+ to [\d.]+\n( {6}[ ░▒▓█]{8}\n){4}")

    def test_data_needs_its_files(self):
        (self.folder / "t.csv").unlink()
        result = self.run_command(command("data", "classes.yaml"))
        self.assertEqual(result.returncode, 2)
        self.assertIn("t.csv: cannot be read: No such file or directory", result.stderr)

    # ---- metrics ----

    def test_metrics_of_a_task_stand_in_log_lines_and_eval(self):
        task = ["train.task=multiclass", "train.metrics=[accuracy, {type: f1, average: micro}, confusion_matrix]", "train.eval_every=3",
                "checkpoint.every=end"]
        run = self.train("classes.yaml", "run", settings=task)
        evals = [line["eval"] for line in metrics(run / "metrics.jsonl") if "eval" in line]
        self.assertEqual(len(evals), 3)
        for line in evals:
            self.assertEqual(list(line["metrics"]), ["accuracy", "f1_micro", "confusion_matrix"])
            counts = line["pictures"]["confusion_matrix"]
            self.assertEqual((len(counts), sum(counts)), (4, line["samples"]))
            self.assertEqual((counts[0] + counts[3]) / 2, line["metrics"]["accuracy"])
        last = evals[-1]["metrics"]["accuracy"]
        self.assertRegex((run / "log.txt").read_text(), rf"step 9/9  eval loss [\d.]+  accuracy {last:.4f}  f1_micro {last:.4f}  \(2 samples\)")
        said = self.succeeds("eval", "classes.yaml", "--checkpoint", run / "checkpoints/step-00000009", settings=task).stdout
        self.assertRegex(said, rf"^step 9  eval loss [\d.]+  \(2 samples\)\n  accuracy {last:g}\n  f1_micro {last:g}\n  confusion_matrix {last:g}\n"
                               r"    0: \d, \d\n    1: \d, \d\n$")
        refused = self.run_command(command("train", "classes.yaml", *overrides([*task, "train.metrics=[r2]"])))
        self.assertEqual(refused.returncode, 2)
        self.assertRegex(refused.stderr, r"train\.metrics: r2: the model puts out .*it wants numbers of the shape of the output\n$")

    # ---- sizes, epochs, sets ----

    def test_sizes_and_steps_come_from_the_data(self):
        run = self.train("classes.yaml", "run")
        self.assertEqual(len(steps_of(run / "metrics.jsonl")), 9)  # three of 3 each
        config = (run / "config.yaml").read_text()
        self.assertRegex(config, r"inputs: 2\n  width: 8\n  layers: 1\n  outputs: 2\n")
        self.assertRegex(config, r"steps: 9\n")
        self.assertIn("epochs: none\n", config)
        again = self.train("run/config.yaml", "again")  # what was written down gives the same run
        self.assertEqual(*[json.loads((folder / "fingerprint.json").read_text()) for folder in (run, again)])
        result = self.run_command(command("train", "classes.yaml", "--set", "data.task=regression", "--set", "model.vocab=auto"))
        self.assertIn("model.vocab: got auto, but the data does not say it: it has x Float [1, 2] and targets Float [1, 1]; write the number",
                      result.stderr)
        result = self.run_command(command("train", "classes.yaml", "--set", "train.steps=3"))
        self.assertEqual(result.returncode, 2)
        self.assertIn("train.epochs: got 3, expected either steps or epochs; remove one of them", result.stderr)

    def test_every_evaluation_set_is_told_apart(self):
        self.write("f.csv", "name,weight,kind\n" + "1.5,3,1\n" * 5)
        settings = ["data.evals={hard: {eval: f.csv}}", "train.eval_every=4", "checkpoint.every=end"]
        run = self.train("classes.yaml", "run", settings=settings)
        evals = [line["eval"] for line in metrics(run / "metrics.jsonl") if "eval" in line]
        self.assertEqual([(line["step"], line["set"], line["samples"]) for line in evals],
                         [(step, *of) for step in (4, 8, 9) for of in (("eval", 2), ("hard", 5))])
        self.assertIn("(5 samples of hard)", (run / "log.txt").read_text())
        said = self.succeeds("eval", "classes.yaml", "--checkpoint", "run/checkpoints/step-00000009", settings=settings).stdout
        self.assertRegex(said, r"^step 9  eval loss [\d.]+  \(2 samples\)\nstep 9  hard loss [\d.]+  \(5 samples\)\n$")
        losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", said)]
        for ours, line in zip(losses, evals[-2:]):
            self.assertAlmostEqual(ours, line["eval_loss"], places=7)
        (self.folder / "t.csv").unlink()  # an evaluation does not need it
        self.assertEqual(self.succeeds("eval", "classes.yaml", "--checkpoint", "run/checkpoints/step-00000009",
                                       settings=[*settings, "model.inputs=2", "model.outputs=2"]).stdout, said)

    def test_orders_and_mixtures_are_the_same_bits_on_ranks_and_after_a_resume(self):
        mixture = ("data={type: mixture, sources: [{type: csv, train: t.csv, targets: [kind], task: classification, weight: 1}, "
                   "{type: csv, train: e.csv, targets: [kind], task: classification, weight: 2}]}")
        cases = {"mixture": [mixture], "blocks": ["data.sampling={order: blocks, block: 3, window: 2}"],
                 "streams": ["data.sampling={order: streams}"], "classes": ["data.sampling={balance: classes}"]}
        fingerprints = set()
        for name, settings in cases.items():
            with self.subTest(name):
                whole = self.train("classes.yaml", name, settings=settings)
                part = [*settings, "checkpoint.every=2", "train.stop_after=4"]
                self.train("classes.yaml", name + "-parts", settings=part, ranks=2)
                parts = self.train("classes.yaml", name + "-parts", "--resume", "auto", ranks=2,
                                   settings=[*settings, "checkpoint.every=2"])
                of = [(folder / "fingerprint.json").read_text() for folder in (whole, parts)]
                self.assertEqual(of[0], of[1])
                fingerprints.add(of[0])
        self.assertEqual(len(fingerprints), len(cases))

    # ---- given weights ----

    def test_a_run_starts_from_the_weights_of_another(self):
        first = self.train("small.yaml", "first", settings=["checkpoint.every=end"])
        checkpoint = "first/checkpoints/step-00000004"
        self.succeeds("checkpoint", "export", checkpoint, "-o", "w.safetensors")
        fingerprints = []
        for name, source, ranks in (("a", checkpoint, 0), ("b", "w.safetensors", 2)):
            run = self.train("small.yaml", name, "--init-from", source, ranks=ranks, settings=["seed=5"])
            self.assertRegex((run / "log.txt").read_text(), rf"starts from 6 tensors of {re.escape(source)}\n")
            fingerprints.append((run / "fingerprint.json").read_text())
        self.assertEqual(*fingerprints)
        self.assertNotEqual(fingerprints[0], (first / "fingerprint.json").read_text())

    def test_weights_that_do_not_fit_are_named_and_leave_nothing_behind(self):
        header = json.dumps({"fc.0.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        (self.folder / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
        line = ["train", "small.yaml", "--set", "run_dir=run", "--init-from"]
        for ranks in (0, 2):
            result = self.run_command(command(*line, "w.safetensors", ranks=ranks))
            self.assertEqual(result.returncode, 2)
            self.assertEqual(len(re.findall("lockstep: ", result.stderr)), 1, result.stderr)
            self.assertIn("it lacks 5 of the model's 6 tensors: fc.0.bias, ", result.stderr)
            self.assertIn("fc.0.weight is F32 [2], the model's has [8, 4]", result.stderr)
            self.assertFalse((self.folder / "run").exists())
        result = self.run_command(command(*line, "it's not there"))
        self.assertIn("it's not there: is not there (working folder: ", result.stderr)


if __name__ == "__main__":
    unittest.main()
