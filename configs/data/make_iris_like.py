#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes iris-like.csv and iris-like-eval.csv: made-up flowers, from a seeded rule. Nobody's measurements.

Three kinds, each with its own mean length and width of sepals and petals (cm); every flower has a size of its own, which
moves all four numbers together, and each number has some noise of its own.
Run: python3 configs/data/make_iris_like.py  (tests/cli/configs_test.py checks that the files are what this writes)
"""
import pathlib
import random

COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width", "kind")
MEANS = ((4.9, 3.5, 1.6, 0.3), (6.0, 2.7, 4.1, 1.4), (6.7, 3.1, 5.7, 2.1))
SPREAD = (0.35, 0.30, 0.35, 0.20)


def table(seed, flowers):
    uniform = random.Random(seed).random  # the one method whose sequence Python promises to keep

    def bell():  # nearly normal, and only additions: the same bits everywhere
        return sum(uniform() for _ in range(12)) - 6.0

    lines = [",".join(COLUMNS)]
    for flower in range(flowers):
        kind = flower % len(MEANS)
        size = bell()
        values = [max(0.1, mean + spread * (0.6 * size + 0.8 * bell())) for mean, spread in zip(MEANS[kind], SPREAD)]
        lines.append(",".join(f"{value:.1f}" for value in values) + f",{kind}")
    return "\n".join(lines) + "\n"


def files():
    return {"iris-like.csv": table(seed=1, flowers=120), "iris-like-eval.csv": table(seed=2, flowers=30)}


if __name__ == "__main__":
    for name, text in files().items():
        pathlib.Path(__file__).with_name(name).write_text(text)
