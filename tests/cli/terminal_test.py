# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal sees: lines, and below them one that moves, whoever prints and through whatever launcher."""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import unittest

from cli import LIMIT_S, MPIEXEC, CliTest, command, overrides

# A step of 30 ms: the line is drawn many times, between checkpoints and evaluations.
TALKATIVE = """\
name: talkative
model: {type: delay, layers: 2, width: 2, forward_ms: 5, input_grad_ms: 5, weight_grad_ms: 5}
data: {type: synthetic, task: regression, inputs: 2, outputs: 2, samples: 64, eval_samples: 4}
train: {steps: 40, batch: 4, micro_batches: 2, loss: mean_squared_error, eval_every: 7}
pipeline: {stages: 2, schedule: 1f1b}
checkpoint: {every: 5}
"""
MOVING = re.compile(r"\r([^\r\n]*?)\x1b\[K")


def rows_of(written):
    """What a terminal of any width shows in the end. Colours are left out."""
    rows, column = [""], 0
    for part in re.findall(r"\x1b\[K|\x1b\[[0-9;]*m|[\s\S]", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            rows.append("")
            column = 0
        elif part == "\x1b[K":
            rows[-1] = rows[-1][:column]
        elif len(part) == 1:
            rows[-1] = rows[-1][:column].ljust(column) + part + rows[-1][column + 1:]
            column += 1
    return rows


def console_lines(log):
    """The lines of a log file that the console has too, when a progress line takes the place of the steps'."""
    lines = [re.sub(r"^\d{4}-\d\d-\d\d \S+ (info|warning|error) +", "", line) for line in log.read_text().splitlines()
             if not re.match(r"^\d{4}-\d\d-\d\d \S+ debug", line)]
    return [line for line in lines if not re.match(r"step \d+/\d+  loss \S+  grad ", line)]


class TerminalTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("talkative.yaml", TALKATIVE)

    def at_terminal(self, line, columns):
        """Runs it with standard error on a terminal; its exit code and what it wrote there."""
        outside, inside = pty.openpty()
        self.addCleanup(os.close, outside)
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(line, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=inside,
                                   start_new_session=True)
        os.close(inside)
        written, deadline = b"", time.monotonic() + LIMIT_S
        while True:
            self.assertLess(time.monotonic(), deadline, written)
            if not select.select([outside], [], [], 1)[0]:
                continue
            try:
                block = os.read(outside, 65536)
            except OSError:  # nobody has the terminal open any more
                break
            if not block:
                break
            written += block
        return process.wait(timeout=LIMIT_S), written.decode().replace("\r\n", "\n")

    def check_whole(self, line, run, columns):
        code, written = self.at_terminal(line, columns)
        self.assertEqual(code, 0, written)
        moving = [text for text in MOVING.findall(written) if text]
        self.assertGreater(len(moving), 3, written)
        self.assertLess(max(map(len, moving)), columns)
        rows = [row for row in rows_of(written) if row]
        last = [row for row in rows if re.fullmatch(r"step 40/40  loss [\d.e-]+( .*)?", row) and "eval" not in row]
        self.assertEqual(len(last), 1, rows)
        rows.remove(last[0])
        self.assertEqual(rows, [line for line in console_lines(self.folder / run / "log.txt") if line])
        self.assertGreater(len([row for row in rows if "checkpoint" in row]), 5, rows)

    def test_the_progress_line_is_never_torn_in_process(self):
        for columns in (80, 40):
            with self.subTest(columns=columns):
                self.check_whole(command("train", "talkative.yaml", "--set", f"run_dir=run-{columns}"), f"run-{columns}", columns)

    def test_under_launch_there_is_one_too(self):
        for columns in (80, 40):
            with self.subTest(columns=columns):
                run = f"run-{columns}"
                self.check_whole(command("launch", "-n", 2, "--mpiexec", MPIEXEC, "train", "talkative.yaml", "--set",
                                         f"run_dir={run}"), run, columns)

    def test_under_mpirun_there_is_one_too(self):
        self.check_whole(command("train", "talkative.yaml", "--set", "run_dir=run", ranks=2), "run", 80)

    def test_flags_of_ours_are_not_taken_for_the_launchers(self):
        line = command("profile", "talkative.yaml", "-o", "profile.json", "--repeats", 5, "--no-cache", ranks=2)
        code, written = self.at_terminal(line, 80)
        self.assertEqual(code, 0, written)
        self.assertRegex(written, r"\r2/2  delay\.1[^\r\n]*\x1b\[K")

    def test_no_control_character_gets_into_files(self):
        # mpirun is at a terminal each time, what the ranks say is not (nor goes there as it is).
        short = ["train", "talkative.yaml", *overrides(["train.steps=8"])]
        cases = {
            "written by mpirun": [MPIEXEC, "-errfile-pattern", "said", "-n", "2", *command(*short, "--set", "run_dir=run-1")],
            "written by the rank": [MPIEXEC, "-n", "2", "sh", "-c", ' '.join(command(*short, "--set", "run_dir=run-2")) + " 2>>said"],
            "through the rank's pipe": [MPIEXEC, "-n", "2", "sh", "-c",
                                        "exec 3>&1; { " + ' '.join(command(*short, "--set", "run_dir=run-3")) + " 2>&1 >&3; } | cat >>said"],
            "by launch's launcher": command("launch", "-n", 2, "--mpiexec", f"{MPIEXEC} -errfile-pattern said", *short, "--set",
                                            "run_dir=run-4"),
        }
        for name, line in cases.items():
            with self.subTest(name):
                (self.folder / "said").unlink(missing_ok=True)
                code, written = self.at_terminal(line, 80)
                said = (self.folder / "said").read_text()
                self.assertEqual(code, 0, written + said)
                self.assertIn("done: 8 steps", said)
                self.assertNotRegex(said, r"[\r\x1b]")
                self.assertNotIn("\x1b[K", written)

    def test_an_error_stands_on_a_line_of_its_own_below_the_progress_line(self):
        (self.folder / "full").symlink_to("/dev/full")
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                line = command("train", "talkative.yaml", "--metrics", "full", "--set", f"run_dir=run-{ranks}", ranks=ranks)
                code, written = self.at_terminal(line, 80)
                self.assertEqual(code, 1, written)
                self.assertRegex("\n".join(rows_of(written)), r"(?m)^lockstep: .*cannot write")


if __name__ == "__main__":
    unittest.main()
