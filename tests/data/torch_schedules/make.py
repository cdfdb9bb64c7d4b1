#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the CSV files beside it with the schedule classes of torch.distributed.pipelining (torch 2.13).

The classes' own constructors plan and their own _dump_csv writes; only the stages are stand-ins, since nothing runs.
Schedule1F1B and ScheduleGPipe have no _dump_csv; what their _get_pipeline_order returns is written as _dump_csv writes.

  .venv/bin/python tests/data/torch_schedules/make.py
"""
import csv
import pathlib
import types
import warnings

warnings.filterwarnings("ignore")

from torch.distributed import pipelining  # noqa: E402
from torch.distributed.pipelining import schedules  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


def stand_ins(workers, virtual_stages):
    """What a constructor asks of the stages of rank 0."""
    return [types.SimpleNamespace(group_size=workers, group_rank=0, num_stages=workers * virtual_stages, stage_index=i,
                                  submod=None, has_backward=True, is_first=i == 0, is_last=False)
            for i in range(virtual_stages)]


def name_of(kind, workers, virtual_stages, micro_batches):
    return f"{kind}_{workers}x{virtual_stages}x{micro_batches}"


def write_several(kind, cls, workers, virtual_stages, micro_batches, lowered=False):
    schedule = cls(stand_ins(workers, virtual_stages), micro_batches, loss_fn=None)
    name = name_of(kind, workers, virtual_stages, micro_batches)
    schedule._dump_csv(HERE / f"{name}.csv", format="compute_only")
    if lowered:
        schedule._dump_csv(HERE / f"{name}_lowered.csv", format="compute_comms")


def write_single(kind, cls, workers, micro_batches):
    schedule = cls(stand_ins(workers, 1)[0], micro_batches, loss_fn=None)
    with open(HERE / f"{name_of(kind, workers, 1, micro_batches)}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for actions in schedule._get_pipeline_order().values():
            writer.writerow(actions)


def main():
    write_single("GPipe", pipelining.ScheduleGPipe, 3, 4)
    write_single("1F1B", pipelining.Schedule1F1B, 4, 8)
    write_several("LoopedBFS", schedules.ScheduleLoopedBFS, 3, 2, 4)
    write_several("Interleaved1F1B", schedules.ScheduleInterleaved1F1B, 4, 2, 8, lowered=True)
    write_several("Interleaved1F1B", schedules.ScheduleInterleaved1F1B, 4, 3, 6)
    write_several("InterleavedZeroBubble", schedules.ScheduleInterleavedZeroBubble, 4, 2, 8)
    write_several("ZBVZeroBubble", schedules.ScheduleZBVZeroBubble, 4, 2, 10)
    write_several("ZBVZeroBubble", schedules.ScheduleZBVZeroBubble, 4, 2, 3)
    write_several("DualPipeV", schedules.ScheduleDualPipeV, 4, 2, 10)


if __name__ == "__main__":
    main()
