// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/data_record.hpp"
#include "runtime/training/trainer.hpp"

namespace lockstep {

void Trainer::resume(const std::string& checkpoint, const ResumeRules& rules) {
  CheckpointStore store(checkpoint);
  const TrainerState state = state_of(store);
  if (state.step != store.manifest().step)
    throw CheckpointError(checkpoint + "/" + kTrainerFile, "is of another step than the manifest");
  // Without the mark the data was read as it was before the mark; what is saved from here on has none either.
  if (data_.unrecorded && !state.records(kDataArithmetic)) data_ = data_.unrecorded();
  TrainerState fresh = fresh_state();
  if (!fresh.data && state.data && feeds()) fresh.data = record_of(data_);
  resumption_ = check_resumable(config_, fresh, state, checkpoint, rules);
  if (data_.taught_by && state.data && !state.data->scaling.empty() && state.data->scaling != data_.record->scaling)
    data_ = data_.taught_by(*state.data);
  const auto expect = [&](const std::string& name, at::ScalarType dtype, const std::vector<std::int64_t>& sizes) {
    const TensorEntry& entry = store.entry(TensorKind::weight, name);
    if (entry.dtype != dtype || entry.sizes != sizes)
      throw CheckpointError(
          checkpoint, name, -1,
          concat("is ", to_string(entry), ", the model has ", c10::toString(dtype), " [", join(sizes), "]"));
  };
  for (const ParameterInfo& parameter : graph_.parameters) expect(parameter.name, at::kFloat, parameter.sizes);
  for (const BufferInfo& buffer : graph_.buffers) expect(buffer.name, buffer.dtype, buffer.sizes);
  resumed_from_ = checkpoint;
  start_ = fresh_state();
  start_.step = state.step;
  start_.position = state.position;
  start_.loss = state.loss;
  start_.losses = state.losses;
  start_.best = state.best;
  start_.changes = state.changes;
  for (const std::string& change : resumption_.changed)
    start_.changes.push_back(concat("after step ", state.step, ": ", change));
  resumed_state_ = state;
}

}  // namespace lockstep
