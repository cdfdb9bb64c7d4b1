# SPDX-License-Identifier: Apache-2.0
"""The reader of tables against pandas and pyarrow: the same files, the same numbers, in every format."""
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy
    import pandas
    import pyarrow
    import pyarrow.csv
    import pyarrow.feather
    import pyarrow.parquet
    from safetensors.numpy import load_file
except ImportError as error:
    sys.exit(f"{sys.executable} lacks {error.name}: run tools/setup_tests.sh, or configure with -DLOCKSTEP_ORACLE_PYTHON=PATH of a Python that has it")

ROOT = pathlib.Path(__file__).resolve().parents[2]
READ_DATA = os.environ.get("READ_DATA", str(ROOT / "build/release/read_data"))
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
WRITERS = {
    "t.csv": lambda frame, path: frame.to_csv(path, index=False),
    "t.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "t.csv.zst": lambda frame, path: pyarrow_csv(frame, path),
    "t.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, date_format="iso", double_precision=15),
    "t.parquet": lambda frame, path: frame.to_parquet(path),
    "snappy.parquet": lambda frame, path: pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame), path, row_group_size=37),
    "zstd.parquet": lambda frame, path: pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame), path, compression="zstd",
                                                                    use_dictionary=False, data_page_version="2.0"),
    "t.feather": lambda frame, path: pyarrow.feather.write_feather(frame, path, compression="zstd"),
    "t.arrow": lambda frame, path: stream(frame, path),
}


def pyarrow_csv(frame, path):
    with pyarrow.CompressedOutputStream(str(path), "zstd") as out:
        out.write(frame.to_csv(index=False).encode())


def stream(frame, path):
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=50)


def made_up(seed, rows):
    pick = random.Random(seed)
    return pandas.DataFrame({
        "whole": [pick.randrange(-1000, 1000) for _ in range(rows)],
        "real": [pick.gauss(1e6, 3.0) for _ in range(rows)],
        "tiny": [pick.gauss(0, 1e-30) for _ in range(rows)],
        "gaps": [pick.gauss(5, 2) if pick.random() < 0.8 else None for _ in range(rows)],
        "color": [pick.choice(["red", "green", "deep, blue", "say \"hi\"", "größe"]) for _ in range(rows)],
        "on": [pick.random() < 0.3 for _ in range(rows)],
        "day": pandas.to_datetime([f"20{pick.randrange(10, 40)}-0{pick.randrange(1, 10)}-1{pick.randrange(10)}" for _ in range(rows)]),
        "y": [pick.gauss(0, 1) for _ in range(rows)],
    })


