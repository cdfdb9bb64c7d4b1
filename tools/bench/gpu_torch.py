# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of gpu_bench.py: Hugging Face's GPT-2, trained as a user of torch would, in a process that waits between.

The process is this file. It reads orders and writes answers, one JSON object a line; between two orders it keeps weights and
optimizer state on the device, gives all other memory back, and computes nothing, so that Lockstep can be measured in turns
with it.

  {"do": "matmul", "size": N}            name of the card, TFLOP/s of N x N x N in bf16
  {"do": "make", "compile": B, ...}      a model by the keys of gpu_bench.Shape: how many parameters; with one step that warms
                                         it up, or compiles
  {"do": "steps", "steps": N}            ms a step

What differs from Lockstep is in torch's favour: its batch lies on the device, its loss is never read.
"""
import json
import queue
import subprocess
import sys
import threading
import time

import measuring

START_S = 180  # importing torch and transformers from a cold disk


class TorchSide:
    """The process. Every failure of it is a BenchError; it is then gone."""

    def __init__(self, device):
        self.process = subprocess.Popen([sys.executable, __file__, device], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.said, self.lines = [], queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.answer(START_S)

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, timeout_s, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.answer(timeout_s)

    def answer(self, timeout_s):
        """The next line that is JSON; others are what libraries have to say."""
        until = time.monotonic() + timeout_s
        why = f"torch took longer than {timeout_s:.0f} s"
        while (left := until - time.monotonic()) > 0:
            try:
                line = self.lines.get(timeout=left)
            except queue.Empty:
                break
            if line.startswith('{"'):
                answer = json.loads(line)
                if "error" in answer:
                    self.end()
                    raise measuring.BenchError(answer["error"])
                return answer
            if not line:
                why = "the process of torch ended"
                break
            self.said.append(line.rstrip())
        self.end()
        raise measuring.BenchError("\n  ".join([why, *self.said[-6:]]))

    def end(self):
        measuring.end(self.process)


# ---- the process ----


class Training:
    """A model and how a step of it is made."""

    def __init__(self, device, order):
        import torch
        import transformers
        self.torch, self.device, self.order = torch, device, order
        torch.manual_seed(1)
        torch.set_float32_matmul_precision("highest")
        shape = transformers.GPT2Config(
            n_layer=order["layers"], n_head=order["heads"], n_embd=order["width"], n_positions=order["context"],
            vocab_size=order["vocab"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)
        self.model = transformers.AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa").to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        self.tokens = torch.randint(order["vocab"], (order["micro_batches"], order["rows"], order["context"]), device=device)
        self.forward = torch.compile(self.model) if order["compile"] else self.model
        self.step()
        self.step()

    def step(self):
        torch = self.torch
        for tokens in self.tokens:
            with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.order["precision"] == "bf16"):
                loss = self.forward(input_ids=tokens, labels=tokens).loss / len(self.tokens)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def wait(device):
    import torch
    if device != "cpu":
        torch.cuda.synchronize(device)


def step_ms(device, step, steps):
    wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return (time.perf_counter() - start) * 1e3 / steps


def matmul(device, size):
    import torch
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = [step_ms(device, lambda: a @ b, 10) for _ in range(4)]
    card = measuring.cpu_name() if device == "cpu" else torch.cuda.get_device_name(device)
    return {"card": card, "matmul_tflops": 2 * size**3 / min(times) / 1e9}


def serve(device, orders, answers):
    try:
        import torch
        print(json.dumps({"torch": torch.__version__}), file=answers, flush=True)
    except ImportError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
        return
    training = None
    for line in orders:
        order = json.loads(line)
        try:
            start = time.monotonic()
            if order["do"] == "matmul":
                answer = matmul(device, order["size"])
            elif order["do"] == "make":
                training = None
                training = Training(device, order)
                answer = {"seconds": time.monotonic() - start, "parameters": sum(p.numel() for p in training.model.parameters())}
            else:
                training.step()
                answer = {"step_ms": step_ms(device, training.step, order["steps"])}
            answer["peak_bytes"] = None
            if device != "cpu":
                answer["peak_bytes"] = torch.cuda.max_memory_allocated(device)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
        except Exception as error:  # whatever it is, the other side records it
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin, sys.stdout)
