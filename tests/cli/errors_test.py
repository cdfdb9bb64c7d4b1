# SPDX-License-Identifier: Apache-2.0
"""Mistakes of users: one line that names what is wrong, what is allowed and what was probably meant; exit code 2; and
nothing left behind."""
import concurrent.futures
import re
import unittest

from cli import ENDLESS, MLP, CliTest, command, metrics, overrides

LOSSES = "mean_squared_error, mean_absolute_error, huber, .*"

# (overrides, the whole line after "lockstep: " as a regular expression). {set}: "--set KEY=VALUE" of the last override.
BAD_VALUES = [
    (["train.stesp=3"], r"{set}: train\.stesp: got an unknown key, expected one of steps, .*; did you mean 'steps'\?"),
    (["train.learning_rate=3"], r"{set}: train\.learning_rate: got an unknown key, .*; did you mean train\.optimizer\.lr\?"),
    (["model.hidden_size=3"], r"{set}: model\.hidden_size: got an unknown key, .*; did you mean 'width'\?"),
    (["train.loss=bce"], r".*there is no loss 'bce'; .*; did you mean 'binary_cross_entropy'\?"),
    (["modle.width=3"], r"{set}: modle: got an unknown key, expected one of name, seed, .*; did you mean 'model'\?"),
    (["model.widht=3"], r"{set}: model\.widht: got an unknown key, expected one of type, .*; did you mean 'width'\?"),
    (["train.steps"], r"{set}: got no '=', expected key=value, such as train\.steps=100"),
    (["=3"], r"{set}: got an empty key, expected key=value, such as train\.steps=100"),
    (["train.steps=many"], r"{set}: train\.steps: got many, expected an integer >= 1"),
    (["train.steps=0"], r"{set}: train\.steps: got 0, expected an integer >= 1"),
    (["train.stop_on_nan=yes"], r"{set}: train\.stop_on_nan: got yes, expected true or false.*"),
    (["train.micro_batches=11"], r"{set}: train\.micro_batches: got 11, expected at most train\.batch, which is 10"),
    (["train.optimizer.type=admw"], r"{set}: .*: got admw, expected one of sgd, adam, adamw, .*; did you mean 'adamw'\?"),
    (["train.optimizer.momentum=0.9"], r"{set}: .*: got 0\.9, expected no momentum with type adamw; it belongs to sgd.*"),
    (["train.lr_schedule.type=cosin"], r"{set}: .*: got cosin, expected one of constant, .*; did you mean 'cosine'\?"),
    (["train.precision=fp16"], r"{set}: train\.precision: got fp16, expected one of fp32, bf16, fp64.*"),
    (["train.loss=mean_square_error"], rf".*there is no loss 'mean_square_error'; there are: {LOSSES}; did you mean "
                                       r"'mean_squared_error'\?"),
    (["pipeline.schedule=1f1n"], r"{set}: .*: there is no schedule '1f1n'; there are: gpipe, 1f1b, .*; did you mean '1f1b'\?"),
    (["model.type=mpl"],
     r"{set}: .*: there is no model family 'mpl'; there are: mlp, gpt, llama, bert, lstm, gru, resnet, cnn, unet, wide_deep, sequential, delay; did you mean 'mlp'\?"),
    (["data.type=synthetik"], r"{set}: .*: got synthetik, expected one of text, .*; did you mean 'synthetic'\?"),
    (["pipeline.stages=9"], r"{set}: .*: got 9, the model has 5 layers and every stage needs .*; use at most 5"),
    (["pipeline.partition=[1,1]"], r"{set}: .*: got 2 layers in \[1, 1\], the model has 5: fc\.0, act\.0, .*, out"),
    (["pipeline.partition=[2,2,1]"], r".*pipeline\.partition: got 3 stages, expected 2 as pipeline\.stages says; .*"),
    (["pipeline.partition={cut_before: [fc1]}"], r"{set}: .*\.cut_before: the model has no layer 'fc1'; it has: fc\.0, "
                                                 r"act\.0, fc\.1, act\.1, out; did you mean 'fc\.1'\?"),
    (["pipeline.partition={cut_before: [fc.0]}"], r"{set}: .*: layer 'fc\.0' is layer 0, but .*"),
    (["pipeline.placement=[0,0]"], r"{set}: .*: got \[0, 0\], expected each of 0 to 1 once: .*"),
    (["pipeline.virtual_stages=3"], r".*: pipeline\.stages: got 2, expected a multiple of pipeline\.virtual_stages, which is 3: 3"),
    (["pipeline.schedule=zbv"], r"{set}: pipeline\.schedule: schedule zbv has 2 stages per worker, got virtual_stages = 1; .*"),
    (["pipeline.recompute=sometimes"], r"{set}: .*: got sometimes, expected one of never, except_last, always"),
    (["pipeline.recompute=[fc.9]"], r"{set}: .*: no layer matches 'fc\.9'; the model has: fc\.0, .*, out; did you mean 'fc\.\d'\?"),
    (["pipeline.schedule=file:none.csv"], r"{set}: pipeline\.schedule: .*none\.csv.*"),
    (["pipeline.costs={forward_ms: [1,2,3]}"], r".*forward_ms: got 3 numbers, expected 1, 2 \(one per stage\) or 5 .*"),
    (["train.post_validation=true"], r"{set}: .*: got true, expected false without clip_grad_norm; .*"),
    (["workers.per_rank=[1,1]"], r".*workers\.per_rank: \[1, 1\] places 2 workers on 2 ranks, but .* 1 ranks.*"),
    (["workers.per_rank=3"], r".*workers\.per_rank: \[3\] places 3 workers on 1 ranks, but the job has 2 workers .*"),
    (["workers.devices=[gpu]"], r"{set}: workers\.devices\[0\]: got gpu, expected cpu, cuda or cuda:N"),
    (["train.loss=sparse_categorical_cross_entropy"], r".*: model: the loss sparse_categorical_cross_entropy does not fit the model "
                                                      r"and its data: the model puts out .*\[4, 2\], the targets are .*"),
    (["model.inputs=5"], r".*: model: layer 'fc\.0' \(linear\): a linear layer of width 5 got x Float \[4, 4\]; it expects .* 5"),
    (["train.freeze=[fc.9]"], r".*train\.freeze: no parameter matches 'fc\.9'.*"),
    (["train.freeze=['*']"], r"nothing to train: .*"),
    (["train.optimizer.groups=[{match: [out.wieght]}]"], r".*train\.optimizer\.groups: no parameter matches 'out\.wieght'; "
                                                         r"did you mean 'out\.weight'\?"),
    (["data={type: csv, train: no.csv, targets: [a], task: regression}"], r"no\.csv: cannot be read: No such file .*"),
    (["data={type: text, train: no/*.txt, context: 8}"], r"{set}: data\.train: no file matches 'no/\*\.txt' .*"),
    (["run_dir=small.yaml"], r"run_dir: cannot make small\.yaml: .*"),
    (["run_dir=/proc/none"], r"run_dir: cannot make /proc/none: .*"),
    (["replicas.count=4"], r"{set}: replicas\.count: got 4, expected at most train\.micro_batches, which is 3; every replica .*"),
    (["replicas.count=2", "train.gradient_groups=1"],
     r"{set}: train\.gradient_groups: got 1, expected an integer from 2 \(replicas\.count\) to 3 \(train\.micro_batches\); .*"),
    # Keys whose work comes later are refused, not ignored.
    (["replicas.count=2", "replicas.strategy=parameter_server", "pipeline.stages=2"],
     r"{set}: pipeline\.stages: got 2, expected 1 with replicas\.strategy parameter_server; each replica is one worker there, and its weights are the servers'"),
    (["train.micro_batches=auto"], r"{set}: .*: got auto, expected an integer >= 1; a plan names it: lockstep plan CONFIG .*"),
    (["pipeline.partition=atuo"], r"{set}: .*: got atuo, expected one of layers, params, time, .*; did you mean 'auto'\?"),
    (["pipeline.partition=auto", "pipeline.schedule=file:a.csv"],
     r"--set pipeline\.partition=auto: .*: got auto with a schedule from a file, expected layers, .*"),
    (["workers.memory_limit=2 gigs"], r"{set}: workers\.memory_limit: got 2 gigs, expected a size such as 2GiB, .*"),
]
BAD_LINES = [
    ([], r"A subcommand is required; see lockstep --help"),
    (["trian", "small.yaml"], r"there is no verb 'trian'; there are: train, .*; did you mean 'train'\?; see lockstep --help"),
    (["train"], r"config is required; see lockstep train --help"),
    (["train", "small.yaml", "--dryrun"], r".*--dryrun.*; see lockstep train --help"),
    (["train", "none.yaml"], r"none\.yaml: got no file \(No such file or directory\), expected a YAML file .*"),
    (["train", "."], r"\.: got a folder, expected a YAML file"),
    (["verify", "small.yaml", "--steps", "0"], r"--steps: .*; see lockstep verify --help"),
    (["simulate", "--schedule", "1f1n"], r"--schedule: there is no schedule '1f1n'; there are: .*; did you mean '1f1b'\?"),
    (["simulate", "--stages", "2"], r"--micro-batches: missing or 0, expected a number of at least 1"),
    (["list", "lossses"], r"what: lossses .*losses.*; see lockstep list --help"),
]
BAD_FILES = [
    (MLP.replace("  batch: 10", "  batch: 10\n  batch: 12"), r"bad\.yaml:7:3: train\.batch: got the key twice \(lines 6 and "
                                                             r"7\), expected it once; .*"),
    (MLP.replace("  micro_batches", "  micro_batchs"), r"bad\.yaml:7:3: train\.micro_batchs: got an unknown key, .*; did you "
                                                       r"mean 'micro_batches'\?"),
    (MLP.replace("batch: 10", "batch: ten"), r"bad\.yaml:6:10: train\.batch: got ten, expected an integer >= 1"),
    (MLP.replace("batch: 10", "batch: 010"), r"bad\.yaml:6:10: train\.batch: got 010, .*"),
    (MLP.replace("  steps: 4\n", ""), r"bad\.yaml:\d+:\d+: train\.steps: missing, expected an integer >= 1"),
    (MLP.replace("  steps:", "  step:"), r"bad\.yaml:5:3: train\.steps: missing, .*; is 'step' here a misspelling of it\?"),
    (MLP + "pipeline: {", r"bad\.yaml:\d+:\d+: .*"),
    ("- a list\n", r"bad\.yaml.*: .*mapping.*"),
    ("", r"bad\.yaml.*: .*"),
]