class Tables(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def ours(self, **data):
        (self.folder / "config.yaml").write_text(json.dumps({"data": {"type": "table", **data}}))
        subprocess.run([READ_DATA, self.folder / "config.yaml", self.folder], check=True)
        return {f"{path.stem}.{name}": values for path in self.folder.glob("*.safetensors") for name, values in load_file(path).items()}

    def same(self, ours, theirs, what):
        theirs = numpy.asarray(theirs, dtype=ours.dtype)
        self.assertEqual(ours.shape, theirs.shape, what)
        wrong = numpy.argwhere(ours != theirs)
        self.assertEqual(len(wrong), 0, f"{what}: {wrong[:3]}: {[(ours[tuple(at)], theirs[tuple(at)]) for at in wrong[:3]]}")

    def features(self, frame, fill):
        days = (frame["day"].to_numpy().astype("datetime64[s]").astype("int64") / 86400.0).reshape(-1, 1)
        colors = sorted(frame["color"].unique(), key=str.encode)
        return numpy.concatenate([
            frame[["whole", "real", "tiny"]].to_numpy(dtype="float64"), frame["gaps"].fillna(fill).to_numpy().reshape(-1, 1),
            numpy.stack([frame["color"] == color for color in colors], axis=1).astype("float64"),
            frame["on"].to_numpy(dtype="float64").reshape(-1, 1), days], axis=1)

    def test_every_format_is_read_as_pandas_reads_it(self):
        frame = made_up(seed=1, rows=200)
        for name, write in WRITERS.items():
            with self.subTest(name):
                path = self.folder / name
                write(frame, path)
                read = frame
                if ".csv" in name:  # what pandas makes of the text
                    text = io.BytesIO(pyarrow.CompressedInputStream(str(path), "zstd").read()) if name.endswith("zst") else path
                    read = pandas.read_csv(text, na_values=MISSING, keep_default_na=False, parse_dates=["day"], float_precision="round_trip")
                elif name == "t.jsonl":
                    read = pandas.read_json(path, lines=True, precise_float=True, convert_dates=["day"])
                    read["day"] = read["day"].dt.tz_localize(None)
                ours = self.ours(train=str(path), task="regression", targets=["y"], missing={"gaps": -7.5})
                self.same(ours["train.x"], self.features(read, -7.5), name)
                self.same(ours["train.targets"], read[["y"]], name)

    def test_the_mean_and_the_scaling_are_numpys(self):
        frame = made_up(seed=2, rows=301)
        frame.to_parquet(self.folder / "t.parquet")
        other = made_up(seed=3, rows=40)
        other.to_parquet(self.folder / "e.parquet")
        ours = self.ours(train=str(self.folder / "t.parquet"), eval=str(self.folder / "e.parquet"), task="regression", targets=["y"],
                         columns=["whole", "real", "gaps"], missing="mean", normalize=True)
        columns = frame[["whole", "real", "gaps"]].astype("float64")
        filled = columns.fillna(columns.mean())
        for name, of in (("train", columns), ("eval", other[["whole", "real", "gaps"]].astype("float64"))):
            scaled = (of.fillna(columns.mean()) - filled.mean()) / filled.std(ddof=0)
            numpy.testing.assert_allclose(ours[f"{name}.x"], scaled.to_numpy(dtype="float32"), rtol=2e-6, atol=2e-7)

    def test_labels_are_numbered_as_pandas_categories_are(self):
        frame = made_up(seed=4, rows=100)
        frame["color"] = frame["color"].astype("category")
        pyarrow.feather.write_feather(frame, self.folder / "t.feather", compression="uncompressed")
        ours = self.ours(train=str(self.folder / "t.feather"), task="classification", targets=["color"], columns=["whole"])
        labels = sorted(frame["color"].unique(), key=str.encode)
        self.same(ours["train.targets"], [labels.index(color) for color in frame["color"]], "labels")

    def test_lists_of_tokens_are_pythons_lists(self):
        pick = random.Random(5)
        rows = [[pick.randrange(50000) for _ in range(pick.randrange(2, 12))] for _ in range(80)]
        table = pyarrow.table({"ids": pyarrow.array(rows, pyarrow.list_(pyarrow.int32()))})
        with pyarrow.ipc.new_stream(str(self.folder / "t.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=17)
        pyarrow.parquet.write_table(table, self.folder / "t.parquet")
        (self.folder / "t.jsonl").write_text("".join(json.dumps({"ids": row}) + "\n" for row in rows))
        x = [(row[:10] + 10 * [3])[:10] for row in rows]
        targets = [(row[1:11] + 10 * [-100])[:10] for row in rows]
        for name in ("t.arrow", "t.parquet", "t.jsonl"):
            with self.subTest(name):
                ours = self.ours(train=str(self.folder / name), task="next_token", tokens="ids", context=10, pad=3)
                self.same(ours["train.x"], x, name)
                self.same(ours["train.targets"], targets, name)

    def test_windows_are_numpys(self):
        frame = made_up(seed=6, rows=60)
        frame["shop"] = [f"s{row % 3}" for row in range(60)]
        frame.to_csv(self.folder / "t.csv", index=False)
        ours = self.ours(train=str(self.folder / "t.csv"), task="forecast", targets=["y"], columns=["whole", "y"],
                         window={"length": 4, "horizon": 2, "stride": 3, "group": "shop"})
        x, targets = [], []
        for _, series in frame.groupby("shop", sort=True):
            for start in range(0, len(series) - 5, 3):
                x.append(series[["whole", "y"]].iloc[start:start + 4].to_numpy())
                targets.append(series["y"].iloc[start + 4:start + 6].to_numpy())
        self.same(ours["train.x"], x, "x")
        self.same(ours["train.targets"], targets, "targets")


if __name__ == "__main__":
    unittest.main()
