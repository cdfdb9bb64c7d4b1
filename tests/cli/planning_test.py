# SPDX-License-Identifier: Apache-2.0
"""`lockstep plan`, `--plan` and `partition: auto`: the same bits as without, edited plans, what fits nowhere, mistakes."""
import json
import os
import re
import unittest

from cli import MLP, CliTest, command, metrics, overrides
from errors_test import Refusals

# The first layer of MLP's five takes as long as the other four together.
COSTS = """\
format: 2
costs:
  fc.0: {forward_ms: 4, input_grad_ms: 4, weight_grad_ms: 4, activation_mib: 1}
  "*": {forward_ms: 1, input_grad_ms: 1, weight_grad_ms: 1, activation_mib: 1}
"""
PLAN = ["plan", "small.yaml", "--profile", "costs.yaml", "--workers", "2", "-o", "plan.yaml"]


def setting(name, text):
    """The value of a key of a plan or a resolved config."""
    return re.search(rf"(?m)^ *{name}: ([^#\n]*?) *(#.*)?$", text).group(1)


def losses(run):
    return [line["loss"] for line in metrics(run / "metrics.jsonl") if "step" in line]


class Planned(CliTest):
    def setUp(self):
        super().setUp()
        os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")
        self.addCleanup(os.environ.pop, "XDG_CACHE_HOME")
        self.write("small.yaml", MLP)
        self.write("costs.yaml", COSTS)

    def plan(self, *arguments):
        """The plan as text, and what was printed."""
        line = PLAN if "--profile" not in arguments else [*PLAN[:2], *PLAN[4:]]
        printed = self.succeeds(*line, *arguments).stdout
        return (self.folder / "plan.yaml").read_text(), printed

    def edit(self, before, after):
        text = (self.folder / "plan.yaml").read_text()
        self.assertEqual(text.count(before), 1, text)
        self.write("plan.yaml", text.replace(before, after))


