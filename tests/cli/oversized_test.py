# SPDX-License-Identifier: Apache-2.0
"""A model several times larger than what the kernel lets each rank have: it is built, trained, saved and resumed below that."""
import json
import struct
import unittest

from cli import ROOT, CliTest, command, overrides, steps_of

RANKS = 8
LIMIT_KIB = 400_000  # of data, as `ulimit -d` counts: LibTorch and MPI take some 200 MB of it


def tensor_bytes(path):
    """Of a safetensors file."""
    with open(path, "rb") as file:
        length, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(end - begin for name, entry in header.items() if name != "__metadata__" for begin, end in [entry["data_offsets"]])


class OversizedTest(CliTest):
    def limited(self, *arguments, settings=(), limit_kib=LIMIT_KIB):
        mpiexec, number, ranks, *job = command(*arguments, *overrides(settings), ranks=RANKS)
        return self.run_command([mpiexec, number, ranks, "bash", "-c", f'ulimit -d {limit_kib}; exec "$@"', "limited", *job], cwd=ROOT)

    def test_it_trains_saves_and_resumes_below_the_limit(self):
        run = self.folder / "run"
        settings = [f"run_dir={run}", "train.steps=3"]
        for more, resumed in ((["train.stop_after=2"], False), ([], True)):
            result = self.limited("train", "configs/oversized.yaml", "--resume", "auto", settings=[*settings, *more])
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual("resumed after step 2" in result.stderr, resumed, result.stderr)
        self.assertEqual([line["step"] for line in steps_of(run / "metrics.jsonl")], [1, 2, 3])
        weights = sum(tensor_bytes(shard) for shard in (run / "checkpoints/step-00000003").glob("model-*.safetensors"))
        optimizer = sum(tensor_bytes(shard) for shard in (run / "checkpoints/step-00000003").glob("optimizer-*.safetensors"))
        self.assertGreater(2 * weights + optimizer, 2.5 * LIMIT_KIB * 1024)  # weights, gradients, averages

    def test_the_limit_is_real(self):
        # A rank of a quarter of the model needs more: the test above would not pass by itself.
        result = self.limited("train", "configs/oversized.yaml", settings=[
            f"run_dir={self.folder / 'run'}", "workers.memory_limit=none", "train.steps=3", "pipeline.partition=[3, 1, 1, 1, 1, 1, 1, 26]"])
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr, r"(?i)alloc|memory")


if __name__ == "__main__":
    unittest.main()
