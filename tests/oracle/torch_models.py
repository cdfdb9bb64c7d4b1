# SPDX-License-Identifier: Apache-2.0
"""Families that no library of the tests has, of torch.nn's modules under the names that people know: the oracle of families_test.py, and
PyTorch's side of tools/bench/families_bench.py."""
import contextlib
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn


class Recurrent(nn.Module):
    """The picture in models/recurrent.cpp."""

    def __init__(self, kind, width, layers, outputs, vocab=None, inputs=None, bidirectional=False, pad=None, tied=False):
        super().__init__()
        self.pad, self.bidirectional, self.every = pad, bidirectional, vocab is not None and outputs == vocab
        if vocab:
            self.encoder = nn.Embedding(vocab, width)
        self.rnn = getattr(nn, kind.upper())(inputs or width, width, layers, batch_first=True, bidirectional=bidirectional)
        self.decoder = nn.Linear(2 * width if bidirectional else width, outputs, bias=not tied)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, x):
        if self.pad is not None and len(x) > 1:  # each row by itself, as long as it is
            return torch.cat([self.forward(row[:length].unsqueeze(0)) for row, length in zip(x, (x != self.pad).sum(1))])
        outputs, state = self.rnn(self.encoder(x) if hasattr(self, "encoder") else x)
        h = state[0] if isinstance(state, tuple) else state
        if self.every:
            return self.decoder(outputs)
        return self.decoder(torch.cat([h[-2], h[-1]], -1) if self.bidirectional else h[-1])


class WideDeep(nn.Module):
    """The picture in models/wide_deep.cpp, without numbers."""

    def __init__(self, fields, embedding, hidden, outputs):
        super().__init__()
        self.embed = nn.Module()
        self.embed.embeddings = nn.ModuleList(nn.Embedding(count, embedding) for count in fields)
        self.embed.wide = nn.ModuleList(nn.Embedding(count, outputs) for count in fields)
        sizes = [len(fields) * embedding, *hidden]
        self.deep = nn.ModuleList(nn.Linear(before, behind) for before, behind in zip(sizes, sizes[1:]))
        self.out = nn.Linear(sizes[-1], outputs)

    def forward(self, x):
        h = torch.cat([table(x[:, field]) for field, table in enumerate(self.embed.embeddings)], 1)
        for layer in self.deep:
            h = F.relu(layer(h))
        return self.out(h) + sum(table(x[:, field]) for field, table in enumerate(self.embed.wide))


class Block(nn.Module):
    """A residual block as torchvision names its parts."""

    def __init__(self, channels, inner, stride, bottleneck):
        super().__init__()
        out = 4 * inner if bottleneck else inner
        sizes = [(channels, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)] if bottleneck else [
            (channels, inner, 3, stride), (inner, out, 3, 1)]
        self.convolutions = len(sizes)
        for number, (before, behind, kernel, step) in enumerate(sizes, 1):
            setattr(self, f"conv{number}", nn.Conv2d(before, behind, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(behind))
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        h = x
        for number in range(1, self.convolutions + 1):
            h = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(h))
            h = F.relu(h) if number < self.convolutions else h
        return F.relu(h + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}

    def __init__(self, depth, classes, small=False, width=64):
        super().__init__()
        self.small = small
        self.conv1 = nn.Conv2d(3, width, *((3, 1, 1) if small else (7, 2, 3)), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels, bottleneck = width, depth >= 50
        for group, count in enumerate(self.BLOCKS[depth]):
            blocks = []
            for number in range(count):
                blocks.append(Block(channels, width << group, 2 if group and not number else 1, bottleneck))
                channels = (4 * width if bottleneck else width) << group
            setattr(self, f"layer{group + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x if self.small else F.max_pool2d(x, 3, 2, 1)
        for group in range(1, 5):
            x = getattr(self, f"layer{group}")(x)
        return self.fc(x.mean((2, 3)))


def exact_norms(dtype):
    """While it is open, in float64: Hugging Face's RMSNorm in the precision of x, which it leaves for float32."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.mistral.modeling_mistral import MistralRMSNorm
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    def normed(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    stack = contextlib.ExitStack()
    if dtype == torch.float64:
        for norm in (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm):
            stack.enter_context(mock.patch.object(norm, "forward", normed))
    return stack
