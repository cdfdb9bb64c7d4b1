#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether two builds of lockstep compute the same bits: trains every config of configs/ for three steps with each, in
process and on two ranks, and compares losses and weights.

Usage: tools/check/bits.py OLD NEW [CONFIG ...]       the two commands, quoted where they have arguments
Ends with 1 when any differ. Takes about two minutes. Needs only Python's standard library and mpirun.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))
sys.dont_write_bytecode = True
import configs_test  # noqa: E402


def fingerprint(lockstep, name, ranks, folder):
    """Losses and hashes of all parameters, or what was printed when it failed."""
    settings = [*configs_test.FEW_STEPS, *configs_test.QUICK.get(name, []), f"run_dir={folder}"]
    if ranks == 1:
        settings += configs_test.IN_PROCESS.get(name, [])
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    line = [*launcher, *shlex.split(lockstep), "train", str(ROOT / "configs" / name)]
    for setting in settings:
        line += ["--set", setting]
    result = subprocess.run(line, cwd=ROOT, text=True, capture_output=True)
    if result.returncode != 0:
        return result.stderr.strip().splitlines()[-1]
    found = json.loads((pathlib.Path(folder) / "fingerprint.json").read_text())
    return {key: found[key] for key in ("steps", "loss", "losses", "parameters")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("configs", nargs="*", default=configs_test.EXAMPLES)
    options = parser.parse_args()
    different = 0
    for name in options.configs:
        for ranks in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                old, new = (fingerprint(command, name, ranks, f"{folder}/{side}")
                            for side, command in (("old", options.old), ("new", options.new)))
            same = old == new and isinstance(old, dict)
            different += not same
            print(f"{name:24} {'in process' if ranks == 1 else f'{ranks} ranks':10}  ", end="")
            if same:
                print(f"same bits: loss {old['loss']:.9g}")
            elif isinstance(old, dict) and isinstance(new, dict):
                print(f"DIFFERENT: loss {old['loss']:.9g} and {new['loss']:.9g}")
            else:
                print(f"FAILED: {old if isinstance(old, str) else new}")
            sys.stdout.flush()
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
