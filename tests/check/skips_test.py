# SPDX-License-Identifier: Apache-2.0
"""No test is left out softly. What can be skipped, hidden or expected to fail stands in ALLOWED with its reason."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOFT = re.compile(
    # unittest; Catch2: SKIP, hidden and tolerated cases; ctest
    r"\bskip(?:Test|If|Unless)?\(|\bSkipTest\b|expectedFailure|\bSKIP\(|\"[^\"]*\[(?:\.[^\"]*|!\w+)\]\"|\bWILL_FAIL\b|\bDISABLED\b|SKIP_RETURN_CODE"
    r"|SKIP_REGULAR_EXPRESSION|PASS_REGULAR_EXPRESSION|\breturn 77\b")
# (file, what): why. PASS_REGULAR_EXPRESSION hides the exit code.
ALLOWED = {
    ("tests/sanitize/CMakeLists.txt", "PASS_REGULAR_EXPRESSION"): "a planted mistake: the report is what counts",
}


def soft_spots(root):
    files = [path for pattern in ("*.py", "*.cpp", "*.hpp", "CMakeLists.txt") for path in (root / "tests").rglob(pattern)]
    files += [root / ".ci/run", root / "tools/test.sh", *(root / "tools/check").glob("*.sh")]
    for path in sorted(files):
        if path.is_file() and path.name != pathlib.Path(__file__).name:
            for match in SOFT.finditer(path.read_text()):
                yield path.relative_to(root).as_posix(), match[0]


class SkipsTest(unittest.TestCase):
    def test_what_may_be_left_out_is_listed(self):
        self.assertEqual(sorted(set(soft_spots(ROOT))), sorted(ALLOWED))

    def test_ways_to_leave_a_test_out_are_known(self):
        for text in ("self.skipTest('no mpirun')", "@unittest.skipIf(True, '')", "raise unittest.SkipTest", 'SKIP("no device")',
                     'TEST_CASE("a", "[.slow]")', 'TEST_CASE("a", "[unit][!mayfail]")', "PROPERTIES DISABLED TRUE", "return 77;"):
            self.assertTrue(SOFT.search(text), text)


if __name__ == "__main__":
    unittest.main()