class PlanTest(Planned):
    def test_cuts_follow_the_costs_and_the_table_fits_100_columns(self):
        plan, printed = self.plan()
        self.assertEqual(setting("partition", plan), "[1, 4]")
        self.assertEqual(setting("micro_batches", plan.replace("{batch: 10, ", "").replace("train: ", "")), "3}")
        self.assertRegex(printed, r"(?m)^ +0 +\d +1 +4\.000 +4\.000 +4\.000 +40 +\d  fc\.0$")
        self.assertRegex(printed, r"(?m)^ +1 +\d +4 +4\.000 +4\.000 +2\.000 +\d+ +\d  act\.0 \.\. out$")
        self.assertRegex(printed, r"(?m)^step \d+\.\d+ ms, bubble \d+\.\d % \(one step alone: .*\)$")
        self.assertIn("runners-up:", printed)
        self.assertIn("written to plan.yaml; lockstep train small.yaml --plan plan.yaml", printed)
        self.assertLessEqual(max(map(len, printed.splitlines())), 100, printed)

    def test_flags_fix_what_they_name_and_the_config_fixes_nothing(self):
        for flags, key, value in ((["--schedule", "gpipe"], "schedule", "gpipe"),
                                  (["--partition", "2,3"], "partition", "[2, 3]"),
                                  (["--partition", "before:fc.1"], "partition", "[2, 3]"),
                                  (["--partition", "by:layers", "--virtual-stages", "1"], "partition", "[3, 2]"),
                                  (["--partition", "by:time", "--virtual-stages", "1"], "partition", "[1, 4]"),
                                  (["--recompute", "always"], "recompute", "always"),
                                  (["--placement", "1,0"], "placement", "[1, 0]"),
                                  (["--virtual-stages", "2"], "virtual_stages", "2")):
            with self.subTest(flags):
                plan, _ = self.plan(*flags, "--set", "pipeline={stages: 5, schedule: gpipe, recompute: except_last}")
                self.assertEqual(setting(key, plan), value)

    def test_hosts_ranks_and_costs_say_where_the_workers_are(self):
        self.write("slow.yaml", "format: 2\nworkers: [{speed: 1}, {speed: 0.25}]\nlinks: {other_host: {latency_us: 9}}\n")
        plan, _ = self.plan("--hosts", "a:1,b:1", "--memory", "1GiB,2GiB", "--costs", "slow.yaml", "--placement", "0,1")
        self.assertIn("- {speed: 1, limit: 1GiB, rank: 0, host: 0}\n  - {speed: 0.25, limit: 2GiB, rank: 1, host: 1}", plan)
        self.assertIn("other_host: {latency_us: 9}", plan)
        # The slow worker has the last layers, which make an eighth of the work on the fast one.
        self.assertEqual(setting("partition", plan), "[4, 1]")

    def test_micro_batches_are_chosen_when_they_are_auto_and_the_plan_names_them(self):
        self.write("small.yaml", MLP.replace("micro_batches: 3", "micro_batches: auto"))
        self.succeeds("profile", "small.yaml", "-o", "profile.json", "--repeats", 3)
        plan, printed = self.plan("--profile", "profile.json")
        chosen = int(re.search(r"micro_batches: (\d+)\}", plan).group(1))
        self.assertGreaterEqual(chosen, 2)
        self.assertRegex(printed, r"(?m)^  \S.* M \d+ ")
        self.assertNotIn("no rows", printed)
        run = self.train("small.yaml", "run", "--plan", "plan.yaml")
        self.assertEqual(setting("micro_batches", (run / "config.yaml").read_text()), str(chosen))

    def test_a_page_shows_the_timeline_and_planned_memory(self):
        self.plan("--html", "page.html", "--memory", "1GiB")
        self.succeeds("simulate", "--plan", "plan.yaml", "--html", "again.html")
        for page in ("page.html", "again.html"):
            text = (self.folder / page).read_text()
            for part in ("act.0 .. out", "Planned peak tensor bytes", "limit 1 GiB"):
                self.assertIn(part, text)

    def test_workers_that_slow_the_others_down_are_left_idle(self):
        self.write("slow.yaml", "format: 2\nworkers: [{speed: 1}, {speed: 0.01}, {speed: 1}]\n")
        flags = ["--costs", "slow.yaml", "--workers", 3]
        printed = self.succeeds(*PLAN[:4], *flags, "-o", "plan.yaml").stdout
        plan = (self.folder / "plan.yaml").read_text()
        self.assertRegex(printed, r"(?m)^2 of 3 workers: [\d.]+ ms a step; with all 3: [\d.]+ ms\nidle: worker 1 of those given$")
        self.assertEqual(setting("idle", plan), "[1]")
        self.assertIn("rank: 1, host: 0}\n# Workers that", plan)
        run = self.train("small.yaml", "run", "--plan", "plan.yaml", ranks=2)
        self.assertIn("2 of 3 workers: ", (run / "log.txt").read_text())
        printed = self.succeeds(*PLAN[:4], *flags, "--all-workers").stdout
        self.assertRegex(printed, r"3 workers, \d stages")
        self.assertNotIn("idle:", printed)

    def test_replicas_are_searched_as_far_as_the_groups_allow_and_the_others_are_told(self):
        four = MLP.replace("micro_batches: 3", "micro_batches: 4")
        self.write("small.yaml", four)
        _, printed = self.plan()
        self.assertRegex(printed, r"(?m)^  1 x 2 workers +[\d.]+ ms, at most \S+ MiB$")
        self.assertRegex(printed, r"(?m)^  2 x 1 worker +[\d.]+ ms, at most \S+ MiB; train\.gradient_groups=2: other bits$")
        plan, printed = self.plan("--replicas", "auto")
        self.assertIn("replicas: {count: 2, placement: pipeline_first}", plan)  # 4 of 8 ms lie in one layer
        self.assertIn("--plan plan.yaml --set train.gradient_groups=2", printed)
        result = self.run_command(command("train", "small.yaml", "--plan", "plan.yaml"))
        self.assertEqual(result.returncode, 2)
        self.assertIn("plan.yaml:7:55: train.gradient_groups: got 2, but small.yaml adds gradients up in 1 group of "
                      "micro-batches; they are part of the numerics", result.stderr)
        groups = ["train.gradient_groups=2"]
        run = self.train("small.yaml", "run", "--plan", "plan.yaml", settings=groups)
        alone = self.train("small.yaml", "alone", settings=groups)
        self.assertEqual((run / "fingerprint.json").read_bytes(), (alone / "fingerprint.json").read_bytes())
        log = (run / "log.txt").read_text()
        self.assertIn("2 replicas of 1 stage", log)
        self.assertIn("the plan against measured", log)
        self.assertEqual((run / "plan.yaml").read_text(), plan)

    def test_a_run_says_when_fewer_replicas_would_be_faster(self):
        self.write("small.yaml", MLP.replace("micro_batches: 3", "micro_batches: 4\n  gradient_groups: 2"))
        self.write("slow.yaml", "format: 2\nlinks: {same_host: {latency_us: 90000}}\n")
        self.plan("--costs", "slow.yaml", "--ranks", "per-worker", "--replicas", "2")
        self.edit("schedule: ", "schedule: gpipe  # ")
        log = (self.train("small.yaml", "run", "--plan", "plan.yaml") / "log.txt").read_text()
        self.assertRegex(log, r"fewer replicas would be faster: 1 of 2, [\d.]+ ms a step instead of [\d.]+ ms; "
                              r"set replicas\.count=1 and train\.gradient_groups=2, which changes no bit")

    def test_workers_on_unlike_devices_get_the_costs_of_their_own(self):
        self.write("kinds.yaml", COSTS + "devices: {cuda: {memory: 10GiB, costs: {'*': {forward_ms: 0.25, input_grad_ms: 0.25, weight_grad_ms: 0.25}}}}\n")
        devices = ["--set", "workers.devices=[cuda, cpu]", "--schedule", "1f1b", "--virtual-stages", "1", "--recompute", "never"]
        # No device is needed to plan for it.
        printed = self.succeeds(*PLAN[:2], "--profile", "kinds.yaml", *PLAN[4:], *devices, "--placement", "0,1").stdout
        plan = (self.folder / "plan.yaml").read_text()
        self.assertEqual(setting("partition", plan), "[4, 1]")  # on two hosts [1, 4]
        self.assertRegex(printed, r"(?m)^ +0 +0 +4 +1\.000 +1\.000 +0\.500 .*  fc\.0 \.\. act\.1$")
        self.assertRegex(printed, r"(?m)^ +0 +0 +0 +cuda:0 .* 9 GiB +\d+ %$")
        self.assertRegex(printed, r"(?m)^ +1 +0 +0 +cpu .* none +-$")
        self.assertIn("warning: no limit of memory is given: taken is nine tenths of each device's, shared by its workers (worker 0 on cuda:0 9 GiB)", printed)
        self.assertRegex(plan, r"limit: 9GiB, rank: 0, host: 0, device: cuda:0, kind: 'cuda.*'\}\n  - \{speed: 1, limit: none, rank: 0, host: 0, device: cpu\}")
        self.assertIn("to_device: {latency_us: 0}", plan)
        # The config has the last word: what is predicted then is of its devices.
        run = self.train("small.yaml", "run", "--plan", "plan.yaml")
        log = (run / "log.txt").read_text()
        self.assertIn("plan.yaml is for workers on [cuda:0, cpu], which workers.devices does not say here: --set 'workers.devices=[cuda:0, cpu]' does", log)
        self.assertIn("edited since it was planned: predicted again", log)
        # Who is left may be on another device than the config would put it.
        printed = self.succeeds(*PLAN[:2], "--profile", "kinds.yaml", *PLAN[4:], *devices[2:], "--set", "workers.devices=[cpu, cuda]", "--placement", "1").stdout
        self.assertIn("--plan plan.yaml --set 'workers.devices=[cuda:0]'", printed)

    def test_many_workers_are_a_short_table(self):
        printed = self.succeeds(*PLAN[:4], "--set", "model.layers=40", "--workers", 64, "--all-workers", "--schedule", "gpipe,1f1b").stdout
        self.assertIn("64 workers, 64 stages", printed)
        self.assertLess(len(printed.splitlines()), 30, printed)
        tables = printed.split("warning:")[0]
        self.assertLessEqual(max(map(len, tables.splitlines())), 100, printed)

    def test_a_profile_of_another_machine_is_a_warning(self):
        self.succeeds("profile", "small.yaml", "-o", "profile.json", "--repeats", 3)
        profile = json.loads((self.folder / "profile.json").read_text())
        profile["environment"]["isa"] = "none at all"
        self.write("profile.json", json.dumps(profile))
        result = self.succeeds("plan", "small.yaml", "--profile", "profile.json", "--workers", 2)
        self.assertRegex(result.stdout, r"(?m)^warning: the profile was made elsewhere: isa: .* here, none at all in profile\.json")

    def test_the_smallest_limit_is_exact_and_nothing_is_written_below_it(self):
        line = [*PLAN, "--schedule", "1f1b", "--memory"]
        refused = self.run_command(command(*line, "1KiB"))
        self.assertEqual((refused.returncode, refused.stdout), (2, ""))
        self.assertRegex(refused.stderr, r"\Alockstep: nothing fits: 2 workers of 1.* KiB; the smallest limit that would do, "
                                         r"the same on every worker, is .* \(\d+\); .* layer '\S+' alone needs the most .*\n\Z")
        self.assertFalse((self.folder / "plan.yaml").exists())
        least = int(re.search(r"is [^()]* \((\d+)\)", refused.stderr).group(1))
        self.assertEqual(self.run_command(command(*line, least - 1)).returncode, 2)
        self.succeeds(*line, least)


