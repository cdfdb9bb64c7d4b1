# SPDX-License-Identifier: Apache-2.0
"""Every reader of files against a Python reading of the same files: NumPy, safetensors, and Pillow with the sizes and
places of torchvision's transforms, which are written out here."""
import gzip
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy
    import torch
    from PIL import Image
    from safetensors.torch import load_file, save_file
except ImportError as error:
    sys.exit(f"{sys.executable} lacks {error.name}: run tools/setup_tests.sh, or configure with -DLOCKSTEP_ORACLE_PYTHON=PATH of a Python that has it")

ROOT = pathlib.Path(__file__).resolve().parents[2]
READ_DATA = os.environ.get("READ_DATA", str(ROOT / "build/release/read_data"))
LIMIT_S = 90
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def as_tensor(image, mean=0.0, std=1.0):
    """torchvision's ToTensor and Normalize."""
    array = numpy.asarray(image, dtype=numpy.float32)
    array = array.reshape(array.shape[0], array.shape[1], -1).transpose(2, 0, 1) / numpy.float32(255)
    mean, std = (numpy.array(values, dtype=numpy.float32).reshape(-1, 1, 1) for values in (mean, std))
    return torch.from_numpy((array - mean) / std)


def centre(image, resize, size):
    """torchvision's Resize and CenterCrop."""
    width, height = image.size
    if width <= height:
        image = image.resize((resize, int(resize * height / width)), Image.BILINEAR)
    else:
        image = image.resize((int(resize * width / height), resize), Image.BILINEAR)
    left, top = (int(round((side - size) / 2.0)) for side in image.size)
    return image.crop((left, top, left + size, top + size))


def smooth(width, height, channels, seed):
    """Something like a photograph: no edges but some noise."""
    rng = numpy.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), channels), dtype=numpy.uint8)
    planes = [Image.fromarray(coarse[:, :, c]).resize((width, height), Image.BICUBIC) for c in range(channels)]
    array = numpy.stack([numpy.asarray(plane) for plane in planes], 2).astype(int) + rng.integers(-6, 7, (height, width, channels))
    return array.clip(0, 255).astype(numpy.uint8)


class ReadersTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="lockstep-readers-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def read(self, first_drawn=None, **data):
        config = {"data": data, **({} if first_drawn is None else {"first_drawn": first_drawn})}
        (self.folder / "config.yaml").write_text(json.dumps(config))
        result = subprocess.run([READ_DATA, "config.yaml", "."], cwd=self.folder, text=True, capture_output=True, timeout=LIMIT_S)
        self.assertEqual(result.returncode, 0, result.stderr)
        return load_file(self.folder / "train.safetensors")

    def same(self, got, x, targets, tolerance=0.0):
        self.assertEqual(set(got), {"x", "targets"})
        self.assertEqual((got["x"].dtype, got["x"].shape), (x.dtype, x.shape))
        self.assertTrue(torch.equal(got["targets"], targets))
        self.assertLessEqual((got["x"] - x).abs().max().item(), tolerance)

    def windows(self, tokens, context, stride):
        tokens = torch.from_numpy(tokens.astype(numpy.int64))
        windows = tokens.unfold(0, context + 1, stride)
        return windows[:, :-1], windows[:, 1:]

    # ---- text and tokens ----

    def test_text(self):
        text = random.Random(1).randbytes(3_000_001)  # large enough to be mapped
        (self.folder / "a.txt").write_bytes(text[:1_500_000])
        (self.folder / "b.txt").write_bytes(text[1_500_000:1_500_003])
        (self.folder / "c.txt").write_bytes(text[1_500_003:])
        expected = self.windows(numpy.frombuffer(text, dtype=numpy.uint8), 37, 29)
        self.same(self.read(type="text", train="*.txt", context=37, stride=29), *expected)

    def test_tokens(self):
        rng = numpy.random.default_rng(2)
        for dtype, most in (("uint16", 50257), ("uint32", 2**32)):
            tokens = rng.integers(0, most, 1_000_003, dtype=dtype)
            tokens[:400_001].tofile(self.folder / "a.bin")  # as nanoGPT writes them
            numpy.save(self.folder / "b.npy", tokens[400_001:400_004])
            numpy.save(self.folder / "c.npy", tokens[400_004:])
            with self.subTest(dtype=dtype):
                got = self.read(type="tokens", train=["a.bin", "*.npy"], dtype=dtype, context=64)
                self.same(got, *self.windows(tokens, 64, 64))

    def test_documents(self):
        rng = numpy.random.default_rng(3)
        end, context = 99, 16
        tokens = rng.integers(0, 90, 5000, dtype="uint16")
        tokens[rng.random(5000) < 0.12] = end
        tokens.tofile(self.folder / "t.bin")
        x, targets = self.windows(tokens, context, context)
        targets = torch.where(x == end, -100, targets)
        self.same(self.read(type="tokens", train="t.bin", context=context, documents={"end": end}), x, targets)
        # Packed, in Python's words: document by document.
        documents, rest = [], tokens.tolist()
        while end in rest:
            documents.append(rest[:rest.index(end) + 1])
            rest = rest[len(documents[-1]):]
        documents.append(rest)
        samples, sample = [], []
        for document in documents:
            if sample and len(sample) + len(document) > context + 1:
                samples.append(sample)
                sample = []
            while len(document) > context + 1:
                samples.append(document[:context + 1])
                document = document[context:]
            sample = sample + document
        samples.append(sample)
        rows = []
        for sample in samples:
            targets = [-100 if token == end else following for token, following in zip(sample, sample[1:])]
            if any(target != -100 for target in targets):
                rows.append((sample[:-1] + [end] * (context + 1 - len(sample)), targets + [-100] * (context - len(targets))))
        got = self.read(type="tokens", train="t.bin", context=context, documents={"end": end, "packing": "whole"})
        self.same(got, torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows]))

    # ---- tables and arrays ----

    def test_csv(self):
        rng = numpy.random.default_rng(4)
        table = rng.normal(size=(50, 4))
        numpy.savetxt(self.folder / "t.csv", table, delimiter=",")
        table = numpy.loadtxt(self.folder / "t.csv", delimiter=",")
        x, y = torch.from_numpy(table[:, :3].astype(numpy.float32)), torch.from_numpy(table[:, 3:].astype(numpy.float32))
        self.same(self.read(type="csv", train="t.csv", targets=["3"], task="regression"), x, y)

    def test_safetensors(self):
        torch.manual_seed(5)
        tensors = {"x": torch.randn(7, 3, 2), "targets": torch.randint(5, (7,))}
        save_file(tensors, self.folder / "a.safetensors")
        self.same(self.read(type="safetensors", train="a.safetensors"), tensors["x"], tensors["targets"])
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool,
                      torch.uint16, torch.uint32):
            with self.subTest(dtype=dtype):
                x = torch.randint(0, 2 if dtype == torch.bool else 100, (7, 3)).to(dtype)
                save_file({"x": x, "targets": tensors["targets"]}, self.folder / "a.safetensors")
                wanted = torch.float32 if dtype.is_floating_point else torch.int64
                self.same(self.read(type="safetensors", train="a.safetensors"), x.to(wanted), tensors["targets"])

    # ---- images of one size ----

    def write_idx(self, name, array, pack):
        header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        content = header + array.tobytes()
        (self.folder / name).write_bytes(gzip.compress(content) if pack else content)

    def test_idx(self):
        rng = numpy.random.default_rng(6)
        images, labels = rng.integers(0, 256, (20, 28, 28), dtype=numpy.uint8), rng.integers(0, 10, 20, dtype=numpy.uint8)
        x = torch.stack([as_tensor(Image.fromarray(image), 0.1307, 0.3081) for image in images])
        y = torch.from_numpy(labels.astype(numpy.int64))
        for pack in (False, True):
            self.write_idx("images", images, pack)
            self.write_idx("labels", labels, pack)
            files = {"images": "images", "labels": "labels"}
            with self.subTest(pack=pack):
                self.same(self.read(type="idx", train=files, mean=0.1307, std=0.3081), x, y)
                self.same(self.read(type="idx", train=files, mean=0.1307, std=0.3081, flat=True), x.flatten(1), y)

    def test_cifar(self):
        rng = numpy.random.default_rng(7)
        for kind, labels, label in (("cifar10", 1, 0), ("cifar100", 2, 1)):
            records = rng.integers(0, 256, (9, labels + 3072), dtype=numpy.uint8)
            records[:, :labels] %= 10
            records[:5].tofile(self.folder / "data_batch_1.bin")
            records[5:].tofile(self.folder / "data_batch_2.bin")
            images = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            x = torch.stack([as_tensor(image, **IMAGENET) for image in images])
            y = torch.from_numpy(records[:, label].astype(numpy.int64))
            with self.subTest(kind):
                self.same(self.read(type=kind, train="data_batch_*.bin", mean="imagenet", std="imagenet"), x, y)

    def test_padding_and_flip_make_views_of_the_padded_image(self):
        rng = numpy.random.default_rng(8)
        images = rng.integers(1, 256, (40, 6, 5), dtype=numpy.uint8)
        self.write_idx("images", images, False)
        self.write_idx("labels", numpy.zeros(40, dtype=numpy.uint8), False)
        got = self.read(first_drawn=3, type="idx", train={"images": "images", "labels": "labels"}, augment={"padding": 2, "flip": 0.5})
        seen = set()
        for image, x in zip(images, got["x"]):
            padded = numpy.pad(image, 2)
            views = {(top, left, flip): as_tensor(numpy.ascontiguousarray(padded[top:top + 6, left:left + 5][:, ::-1 if flip else 1]))
                     for top in range(5) for left in range(5) for flip in (False, True)}
            found = [view for view, expected in views.items() if torch.equal(expected, x)]
            self.assertEqual(len(found), 1)
            seen.update(found)
        self.assertGreater(len(seen), 20)

    # ---- image folders ----

    def folder_of(self, images):
        """name -> what writes it to a path; one class. The names sorted, as they are read."""
        (self.folder / "images/a").mkdir(parents=True, exist_ok=True)
        for name, write in images.items():
            write(self.folder / "images/a" / name)
        return sorted(images)

    def check_folder(self, images, mode, resize, size, tolerance, **keys):
        names = self.folder_of(images)
        got = self.read(type="image_folder", train="images", size=size, resize=resize, channels={"RGB": 3, "L": 1}[mode], **keys)
        for name, x in zip(names, got["x"]):
            image = Image.open(self.folder / "images/a" / name).convert(mode)
            expected = as_tensor(centre(image, resize, size), **(IMAGENET if keys else {}))
            with self.subTest(name, mode=mode):
                self.assertLessEqual((x - expected).abs().max().item(), tolerance)

    def test_every_kind_of_file(self):
        rgb, rgba, grey = (Image.fromarray(smooth(60, 45, channels, 9).squeeze()) for channels in (3, 4, 1))
        noisy = {f"{name}.png": lambda path, image=image: image.save(path)
                 for name, image in {"rgb": rgb, "rgba": rgba, "grey": grey, "grey-alpha": rgba.convert("LA"), "palette": rgb.quantize(50),
                                     "two": grey.convert("1")}.items()}
        noisy["palette-transparent.png"] = lambda path: rgb.quantize(50).save(path, transparency=3)
        noisy["grey-transparent.png"] = lambda path: grey.save(path, transparency=3)
        for bits in (1, 2, 4):
            noisy[f"palette-{bits}.png"] = lambda path, bits=bits: rgb.quantize(2**bits).save(path, bits=bits)
        noisy["progressive.jpg"] = lambda path: rgb.save(path, quality=90, progressive=True)
        noisy["grey.jpg"] = lambda path: grey.save(path, quality=90)
        noisy["cmyk.jpg"] = lambda path: rgb.convert("CMYK").save(path, quality=90)
        noisy["turned.jpg"] = lambda path: rgb.save(path, quality=90, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            noisy[f"{subsampling.replace(':', '')}.jpeg"] = lambda path, subsampling=subsampling: rgb.save(path, quality=75, subsampling=subsampling)
        noisy["odd.jpg"] = lambda path: Image.fromarray(smooth(37, 53, 3, 11)).save(path, quality=85)
        for mode in ("RGB", "L"):
            self.check_folder(noisy, mode, 30, 24, 1.01 / 255)

    def test_resizing_is_pillows(self):
        sizes = [(224, 224), (500, 375), (333, 500), (101, 99), (24, 31), (1, 1), (3, 200), (1000, 20)]
        images = {f"{i}.png": lambda path, size=size, i=i: Image.fromarray(smooth(*size, 3, i)).save(path) for i, size in enumerate(sizes)}
        for resize, size in ((32, 32), (40, 32), (256, 224), (33, 32)):
            self.check_folder(images, "RGB", resize, size, 0.0)

    def test_normalised_as_torchvision_does(self):
        images = {"1.png": lambda path: Image.fromarray(smooth(50, 40, 3, 1)).save(path)}
        self.check_folder(images, "RGB", 32, 32, 0.0, mean="imagenet", std="imagenet")

    def test_a_random_box_is_a_crop_that_was_resized(self):
        # A picture whose pixels say where they are: the corners of what is drawn give the box away.
        side = 256
        array = numpy.zeros((side, side, 3), dtype=numpy.uint8)
        array[:, :, 0], array[:, :, 1] = numpy.arange(side)[None, :], numpy.arange(side)[:, None]
        self.folder_of({f"{i:03}.png": lambda path: Image.fromarray(array).save(path) for i in range(40)})
        got = self.read(first_drawn=0, type="image_folder", train="images", size=64,
                        augment={"random_resized_crop": {"scale": [0.2, 0.6], "ratio": [0.5, 2.0]}, "flip": 0.5})
        areas, ratios, flips = [], [], 0
        for x in got["x"]:
            x = (x * 255).round().to(torch.int64)
            flip = x[0, 0, 0] > x[0, 0, -1]
            flips += int(flip)
            x = x.flip(2) if flip else x
            left, right, top, bottom = x[0, 0, 0].item(), x[0, 0, -1].item(), x[1, 0, 0].item(), x[1, -1, 0].item()
            # Corners are means of a few pixels at the edge: the box is a little larger.
            found = None
            for width in range(right - left, right - left + 8):
                for height in range(bottom - top, bottom - top + 8):
                    for l in range(max(0, left - 4), left + 1):
                        for t in range(max(0, top - 4), top + 1):
                            if found or l + width > side or t + height > side or width < 1 or height < 1:
                                continue
                            if abs(l + width - 1 - right) > 4 or abs(t + height - 1 - bottom) > 4:
                                continue
                            box = Image.fromarray(array).crop((l, t, l + width, t + height)).resize((64, 64), Image.BILINEAR)
                            if numpy.array_equal(numpy.asarray(box), x.permute(1, 2, 0).numpy()):
                                found = (width, height)
            self.assertIsNotNone(found)
            areas.append(found[0] * found[1] / side**2)
            ratios.append(found[0] / found[1])
        self.assertGreater(min(areas), 0.19)
        self.assertLess(max(areas), 0.61)
        self.assertGreater(min(ratios), 0.49)
        self.assertLess(max(ratios), 2.02)
        self.assertLess(min(areas), 0.3)
        self.assertGreater(max(areas), 0.5)
        self.assertTrue(8 < flips < 32)


if __name__ == "__main__":
    unittest.main()
