# SPDX-License-Identifier: Apache-2.0
"""What `cmake --install` leaves: it works after a move, names neither build nor source tree, and others build on it.

LOCKSTEP_BUILD  the build tree (default: build/release)
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LOCKSTEP_BUILD", ROOT / "build/release")).resolve()
sys.path.insert(0, str(ROOT / "tests/check"))
sys.dont_write_bytecode = True
from links_test import dead_links, pages_of  # noqa: E402

LIMIT_S = 240

FIRST = """\
cmake_minimum_required(VERSION 3.25)
project(first LANGUAGES CXX)
find_package(lockstep REQUIRED)
add_executable(right first.cpp)
target_link_libraries(right PRIVATE lockstep::lockstep)
add_executable(wrong first.cpp)
target_link_libraries(wrong PRIVATE -Wl,--no-as-needed ${LibTorch_CPU_LIBRARY} lockstep::lockstep)
"""
FIRST_CPP = """\
#include <iostream>
#include "runtime/layer/gemm_path.hpp"
int main() { std::cout << lockstep::gemm_path().effective << " " << lockstep::gemm_path().reason << std::endl; }
"""


def run(*line, cwd=None, **environment):
    result = subprocess.run([str(part) for part in line], cwd=cwd, env={**os.environ, **environment}, text=True,
                            stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S)
    if result.returncode:
        raise AssertionError(f"{line}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def cached(name):
    found = re.search(rf"^{name}:\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.MULTILINE)
    return found[1] if found else ""


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-install-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        run("cmake", "--install", BUILD, "--prefix", cls.folder / "first", "--component", "lockstep")
        cls.prefix = (cls.folder / "first").rename(cls.folder / "moved")
        cls.command = cls.prefix / "bin/lockstep"

    def configure(self, source, name):
        build = self.folder / name
        run("cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_PREFIX_PATH={self.prefix};{cached('CMAKE_PREFIX_PATH')}")
        run("cmake", "--build", build)
        return build

    def test_the_package_names_no_path_of_this_machine(self):
        files = [path for path in self.prefix.rglob("*") if path.is_file() and path.suffix in (".cmake", ".hpp", "")]
        self.assertGreater(len(files), 50)
        for path in files:
            if "bin" in path.parts:
                continue
            text = path.read_text()
            for tree in (BUILD, ROOT, self.folder):
                self.assertNotIn(str(tree), text, path)

    def test_the_command_finds_its_library_in_the_moved_prefix(self):
        libraries = run("ldd", self.command)
        self.assertIn(str(self.prefix / "lib/liblockstep.so"), os.path.realpath(
            re.search(r"liblockstep\S* => (\S+)", libraries)[1]))
        self.assertNotIn(str(BUILD), libraries)
        for file in (self.command, self.prefix / "lib/liblockstep.so"):
            entries = run("readelf", "-d", file)
            self.assertNotIn(str(BUILD), entries)
            self.assertIn("[libtorch.so]", entries, "without it a CUDA build's side is never loaded")

    def test_the_command_trains(self):
        config = self.prefix / "share/lockstep/configs/mlp-regression.yaml"
        said = run(self.command, "train", config, "--set", "train.steps=3", "--set", f"run_dir={self.folder}/run")
        self.assertTrue((self.folder / "run/fingerprint.json").exists(), said)

    def test_a_program_of_ones_own_and_which_library_comes_first(self):
        source = self.folder / "source"
        source.mkdir()
        (source / "CMakeLists.txt").write_text(FIRST)
        (source / "first.cpp").write_text(FIRST_CPP)
        build = self.configure(source, "build-first")
        self.assertRegex(run(build / "right"), r"^1 ")
        # Torch first works too; on an AMD CPU it says what it costs.
        self.assertRegex(run(build / "wrong"), r"^0 .*(link liblockstep first|not an AMD CPU|no AVX2|as asked)")

    def test_without_libtorch_the_package_says_which_one_and_how_to_find_it(self):
        source = self.folder / "lonely"
        source.mkdir()
        (source / "CMakeLists.txt").write_text(FIRST)
        # What the environment names does not count.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("CMAKE_", "Torch_"))}
        result = subprocess.run(["cmake", "-S", source, "-B", self.folder / "build-lonely", "-G", "Ninja",
                                 f"-DCMAKE_PREFIX_PATH={self.prefix}"],
                                env=environment, text=True, capture_output=True, timeout=LIMIT_S)
        self.assertNotEqual(result.returncode, 0)
        said = " ".join(result.stderr.split())
        self.assertRegex(said, r"LibTorch \d+\.\d+\.\d+, which this Lockstep was built with, was not found")
        self.assertIn("torch.utils.cmake_prefix_path", said)

    def test_a_plug_in_built_on_the_package_trains_with_the_command(self):
        build = self.configure(ROOT / "examples/plugin", "build-plugin")
        said = run(self.command, "train", ROOT / "examples/plugin/wave.yaml", "--set", "train.steps=3",
                   "--set", f"model.library={build}/libwave_plugin.so", "--set", f"run_dir={self.folder}/wave")
        self.assertTrue((self.folder / "wave/fingerprint.json").exists(), said)
        said = run(self.command, "train", ROOT / "examples/plugin/extras.yaml", "--set", "train.steps=3",
                   "--set", f"plugins=[{build}/libextras_plugin.so]", "--set", f"run_dir={self.folder}/extras")
        self.assertTrue((self.folder / "extras/fingerprint.json").exists(), said)

    def test_the_pages_are_there_with_what_they_show(self):
        folder = self.prefix / "share/doc/lockstep"
        self.assertEqual([path.relative_to(folder) for path in pages_of(folder)],
                         [path.relative_to(ROOT) for path in pages_of(ROOT)])
        # Links into the sources lead somewhere in the source tree only.
        self.assertEqual([link for link in dead_links(pages_of(folder)) if re.search(r"\.(md|png)|examples/", link.split(": ")[1])], [])

    def test_completion_offers_verbs_and_flags(self):
        completion = self.prefix / "share/bash-completion/completions/lockstep"
        ask = (f"source {completion}; COMP_WORDS=({self.command} $1 $2); COMP_CWORD=$3; _lockstep; "
               "printf '%s\\n' \"${COMPREPLY[@]}\"")
        self.assertEqual(run("bash", "-c", ask, "_", "tr", "", 1).split(), ["train"])
        self.assertEqual(run("bash", "-c", ask, "_", "train", "--dry", 2).split(), ["--dry-run"])


if __name__ == "__main__":
    sys.exit(unittest.main())
