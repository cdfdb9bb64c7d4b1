#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Readers: images per second against torchvision's ImageFolder, and the memory of an epoch of a large token file.

Images: a folder of made-up JPEG files of about 500 x 375 pixels (or your own, --images), read by one thread of Lockstep's
image_folder and by torchvision's ImageFolder behind a DataLoader with one worker process, both with a random resized crop
of 224 pixels, a flip and normalisation; and with the crop of evaluations. Interleaved; the ratio is taken round by round.
torchvision's time is that of its worker: the main process, which only collects batches, is on another core.

Tokens: an epoch of a file of --megabytes, and the most memory of the process on the way.

  .venv/bin/python tools/bench/image_bench.py --json out/bench/image.json      (needs torchvision, pillow and numpy)
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import measuring

TRANSFORMS = ("random_resized_crop", "centre")
AUGMENT = {"random_resized_crop": {"random_resized_crop": {}, "flip": 0.5}, "centre": {}}


def options_of():
    parser = measuring.parser(__doc__)
    parser.add_argument("--bench", default=str(measuring.ROOT / "build/release/data_bench"), help="(default: build/release/data_bench)")
    parser.add_argument("--images", metavar="FOLDER", help="a folder of images for each class (default: made-up ones)")
    parser.add_argument("--count", type=measuring.positive, default=600, help="images that are made up (default: 600)")
    parser.add_argument("--rounds", type=measuring.positive, default=7)
    parser.add_argument("--megabytes", type=measuring.positive, default=1024, help="of the token file (default: 1024)")
    parser.add_argument("--part", action="append", choices=["images", "tokens"], help="repeatable (default: both)")
    return parser.parse_args()


def make_images(folder, count):
    import numpy
    from PIL import Image
    rng = numpy.random.default_rng(0)
    for i in range(count):
        width, height = (500, 375) if i % 4 else (375, 500)
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=numpy.uint8))
        array = numpy.asarray(coarse.resize((width, height), Image.BICUBIC)).astype(int) + rng.integers(-12, 13, (height, width, 3))
        path = pathlib.Path(folder, f"class-{i % 4}", f"{i}.jpg")
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(array.clip(0, 255).astype(numpy.uint8)).save(path, quality=88)


def ours(options, scratch, data, *flags):
    config = pathlib.Path(scratch, "config.yaml")
    config.write_text(json.dumps({"data": data}))
    command = [options.bench, str(config), *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    measuring.check(result.returncode, command, result.stdout + result.stderr)
    return json.loads(result.stdout)


def import_torchvision():
    import torch
    # PyPI's torchvision beside a torch without CUDA lacks its operators and then cannot be imported; none is used here.
    library = torch.library.Library("torchvision", "DEF")
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torch, torchvision, library


def theirs(folder, name):
    """Images per second of an epoch, without the worker's start."""
    torch, torchvision, _library = import_torchvision()
    torch.set_num_threads(1)
    transforms = torchvision.transforms
    crop = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()] if name != "centre" else [
        transforms.Resize(256), transforms.CenterCrop(224)]
    normal = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    images = torchvision.datasets.ImageFolder(folder, transforms.Compose([*crop, transforms.ToTensor(), normal]))
    loader = torch.utils.data.DataLoader(images, batch_size=64, shuffle=True, num_workers=1)
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    count = sum(len(labels) for _, labels in batches)
    return count / (time.perf_counter() - start)


def theirs_apart(folder, name):
    """The same in a process of its own."""
    result = subprocess.run([sys.executable, __file__, "--theirs", folder, name], capture_output=True, text=True, check=False)
    measuring.check(result.returncode, [__file__, "--theirs"], result.stdout + result.stderr)
    return float(result.stdout.split()[-1])


def measure_images(options, scratch):
    folder = options.images
    if not folder:
        folder = os.path.join(scratch, "images")
        measuring.say(f"making {options.count} images")
        make_images(folder, options.count)
    results = []
    for name in TRANSFORMS:
        data = {"type": "image_folder", "train": folder, "size": 224, "resize": 256, "mean": "imagenet", "std": "imagenet",
                "augment": AUGMENT[name]}
        rates = {"lockstep": [], "torchvision": []}
        for number in range(1, options.rounds + 1):
            measuring.say(f"{name}: round {number} of {options.rounds}")
            read = ours(options, scratch, data)
            rates["lockstep"].append(read["samples"] / read["seconds"])
            rates["torchvision"].append(theirs_apart(folder, name))
        ratios = [a / b for a, b in zip(rates["lockstep"], rates["torchvision"])]
        results.append({"transform": name, **{side: measuring.summary(values) for side, values in rates.items()},
                        "ratio": measuring.summary(ratios)})
    measuring.print_table(["images per second", "Lockstep, one thread", "torchvision, one worker", "ratio"],
                          [[r["transform"], measuring.in_ms(r["lockstep"]), measuring.in_ms(r["torchvision"]),
                            measuring.in_ratios(r["ratio"])] for r in results])
    return results


def measure_tokens(options, scratch):
    path = os.path.join(scratch, "tokens.bin")
    measuring.say(f"writing {options.megabytes} MiB of tokens")
    with open(path, "wb") as file:
        for i in range(options.megabytes):
            file.write((i * 2654435761 % 2**32).to_bytes(4, "little") * (2**20 // 4))
    read = ours(options, scratch, {"type": "tokens", "train": path, "context": 1024})
    os.remove(path)
    more = {kind: read["mib_most"][kind] - read["mib_before"][kind] for kind in read["mib_most"]}
    measuring.print_table(["token file, MiB", "opened, s", "epoch, s", "million tokens per s", "more memory, MiB", "of it pages of files"],
                          [[options.megabytes, f"{read['open_s']:.2f}", f"{read['seconds']:.2f}",
                            f"{read['samples'] * 1024 / read['seconds'] / 1e6:.0f}", f"{sum(more.values()):.0f}", f"{more['RssFile']:.0f}"]])
    return {"megabytes": options.megabytes, **read}


def run():
    if sys.argv[1:2] == ["--theirs"]:
        print(theirs(*sys.argv[2:]))
        return 0
    options = options_of()
    if not os.access(options.bench, os.X_OK):
        raise measuring.BenchError(f"there is no {options.bench}; build with -DLOCKSTEP_BENCH=ON, or name it with --bench")
    figures = {"bench": "image", "machine": measuring.machine()}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as scratch:
        for name, measure in (("images", measure_images), ("tokens", measure_tokens)):
            if name in (options.part or ["images", "tokens"]):
                figures[name] = measure(options, scratch)
    measuring.write_json(options.json, figures)
    return 0


if __name__ == "__main__":
    measuring.main(run)
