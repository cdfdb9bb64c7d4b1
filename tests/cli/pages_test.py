# SPDX-License-Identifier: Apache-2.0
"""Pages that list keys list all there are: what readers take, what metrics.jsonl has."""
import re
import unittest

from cli import MLP, ROOT, CliTest, command, metrics


def keys_of(value):
    """All keys in a JSON value, however deep."""
    if isinstance(value, list):
        return set().union(*(keys_of(item) for item in value))
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(keys_of(item) for item in value.values()))


class PagesTest(CliTest):
    def page(self, name):
        return (ROOT / "docs" / name).read_text()

    def test_the_page_on_metrics_names_every_key(self):
        page = self.page("metrics.md")
        self.write("c.yaml", MLP)
        settings = ["train.eval_every=2", "workers.threads=1"]
        lines = metrics(self.train("c.yaml", "simulated", settings=settings) / "metrics.jsonl")
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache")}
        planned = self.run_command(command("train", "c.yaml", "--set", "pipeline.partition=auto", "--set", "run_dir=planned"), cache)
        self.assertEqual(planned.returncode, 0, planned.stderr)
        lines += metrics(self.folder / "planned/metrics.jsonl")
        replicas = self.run_command(command("train", "c.yaml", "--set", "replicas={count: 2, shard_optimizer: true}", "--set",
                                            "run_dir=replicas", ranks=2))
        self.assertEqual(replicas.returncode, 0, replicas.stderr)
        self.assertRegex(replicas.stderr, r"2 replicas: [\d.]+ % of a step is waiting .* a worker sends .* bus bandwidth of [\d.]+ GB/s")
        lines += metrics(self.folder / "replicas/metrics.jsonl")
        keys = keys_of(lines)
        self.assertGreater(len(keys), 40)
        self.assertIn("busbw_gb_per_s", keys)
        self.assertEqual(sorted(key for key in keys if not re.search(rf'`(workers\[\]\.)?{key}`|"{key}"', page)), [])

    def test_the_page_on_data_names_every_key_of_every_reader(self):
        self.write("x.csv", "1,2\n3,4\n")
        tasks = {"regression": "inputs: 1, outputs: 1", "classification": "inputs: 1, outputs: 2", "tokens": "vocab: 3, context: 2",
                 "image_classification": "size: 4, classes: 2", "segmentation": "size: 4, classes: 2"}
        tables = ["train: x.csv, targets: [y], task: regression", "train: x.csv, task: next_token, tokens: t, context: 2",
                  "train: x.csv, task: forecast, targets: [y], window: {length: 2, horizon: 1, zzz: 1}"]
        sections = {"text": ["train: x.csv, context: 1"], "csv": tables, "table": tables, "mixture": ["sources: []"],
                    "synthetic": [f"samples: 4, task: {task}, {keys}" for task, keys in tasks.items()],
                    "tokens": ["train: x.csv, context: 1", "train: x.csv, context: 1, documents: {end: 1, zzz: 1}"],
                    "safetensors": ["train: x.csv"], "idx": ["train: {images: x, labels: x}", "train: {images: x, labels: x, zzz: 1}"],
                    "cifar10": ["train: x.csv", "train: x.csv, augment: {zzz: 1}"], "cifar100": ["train: x.csv"],
                    "image_folder": ["train: x, size: 4", "train: x, size: 4, augment: {zzz: 1}",
                                     "train: x, size: 4, augment: {random_resized_crop: {zzz: 1}}"]}
        readers = re.findall(r"^  (\S+)", self.succeeds("list", "readers").stdout, re.M)
        self.assertEqual(sorted(readers), sorted(sections))
        for reader, texts in sections.items():
            part = self.part_on(reader)
            for text in texts:
                self.write("d.yaml", re.sub(r"^data: .*$", f"data: {{type: {reader}, {text}, zzz: 1}}", MLP, flags=re.M))
                said = self.run_command(command("train", "d.yaml", "--dry-run")).stderr
                keys = re.search(r"expected one of (?:type, )?(.*)$", said, re.M)
                self.assertTrue(keys, said)
                self.assertEqual([key for key in keys[1].split(", ") if f"`{key}`" not in part], [], text)

    def part_on(self, reader):
        """A reader's own page, or its part of the page on all of them."""
        if reader == "mixture":
            return re.search(r"^### Mixtures$(.*?)(?=^##|\Z)", self.page("data.md"), re.M | re.S)[1]
        others = {"csv": "table", "cifar10": "cifar", "cifar100": "cifar"}
        return self.page(f"data/{others.get(reader, reader)}.md")

    def test_the_page_on_models_names_every_layer_of_a_list_and_its_keys(self):
        part = re.search(r"^## sequential$(.*?)(?=^## |\Z)", self.page("models.md"), re.M | re.S)[1]
        activations = re.findall(r"^  (\S+)", self.succeeds("list", "activations").stdout, re.M)
        layers = re.split(r"^  (?=\S)", self.succeeds("list", "layers").stdout, flags=re.M)[1:]
        self.assertGreater(len(layers), len(activations))
        for text in layers:
            name, _, below = text.partition("\n")
            name = name.split()[0]
            if name in activations:
                continue
            self.assertLessEqual(max(map(len, text.splitlines())), 80, text)
            row = re.search(rf"^\| .*`{name}`.*\|$", part, re.M)
            self.assertTrue(row, name)
            for key, default in re.findall(r"(\w+)(?:: ([^,\s]+))?", below):
                self.assertIn(f"`{key}`", part, name)
                if f"`{key}`" in row[0] and default:
                    self.assertRegex(row[0], rf"`{key}` \({re.escape(default)}\b", name)


if __name__ == "__main__":
    unittest.main()