class TrainTest(Planned):
    def test_profile_plan_and_train_give_the_same_bits_and_compare_with_the_plan(self):
        self.succeeds("profile", "small.yaml", "-o", "profile.json", "--repeats", 3)
        self.succeeds("plan", "small.yaml", "--profile", "profile.json", "--workers", 2, "--all-workers", "-o", "plan.yaml")
        plain = self.train("small.yaml", "plain")
        planned = self.train("small.yaml", "planned", "--plan", "plan.yaml")
        self.assertEqual((planned / "fingerprint.json").read_bytes(), (plain / "fingerprint.json").read_bytes())
        plan = (self.folder / "plan.yaml").read_text()
        self.assertEqual(setting("partition", (planned / "config.yaml").read_text()), setting("partition", plan))
        self.assertEqual((planned / "plan.yaml").read_text(), plan)
        log = (planned / "log.txt").read_text()
        self.assertRegex(log, r"plan plan\.yaml: it takes the place of .*pipeline\.\w+.* in small\.yaml")
        self.assertEqual(len(re.findall(r"against measured|simulated with", log)), 1, log)
        predicted = metrics(planned / "metrics.jsonl")[-1]["summary"]["predicted"]
        self.assertEqual(list(predicted), ["by", "step_ms", "bubble", "peak_bytes", "largest_miss", "layers"])
        self.assertEqual((predicted["by"], len(predicted["peak_bytes"])), ("plan", 2))
        self.assertIn(predicted["largest_miss"]["layer"], ["fc.0", "act.0", "fc.1", "act.1", "out"])

    def test_one_worker_gets_the_plan_that_keeps_least_of_those_as_fast(self):
        self.succeeds("profile", "small.yaml", "-o", "profile.json", "--repeats", 3)
        planned = self.succeeds("plan", "small.yaml", "--profile", "profile.json", "--workers", 1, "-o", "plan.yaml")
        self.assertRegex(planned.stdout, r"1 worker, 1 stage, 1f1b")
        self.assertIn("as fast, but needs", planned.stdout)
        self.train("small.yaml", "run", "--plan", "plan.yaml")

    def test_every_verb_that_reads_a_config_takes_a_plan(self):
        self.plan()
        run = self.train("small.yaml", "run", "--plan", "plan.yaml", settings=["checkpoint.every=end"])
        checkpoint = next((run / "checkpoints").glob("step-*"))
        evaluated = self.succeeds("eval", "small.yaml", "--plan", "plan.yaml", "--checkpoint", checkpoint)
        self.assertIn("eval loss", evaluated.stdout)
        self.assertRegex(self.succeeds("verify", "small.yaml", "--plan", "plan.yaml").stdout, r"^identical: ")
        self.succeeds("launch", "-n", 2, "train", "small.yaml", "--plan", "plan.yaml", "--set", "run_dir=launched")
        self.assertEqual(losses(self.folder / "launched"), losses(run))

    def test_an_edited_plan_is_honoured_and_predicted_again(self):
        self.plan()
        self.edit("partition: [1, 4]", "partition: [3, 2]")
        run = self.train("small.yaml", "run", "--plan", "plan.yaml")
        self.assertEqual(setting("partition", (run / "config.yaml").read_text()), "[3, 2]")
        self.assertRegex((run / "log.txt").read_text(), r"was edited since it was planned: predicted again, \d+\.?\d* ms a step")
        self.assertEqual(metrics(run / "metrics.jsonl")[-1]["summary"]["predicted"]["by"], "plan")
        # The plan of the run is one of its own: the same prediction, and it can be edited in turn.
        again = self.succeeds("train", "small.yaml", "--plan", run / "plan.yaml", "--dry-run").stdout
        self.assertNotIn("was edited", again)

    def test_edited_cuts_schedule_placement_and_micro_batches_are_simulated_as_if_planned_so(self):
        self.write("costs.yaml", COSTS.replace("{forward_ms", "{rows: 4, forward_ms"))
        self.plan()
        planned = (self.folder / "plan.yaml").read_text()
        def step_ms(flags):
            self.succeeds(*PLAN[:-1], "again.yaml", *flags)
            return float(setting("alone_ms", (self.folder / "again.yaml").read_text()))
        for before, after, flags in (
                ("partition: [1, 4]", "partition: [3, 2]", ["--partition", "3,2"]),
                ("schedule: ", "schedule: gpipe  # ", ["--partition", "1,4", "--schedule", "gpipe"]),
                ("placement: [0, 1]", "placement: [1, 0]", ["--partition", "1,4", "--placement", "1,0"]),
                ("micro_batches: 3}", "micro_batches: 5}", ["--partition", "1,4", "--micro-batches", 5])):
            with self.subTest(after):
                self.assertEqual(planned.count(before), 1)
                fixed = [] if "--schedule" in flags else ["--schedule", setting("schedule", planned)]
                expected = step_ms([*flags, *fixed, "--recompute", setting("recompute", planned)])
                self.write("edited.yaml", planned.replace(before, after))
                shown = self.succeeds("simulate", "--plan", "edited.yaml").stdout
                self.assertIn("was edited since it was planned: predicted again", shown)
                self.assertAlmostEqual(float(re.search(r"step +([\d.]+) ms", shown).group(1)), expected, delta=0.002)

    def test_a_plan_is_simulated_as_it_was_planned(self):
        self.plan()
        plan = (self.folder / "plan.yaml").read_text()
        result = self.succeeds("simulate", "--plan", "plan.yaml", "--html", "plan.html", "--csv", "plan.csv")
        step_ms = float(re.search(r"step +([\d.]+) ms", result.stdout).group(1))
        self.assertAlmostEqual(step_ms, float(setting("alone_ms", plan).split()[0]), delta=0.002)
        self.assertIn("for small", result.stdout)
        self.assertIn("out", (self.folder / "plan.html").read_text())
        self.assertGreater(len((self.folder / "plan.csv").read_text().splitlines()), 1)

    def test_a_dry_run_prints_plan_memory_and_timeline(self):
        plan, printed = self.plan()
        result = self.succeeds("train", "small.yaml", "--plan", "plan.yaml", "--dry-run")
        table = printed.split("\n\nnumbers of replicas")[0].split("\n", 1)[1]
        self.assertIn(table, result.stdout)
        self.assertRegex(result.stdout, r"(?s)timeline of one step, with the plan's costs:\nworker 0 \|.*\nbubble \d+\.\d %")
        alone = re.search(r"one step alone: .* ms, (\S+) %\)", printed).group(1)
        self.assertIn(f"bubble {alone} %\n", result.stdout)
        self.assertFalse((self.folder / "runs").exists())

    def test_partition_auto_gives_the_bits_of_its_counts_in_process_and_on_two_ranks(self):
        for ranks in (0, 2):
            run = self.train("small.yaml", f"auto-{ranks}", ranks=ranks, settings=["pipeline.partition=auto"])
            counts = setting("partition", (run / "config.yaml").read_text())
            self.assertRegex(counts, r"^\[\d, \d\]$")
            self.assertEqual(setting("partition", (run / "plan.yaml").read_text()), counts)
            self.assertIn(f"partition auto: layers per stage {counts}, predicted", (run / "log.txt").read_text())
            given = self.train("small.yaml", f"given-{ranks}", ranks=ranks, settings=[f"pipeline.partition={counts}"])
            self.assertEqual((run / "fingerprint.json").read_bytes(), (given / "fingerprint.json").read_bytes())
            self.assertEqual(losses(run), losses(given))

    def test_the_cutters_by_measurement_verify(self):
        for by in ("time", "memory", "block"):
            with self.subTest(by):
                result = self.succeeds("verify", "small.yaml", "--steps", 2, settings=[f"pipeline.partition={by}"])
                self.assertRegex(result.stdout, r"^identical: 2 stages, ")


