// SPDX-License-Identifier: Apache-2.0
//
// The second half of a worker: what follows the computes of a step. Shared sums, the norm, the update, results,
// checkpoints. (The loop itself, messages and computes are in worker.cpp.)
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/engine/layer_contract.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "runtime/engine/worker.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {

// ---- sums, norm, update ----

void Worker::find_shared_holders() {
  for (const Shared& shared : parts_.partition.topology.shared) {
    LOCKSTEP_CHECK(shared.parameters.size() == 1, "a bucket of ", shared.parameters.size(), " parameters");
    const int index = shared.parameters.front();
    std::vector<Parameter*>& holders = shared_holders_.emplace_back();
    std::map<int, int> seen;  // a layer may hold the parameter more than once
    for (const int layer : parts_.graph.parameters[index].holders) {
      int skip = seen[layer]++;
      Parameter* holder = nullptr;
      if (const StageId id = parts_.partition.stage_of(layer); is_mine(id))
        for (Parameter& parameter : stage(id).parameters()[layer - stage(id).first_layer()])
          if (parameter.index == index && skip-- == 0) holder = &parameter;
      holders.push_back(holder);
    }
  }
  shared_received_.resize(shared_holders_.size());
}

void Worker::sum_shared(std::size_t item) {
  release_sent();
  at::NoGradGuard no_grad;
  at::Tensor sum;
  Parameter* first = nullptr;
  for (std::size_t h = 0; h < shared_holders_[item].size(); ++h) {
    Parameter* holder = shared_holders_[item][h];
    const at::Tensor buffer = holder ? holder->gradient : shared_received_[item].at(static_cast<int>(h));
    // Never in place: received buffers belong to their sender, and ours have been lent to other rows.
    if (buffer.defined()) sum = sum.defined() ? sum + buffer.to(sum.device()) : buffer.to(parts_.stage.device).clone();
    if (holder && !first) first = holder;
    if (holder) holder->gradient.reset();
  }
  first->begin_gradient(std::move(sum));
  shared_received_[item].clear();
}

void Worker::collect_norm_parts() {
  release_sent();
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    const Parameter& parameter = *owned_[i];
    if (!parameter.trainable) continue;
    if (!parameter.gradient.defined()) refuse_unused(parts_.graph, parameter.index);
    if (parts_.record_hashes)
      hashes_.push_back({header_.step, parameter.index, Hashed::gradient, hash_of(parameter.gradient)});
    if (!in_norm_[i]) continue;
    const double square = squared_norm(parameter.gradient);
    if (!std::isfinite(square))
      current_.non_finite =
          first_of(current_.non_finite, NonFinite{parts_.graph.parameters[parameter.index].holders.front(),
                                                  program_->micro_batches - 1, "gradient of " + parameter.name});
    current_.norm.parameters.push_back(parameter.index);
    current_.norm.squares.push_back(square);
  }
}

void Worker::take_norm_parts(const NormParts& parts, std::map<int, double>& squares) {
  for (std::size_t i = 0; i < parts.parameters.size(); ++i) squares[parts.parameters[i]] = parts.squares[i];
}

void Worker::total_norm() {
  take_norm_parts(current_.norm, squares_);
  double sum = 0;
  for (const auto& [parameter, square] : squares_) sum += square;  // the model's parameter order
  squares_.clear();
  norm_ = std::sqrt(sum);
}

double Worker::clip_coefficient() const {
  // As torch.nn.utils.clip_grad_norm_: max_norm / (norm + 1e-6), never above 1.
  return parts_.clip_grad_norm > 0 ? parts_.clip_grad_norm / (norm_ + 1e-6) : 1.0;
}

void Worker::update() {
  at::NoGradGuard no_grad;
  if (program_->post_validation) {
    // As if nothing had to be clipped; amend() knows better.
    const std::vector<at::Tensor> live = updated_tensors();
    snapshot_.resize(live.size());
    for (std::size_t i = 0; i < live.size(); ++i) {
      if (!snapshot_[i].defined()) snapshot_[i] = at::empty_like(live[i]);
      snapshot_[i].copy_(live[i]);
    }
    apply_update(1.0);
    return;
  }
  apply_update(clip_coefficient());
  forget_gradients();
}

/// All that an update changes.
std::vector<at::Tensor> Worker::updated_tensors() {
  std::vector<at::Tensor> live;
  for (const Parameter* parameter : trained_) live.push_back(parameter->value);
  for (UpdaterState& kept : parts_.updater->state(trained_)) live.push_back(std::move(kept.tensor));
  return live;
}

void Worker::apply_update(double coefficient) {
  if (!(coefficient >= 1.0))  // also when it is not a number
    for (Parameter* parameter : trained_) parameter->gradient.mul_(coefficient);
  const MemoryPool::Scope memory(*parts_.pool, MemoryKind::optimizer);
  parts_.updater->update(trained_, header_.learning_rate, header_.step);
}

