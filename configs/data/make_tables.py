#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of configs/table.yaml and docs/data.md: made up, from seeded rules. Nobody's measurements.

houses.csv, houses-eval.csv   numbers, yes and no, names, dates, missing cells, and a price that follows from them
power.csv                     what three plants give, hour by hour
sums.jsonl                    prompts and answers: "12+7=" and "19;"
Run: python3 configs/data/make_tables.py  (tests/cli/configs_test.py checks that the files are what this writes)
"""
import datetime
import json
import pathlib
import random


def houses(seed, count):
    uniform = random.Random(seed).random  # the one method whose sequence Python promises to keep
    heatings = (("gas", 0.0), ("heat pump", 0.35), ("oil", -0.25))
    lines = ["id,area,rooms,garden,heating,sold,price"]
    for number in range(1, count + 1):
        area = 45 + 120 * uniform()
        rooms = 1 + int(area / 40 + 2 * uniform())
        garden = uniform() < 0.4
        heating, bonus = heatings[int(3 * uniform())]
        day = int(1460 * uniform())
        sold = datetime.date(2020, 1, 1) + datetime.timedelta(days=day)
        price = 0.5 + 0.02 * area + 0.1 * rooms + 0.5 * garden + bonus + 0.0005 * day + 0.2 * (uniform() - 0.5)
        shown_area = "" if uniform() < 0.05 else f"{area:.1f}"
        shown_heating = "NA" if uniform() < 0.05 else heating
        lines.append(f"{number},{shown_area},{rooms},{'true' if garden else 'false'},{shown_heating},{sold},{price:.3f}")
    return "\n".join(lines) + "\n"


def power(seed, hours):
    uniform = random.Random(seed).random
    lines = ["hour,plant,load,wind"]
    winds = {plant: 0.5 for plant in ("east", "north", "west")}
    for hour in range(hours):
        time = datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=hour)
        for plant in winds:
            winds[plant] = 0.9 * winds[plant] + 0.1 * uniform()
            day = abs(hour % 24 - 12) / 12
            lines.append(f"{time.isoformat()},{plant},{1.2 - day + 0.8 * winds[plant]:.3f},{winds[plant]:.3f}")
    return "\n".join(lines) + "\n"


def sums(seed, count):
    uniform = random.Random(seed).random
    lines = []
    for _ in range(count):
        a, b = int(30 * uniform()), int(30 * uniform())
        lines.append(json.dumps({"question": f"{a}+{b}=", "answer": f"{a + b};"}))
    return "\n".join(lines) + "\n"


def files():
    return {"houses.csv": houses(seed=1, count=240), "houses-eval.csv": houses(seed=2, count=60),
            "power.csv": power(seed=3, hours=96), "sums.jsonl": sums(seed=4, count=120)}


if __name__ == "__main__":
    for name, text in files().items():
        pathlib.Path(__file__).with_name(name).write_text(text)
