// SPDX-License-Identifier: Apache-2.0
//
// Every key of the config, once: its name, its member, what a value has to be, what it is to a checkpoint, and its
// manual. Whoever reads, writes, checks, compares or explains a config visits these lists:
//
//   void fields(FieldVisitor& visit, CommConfig& comm) {
//     visit("save_s", value(comm.save_s, at_least(1)), kFree, "The same for a worker that saves ...");
//   }
//
// Private to this folder and its tests.
#pragma once

#include "runtime/config/config.hpp"
#include "runtime/config/field.hpp"

namespace lockstep {

void fields(FieldVisitor& visit, Config& config);
void fields(FieldVisitor& visit, TrainConfig& train);
void fields(FieldVisitor& visit, OptimizerConfig& optimizer);
void fields(FieldVisitor& visit, LrScheduleConfig& schedule);
void fields(FieldVisitor& visit, PipelineConfig& pipeline);
void fields(FieldVisitor& visit, CostsConfig& costs);
void fields(FieldVisitor& visit, WorkersConfig& workers);
void fields(FieldVisitor& visit, KernelsConfig& kernels);
void fields(FieldVisitor& visit, CommConfig& comm);

}  // namespace lockstep