void Worker::amend() {
  at::NoGradGuard no_grad;
  if (const double coefficient = clip_coefficient(); !(coefficient >= 1.0)) {
    const std::vector<at::Tensor> live = updated_tensors();
    for (std::size_t i = 0; i < live.size(); ++i) live[i].copy_(snapshot_[i]);
    apply_update(coefficient);
  }
  forget_gradients();
}

std::int64_t Worker::gradient_bytes() const {
  std::int64_t bytes = 0;
  for (const Parameter* parameter : all_)
    if (parameter->gradient.defined()) bytes += static_cast<std::int64_t>(parameter->gradient.nbytes());
  return bytes;
}

void Worker::forget_gradients() {
  for (Parameter* parameter : all_) {
    parameter->gradient.reset();
    parameter->forget_cast();
  }
  if (parts_.record_hashes)
    for (const Parameter* parameter : trained_)
      hashes_.push_back({header_.step, parameter->index, Hashed::value, hash_of(parameter->value)});
}

std::vector<const Buffer*> Worker::buffers() const {
  std::vector<const Buffer*> all;
  for (const auto& [id, stage] : stages_)
    for (const std::vector<Buffer>& held : stage->buffers())
      for (const Buffer& buffer : held) all.push_back(&buffer);
  return all;
}

void Worker::end_step() {
  for (auto& [id, stage] : stages_) stage->end_step();
  if (parts_.record_hashes)
    for (const Buffer* buffer : buffers())
      hashes_.push_back({header_.step, buffer->index, Hashed::buffer, hash_of(buffer->value)});
}

void Worker::end_program() {
  release_sent();
  if (header_.mode == Mode::train) end_step();
  current_.loss_sums.assign(parts_.graph.heads.size(), 0.0);
  for (auto& [id, stage] : stages_) {
    const std::vector<double> sums = stage->loss_sums();
    for (std::size_t head = 0; head < sums.size(); ++head) current_.loss_sums[head] += sums[head];
    current_.report.stages.push_back(stage->report());
    current_.non_finite = first_of(current_.non_finite, stage->non_finite());
  }
  current_.report.peak_by_kind = parts_.pool->peak_by_kind();
  current_.report.peak_bytes =
      std::accumulate(current_.report.peak_by_kind.begin(), current_.report.peak_by_kind.end(), std::int64_t{0});
  current_.signalled = parts_.signalled && parts_.signalled->load();
  if (parts_.keeper) keep();
  if (parts_.row == 0) merge_results();
  if (parts_.clip_grad_norm > 0 && header_.mode == Mode::train) {  // the norm is at row 0 already
    current_.norm = {};
    running_.gradient_norm = norm_;
  }
  last_ = std::move(current_);
}

void Worker::merge_results() {
  if (previous_.sequence < 0) {
    rows_.clear();
    return;
  }
  rows_.insert(rows_.begin(), last_);
  std::sort(rows_.begin(), rows_.end(),
            [](const RowResult& a, const RowResult& b) { return a.report.row < b.report.row; });
  std::map<int, double> squares;
  for (const RowResult& row : rows_) {
    for (std::size_t head = 0; head < previous_.heads.size(); ++head) previous_.heads[head].sum += row.loss_sums[head];
    previous_.non_finite = first_of(previous_.non_finite, row.non_finite);
    previous_.signalled = previous_.signalled || row.signalled;
    previous_.workers.push_back(row.report);
    take_norm_parts(row.norm, squares);
    saved_.insert(saved_.end(), row.saved.begin(), row.saved.end());
  }
  rows_.clear();
  if (!squares.empty()) {
    double sum = 0;
    for (const auto& [parameter, square] : squares) sum += square;
    previous_.gradient_norm = std::sqrt(sum);
  }
  if (previous_.mode == Mode::train || previous_.mode == Mode::evaluate) finished_.push_back(std::move(previous_));
  previous_ = {};
}

// ---- checkpoints ----

WorkerState Worker::state() {
  WorkerState state;
  std::map<const Parameter*, bool> first;
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    first[owned_[i]] = in_norm_[i];
    state.weights.push_back(
        {owned_[i]->name, owned_[i]->value, in_norm_[i], /*may_be_infinite=*/!owned_[i]->trainable});
  }
  for (const Buffer* buffer : buffers())
    state.weights.push_back({buffer->name, buffer->value, /*is_first_holder=*/true, /*may_be_infinite=*/true});
  for (const UpdaterState& kept : parts_.updater->state(trained_))
    state.optimizer.push_back({kept.parameter->name + "." + kept.name, kept.tensor, first.at(kept.parameter)});
  return state;
}

void Worker::restore() {
  at::NoGradGuard no_grad;
  parts_.keeper->restore(state(), parts_.limits);
}

void Worker::keep() {
  try {
    if (header_.save) parts_.keeper->save(header_.step, state(), parts_.limits);
    if (header_.mode == Mode::flush) parts_.keeper->drain(parts_.limits);
    current_.saved = parts_.keeper->take_reports();
  } catch (const JobStopped&) {
    throw;
  } catch (const Error& error) {
    throw Error(concat("worker ", parts_.row, ", after step ", header_.step, ": ", error.what()), error.exit_code());
  }
}

}  // namespace lockstep
