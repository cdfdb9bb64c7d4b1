#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs transport_bench under mpirun, shows what it prints, and writes it as JSON.

  hog        a rank that computes while seven others wait for it: how much slower it is
  pingpong   one-way time and bandwidth between two ranks

  tools/bench/transport_bench.py --json out/bench/transport.json
"""
import os
import re
import shlex
import shutil
import subprocess

import measuring

HOG = re.compile(r"rank 0 of (\d+).*?: ([\d.]+) ms alone, ([\d.]+) ms while .* ratio ([\d.]+) \(medians ([\d.]+)\)")
PINGPONG = re.compile(r"^\s*(\d+)\s+([\d.]+)\s+([\d.]+)\s*$", re.MULTILINE)


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--bench", metavar="FILE", default=str(measuring.ROOT / "build/release/transport_bench"),
                        help="default: build/release/transport_bench")
    parser.add_argument("--mode", action="append", choices=["hog", "pingpong"], help="repeatable (default: both)")
    parser.add_argument("--ranks", type=measuring.positive, default=8, help="of hog (default: 8)")
    return parser.parse_args()


def output_of(options, mode, ranks):
    launcher = shlex.split(options.mpirun)
    if not os.access(options.bench, os.X_OK):
        raise measuring.BenchError(f"there is no {options.bench}; configure with -DLOCKSTEP_BENCH=ON, or give --bench")
    if not launcher or not shutil.which(launcher[0]):
        raise measuring.BenchError(f"there is no launcher {options.mpirun}; install MPICH or name it with --mpirun")
    command = launcher + ["-n", str(ranks), options.bench, mode]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    measuring.check(done.returncode, command, done.stdout)
    print(f"{shlex.join(command)}\n{done.stdout}", flush=True)
    return done.stdout


def hog(options):
    found = HOG.search(output := output_of(options, "hog", options.ranks))
    if not found:
        raise measuring.BenchError(f"cannot read what transport_bench hog printed: {output.strip()}")
    names = ("ranks", "alone_ms", "watched_ms", "slowdown", "slowdown_of_medians")
    return dict(zip(names, [int(found[1])] + [float(text) for text in found.groups()[1:]]))


def pingpong(options):
    rows = PINGPONG.findall(output := output_of(options, "pingpong", 2))
    if not rows:
        raise measuring.BenchError(f"cannot read what transport_bench pingpong printed: {output.strip()}")
    return [{"bytes": int(size), "one_way_us": float(us), "gb_per_s": float(rate)} for size, us, rate in rows]


def run():
    options = options_of()
    figures = {"bench": "transport", "machine": measuring.machine()}
    for mode in options.mode or ["hog", "pingpong"]:
        figures[mode] = {"hog": hog, "pingpong": pingpong}[mode](options)
    measuring.write_json(options.json, figures)
    return 0


if __name__ == "__main__":
    measuring.main(run)
