#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long steps stand still for data, in the configs that come with Lockstep: data_ms of the metrics over step_ms.

Each config trains a few steps as it is; the first one does not count. Configs that no small machine can train are left out, and
named. The share of a config is that of the worker that waited most.

  tools/bench/data_waits_bench.py --steps 30 --json out/bench/data.json
"""
import tempfile

import measuring

# Read as they are, but not trained here: what they need no small machine has, or they are no training.
LEFT_OUT = {"gpt-10b.yaml": "needs 200 GB", "oversized.yaml": "does not fit, on purpose", "gpt2-124m.yaml": "for a GPU",
            "reference.yaml": "explains keys"}
RANKS = {"gpt-dropout.yaml": 2}  # else one process


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--steps", type=measuring.positive, default=30)
    parser.add_argument("configs", nargs="*", help="default: all of configs/")
    return parser.parse_args()


def share_of(options, config, scratch):
    overrides = {"train.steps": options.steps, "train.lr_schedule": "{type: constant}", "train.eval_every": 0, "checkpoint.every": "never",
                 "checkpoint.best": "none"}
    trained = measuring.train(options, config, overrides, RANKS.get(config.name, 0), f"{scratch}/{config.stem}", timeout_s=600)
    steps = trained.steps[1:]
    step_ms = sum(line["step_ms"] for line in steps)
    waits = [sum(worker.get("data_ms", 0.0) for worker in of_worker) for of_worker in zip(*(line["workers"] for line in steps))]
    return step_ms / len(steps), max(waits) / step_ms


def run():
    options = options_of()
    machine = measuring.machine()
    configs = [measuring.ROOT / name for name in options.configs] or sorted((measuring.ROOT / "configs").glob("*.yaml"))
    rows, results = [], {}
    with tempfile.TemporaryDirectory(prefix="lockstep-data-") as scratch:
        for config in configs:
            if config.name in LEFT_OUT:
                rows.append([config.name, "", "", LEFT_OUT[config.name]])
                continue
            measuring.say(config.name)
            step_ms, share = share_of(options, config, scratch)
            results[config.name] = {"step_ms": step_ms, "share": share}
            rows.append([config.name, f"{step_ms:.1f}", f"{100 * share:.3f} %", ""])
    measuring.print_table(["config", "a step, ms", "waited for data", ""], rows)
    measuring.write_json(options.json, {"bench": "data_waits", "machine": machine, "results": results})
    return 0


if __name__ == "__main__":
    measuring.main(run)
