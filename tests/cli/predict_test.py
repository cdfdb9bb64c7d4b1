# SPDX-License-Identifier: Apache-2.0
"""`lockstep predict`: from a checkpoint and a file to answers in a file. In the order of the input, whatever else is in it, on
any number of workers, without the training data; what is wrong is said, and leaves nothing half written."""
import csv
import io
import json
import math
import random
import re
import shutil
import struct
import subprocess
import unittest

from cli import ROOT, CliTest, command

CLASSES = """\
name: small
model: {type: mlp, inputs: auto, width: 8, layers: 1, outputs: auto}
data:
  type: table
  train: t.csv
  eval: e.csv
  targets: [kind]
  task: classification
  ignore: [id]
  normalize: true
  missing: {default: refuse, colour: indicator, size: mean}
train: {task: multiclass, steps: 40, batch: 16, micro_batches: 3, optimizer: {type: adam, lr: 0.05}}
checkpoint: {every: end}
pipeline: {stages: 2, schedule: 1f1b}
"""
COLOURS, KINDS = ["red", "blue", ""], ["cat, small", "dog", "owl"]


def row(number):
    kind = number % 3
    return [f"n{number}", "" if number % 11 == 7 else f"{kind * 2 + number % 5 * 0.1:.2f}", COLOURS[(number // 2) % 3],
            f"2024-01-{number % 28 + 1:02}", KINDS[kind]]


def text_of(rows, names):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return out.getvalue()


NAMES = ["id", "size", "colour", "day", "kind"]


def read_safetensors(path):
    """{name: (dtype, shape, values)}; values of float32 and int64 as Python numbers."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        form = {"F32": "f", "I64": "q", "F64": "d"}[entry["dtype"]]
        raw = data[8 + size + begin:8 + size + end]
        tensors[name] = (entry["dtype"], entry["shape"], list(struct.unpack(f"<{len(raw) // struct.calcsize(form)}{form}", raw)))
    return tensors


def write_safetensors(path, tensors):
    """{name: (shape, floats)}"""
    header, blobs, at = {}, [], 0
    for name, (shape, values) in tensors.items():
        blob = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


class PredictTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("t.csv", text_of([row(i) for i in range(60)], NAMES))
        self.write("e.csv", text_of([row(i) for i in range(60, 72)], NAMES))
        self.write("c.yaml", CLASSES)

    def trained(self, config="c.yaml", name="run", settings=()):
        """The checkpoint alone: run folder and training data are gone."""
        run = self.train(config, name, settings=settings)
        (checkpoint,) = (run / "checkpoints").glob("step-*")
        copy = self.folder / f"{name}-copy"
        shutil.copytree(checkpoint, copy)
        shutil.rmtree(run)
        for data in ("t.csv", "e.csv"):
            (self.folder / data).unlink(missing_ok=True)
        return copy.name

    def predict(self, checkpoint, *arguments, config="c.yaml", **options):
        return self.succeeds("predict", config, "--checkpoint", checkpoint, *arguments, **options)

    def rows(self, text):
        return list(csv.DictReader(io.StringIO(text)))

    def refused(self, *arguments):
        result = self.run_command(command("predict", *arguments))
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        return result.stderr

    # ---- tables ----

    def test_a_table_is_answered_in_its_order_without_the_training_data(self):
        checkpoint = self.trained()
        rows = [row(i) for i in range(100, 300)]
        self.write("new.csv", text_of([r[:-1] for r in rows], NAMES[:-1]))
        answers = self.rows(self.predict(checkpoint, "--input", "new.csv", "--keep", "id,colour").stdout)
        self.assertEqual([answer["id"] for answer in answers], [r[0] for r in rows])
        self.assertEqual([answer["colour"] for answer in answers], [r[2] for r in rows])
        self.assertEqual(list(answers[0]), ["id", "colour", "prediction", "probability"])
        right = sum(answer["prediction"] == r[-1] for answer, r in zip(answers, rows) if r[1])
        self.assertGreaterEqual(right / sum(1 for r in rows if r[1]), 0.95)
        self.assertTrue(all(1 / 3 <= float(answer["probability"]) <= 1 for answer in answers))

        # Targets in the file, other columns, another order of columns: the same answers.
        shuffled = ["colour", "new", "kind", "day", "size", "id"]
        values = [dict(zip(NAMES, r)) | {"new": "x", "kind": "never seen"} for r in rows]
        self.write("shuffled.csv", text_of([[v[name] for name in shuffled] for v in values], shuffled))
        again = self.rows(self.predict(checkpoint, "--input", "shuffled.csv", "--keep", "id,colour").stdout)
        self.assertEqual(again, answers)
        kept = self.rows(self.predict(checkpoint, "--input", "shuffled.csv", "--keep", "*").stdout)
        self.assertEqual(list(kept[0]), ["id", "size", "colour", "day", "kind", "new", "prediction", "probability"])
        self.assertEqual([v["size"] for v in kept], [v["size"] for v in values])

    def test_an_answer_does_not_depend_on_its_neighbours_or_on_the_workers(self):
        checkpoint = self.trained()
        lines = text_of([row(i)[:-1] for i in range(100, 250)], NAMES[:-1]).splitlines()
        self.write("all.csv", "\n".join(lines) + "\n")
        every = ("--probabilities", "--input")
        whole = self.predict(checkpoint, *every, "all.csv").stdout.splitlines()
        self.assertEqual(len(whole), 151)
        for number in (1, 77, 150):
            self.write("one.csv", f"{lines[0]}\n{lines[number]}\n")
            self.assertEqual(self.predict(checkpoint, *every, "one.csv").stdout.splitlines(), [whole[0], whole[number]])
        order = list(range(1, 151))
        random.Random(1).shuffle(order)
        self.write("mixed.csv", "\n".join([lines[0], *(lines[i] for i in order)]) + "\n")
        self.assertEqual(self.predict(checkpoint, *every, "mixed.csv").stdout.splitlines(),
                         [whole[0], *(whole[i] for i in order)])
        for settings in (["pipeline.stages=1"], ["pipeline.stages=3", "pipeline.schedule=gpipe"],
                         ["replicas.count=2", "train.gradient_groups=2"]):
            self.assertEqual(self.predict(checkpoint, *every, "all.csv", settings=settings).stdout.splitlines(), whole)
            self.assertEqual(self.predict(checkpoint, *every, "one.csv", settings=settings).stdout.splitlines(), [whole[0], whole[150]])
        for ranks in (2, 3):
            self.predict(checkpoint, *every, "all.csv", "--output", "ranks.csv", ranks=ranks,
                         settings=[f"pipeline.stages={ranks}"])
            self.assertEqual((self.folder / "ranks.csv").read_text().splitlines(), whole)

    def test_the_three_formats_say_the_same(self):
        checkpoint = self.trained()
        self.write("new.csv", text_of([row(i)[:-1] for i in range(100, 107)], NAMES[:-1]))
        arguments = ("--input", "new.csv", "--probabilities")
        rows = self.rows(self.predict(checkpoint, *arguments).stdout)
        self.assertEqual(list(rows[0]), ["prediction", "probability", *(f"probability_{kind}" for kind in KINDS)])
        lines = [json.loads(line) for line in
                 self.predict(checkpoint, *arguments, "--format", "jsonl", "--keep", "size,day").stdout.splitlines()]
        self.assertEqual([(l["size"], l["day"]) for l in lines],
                         [(float(row(i)[1]) if row(i)[1] else "", row(i)[3]) for i in range(100, 107)])
        said = self.predict(checkpoint, *arguments, "--output", "a.safetensors").stderr
        self.assertIn("lockstep: 7 answers in a.safetensors", said)
        tensors = read_safetensors(self.folder / "a.safetensors")
        self.assertEqual({name: entry[:2] for name, entry in tensors.items()},
                         {"prediction": ("I64", [7]), "probability": ("F32", [7]), "probabilities": ("F32", [7, 3])})
        for i, (cells, line) in enumerate(zip(rows, lines)):
            self.assertEqual(cells["prediction"], line["prediction"])
            self.assertEqual(KINDS[tensors["prediction"][2][i]], line["prediction"])
            self.assertEqual(float(cells["probability"]), line["probability"])
            as_float = struct.unpack("f", struct.pack("f", line["probability"]))[0]
            self.assertEqual(as_float, tensors["probability"][2][i])
            for of, kind in enumerate(KINDS):
                value = struct.unpack("f", struct.pack("f", float(cells[f"probability_{kind}"])))[0]
                self.assertEqual(value, tensors["probabilities"][2][3 * i + of])
            self.assertAlmostEqual(math.fsum(tensors["probabilities"][2][3 * i:3 * i + 3]), 1, 5)

    def test_standard_input_and_no_rows(self):
        checkpoint = self.trained()
        text = text_of([row(i)[:-1] for i in range(100, 103)], NAMES[:-1])
        self.write("new.csv", text)
        expected = self.predict(checkpoint, "--input", "new.csv").stdout
        lines = "".join(json.dumps(dict(zip(NAMES, row(i)[:-1]))) + "\n" for i in range(100, 103))
        for given, flags, ranks in ((text, [], 0), (lines, ["--input-format", "jsonl"], 0), (text, [], 2)):
            result = subprocess.run(command("predict", "c.yaml", "--checkpoint", checkpoint, "--input", "-", *flags, ranks=ranks),
                                    cwd=self.folder, input=given, text=True, capture_output=True, timeout=90)
            self.assertEqual((result.returncode, result.stdout), (0, expected), result.stderr)
        self.write("none.csv", ",".join(NAMES[:-1]) + "\n")
        self.assertEqual(self.predict(checkpoint, "--input", "none.csv").stdout, "prediction,probability\n")
        self.write("nothing.jsonl", "")
        self.assertEqual(self.predict(checkpoint, "--input", "nothing.jsonl", "--format", "jsonl").stdout, "")
        self.predict(checkpoint, "--input", "none.csv", "--output", "none.safetensors")
        self.assertEqual(read_safetensors(self.folder / "none.safetensors")["prediction"], ("I64", [0], []))

    def test_numbers_and_yes_or_no(self):
        table = "a,b,y,z,won\n" + "".join(f"{i % 7},{i % 5},{i % 7 + 1},{i % 5 * 2},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(70))
        config = """\
name: numbers
model: {type: mlp, inputs: 2, width: 8, layers: 1, outputs: %s}
data: {type: csv, train: t.csv, columns: [a, b], targets: %s, task: %s}
train: {task: %s, steps: 150, batch: 16, optimizer: {type: adam, lr: 0.05}}
checkpoint: {every: end}
"""
        self.write("t.csv", table)
        self.write("numbers.yaml", config % (2, "[y, z]", "regression", "regression"))
        checkpoint = self.trained("numbers.yaml", "numbers")
        self.write("new.csv", "b,a\n1,2\n4,6\n")
        answers = self.rows(self.predict(checkpoint, "--input", "new.csv", config="numbers.yaml").stdout)
        self.assertEqual(list(answers[0]), ["prediction_y", "prediction_z"])
        for answer, (y, z) in zip(answers, ((3, 2), (7, 8))):
            self.assertAlmostEqual(float(answer["prediction_y"]), y, delta=0.5)
            self.assertAlmostEqual(float(answer["prediction_z"]), z, delta=0.5)

        self.write("t.csv", table)
        self.write("yes.yaml", config % (1, "[won]", "classification", "binary"))
        checkpoint = self.trained("yes.yaml", "yes")
        self.write("new.csv", "b,a\n1,2\n4,6\n0,0\n")
        answers = self.rows(self.predict(checkpoint, "--input", "new.csv", config="yes.yaml").stdout)
        self.assertEqual([answer["prediction"] for answer in answers], ["no", "yes", "no"])
        self.assertEqual([float(answer["probability"]) > 0.5 for answer in answers], [False, True, False])

    # ---- other data ----

    def test_safetensors_and_places(self):
        config = """\
name: pixels
model: {type: unet, inputs: 1, channels: 4, depth: 1, classes: 2}
data: {type: safetensors, train: t.safetensors, dtypes: {targets: int64}}
train: {task: segmentation, steps: 2, batch: 4}
checkpoint: {every: end}
"""
        random_numbers = random.Random(3)
        x = [random_numbers.gauss(0, 1) for _ in range(6 * 16)]
        write_safetensors(self.folder / "t.safetensors", {"x": ([6, 1, 4, 4], x)})
        data = (self.folder / "t.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8:8 + size])
        targets = struct.pack(f"<{6 * 16}q", *(int(value > 0) for value in x))
        header["targets"] = {"dtype": "I64", "shape": [6, 4, 4], "data_offsets": [len(x) * 4, len(x) * 4 + len(targets)]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (self.folder / "t.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:] + targets)
        self.write("pixels.yaml", config)
        checkpoint = self.trained("pixels.yaml", "pixels")
        write_safetensors(self.folder / "new.safetensors", {"x": ([3, 1, 4, 4], x[:48])})
        arguments = ("--input", "new.safetensors", "--probabilities")
        lines = [json.loads(line) for line in
                 self.predict(checkpoint, *arguments, "--format", "jsonl", config="pixels.yaml").stdout.splitlines()]
        self.predict(checkpoint, *arguments, "--output", "a.safetensors", config="pixels.yaml")
        tensors = read_safetensors(self.folder / "a.safetensors")
        self.assertEqual(tensors["prediction"][1], [3, 4, 4])
        self.assertEqual(tensors["probabilities"][1], [3, 4, 4, 2])
        self.assertEqual([pixel for line in lines for line_of in line["prediction"] for pixel in line_of],
                         tensors["prediction"][2])
        self.assertIn("got csv for answers with 4 x 4 classes a sample, expected jsonl or safetensors",
                      self.refused("pixels.yaml", "--checkpoint", checkpoint, "--input", "new.safetensors"))
        self.assertIn("got safetensors for standard output",
                      self.refused("pixels.yaml", "--checkpoint", checkpoint, "--input", "new.safetensors", "--format", "safetensors"))

    def test_text(self):
        config = """\
name: text
model: {type: gpt, vocab: 256, context: 8, width: 8, heads: 2, layers: 1}
data: {type: text, train: "*.txt"}
train: {task: language_modelling, steps: 2, batch: 4}
checkpoint: {every: end}
"""
        self.write("a.txt", "abcdefgh" * 20)
        self.write("text.yaml", config)
        checkpoint = self.trained("text.yaml", "text")
        self.write("new", "abcdefghi" * 3)
        lines = [json.loads(line) for line in
                 self.predict(checkpoint, "--input", "new", "--format", "jsonl", config="text.yaml").stdout.splitlines()]
        self.assertEqual(len(lines), 3)
        self.assertTrue(all(len(line["prediction"]) == 8 and len(line["probability"]) == 8 for line in lines))

    def test_images_have_their_names_and_those_of_their_classes(self):
        config = (ROOT / "configs/images.yaml").read_text()
        self.write("images.yaml", config)
        (self.folder / "configs").symlink_to(ROOT / "configs")
        run = self.train("images.yaml", "images", settings=["train.steps=3", "checkpoint.every=end", "data.eval=configs/data/shapes/train"])
        (checkpoint,) = (run / "checkpoints").glob("step-*")
        self.assertIn('"classes"', (checkpoint / "data.json").read_text())
        names = sorted(path.name for path in (ROOT / "configs/data/shapes/train").iterdir())
        (self.folder / "new/deep").mkdir(parents=True)
        for number, path in enumerate(sorted((ROOT / "configs/data/shapes/train" / names[0]).iterdir())[:3]):
            shutil.copy(path, self.folder / f"new/{'deep/' * (number % 2)}{number}{path.suffix}")
        answers = self.rows(self.predict(checkpoint, "--input", "new", config="images.yaml").stdout)
        self.assertEqual([answer["file"] for answer in answers], sorted(str(p.relative_to(self.folder / "new")) for p in (self.folder / "new").rglob("*.*")))
        self.assertTrue(all(answer["prediction"] in names for answer in answers))
        one = next((self.folder / "new").glob("0.*"))
        self.assertEqual(self.rows(self.predict(checkpoint, "--input", one, config="images.yaml").stdout),
                         [answer for answer in answers if answer["file"] == one.name])
        (self.folder / "empty").mkdir()
        self.assertEqual(self.predict(checkpoint, "--input", "empty", config="images.yaml").stdout, "file,prediction,probability\n")
        self.assertIn("is no folder of images and no image", self.refused("images.yaml", "--checkpoint", checkpoint, "--input", "images.yaml"))

    def test_idx_has_the_answers_of_an_evaluation(self):
        (self.folder / "configs").symlink_to(ROOT / "configs")
        run = self.train("configs/digits.yaml", "digits", settings=["checkpoint.every=end"])
        (checkpoint,) = (run / "checkpoints").glob("step-*")
        labels = (ROOT / "configs/data/digits-eval-labels.idx1").read_bytes()[8:]
        answers = self.rows(self.predict(checkpoint, "--input", "configs/data/digits-eval-images.idx3", config="configs/digits.yaml").stdout)
        right = sum(int(answer["prediction"]) == label for answer, label in zip(answers, labels)) / len(labels)
        said = self.succeeds("eval", "configs/digits.yaml", "--checkpoint", checkpoint).stdout
        self.assertAlmostEqual(right, float(re.search(r"  accuracy (\S+)", said)[1]), 6)

    def test_windows_are_answered_up_to_the_last_row(self):
        self.write("series.csv", "hour,load\n" + "".join(f"{i},{i % 6}\n" for i in range(80)))
        self.write("series.yaml", """\
name: series
model: {type: mlp, inputs: 6, width: 16, layers: 1, outputs: 2}
data: {type: table, train: series.csv, targets: [load], task: forecast, ignore: [hour], window: {length: 6, horizon: 2, flat: true}}
train: {task: regression, steps: 200, batch: 16, optimizer: {type: adam, lr: 0.02}}
checkpoint: {every: end}
""")
        checkpoint = self.trained("series.yaml", "series")
        self.write("new.csv", "hour,load\n" + "".join(f"{i},{(i + 2) % 6}\n" for i in range(9)))
        answers = self.rows(self.predict(checkpoint, "--input", "new.csv", "--keep", "hour", config="series.yaml").stdout)
        self.assertEqual([answer["hour"] for answer in answers], ["5", "6", "7", "8"])  # the last row that was known
        for answer in answers:
            for ahead in (0, 1):
                self.assertAlmostEqual(float(answer[f"prediction_{ahead}"]), (int(answer["hour"]) + 3 + ahead) % 6, delta=0.5)

    # ---- what is wrong ----

    def test_what_is_wrong_is_said_and_leaves_nothing(self):
        checkpoint = self.trained()
        self.write("new.csv", text_of([row(100)[:-1]], NAMES[:-1]))
        base = ("c.yaml", "--checkpoint", checkpoint, "--input")
        self.assertIn("no-such.csv", self.refused(*base, "no-such.csv"))
        self.assertIn("--checkpoint", self.refused("c.yaml", "--checkpoint", "no-such", "--input", "new.csv"))
        self.assertIn("--keep: got 'idd', which is no column of new.csv", self.refused(*base, "new.csv", "--keep", "idd"))
        self.assertIn("did you mean 'id'?", self.refused(*base, "new.csv", "--keep", "idd"))
        self.write("short.csv", "id,size\nn1,2\n")
        self.assertIn("got no column 'colour' among its 2 columns (id, size), expected it as in the training data of the "
                      "checkpoint", self.refused(*base, "short.csv"))
        self.write("bad.csv", text_of([row(100)[:-1], ["n", "1", "green", "2024-01-01"]], NAMES[:-1]))
        self.assertIn("bad.csv:3: column 'colour': got 'green', expected one of the 2 categories", self.refused(*base, "bad.csv"))
        self.write("gap.csv", text_of([["n", "1", "red", ""]], NAMES[:-1]))
        said = self.refused(*base, "gap.csv", "--output", "answers.csv")
        self.assertIn("gap.csv:2: column 'day': got an empty cell, expected a number; the model was trained without such rows", said)
        self.assertIn("no-folder", self.refused(*base, "new.csv", "--output", "no-folder/a.csv"))
        self.assertEqual([path.name for path in self.folder.glob("answers*")], [])
        self.assertIn("got synthetic, which has no files without targets to answer; expected text, tokens, csv, table",
                      self.refused(*base, "new.csv", "--set", "data={type: synthetic, task: classification, inputs: 5, classes: 3, samples: 9}"))

    def test_answers_that_are_not_finite_are_none(self):
        self.write("t.csv", "a,y\n" + "".join(f"{i},{i}\n" for i in range(20)))
        self.write("n.yaml", """\
name: n
model: {type: mlp, inputs: 1, width: 4, layers: 1, outputs: 1, activation: relu}
data: {type: csv, train: t.csv, targets: [y], task: regression}
train: {task: regression, steps: 3, batch: 4, optimizer: {type: adam, lr: 10}}
checkpoint: {every: end}
""")
        checkpoint = self.trained("n.yaml", "n")
        self.write("new.csv", "a\n1\n3e38\n2\n")
        self.write("answers.csv", "older\n")
        result = self.run_command(command("predict", "n.yaml", "--checkpoint", checkpoint, "--input", "new.csv", "--output", "answers.csv"))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("an answer is not finite: first in the output of layer", result.stderr)
        self.assertIn("nothing was written", result.stderr)
        self.assertEqual((self.folder / "answers.csv").read_text(), "older\n")
        self.assertEqual([path.name for path in self.folder.glob("*.part")], [])


if __name__ == "__main__":
    unittest.main()
