# SPDX-License-Identifier: Apache-2.0
"""tools/sanitize.sh writes a run down when it was whole, clean and of a commit, and only then. (Its builds are played.)"""
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAST = re.compile(r"^Last clean run of `tools/sanitize\.sh`: (.*)$", re.M)
# --preset NAME ...: as if it had built and run the tests.
TEST = """#!/usr/bin/env bash
echo "$*" >>ran
mkdir -p "build/$2"
cat result >"build/$2/test-results.xml"
exit "$(cat status)"
"""


class SanitizeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for name in ("tools", "docs"):
            (self.root / name).mkdir()
        shutil.copy(ROOT / "tools/sanitize.sh", self.root / "tools")
        (self.root / "tools/test.sh").write_text(TEST)
        (self.root / "tools/test.sh").chmod(0o755)
        (self.root / "docs/testing.md").write_text("Last clean run of `tools/sanitize.sh`: none.\n")
        (self.root / "result").write_text('<testcase name="planted_leak"/>')
        (self.root / "status").write_text("0")
        self.git("init", "-q")
        self.git("add", "tools", "docs")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a")

    def git(self, *arguments):
        return subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True).stdout.strip()

    def sanitize(self, *arguments):
        """(exit code, what the page says, the presets that were tested)"""
        (self.root / "ran").write_text("")
        code = subprocess.run([self.root / "tools/sanitize.sh", *arguments], capture_output=True).returncode
        said = LAST.search((self.root / "docs/testing.md").read_text())[1]
        return code, said, re.findall(r"--preset (\S+)", (self.root / "ran").read_text())

    def test_a_clean_run_is_written_down_with_commit_and_date_again_and_again(self):
        commit = self.git("rev-parse", "--short=10", "HEAD")
        for _ in range(2):
            code, said, presets = self.sanitize()
            self.assertEqual((code, presets), (0, ["asan-ubsan", "tsan"]))
            self.assertRegex(said, rf"^commit {commit}, \d{{4}}-\d\d-\d\d\.$")

    def test_a_part_is_not_written_down(self):
        self.assertEqual(self.sanitize("tsan"), (0, "none.", ["tsan"]))
        self.assertEqual(self.sanitize("tsan", "-R", "unit"), (0, "none.", ["tsan"]))

    def test_a_changed_tree_is_not_written_down(self):
        with (self.root / "tools/test.sh").open("a") as file:
            file.write("\n")
        self.assertEqual(self.sanitize()[:2], (0, "none."))

    def test_a_finding_or_a_mistake_that_was_not_tried_fails(self):
        (self.root / "result").write_text('<testcase name="unit_test"/>')
        self.assertEqual(self.sanitize()[:2], (1, "none."))
        (self.root / "status").write_text("1")
        self.assertEqual(self.sanitize()[:2], (1, "none."))

    def test_the_real_page_has_the_line(self):
        self.assertEqual(len(LAST.findall((ROOT / "docs/testing.md").read_text())), 1)


if __name__ == "__main__":
    unittest.main()
