#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the small data that the examples of readers train on, from seeded rules: nobody's pictures, texts or digits.

tokens*.bin    documents that count up or down from a random number, as 16-bit tokens with 0 at the end of each
shapes/        PNG images, a folder each of discs, crosses and squares, anywhere and of any colour
digits*        the digits of a pocket calculator, noisy, in MNIST's format
cifar*.bin     ten kinds of stripes in CIFAR-10's binary format
waves*         arrays of numbers in safetensors
Run: python3 configs/data/make_examples.py  (tests/cli/configs_test.py checks that the files are what this writes)
"""
import array
import json
import pathlib
import random
import struct
import sys
import zlib

SEGMENTS = ("1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111", "1010010", "1111111", "1111011")


def below(uniform, count):
    return int(uniform() * count)  # uniform: the one method whose sequence Python promises to keep


def little_endian(numbers, code):
    values = array.array(code, numbers)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def tokens(seed, documents):
    """Documents of 4 to 24 tokens from 1 to 63."""
    uniform = random.Random(seed).random
    numbers = []
    for _ in range(documents):
        first, step = below(uniform, 63), 1 if uniform() < 0.5 else -1
        numbers += [(first + step * i) % 63 + 1 for i in range(4 + below(uniform, 21))] + [0]
    return little_endian(numbers, "H")


def png(side, rows):
    """8-bit RGB, not compressed: the same bytes whatever zlib there is."""
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    lines = b"".join(b"\0" + bytes(row) for row in rows)
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(lines), len(lines) ^ 0xFFFF) + lines + struct.pack(">I", zlib.adler32(lines))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", stored)
            + chunk(b"IEND", b""))


def shape(kind, uniform):
    side, reach = 16, 3 + below(uniform, 2)
    across, down = (reach + below(uniform, side - 2 * reach) for _ in range(2))
    dark, light = ([below(uniform, 100) + base for _ in range(3)] for base in (0, 156))
    inside = {"cross": lambda x, y: abs(x) == abs(y) and abs(x) <= reach,
              "disc": lambda x, y: x * x + y * y <= reach * reach,
              "square": lambda x, y: max(abs(x), abs(y)) == reach}[kind]
    return png(side, [[value for x in range(side) for value in (light if inside(x - across, y - down) else dark)] for y in range(side)])


def shapes(seed, split, count):
    uniform = random.Random(seed).random
    return {f"shapes/{split}/{kind}/{i:02}.png": shape(kind, uniform) for kind in ("cross", "disc", "square") for i in range(count)}


def digit(number, uniform):
    """12 x 8 bytes: seven bars, some noise."""
    top, upper_left, upper_right, middle, lower_left, lower_right, bottom = (flag == "1" for flag in SEGMENTS[number])
    lit = {(row, column) for on, row in ((top, 1), (middle, 5), (bottom, 9)) if on for column in range(2, 6)}
    for on, first, column in ((upper_left, 1, 1), (upper_right, 1, 6), (lower_left, 5, 1), (lower_right, 5, 6)):
        lit |= {(row, column) for row in range(first, first + 5)} if on else set()
    return bytes(int((180 if (row, column) in lit else 20) + 60 * uniform()) for row in range(12) for column in range(8))


def digits(seed, name, count):
    uniform = random.Random(seed).random
    images = b"".join(digit(i % 10, uniform) for i in range(count))
    return {f"{name}-images.idx3": struct.pack(">BBBBIII", 0, 0, 8, 3, count, 12, 8) + images,
            f"{name}-labels.idx1": struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(i % 10 for i in range(count))}


def stripes(seed, count):
    """A record: the label, and stripes as wide as it says, down for even labels and across for odd ones."""
    uniform = random.Random(seed).random
    records = b""
    for i in range(count):
        label, shift = i % 10, below(uniform, 8)
        records += bytes([label])
        for _ in range(3):
            colours = (below(uniform, 120), 130 + below(uniform, 120))
            records += bytes(colours[((column if label % 2 else row) + shift) // (label // 2 + 1) % 2]
                             for row in range(32) for column in range(32))
    return records


def waves(seed, rows):
    """x [rows, 4], targets [rows, 2]: sums and differences of neighbours."""
    uniform = random.Random(seed).random
    x = [[2 * uniform() - 1 for _ in range(4)] for _ in range(rows)]
    targets = [[row[0] + row[1] * row[2], row[3] - row[0]] for row in x]
    parts = {"x": (x, [rows, 4]), "targets": (targets, [rows, 2])}
    header, data = {}, b""
    for name, (values, shape_) in parts.items():
        bytes_ = little_endian([number for row in values for number in row], "f")
        header[name] = {"dtype": "F32", "shape": shape_, "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def files():
    return {"tokens.bin": tokens(1, 120), "tokens-eval.bin": tokens(2, 30),
            **shapes(3, "train", 8), **shapes(4, "eval", 3),
            **digits(5, "digits", 60), **digits(6, "digits-eval", 20),
            "cifar.bin": stripes(7, 10), "cifar-eval.bin": stripes(8, 5),
            "waves.safetensors": waves(9, 96), "waves-eval.safetensors": waves(10, 32)}


if __name__ == "__main__":
    for name, content in files().items():
        path = pathlib.Path(__file__).parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