def with_settings(settings, pattern, verb="train", ranks=0):
    """The command line, and the pattern with {set} filled in."""
    shown = re.escape(f"--set {settings[-1]}")
    return command(verb, "small.yaml", *overrides(settings), ranks=ranks), pattern.replace("{set}", shown)


class Refusals(CliTest):
    def setUp(self):
        super().setUp()
        self.write("small.yaml", MLP)

    def refuses(self, line, pattern):
        self.refuses_all([(line, pattern)])

    def refuses_all(self, lines_and_patterns):
        """Each prints one line on standard error, nothing else anywhere, and leaves with code 2. Two run at a time."""
        before = sorted(self.folder.rglob("*"))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda pair: self.run_command(pair[0]), lines_and_patterns))
        for (line, pattern), result in zip(lines_and_patterns, results):
            with self.subTest(" ".join(line[1:])):
                self.assertRegex(result.stderr, rf"\Alockstep: {pattern}\n\Z")
                self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertEqual(sorted(self.folder.rglob("*")), before)


class ErrorsTest(Refusals):
    def test_bad_values(self):
        self.refuses_all([with_settings(settings, pattern) for settings, pattern in BAD_VALUES])

    def test_bad_command_lines(self):
        self.refuses_all([(command(*arguments), pattern) for arguments, pattern in BAD_LINES])

    def test_a_flag_with_an_empty_value_is_not_taken_for_one_that_was_left_out(self):
        said = "got nothing, expected a value; leave it out instead"
        self.refuses_all([(command("train", "small.yaml", flag, ""), rf"{flag}: {said}")
                          for flag in ("--plan", "--resume", "--metrics", "--fingerprint", "--trace")])
        self.refuses(command("why", ""), rf"run_folder: {said}")

    def test_bad_files_are_named_with_line_and_column(self):
        lines = []
        for number, (text, pattern) in enumerate(BAD_FILES):
            name = self.write(f"bad{number}.yaml", text)
            lines.append((command("train", name), pattern.replace("bad", f"bad{number}")))
        self.refuses_all(lines)

    def test_verify_and_dry_run_find_the_same_mistakes(self):
        self.refuses_all([
            with_settings(["pipeline.stages=9"], r"{set}: .*; use at most 5", verb="verify"),
            (command("train", "small.yaml", "--dry-run", "--set", "model.inputs=5"), r".*: model: layer 'fc\.0' .*")])

    def test_ranks_say_it_once_and_leave_together(self):
        for ranks, settings, pattern in (
                (3, ["name=x"], r".*workers\.per_rank: .* 2 workers .* 3 ranks.*; start 2 ranks or fewer, .*"),
                (2, ["workers.per_rank=[2,1]"], r".*workers\.per_rank: \[2, 1\] places 3 workers on 2 ranks, .*"),
                (2, ["train.stesp=3"], r"{set}: train\.stesp: got an unknown key, .*"),
                (2, ["run_dir=/proc/none"], r"run_dir: cannot make /proc/none: .*")):
            self.refuses(*with_settings(settings, pattern, ranks=ranks))

    def test_a_used_run_folder_is_refused_and_left_as_it_is(self):
        run = self.train("small.yaml", "run")
        before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
        for ranks in (0, 2):
            self.refuses(*with_settings(["run_dir=run"], r"run_dir: run already holds a run; .*--set run_dir=.*", ranks=ranks))
        self.assertEqual({path.name: path.stat().st_mtime_ns for path in run.iterdir()}, before)

    def test_two_jobs_cannot_share_a_run_folder(self):
        self.write("endless.yaml", ENDLESS)
        first = self.start(command("train", "endless.yaml", "--set", "run_dir=run"))
        self.wait_until(lambda: metrics(self.folder / "run/metrics.jsonl"), "its first step", first)
        self.refuses(*with_settings(["run_dir=run"], r"run_dir: another job is running in run; .*"))
        self.assertIsNone(first.poll())

    def test_every_help_has_an_example_that_names_the_command(self):
        verbs = ["train", "verify", "profile", "plan", "simulate", "report", "checkpoint", "eval", "predict", "check", "data", "list", "launch",
                 "why", "doctor"]
        listed = self.succeeds("--help").stdout
        for verb in verbs:
            with self.subTest(verb):
                self.assertRegex(listed, rf"(?m)^  {verb} ")
                self.assertRegex(self.succeeds(verb, "--help").stdout, rf"(?s)Example.*lockstep {verb} ")

    def test_a_narrow_terminal_breaks_no_table(self):
        narrow = {"COLUMNS": "40"}
        result = self.run_command(command("train", "small.yaml", "--dry-run"), narrow)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"(?m)^ +0 +0 +0 +\d+ +\d+  fc\.0( \.\. [a-z.0-9]+)?$")
        self.assertEqual(len([line for line in result.stdout.splitlines() if line.startswith("worker ")]), 2)
        grid = self.run_command(command("simulate", "--stages", 4, "--micro-batches", 32, "--width", 40), narrow).stdout
        rows = [line for line in grid.splitlines() if line.startswith("worker ")]
        self.assertEqual([len(row) for row in rows], [40] * 4, grid)
        self.assertIn("cut at 40 columns", grid)


    def test_a_metrics_file_that_cannot_be_written_leaves_no_run_folder(self):
        self.refuses(command("train", "small.yaml", "--metrics", "none/m.jsonl"), r".*none/m\.jsonl.*")

    def test_a_fingerprint_file_that_cannot_be_written_is_found_before_training(self):
        self.refuses(command("train", "small.yaml", "--fingerprint", "none/f.json"), r".*none/f\.json.*")

    def test_a_device_that_is_not_there_is_named_before_training(self):
        self.refuses(*with_settings(["workers.devices=[cuda:9999]"], r"{set}: workers\.devices.*cuda:9999.*"))

    def test_dropout_stays_below_one(self):
        self.refuses(*with_settings(["model.dropout=1.0"], r"{set}: model\.dropout: got 1\.0, expected a number .*"))

    def test_evaluation_without_evaluation_data(self):
        self.refuses(*with_settings(["data.eval_samples=0", "train.eval_every=2"], r"{set}: train\.eval_every: got 2, .*"))

    def test_a_wrong_command_line_is_said_once_under_mpirun(self):
        self.refuses(command("trian", ranks=2), r"there is no verb 'trian'.*")

    def test_classes_that_the_model_does_not_have_are_found_before_training(self):
        self.write("classes.csv", "1,0\n2,5\n")
        self.refuses(*with_settings(["data={type: csv, train: classes.csv, targets: [1], task: classification}",
                                     "train.loss=sparse_categorical_cross_entropy", "model.inputs=1"], r".* 2 classes, .* up to 5; it needs 6 .*"))

    def test_labels_that_the_loss_is_not_defined_for_are_found_before_training(self):
        self.write("labels.csv", "a,y\n0.5,1\n0.25,3\n")
        settings = ["data={type: csv, train: labels.csv, targets: [y], task: regression}", "model.inputs=1", "model.outputs=1",
                    "train.loss=binary_cross_entropy"]
        for ranks in (0, 2):
            self.refuses(*with_settings(settings, r"labels\.csv:3: sample 1: the target is 3, but the loss binary_cross_entropy is "
                                                  r"defined for numbers from 0 to 1; .*", ranks=ranks))

    def test_a_table_of_another_kind_is_refused_without_its_bytes(self):
        (self.folder / "wide.csv").write_bytes("a,y\n1,2\n".encode("utf-16"))
        (self.folder / "latin.csv").write_bytes("gr\u00f6\u00dfe,y\n1,\u00e4\n".encode("latin-1"))
        table = "data={{type: csv, train: {}, targets: [1], task: regression}}"
        self.refuses(*with_settings([table.format("wide.csv")], r"wide\.csv: got text in UTF-16, expected UTF-8; .*"))
        self.refuses(*with_settings([table.format("latin.csv")], r"latin\.csv:2: column 'y': got '\\xe4', expected a number"))

    def test_every_value_that_is_refused_has_its_place(self):
        self.refuses_all([with_settings([setting], r"{set}: .*") for setting in
                          ("train.loss=mse", "train.freeze=[fc.9]", "workers.per_rank=3")])

    def test_what_can_hardly_be_meant_is_warned_of_and_trained(self):
        settings = ["train.batch=5001", "train.lr_schedule.warmup_steps=10"]
        warnings = [r"warning: --set train\.batch=5001: train\.batch: got 5001, but there are 64 training samples: every step trains "
                    r"with 64", r"warning: .*train\.lr_schedule\.warmup_steps: got 10, but training has 4 steps: .*"]
        dry = self.succeeds("train", "small.yaml", "--dry-run", settings=settings).stdout
        trained = self.succeeds("train", "small.yaml", settings=settings).stderr
        for warning in warnings:
            self.assertRegex(dry, rf"(?m)^{warning}$")
            self.assertRegex(trained, rf"(?m)^{warning}$")
        self.assertNotIn("warning", self.succeeds("train", "small.yaml", "--dry-run").stdout)
        on_ranks = self.succeeds("train", "small.yaml", ranks=2, settings=[*settings, "run_dir=ranks"]).stderr
        self.assertEqual(on_ranks.count("got 5001"), 1, on_ranks)

    def test_a_loss_that_has_grown_is_said_at_the_end(self):
        result = self.succeeds("train", "small.yaml", settings=["train.optimizer={type: adam, lr: 100}", "train.steps=6"])
        self.assertRegex(result.stderr, r"(?m)^warning: the loss has grown from \S+ in the first step to \S+ in the last: .*lr \(it is 100\) .*$")
        self.assertRegex(result.stderr, r"(?m)^done: 6 steps")
        self.assertNotIn("has grown", self.succeeds("train", "small.yaml", settings=["run_dir=good"]).stderr)

    def test_every_name_that_is_listed_says_what_it_is(self):
        for line in self.succeeds("list").stdout.splitlines():
            self.assertRegex(line, r"^(\w+ \([\w.\[\]]+\)|  \S+ +\S.*|    \w.*)$")

    def test_a_number_out_of_range_on_the_command_line_reads_well(self):
        self.refuses(command("verify", "small.yaml", "--steps", 0), r"--steps: .{,60}; see lockstep verify --help")


if __name__ == "__main__":
    unittest.main()
