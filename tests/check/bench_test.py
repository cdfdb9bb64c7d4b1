# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks make of what they measure; no figure is measured here."""
import contextlib
import fcntl
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "tools/bench"
sys.path.insert(0, str(BENCH))
sys.dont_write_bytecode = True
import gpu_bench  # noqa: E402
import measuring  # noqa: E402

# A program that is linked with a libcudart and copies 8 bytes to the host and 16 to the device.
PROGRAM = """\
int cudaStreamSynchronize(void*); int cudaMemcpyAsync(void*, const void*, unsigned long, int, void*);
int main(void) {
  char a[16];
  return cudaStreamSynchronize(0) + cudaMemcpyAsync(a, a, 8, 2, 0) + cudaMemcpyAsync(a, a, 16, 1, 0);
}
"""
CUDART = """\
int cudaStreamSynchronize(void* s) { return s != 0; }
int cudaMemcpyAsync(void* to, const void* from, unsigned long n, int kind, void* s) { return !to || !from || !n || !kind || s; }
"""


def bench(folder, seconds=100):
    """A gpu_bench whose command only tells its version."""
    command = pathlib.Path(folder, "lockstep")
    command.write_text("#!/bin/sh\necho lockstep 1\n")
    command.chmod(0o755)
    options = types.SimpleNamespace(lockstep=str(command), mpirun="mpirun", out=f"{folder}/out", seconds=seconds, rounds=1,
                                    tiny=False, device="cuda:0", parts="a", compile_seconds=1)
    made = gpu_bench.Bench(options, folder)
    made.card = {"card": "none", "matmul_tflops": 100.0}
    made.look_at_card = lambda: None
    return made


class BenchTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name
        quiet = contextlib.redirect_stderr(io.StringIO())
        quiet.__enter__()
        self.addCleanup(quiet.__exit__, None, None, None)

    def test_every_benchmark_says_what_it_is(self):
        scripts = sorted(BENCH.glob("*_bench.py"))
        self.assertGreater(len(scripts), 10)
        running = [subprocess.Popen([sys.executable, script, "--help"], stdout=subprocess.PIPE, text=True) for script in scripts]
        for script, process in zip(scripts, running):
            with self.subTest(script.name):
                self.assertIn("--lockstep" if script.name != "transport_bench.py" else "--bench", process.communicate()[0])
                self.assertEqual(process.returncode, 0)

    def test_gpt2_has_its_flops(self):
        # 124.4 M parameters without the table of positions, and 12 x 768 x 1024 for attention.
        self.assertEqual(gpu_bench.Shape(vocab=50257).flops_per_token(), 6 * (124439808 - 1024 * 768) + 6 * 12 * 768 * 1024)

    def test_a_variant_that_fails_is_recorded_and_the_others_go_on(self):
        made = bench(self.folder)
        made.begin("a", "title")

        def fails():
            raise measuring.BenchError("exit code 1 from: lockstep train\n  the reason")
        self.assertEqual(gpu_bench.interleaved(made, {"good": lambda: 2.0, "bad": fails}, 3), {"good": [2.0, 2.0, 2.0]})
        made.write_tables()
        made.close()
        line = json.loads(pathlib.Path(self.folder, "out/gpu_bench.jsonl").read_text())
        self.assertEqual((line["case"], line["remark"], line["card"]), ("bad", "failed: the reason", "none"))
        self.assertIn("| bad | failed: the reason |", pathlib.Path(self.folder, "out/gpu_bench.md").read_text())

    def test_a_part_that_does_not_fit_any_more_is_skipped_with_the_reason(self):
        made = bench(self.folder, seconds=10)
        gpu_bench.run_part(made, "a")
        made.close()
        self.assertRegex(pathlib.Path(self.folder, "out/gpu_bench.md").read_text(), r"skipped: \d+ s are left of --seconds")

    def test_what_takes_too_long_is_ended_with_all_that_it_started(self):
        with self.assertRaisesRegex(measuring.BenchError, "took longer than 1 s"):
            measuring.run_command(["sh", "-c", f"exec 9>{self.folder}/lock; flock 9; sleep 1000 & wait"], timeout_s=1)
        with open(f"{self.folder}/lock", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # whoever is left holds it
        with self.assertRaisesRegex(measuring.BenchError, "exit code 3"):
            measuring.run_command(["sh", "-c", "exit 3"])

    def test_waits_and_bytes_are_counted_once(self):
        for name, text in {"cudart.c": CUDART, "program.c": PROGRAM}.items():
            pathlib.Path(self.folder, name).write_text(text)
        for line in (["-shared", "-fPIC", "-o", "libcudart.so", "cudart.c"], ["-o", "program", "program.c", "./libcudart.so"],
                     ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", "counts.so", str(BENCH / "cuda_counts.c")]):
            subprocess.run(["cc", *line], cwd=self.folder, check=True)
        environment = {"LD_PRELOAD": "./counts.so", "CUDA_COUNTS": "counts.jsonl"}
        subprocess.run(["./program"], cwd=self.folder, check=True, env=environment)
        found = json.loads(pathlib.Path(self.folder, "counts.jsonl").read_text())
        self.assertEqual({name: count for name, count in found.items() if count},
                         {"cudaStreamSynchronize": 1, "cudaMemcpyAsync": 2, "device_to_host_bytes": 8})


if __name__ == "__main__":
    unittest.main()
