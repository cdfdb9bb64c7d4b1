# SPDX-License-Identifier: Apache-2.0
"""tools/check/includes.py finds planted violations. Run: python3 -m unittest discover -s tests/check -p '*_test.py'"""
import contextlib
import importlib.util
import io
import pathlib
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools/check/includes.py"
spec = importlib.util.spec_from_file_location("includes", SCRIPT)
includes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(includes)

# A small tree that keeps to the real table.
LAWFUL = {
    "runtime/base/log.hpp": "#pragma once\n#include <string>\n",
    "runtime/base/log.cpp": '#include "runtime/base/log.hpp"\n#include <spdlog/spdlog.h>\n',
    "runtime/config/section.hpp": '#include "runtime/base/log.hpp"\n',
    "runtime/config/config.hpp": "",
    "runtime/schedule/action.hpp": '#include "runtime/base/log.hpp"\n',
    "runtime/layer/layer.hpp": '#include <ATen/ATen.h>\n#include "runtime/base/log.hpp"\n',
    "runtime/comm/channel.hpp": '#include "runtime/base/log.hpp"\n',
    "runtime/comm/mpi/call.cpp": '#include <mpi.h>\n#include "call.hpp"\n',
    "runtime/comm/mpi/call.hpp": "",
    "runtime/session/train_run.cpp": '#include "runtime/layer/layer.hpp"\n#include "runtime/config/section.hpp"\n',
    "partitioner/cuts.cpp": '#include "runtime/schedule/action.hpp"\n',
    "runtime/engine/links.cpp": '#include "runtime/comm/mpi/call.hpp"\n',
    "tools/train.cpp": '#include "runtime/session/train_run.hpp"\n',
    "runtime/session/train_run.hpp": "",
}


