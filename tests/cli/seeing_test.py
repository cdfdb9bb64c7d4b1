# SPDX-License-Identifier: Apache-2.0
"""Traces, timelines and pages of runs."""
import html.parser
import json
import re
import unittest

from cli import MLP, CliTest, command, overrides

VOID = {"meta", "br", "img", "input", "hr", "link"}


class Balanced(html.parser.HTMLParser):
    """Every element is closed where it should be; collects what an id'd script holds and every attribute."""

    def __init__(self, text):
        super().__init__()
        self.open, self.errors, self.attributes, self.texts = [], [], [], {}
        self.count = {}
        self.feed(text)
        self.close()
        self.errors += [f"{tag} is never closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)
            self.current = dict(attributes).get("id")

    def handle_startendtag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.attributes += attributes

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"{tag} is closed where another is open, line {self.getpos()}")

    def handle_data(self, data):
        if self.open and self.open[-1] == "script" and self.current:
            self.texts[self.current] = self.texts.get(self.current, "") + data


def computes(timeline, worker):
    return [(step, what) for what, step, *_ in timeline["measured"][worker] if what[0].isdigit()]


class SeeingTest(CliTest):
    def setUp(self):
        super().setUp()
        self.write("small.yaml", MLP)

    def check_trace(self, path, workers, steps):
        trace = json.loads(path.read_text())
        events = trace["traceEvents"]
        slices = [event for event in events if event["ph"] == "X"]
        self.assertEqual({event["tid"] for event in slices if event["pid"] == 1}, set(range(1, workers + 1)))
        self.assertEqual({event["args"]["step"] for event in slices}, set(steps))
        for start, end in (("s", "f"), ("f", "s")):
            self.assertEqual(sorted(event["id"] for event in events if event["ph"] == start),
                             sorted(event["id"] for event in events if event["ph"] == end))
        self.assertTrue(any(event["ph"] == "s" for event in events))
        return trace

    def check_page(self, path, timelines):
        page = path.read_text()
        parsed = Balanced(page)
        self.assertEqual(parsed.errors, [])
        self.assertEqual([name for name, _ in parsed.attributes if name in ("src", "href")], [])
        self.assertEqual(re.findall(r"<figure[^>]*data-kind=\"(\w+)\"", page), timelines)
        return json.loads(parsed.texts["data"])

    def test_a_run_leaves_a_timeline_of_three_steps(self):
        run = self.train("small.yaml", "run", settings=["train.steps=9", "train.eval_every=4"])
        timeline = json.loads((run / "timeline.json").read_text())
        self.assertEqual((timeline["first_step"], timeline["steps"], timeline["cut"]), (3, 3, False))
        # 1F1B with two workers and three micro-batches.
        order = {0: "0F0 0F1 0B0 0F2 0B1 0B2", 1: "1F0 1B0 1F1 1B1 1F2 1B2"}
        for worker, row in order.items():
            self.assertEqual(computes(timeline, worker), [(step, what) for step in range(3) for what in row.split()])

    def test_ranks_share_one_clock(self):
        run = self.train("small.yaml", "run", "--trace", "t.json", ranks=2, settings=["pipeline.stages=3"])
        self.check_trace(self.folder / "t.json", workers=3, steps=[2, 3, 4])
        timeline = json.loads((run / "timeline.json").read_text())
        self.assertEqual(timeline["rank_of_worker"], [0, 0, 1])
        ended = {}
        for spans in timeline["measured"]:
            ended.update({(step, what): start + length for what, step, start, length, *_ in spans})
        rounding_us, compared = 0.2, 0
        for worker, spans in enumerate(timeline["measured"]):
            for what, step, start, *_ in spans:
                if worker > 0 and "F" in what:
                    needed = ended[step, what.replace(f"{worker}F", f"{worker - 1}F")]
                    self.assertLessEqual(needed, start + rounding_us + timeline["clock_error_us"])
                    compared += 1
        self.assertEqual(compared, 2 * 3 * 3)

    def test_trace_and_report_of_a_run_in_process(self):
        result = self.succeeds("train", "small.yaml", "--trace", "t.json", "--trace-steps", "2-3", settings=["run_dir=run"])
        self.assertRegex(result.stderr, r"trace of step 2 to 3 in t\.json; ")
        self.check_trace(self.folder / "t.json", workers=2, steps=[2, 3])
        result = self.succeeds("report", "run")
        self.assertEqual(result.stdout, "page written to run/report.html\n")
        data = self.check_page(self.folder / "run/report.html", ["measured", "simulated", "memory"])
        self.assertEqual((data["first_step"], data["steps"]), (2, 2))
        self.succeeds("report", "run", "-o", "page.html", "--trace", "again.json")
        self.assertEqual((self.folder / "page.html").read_text(), (self.folder / "run/report.html").read_text())
        self.check_trace(self.folder / "again.json", workers=2, steps=[2, 3])

    def test_report_of_a_run_over_ranks(self):
        run = self.train("small.yaml", "run", ranks=2)
        self.succeeds("report", "run")
        self.check_page(run / "report.html", ["measured", "simulated", "memory"])

    def test_simulate_writes_page_and_trace(self):
        result = self.succeeds("simulate", "--stages", 4, "--micro-batches", 6, "--html", "s.html", "--trace", "s.json")
        self.assertRegex(result.stdout, r"page +written to s\.html\ntrace +written to s\.json\n$")
        self.check_page(self.folder / "s.html", ["simulated"])
        self.assertTrue(json.loads((self.folder / "s.json").read_text())["traceEvents"])

    def refused(self, line, pattern):
        result = self.run_command(line)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertRegex(result.stderr, rf"^lockstep: {pattern}\n$")
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), self.before)

    def test_mistakes_are_found_before_anything_is_run_or_written(self):
        (self.folder / "empty").mkdir()
        self.before = ["empty", "small.yaml"]
        settings = overrides(["run_dir=run"])
        for flags, pattern in (
                (["--trace", "no/t.json"], r"--trace: cannot write no/t\.json: No such file or directory"),
                (["--trace", "empty"], r"--trace: cannot write empty: it is a folder"),
                (["--trace-steps", "3-9"], r"--trace-steps: got 3-9, expected FIRST-LAST .*train\.steps, which is 4"),
                (["--trace-steps", "0"], r"--trace-steps: got 0, .*"),
                (["--trace-steps", "2-"], r"--trace-steps: got 2-, .*"),
                (["--trace-steps", "3-2"], r"--trace-steps: got 3-2, .*")):
            for ranks in (0, 2):
                if ranks and flags[-1] not in ("no/t.json", "3-9"):
                    continue
                with self.subTest(flags=flags, ranks=ranks):
                    self.refused(command("train", "small.yaml", *flags, *settings, ranks=ranks), pattern)
        self.refused(command("report", "nowhere"), r"report: there is no run folder nowhere")
        self.refused(command("report", "empty"), r"report: empty holds no run; name the run_dir of a lockstep train")
        simulate = command("simulate", "--stages", 2, "--micro-batches", 2)
        self.refused([*simulate, "--html", "no/s.html"], r"--html: cannot write no/s\.html: .*")

    def test_a_run_that_ends_before_the_steps_to_record_says_so(self):
        result = self.run_command(command("train", "small.yaml", "--trace", "t.json", "--trace-steps", "40", *overrides(
            ["run_dir=run", "train.optimizer={type: sgd, lr: 1e30}", "train.steps=50"])))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("no trace: the run ended before step 40", result.stderr)
        self.assertFalse((self.folder / "t.json").exists())
        self.assertRegex(self.run_command(command("report", "run")).stderr, "left no timeline.json")


if __name__ == "__main__":
    unittest.main()
