#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every family on one worker against plain PyTorch on one thread, and what was planned for it on two workers against what came.

PyTorch's side is a loop over micro-batches as its users write it, with fused AdamW: transformers' GPT-2, Llama and BERT (SDPA), PEFT's
adapters, torch.nn's LSTM and GRU, ResNet as torchvision has it. Its batch lies in memory, and its loss is never read. Lockstep runs with
the AMD GEMM cure and without (kernels.gemm: default), so that what the runtime gives and what the faster matrix products give are seen
apart. Each round runs every variant once, in processes of their own.

Planned: `lockstep profile`, `lockstep plan` for two workers and a run by that plan, in each round; step time and bytes of the prediction
against the run's.

With --pipeline two workers with 1F1B, against torch.distributed.pipelining over gloo with the same cut, for gpt and llama (heads of their
own: torch cannot tie across stages) and resnet-50; and with the cut and the schedule of Lockstep's own plan, without the GEMM cure.

  .venv/bin/python tools/bench/families_bench.py --json out/bench/families.json
"""
import json
import pathlib
import statistics
import sys
import tempfile
import time

import measuring
import pipelining_bench
import planning_bench

CE = "sparse_categorical_cross_entropy"
GPT = {"layers": 4, "heads": 8, "width": 256, "context": 128, "vocab": 2048}
TEXT = {"type": "synthetic", "task": "tokens", "vocab": 2048, "samples": 4096}
IMAGES = {"type": "synthetic", "task": "image_classification", "channels": 3, "classes": 10, "samples": 4096}
FAMILIES = {  # name: (model, data, batch, micro-batches)
    "gpt": ({"type": "gpt", **GPT}, TEXT, 16, 4),
    "gpt-lora": ({"type": "gpt", **GPT, "lora": {"rank": 8, "alpha": 16, "targets": ["c_attn", "c_proj", "c_fc"]}}, TEXT, 16, 4),
    "llama": ({"type": "llama", **GPT, "kv_heads": 4, "hidden": 688}, TEXT, 16, 4),
    "bert": ({"type": "bert", **GPT, "pad": -1}, {**TEXT, "masking": {"token": 2047}}, 16, 4),
    "lstm": ({"type": "lstm", "vocab": 2048, "width": 256, "layers": 2}, {**TEXT, "context": 64}, 32, 4),
    "gru": ({"type": "gru", "vocab": 2048, "width": 256, "layers": 2}, {**TEXT, "context": 64}, 32, 4),
    "resnet-18": ({"type": "resnet", "depth": 18, "classes": 10, "stem": "small"}, {**IMAGES, "size": 32}, 32, 4),
    "resnet-50": ({"type": "resnet", "depth": 50, "classes": 10}, {**IMAGES, "size": 96}, 32, 4),
}
TINY_GPT = {"layers": 4, "heads": 2, "width": 16, "context": 8}
TINY = {"gpt": TINY_GPT, "gpt-lora": TINY_GPT, "llama": {**TINY_GPT, "kv_heads": 1},
        "bert": {"layers": 2, "heads": 2, "width": 16, "context": 8}, "lstm": {"width": 8}, "gru": {"width": 8},
        "resnet-18": {"channels": 4}, "resnet-50": {"channels": 4}}
BASELINE = "torch"
PLANNED = "lockstep, planned for two workers"  # with --pipeline at torch's kernels
CUTS = {"gpt": "h.2", "llama": "h.2", "resnet-50": "layer3.0.conv1"}  # of two workers: where the second one begins


def family(name, tiny, pipeline=False):
    model, data, batch, micro_batches = FAMILIES[name]
    if pipeline and name == "gpt":
        model = {**model, "tie_embeddings": False}
    if tiny:
        model = {**model, **TINY[name]}
        data = {**data, "size": 16} if "size" in data else data
    return model, data, batch, micro_batches


# ---- torch: this file, started for each run ----


def torch_model(name, model):
    sys.path.insert(0, str(measuring.ROOT / "tests/oracle"))
    import transformers
    from torch_models import Recurrent, ResNet
    if name.startswith("resnet"):
        net = ResNet(model["depth"], model["classes"], model.get("stem") == "small", model.get("channels", 64))
        return net, net
    if name in ("lstm", "gru"):
        net = Recurrent(name, model["width"], model["layers"], model["vocab"], vocab=model["vocab"])
        return net, net
    if name in ("gpt", "gpt-lora"):
        config = transformers.GPT2Config(n_layer=model["layers"], n_head=model["heads"], n_embd=model["width"], n_positions=model["context"],
                                         vocab_size=model["vocab"], tie_word_embeddings=model.get("tie_embeddings", True),
                                         resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)
        net = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        if name == "gpt-lora":
            import peft
            lora = model["lora"]
            net = peft.get_peft_model(net, peft.LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], target_modules=lora["targets"],
                                                           fan_in_fan_out=True))
    else:
        sizes = {"hidden_size": model["width"], "num_hidden_layers": model["layers"], "num_attention_heads": model["heads"],
                 "max_position_embeddings": model["context"], "vocab_size": model["vocab"]}
        if name == "llama":
            config = transformers.LlamaConfig(**sizes, intermediate_size=model["hidden"], num_key_value_heads=model["kv_heads"], use_cache=False)
            net = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        else:
            config = transformers.BertConfig(**sizes, intermediate_size=4 * model["width"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
            net = transformers.AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa")
    return net, lambda tokens: net(input_ids=tokens).logits


def torch_batch(name, model, data, batch):
    import torch
    if name.startswith("resnet"):
        return torch.randn(batch, 3, data["size"], data["size"]), torch.randint(model["classes"], (batch,))
    x, targets = (torch.randint(model["vocab"], (batch, model.get("context") or data["context"])) for _ in range(2))
    return x, torch.where(torch.rand(targets.shape) < 0.15, targets, -100) if name == "bert" else targets


def torch_side(name, tiny, steps):
    import torch
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model, data, batch, micro_batches = family(name, tiny)
    net, forward = torch_model(name, model)
    net.train()
    trained = [value for value in net.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)
    x, targets = torch_batch(name, model, data, batch)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        for rows, wanted in zip(x.chunk(micro_batches), targets.chunk(micro_batches)):
            outputs = forward(rows)
            loss = torch.nn.functional.cross_entropy(outputs.flatten(0, -2), wanted.flatten()) / micro_batches
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps(times))


def torch_half(name, model, rank):
    """The layers of one of two workers, as a module of torch."""
    import torch
    from torch import nn
    net, _ = torch_model(name, model)

    class Module(nn.Module):
        def __init__(self, parts, forward):
            super().__init__()
            self.parts, self.run = nn.ModuleList(parts), forward

        def forward(self, x):
            return self.run(x)

    if name == "resnet-50":
        def begin(x):
            x = nn.functional.max_pool2d(nn.functional.relu(net.bn1(net.conv1(x))), 3, 2, 1)
            return net.layer2(net.layer1(x))

        halves = [([net.conv1, net.bn1, net.layer1, net.layer2], begin),
                  ([net.layer3, net.layer4, net.fc], lambda x: net.fc(net.layer4(net.layer3(x)).mean((2, 3))))]
    elif name == "gpt":
        body, head = net.transformer, net.lm_head

        def blocks(x, some):
            for block in some:
                x = block(x)
                x = x[0] if isinstance(x, tuple) else x
            return x

        halves = [([body.wte, body.wpe, *body.h[:2]], lambda x: blocks(body.wte(x) + body.wpe.weight[:x.shape[1]], body.h[:2])),
                  ([*body.h[2:], body.ln_f, head], lambda x: head(body.ln_f(blocks(x, body.h[2:]))))]
    else:
        body, head = net.model, net.lm_head

        def layers(x, some):
            turns = body.rotary_emb(x, torch.arange(x.shape[1]).unsqueeze(0))
            for layer in some:
                x = layer(x, position_embeddings=turns)
            return x

        halves = [([body.embed_tokens, *body.layers[:2]], lambda x: layers(body.embed_tokens(x), body.layers[:2])),
                  ([*body.layers[2:], body.norm, head], lambda x: head(body.norm(layers(x, body.layers[2:]))))]
    return Module(*halves[rank])


def torch_pipeline(job, rank):
    """Times of all steps on this rank, in ms."""
    import torch
    from torch.distributed import pipelining
    torch.manual_seed(1)
    model, data, batch, micro_batches = family(job["family"], job["tiny"], pipeline=True)
    halves = [torch_half(job["family"], model, each) for each in range(2)]
    x, targets = torch_batch(job["family"], model, data, batch)
    with torch.no_grad():
        rows = x[:batch // micro_batches]
        inside = halves[0](rows)
        inputs, outputs = (rows, inside) if rank == 0 else (inside.clone(), halves[1](inside))
    module = halves[rank].train()
    stage = pipelining.PipelineStage(module, rank, 2, torch.device("cpu"), input_args=inputs if rank == 0 else inputs.requires_grad_(),
                                     output_args=outputs.requires_grad_())
    loss = lambda output, wanted: torch.nn.functional.cross_entropy(output.flatten(0, -2), wanted.flatten())  # noqa: E731
    schedule = pipelining.Schedule1F1B(stage, micro_batches, loss_fn=loss)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    batch = ([x] if rank == 0 else [], {"target": targets} if rank == 1 else {})
    return pipelining_bench.timed_steps(job, rank, module, optimizer, lambda: schedule.step(*batch[0], **batch[1]))


# ---- both sides ----


def config_in(folder, name, options, gemm):
    """The family's config; YAML takes JSON."""
    model, data, batch, micro_batches = family(name, options.tiny, options.pipeline)
    train = {"steps": options.skip + options.steps, "batch": batch, "micro_batches": micro_batches, "loss": CE,
             "optimizer": {"type": "adamw", "lr": 1.0e-4, "weight_decay": 0.01}, "log_every": 1000000}
    path = pathlib.Path(folder) / f"{name}-{gemm}.yaml"
    path.write_text(json.dumps({"model": model, "data": data, "train": train, "kernels": {"gemm": gemm}}), encoding="utf-8")
    return path


