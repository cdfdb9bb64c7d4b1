#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""configs/char-gpt.yaml (nanoGPT's recipe for characters) on two workers, against plain PyTorch on two threads: wall time, loss.

Each round trains both sides from the beginning, one after the other, in processes of their own. PyTorch's is a loop as nanoGPT's
train.py has it (no torch.compile, which needs a compiler at run time; scaled_dot_product_attention, fused AdamW, clipping), with a
model of the same structure and initial values, on the same text; its batches are random windows, as nanoGPT draws them. The time is
that of the training steps, without start-up and evaluation; the loss is the mean of the last 100 steps'.

  .venv/bin/python tools/bench/char_bench.py --json out/bench/char.json
"""
import glob
import json
import math
import pathlib
import statistics
import sys
import tempfile
import time

import measuring

CONFIG = measuring.ROOT / "configs/char-gpt.yaml"
TEXT = "/usr/lib/python3*/[a-s]*.py"
LAYERS, HEADS, WIDTH, BLOCK, BATCH, VOCAB = 4, 4, 128, 64, 12, 256
LR, MIN_LR, WARMUP = 1e-3, 1e-4, 100
LAST = 100  # steps whose mean loss is compared


def torch_side(steps, seed):
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(2)
    torch.manual_seed(seed)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.c_fc, self.mlp_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            rows, length, _ = x.shape
            q, k, v = (part.view(rows, length, HEADS, -1).transpose(1, 2) for part in self.c_attn(self.ln_1(x)).split(WIDTH, 2))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.c_proj(y.transpose(1, 2).reshape(rows, length, WIDTH))
            return x + self.mlp_proj(functional.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(VOCAB, WIDTH), nn.Embedding(BLOCK, WIDTH)
            self.blocks, self.ln_f = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)
            for name, parameter in self.named_parameters():
                if parameter.dim() >= 2:
                    nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if "proj" in name else 0.02)
                elif "ln_" not in name:
                    nn.init.zeros_(parameter)

        def forward(self, tokens, targets):
            x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            logits = self.ln_f(x) @ self.wte.weight.t()
            return functional.cross_entropy(logits.view(-1, VOCAB), targets.reshape(-1))

    data = torch.frombuffer(bytearray(b"".join(pathlib.Path(name).read_bytes() for name in sorted(glob.glob(TEXT)))), dtype=torch.uint8)
    model = Gpt()
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=LR, betas=(0.9, 0.99), fused=True)
    losses, start = [], time.perf_counter()
    for step in range(1, steps + 1):
        rate = LR * step / WARMUP if step < WARMUP else MIN_LR + 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP))) * (LR - MIN_LR)
        for group in optimizer.param_groups:
            group["lr"] = rate
        first = torch.randint(len(data) - BLOCK, (BATCH,))
        window = torch.stack([data[i:i + BLOCK + 1] for i in first]).long()
        loss = model(window[:, :-1], window[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "loss": torch.stack(losses[-LAST:]).mean().item()}))


def lockstep_side(options, folder, number):
    run = pathlib.Path(folder) / f"run-{number}"
    overrides = {"train.steps": options.steps, "train.eval_every": 0, "seed": number + 1}
    measuring.run_command(measuring.train_command(options, CONFIG, overrides, 0, run))
    lines = measuring.step_lines(run / "metrics.jsonl")
    return {"seconds": sum(line["step_ms"] for line in lines) / 1e3, "loss": statistics.mean(line["loss"] for line in lines[-LAST:])}


def run():
    parser = measuring.parser(__doc__)
    parser.add_argument("--rounds", type=measuring.positive, default=3)
    parser.add_argument("--steps", type=measuring.positive, default=2000)
    parser.add_argument("--tiny", action="store_true", help="three steps, one round: the figures mean nothing")
    parser.add_argument("--torch", type=int, help="(of this script alone) PyTorch's side, with this seed")
    options = parser.parse_args()
    if options.tiny:
        options.rounds, options.steps = 1, 3
    if options.torch is not None:
        return torch_side(options.steps, options.torch)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            said = measuring.run_command([sys.executable, __file__, "--torch", str(number), "--steps", str(options.steps)])
            rounds.append({"torch": json.loads(said.splitlines()[-1]), "lockstep": lockstep_side(options, folder, number)})
            print("round {}: torch {:.1f} s, loss {:.3f}; lockstep {:.1f} s, loss {:.3f}".format(
                number + 1, *(rounds[-1][side][key] for side in ("torch", "lockstep") for key in ("seconds", "loss"))), flush=True)
    ratios = [each["lockstep"]["seconds"] / each["torch"]["seconds"] for each in rounds]
    print(f"wall time, lockstep / torch: {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
    measuring.write_json(options.json, {"steps": options.steps, "rounds": rounds, "ratio": statistics.median(ratios)})
    return 0


if __name__ == "__main__":
    measuring.main(run)
