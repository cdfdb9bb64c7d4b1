# SPDX-License-Identifier: Apache-2.0
"""configs/quality on real data, a few epochs each: at least as good as tools/quality.py says of --quick."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class QualityTest(unittest.TestCase):
    def test_all(self):
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run([sys.executable, ROOT / "tools/quality.py", "--quick", "--folder", folder], text=True, capture_output=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(result.stdout.count(" ok\n"), 8, result.stdout)


if __name__ == "__main__":
    unittest.main()