class RefusalsTest(Refusals):
    def setUp(self):
        super().setUp()
        os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")
        self.addCleanup(os.environ.pop, "XDG_CACHE_HOME")
        self.write("costs.yaml", COSTS)

    def test_plans_that_do_not_fit_the_config_are_refused_and_say_what_to_run(self):
        self.succeeds(*PLAN)
        again = r".*; plan again: lockstep plan small\.yaml --profile profile\.json --workers 2 -o plan\.yaml"
        train = ["train", "small.yaml", "--plan", "plan.yaml"]
        self.refuses_all([(command(*train, *overrides(settings)), r"plan\.yaml:\d+:\d+: " + pattern) for settings, pattern in (
            (["model.layers=3"], r"model\.layers: got 5, but the model of small\.yaml has 7 layers" + again),
            (["model.width=16"], r"model\.signature: the plan is of another model" + again),
            (["train.batch=12"], r"train\.batch: got 10, but train\.batch of small\.yaml is 12" + again),
            (["train.micro_batches=5"], r"train\.micro_batches: got 3, but .* is 5" + again + r", or set train\.micro_batches=3"))])

    def test_a_kind_of_device_without_costs_is_named_with_what_to_do(self):
        self.succeeds("profile", "small.yaml", "-o", "p.json", "--repeats", 3)
        self.refuses(command("plan", "small.yaml", "--profile", "p.json", "--workers", "2", *overrides(["workers.devices=[cpu, cuda]"])),
                     r"p\.json: got no cost of layer 'fc\.0' on cuda.*, only on cpu; measure it there: lockstep profile CONFIG -o "
                     r"profile\.json, with a config whose workers\.devices names such a device, or write costs by hand under devices: .*")

    def test_edits_that_make_no_sense_are_refused_with_their_line(self):
        self.succeeds(*PLAN)
        plan = (self.folder / "plan.yaml").read_text()
        lines = []
        for number, (before, after, pattern) in enumerate((
                ("partition: [1, 4]", "partition: [1, 3]", r"pipeline\.partition: got 4 layers in \[1, 3\], the model has 5: .*"),
                ("partition: [1, 4]", "partition: [1, 4, 1]", r"pipeline\.partition: got 3 stages, expected 2 .*"),
                ("  recompute:", "  recomputed:", r"pipeline\.recomputed: got an unknown key, .*; did you mean 'recompute'\?"),
                ("placement: [0, 1]", "placement: [0, 2]", r"pipeline\.placement: got \[0, 2\], expected each of 0 to 1 once.*"),
                ("format: 2", "format: 9", r"format: got 9, expected 2; .*"))):
            self.assertIn(before, plan)
            name = self.write(f"edited{number}.yaml", plan.replace(before, after))
            lines.append((command("train", "small.yaml", "--plan", name), rf"edited{number}\.yaml:\d+:\d+: {pattern}"))
        self.refuses_all(lines)

    def test_what_a_plan_cannot_tell_is_not_simulated(self):
        self.succeeds(*PLAN)
        plan = (self.folder / "plan.yaml").read_text()
        edited = plan.replace("recompute: never", "recompute: always")
        self.write("bare.yaml", edited[:edited.index("\n# What layers and links cost")] + "\n")
        self.write("more.yaml", plan.replace("stages: 2\n", "stages: 3\n").replace("[1, 4]", "[1, 2, 2]").replace("[0, 1]", "[0, 1, 2]"))
        self.write("rows.yaml", plan.replace("micro_batches: 3}", "micro_batches: 5}"))
        self.write("auto.yaml", re.sub(r"  schedule: .*", "  schedule: auto", plan))
        self.write("moved.yaml", plan.replace("config: 'small.yaml'", "config: 'gone.yaml'"))
        self.refuses_all([(command("simulate", "--plan", *arguments), pattern) for arguments, pattern in (
            (["bare.yaml"], r"--plan: bare\.yaml or the config was edited .* carries no `profile` .*; plan again: lockstep plan .*"),
            (["more.yaml"], r"--plan: .* the pipeline has 3 workers, and `workers` says of 2 what they are; plan again: .*"),
            (["rows.yaml"], r"--plan: .* do not say how those of layer 'fc\.0' depend on the rows of a micro-batch; .*"),
            (["auto.yaml"], r"--plan: .* which schedule `auto` comes to is known when the run has measured it; .*"),
            (["plan.yaml", "--stages", "2"], r"--stages excludes --plan; .*"),
            (["moved.yaml"], r"gone\.yaml: got no file .*"),
            (["small.yaml"], r"small\.yaml:\d+:\d+: .*"),
            (["none.yaml"], r"none\.yaml: got no file .*"))])

    def test_mistakes_on_the_command_line(self):
        self.write("other.yaml", COSTS.replace('"*"', "layer.*"))
        def line(arguments):  # a flag is given once
            kept = [word for i, word in enumerate(PLAN) if not {word, PLAN[i - 1]} & ({"--profile", "-o"} & {arguments[0]})]
            return command(*kept, *arguments)
        self.refuses_all([(line(arguments), pattern) for arguments, pattern in (
            (["--schedule", "1f1n"], r"--schedule: there is no schedule '1f1n'; there are: .*; did you mean '1f1b'\?"),
            (["--recompute", "allways"], r"--recompute: got allways, expected never, .*; did you mean 'always'\?"),
            (["--memory", "2 gigs"], r"--memory: got 2 gigs, expected a size such as 2GiB, .*"),
            (["--memory", "1GiB,1GiB,1GiB"], r"--memory: got 3 sizes, expected 1, or one for each of the 2 workers"),
            (["--hosts", "a:2,b:1"], r"--hosts: got 3 workers in a:2,b:1, but --workers is 2"),
            (["--hosts", "a"], r"--hosts: got a, expected hosts with their numbers of workers, such as a:4,b:4"),
            (["--ranks", "some"], r"--ranks: got some, expected one, per-worker, or a number from 1 to 2"),
            (["--partition", "2,2"], r"--partition: got 4 layers in 2,2, the model has 5"),
            (["--partition", "1,1,3"], r"--partition: got 3 stages in 1,1,3, expected a multiple of the 2 workers"),
            (["--partition", "by:tiem"], r"--partition: got by:tiem, .*; did you mean 'time'\?"),
            (["--partition", "before:fc1"], r"--partition: the model has no layer 'fc1'; it has: .*; did you mean 'fc\.1'\?"),
            (["--micro-batches", "11"], r"--micro-batches: got 11, expected at most 10: train\.batch is 10"),
            (["--profile", "other.yaml"], r"other\.yaml: got no cost of layer 'act\.0' .*; measure again: lockstep profile .*"),
            (["--profile", "none.json"], r"none\.json: got no file .*"),
            (["-o", "none/plan.yaml"], r"-o: .*none/plan\.yaml.*"))])
        self.refuses(command("plan", "small.yaml", "--profile", "costs.yaml"), r"--workers: missing, .*")
        self.refuses(command("plan", "small.yaml", "--profile", "costs.yaml", "--workers", 6, "--all-workers"),
                     r"--workers: got 6, the model has 5 layers and every worker needs at least one")
        for micro_batches in ("auto", "2,4"):
            self.refuses(line(["--micro-batches", micro_batches]),
                         rf"--micro-batches: got {micro_batches}, expected one number: nothing says how the costs of 5 layers, the "
                         r"first is 'fc\.0', depend on the rows of a micro-batch; .*")
        self.refuses(line(["--partition", "2,3", "--memory", "512KiB"]),
                     r"the cuts are fixed, layers per stage \[2, 3\], and do not fit: stage \d \(.* \.\. .*\) needs .* on worker \d, .* more "
                     r"than its limit of 512 KiB \(.*\); the smallest limit that would do with these cuts, .*")

        self.refuses(line(["--partition", "3,2", "--memory", "5MiB", "--schedule", "1f1b", "--recompute", "never"]),
                     r"the cuts are fixed, .*: stage 0 \(fc\.0 \.\. fc\.1\) needs 6\.00 MiB on worker 0, 1\.00 MiB more than its limit of "
                     r"5 MiB .* is 6\.00 MiB \(\d+\); others fit: \[1, 4\] with 1f1b, recompute never")

    def test_with_more_ranks_than_the_plan_has_workers_the_run_says_how_many_to_start(self):
        self.succeeds(*PLAN)
        self.refuses(command("train", "small.yaml", "--plan", "plan.yaml", ranks=3),
                     r".*3 ranks, and every rank needs at least one; start 2 ranks or fewer, .*")

    def test_what_fits_nowhere_is_refused_before_anything_is_made(self):
        before = sorted(self.folder.iterdir())
        settings = overrides(["workers.memory_limit=1KiB", "pipeline.partition=auto"])
        for ranks in (0, 2):
            result = self.run_command(command("train", "small.yaml", *settings, ranks=ranks))
            self.assertEqual((result.returncode, result.stdout), (2, ""), result.stderr)
            measuring, refusal = result.stderr.splitlines()
            self.assertIn("partition auto: measuring 5 layers", measuring)
            self.assertRegex(refusal, r"^lockstep: --set pipeline\.partition=auto: pipeline\.partition: nothing fits: 2 workers of "
                                      r"1.* KiB; the smallest limit .* \(\d+\); .*")
        self.assertEqual([path for path in sorted(self.folder.iterdir()) if path.name != "cache"], before)


if __name__ == "__main__":
    unittest.main()