def measure(name, variant, options, folder, number):
    if variant == BASELINE and options.pipeline:
        job = {"family": name, "tiny": options.tiny, "workers": 2, "steps": options.skip + options.steps}
        return statistics.median(pipelining_bench.run_ranks(__file__, job)[options.skip:])
    if variant == BASELINE:
        said = measuring.run_command([sys.executable, __file__, "--torch", name, "--steps", str(options.skip + options.steps),
                                      *(["--tiny"] if options.tiny else [])])
        return statistics.median(json.loads(said.splitlines()[-1])[options.skip:])
    gemm = "default" if variant.endswith("gemm=default") else "auto"
    two = {"pipeline.stages": 2, "pipeline.schedule": "1f1b", "pipeline.partition": f"{{cut_before: [{CUTS[name]}]}}"} if options.pipeline else {}
    trained = measuring.train(options, config_in(folder, name, options, gemm), two, 0, pathlib.Path(folder) / f"run-{number}")
    return statistics.median(trained.step_ms(options.skip))


def by_plan(name, options, folder):
    """Profiled and planned for two workers anew before each round, as schedule and cut come out."""
    gemm = "default" if options.pipeline else "auto"
    config, scratch = config_in(folder, name, options, gemm), pathlib.Path(folder)

    def make_plan():
        return planning_bench.planned(options, scratch, name, config, 2, planning_bench.profiled(options, scratch, name, config, 0),
                                      planning_bench.one_way(0))

    return planning_bench.Case(name, config, make_plan, 0)