class IncludesTest(unittest.TestCase):
    def check(self, files, table=None, loose=True):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            table_path = SCRIPT.with_name("includes.table")
            if table is not None:
                table_path = pathlib.Path(folder, "a.table")
                table_path.write_text(table)
            output = io.StringIO()
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                code = includes.main([folder, "--table", str(table_path), *(["--loose"] if loose else [])])
            return code, output.getvalue()

    def expect_finding(self, path, text, *expected):
        code, output = self.check({**LAWFUL, path: text})
        self.assertEqual(code, 1, output)
        for part in expected:
            self.assertIn(part, output)
        self.assertEqual(len([line for line in output.splitlines() if line.startswith(path)]), 1, output)

    def test_what_no_file_needs_is_found(self):
        table = "runtime/base:\nruntime/comm: runtime/base\nexternal torch: ATen/ = runtime/comm\n"
        code, output = self.check({"runtime/base/log.hpp": "", "runtime/comm/channel.hpp": ""}, table, loose=False)
        self.assertEqual(code, 1, output)
        self.assertIn("runtime/comm:1: the table lets it include runtime/base", output)
        self.assertIn("runtime/comm:1: the table lets it include torch", output)

    def test_a_lawful_tree_passes(self):
        code, output = self.check(LAWFUL)
        self.assertEqual(code, 0, output)

    def test_an_edge_upwards_is_named_with_its_line(self):
        self.expect_finding("runtime/schedule/bad.cpp", '\n\n#include "runtime/comm/channel.hpp"\n',
                            "runtime/schedule/bad.cpp:3:", "runtime/schedule may not include runtime/comm/channel.hpp",
                            "it may include: runtime/base")

    def test_of_a_folder_only_the_listed_header_may_be_included(self):
        self.expect_finding("models/bad.cpp", '#include "runtime/config/config.hpp"\n', "models may not include")

    def test_a_relative_path_is_no_way_around(self):
        self.expect_finding("runtime/base/bad.cpp", '#include "../schedule/action.hpp"\n', "runtime/schedule/action.hpp")

    def test_angle_brackets_are_no_way_around(self):
        self.expect_finding("runtime/base/bad.cpp", "#include <runtime/schedule/action.hpp>\n", "runtime/schedule/action.hpp")

    def test_space_in_a_directive_is_no_way_around(self):
        self.expect_finding("partitioner/bad.hpp", "  #  include   <ATen/ATen.h>\n", "is torch")

    def test_torch_outside_its_folders(self):
        for header in ("ATen/ATen.h", "c10/core/Device.h", "torch/library.h"):
            for path in ("runtime/schedule/bad.hpp", "runtime/config/bad.cpp", "runtime/base/bad.hpp", "partitioner/bad.cpp"):
                self.expect_finding(path, f"#include <{header}>\n", f"{path}:1:", "is torch")

    def test_mpi_outside_comm_mpi(self):
        self.expect_finding("runtime/comm/bad.cpp", "#include <mpi.h>\n", "is mpi", "only runtime/comm/mpi")
        self.expect_finding("tools/bad.cpp", "#include <mpi.h>\n", "is mpi")

    def test_spdlog_outside_base(self):
        self.expect_finding("runtime/config/bad.cpp", "#include <spdlog/spdlog.h>\n", "is spdlog")

    def test_yaml_outside_config(self):
        self.expect_finding("partitioner/bad.cpp", "#include <yaml-cpp/yaml.h>\n", "is yaml")

    def test_spdlog_and_torch_meet_through_headers(self):
        files = {**LAWFUL, "runtime/base/log.hpp": "#include <spdlog/spdlog.h>\n"}
        code, output = self.check(files)
        self.assertEqual(code, 1)
        self.assertIn("runtime/session/train_run.cpp:1: sees spdlog and torch", output)
        self.assertIn("runtime/session/train_run.cpp > runtime/layer/layer.hpp", output)

    def test_a_folder_without_a_row(self):
        self.expect_finding("runtime/utils/bad.hpp", "", "not in the table")

    def test_a_header_that_does_not_exist(self):
        self.expect_finding("models/bad.cpp", '#include "runtime/layer/gone.hpp"\n', "does not exist")

    def test_comments_do_not_count(self):
        text = '// #include <mpi.h>\n/*\n#include <mpi.h>\n*/\n#include "runtime/base/log.hpp"\n'
        code, output = self.check({**LAWFUL, "runtime/data/fine.cpp": text})
        self.assertEqual(code, 0, output)

    def test_a_cycle_in_the_table_is_refused(self):
        code, output = self.check(LAWFUL, "runtime/base: runtime/layer\nruntime/layer: models\nmodels: runtime/base\n")
        self.assertEqual(code, 1)
        self.assertIn("cycle: runtime/base -> runtime/layer -> models -> runtime/base", output)

    def test_a_table_with_an_unknown_folder_or_line_is_refused(self):
        self.assertIn("in no folder", self.check(LAWFUL, "runtime/base: runtime/nowhere\n")[1])
        self.assertIn("line 1", self.check(LAWFUL, "what is this\n")[1])

    def test_torch_free_is_who_sees_torch_through_nobody(self):
        table = "base:\nlayer: base\nmodels: layer/layer.hpp\ncuts: base\ntools: models\nexternal torch: torch/ = layer\n"
        files = {f"{folder}/a.hpp": "" for folder in ("base", "layer", "models", "cuts", "tools")}
        with tempfile.TemporaryDirectory() as folder:
            for name in files:
                path = pathlib.Path(folder, name)
                path.parent.mkdir()
                path.touch()
            path = pathlib.Path(folder, "a.table")
            path.write_text(table)
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                self.assertEqual(includes.main([folder, "--table", str(path), "--torch-free"]), 0)
        self.assertEqual(output.getvalue(), "base\ncuts\n")

    def test_a_tree_without_sources_is_no_success(self):
        self.assertEqual(self.check({"README.md": ""})[0], 1)


if __name__ == "__main__":
    unittest.main()
