# SPDX-License-Identifier: Apache-2.0
"""Every block of code in the pages is run, read or compared, or says above it why not: `<!-- not run: REASON -->`.

sh, python  run, page by page and in the page's order, in a folder that looks like a checkout, whose configs are made small
yaml        a whole config: read, with --dry-run
cpp, cmake  a piece of a file of examples/, letter by letter; ctest compiles those
(nothing)   what a program says; what `simulate` says is compared. No command hides there.
"""
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import unittest

from cli import LIMIT_S, LOCKSTEP, ROOT, CliTest, command

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/data").glob("*.md"))]
MARKS = 59  # the blocks that are not run: a new one has to be worth it
FENCE = re.compile(r"^(?:<!-- not run: (?P<mark>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^(\$ )?([A-Z_]+=\S+ )*(lockstep [a-z]|build/|tools/|\.ci/|\.venv/|\$HOME/|(mpirun|cmake|srun|python3|cmp|chromium) )", re.M)
TEXT = {"train": '"configs/*.yaml"', "eval": '"configs/*.yaml"', "width": 8, "heads": 2, "context": 8, "batch": 8, "eval_batch": 8}
SMALL = {"quickstart.yaml": TEXT, "gpt-zbv.yaml": TEXT, "unet.yaml": {"batch": 4, "eval_batch": 4}}


@dataclasses.dataclass
class Block:
    where: str
    kind: str
    text: str
    mark: str  # why it is not run; empty: it is
    said: str = ""  # the block that follows, where it is what a program says


def blocks_of(name, page):
    found, blocks = list(FENCE.finditer(page)), []
    for match in found:
        line = page.count("\n", 0, match.start("text"))
        blocks.append(Block(f"{name}:{line}", match["kind"], match["text"], match["mark"] or ""))
        if not match["kind"] and len(blocks) > 1:
            blocks[-2].said = match["text"]
    assert 2 * len(found) == len(re.findall(r"^ *```", page, re.M)), f"{name}: a block that is not understood"
    return blocks


def made_small(text, values):
    """The config with other values for these keys, wherever they are."""
    for key, value in values.items():
        text = re.sub(rf'\b{key}: ("[^"]*"|[\w.]+)', f"{key}: {value}", text)
    return text


class CommandsTest(CliTest):
    def checkout(self, name):
        """A folder in which the commands of a page find what they name."""
        folder = self.folder / name
        (folder / "build").mkdir(parents=True)
        (folder / "build/release").symlink_to(pathlib.Path(LOCKSTEP).parent)
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / ".venv").symlink_to(ROOT / ".venv")
        shutil.copytree(ROOT / "configs", folder / "configs")
        for config, values in SMALL.items():
            path = folder / "configs" / config
            path.write_text(made_small(path.read_text(), values))
        return folder

    def run_block(self, block, folder):
        interpreter = {"sh": ["bash", "-euxo", "pipefail"], "python": ["python3"]}[block.kind]
        environment = {**os.environ, "PATH": f"{pathlib.Path(LOCKSTEP).parent}:{os.environ['PATH']}",
                       "XDG_CACHE_HOME": str(self.folder / "cache")}
        result = subprocess.run([*interpreter, "-c", block.text], cwd=folder, env=environment, text=True,
                                stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S)
        self.assertEqual(result.returncode, 0, f"{block.where}\n{result.stdout}{result.stderr}")
        if " simulate " in block.text:
            self.assertIn(block.said, result.stdout, block.where)

    def try_block(self, block, folder):
        if block.kind in ("sh", "python"):
            self.run_block(block, folder)
        elif block.kind == "yaml":
            self.write("page.yaml", block.text)
            result = self.run_command(command("train", self.folder / "page.yaml", "--dry-run"), cwd=ROOT)
            self.assertEqual(result.returncode, 0, block.where + result.stderr)
        elif block.kind in ("cpp", "cmake"):
            files = [path.read_text() for path in (ROOT / "examples").glob("*/*") if path.is_file()]
            self.assertTrue(any(block.text.strip() in text for text in files), f"{block.where}: not in a file of examples/")
        else:
            self.assertEqual(block.kind, "", block.where)
            hidden = COMMAND.search(block.text)
            self.assertIsNone(hidden, f"{block.where}: a command outside a block of sh")

    def test_every_block_is_right(self):
        tried = 0
        for page in PAGES:
            folder = self.checkout(page.stem)
            for block in blocks_of(page.name, page.read_text()):
                if not block.mark:
                    with self.subTest(block.where):
                        tried += block.kind != ""
                        self.try_block(block, folder)
        self.assertGreater(tried, 35)

    def test_the_marks_are_counted(self):
        marks = [block.where for page in PAGES for block in blocks_of(page.name, page.read_text()) if block.mark]
        written = [line for page in PAGES for line in page.read_text().splitlines() if line.startswith("<!-- not run")]
        self.assertEqual(len(marks), len(written), "a mark stands on the line above its block")
        self.assertEqual(len(marks), MARKS, "\n".join(marks))

    def test_what_is_wrong_on_a_page_is_found(self):
        folder = self.checkout("page")
        for text in ("```sh\nlockstep list nothing\n```\n",
                     "```sh\nlockstep list nothing | cat\nlockstep list\n```\n",
                     "```sh\nlockstep simulate --schedule gpipe --stages 2 --micro-batches 2\n```\n```\nworker 0 | F0\n```\n",
                     "```\nlockstep list\n```\n",
                     "```console\n$ lockstep list\n```\n",
                     "```python\nopen('nothing')\n```\n",
                     "```yaml\nmodel: {type: mpl}\n```\n",
                     "```cpp\nint main() { return 1; }\n```\n"):
            with self.subTest(text), self.assertRaises(AssertionError):
                self.try_block(blocks_of("page", text)[0], folder)
        self.assertEqual(blocks_of("page", "<!-- not run: two hosts -->\n```sh\nfalse\n```\n")[0].mark, "two hosts")
        with self.assertRaises(AssertionError):
            blocks_of("page", "- one\n  ```sh\n  false\n  ```\n")


if __name__ == "__main__":
    unittest.main()