def bench(name, options):
    variants = [BASELINE, "lockstep", "lockstep, gemm=default"]
    times = {variant: [] for variant in [*variants, PLANNED]}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        case = by_plan(name, options, folder)
        for number in range(options.rounds):
            for variant in variants:
                times[variant].append(measure(name, variant, options, folder, f"{number}-{variant}"))
            case.train(options)
            times[PLANNED].append(statistics.median(case.steps[-options.steps:]))
        planned = case.result()
    speeds = {variant: measuring.summary([a / b for a, b in zip(times[BASELINE], each)]) for variant, each in times.items()
              if variant != BASELINE}
    return {"step_ms": times, "speed": speeds, "planned": planned}


def run():
    parser = measuring.parser(__doc__)
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="repeatable (default: all)")
    parser.add_argument("--rounds", type=measuring.positive, default=3)
    parser.add_argument("--steps", type=measuring.positive, default=8, help="measured steps per run (default: 8)")
    parser.add_argument("--skip", type=measuring.positive, default=2, help="steps before them (default: 2)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, one round: the figures mean nothing")
    parser.add_argument("--pipeline", action="store_true", help="two workers, against torch.distributed.pipelining")
    parser.add_argument("--torch", metavar="FAMILY", help="(of this script alone) PyTorch's side")
    if len(sys.argv) == 4 and sys.argv[1] == "--torch-rank":
        pipelining_bench.torch_rank(json.loads(sys.argv[2]), int(sys.argv[3]), torch_pipeline)
        return 0
    options = parser.parse_args()
    if options.torch:
        torch_side(options.torch, options.tiny, options.steps)
        return 0
    if options.tiny:
        options.rounds, options.steps = 1, 3
    machine, found = measuring.machine(), {}
    for name in options.family or (CUTS if options.pipeline else FAMILIES):
        measuring.say(name)
        found[name] = bench(name, options)
        measuring.write_json(options.json, {"machine": machine, "families": found})
    shown = ["lockstep", "lockstep, gemm=default", *([PLANNED] if options.pipeline else [])]
    rows = [[name, f"{statistics.median(each['step_ms'][BASELINE]):.1f}", f"{statistics.median(each['step_ms']['lockstep']):.1f}",
             *(measuring.in_ratios(each["speed"][variant]) for variant in shown),
             planning_bench.in_percent(each["planned"]["over_prediction"]), planning_bench.percent(each["planned"]["bytes_over_prediction"])]
            for name, each in found.items()]
    head = ["family", "torch ms", "lockstep ms", "speed", "gemm=default", *(["its own plan"] if options.pipeline else []), "step over plan", "bytes over plan"]
    measuring.print_table(head, rows)
    return 0


if __name__ == "__main__":
    measuring.main(run)
