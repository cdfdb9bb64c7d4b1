// SPDX-License-Identifier: Apache-2.0
#include "partitioner/schedule_facts.hpp"

#include <algorithm>
#include <set>

namespace lockstep {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

bool is_gradient(Op op) {
  return op == Op::backward || op == Op::input_grad;
}

bool covers(const Moment& a, const Moment& b) {
  const bool runs = a.runs == b.runs && a.first == b.first && a.again == b.again;
  return (runs || b.runs < 0) && a.held >= b.held && a.checkpoints >= b.checkpoints && a.weight_grad >= b.weight_grad &&
         a.values >= b.values && a.gradients >= b.gradients && a.summed >= b.summed;
}

std::vector<Moment> largest(const std::set<Moment>& all) {
  std::vector<Moment> kept;  // whatever covers a moment comes after it in the set
  for (auto moment = all.rbegin(); moment != all.rend(); ++moment) {
    const bool covered =
        std::any_of(kept.begin(), kept.end(), [&](const Moment& other) { return covers(other, *moment); });
    if (!covered) kept.push_back(*moment);
  }
  return kept;
}

}  // namespace

double work_us(const std::vector<ActionCounts>& counts, const std::vector<StageTimes>& stages) {
  double us = 0;
  for (const ActionCounts& of : counts) {
    const StageTimes& stage = stages[at(of.stage)];
    us += of.forwards * stage.forward_us + of.input_grads * stage.input_grad_us +
          of.weight_grads * stage.weight_grad_us + of.again * stage.recompute_us;
  }
  return us;
}

ScheduleFacts::ScheduleFacts(Schedule schedule, Recompute recompute)
    : schedule_(std::move(schedule)), recompute_(recompute), rows_(row_of_stage(schedule_)) {
  for (int stage = 0; stage < stages(); ++stage) {
    again_at_least_.push_back(again_of(stage, false));
    whole_stage_.push_back(moments(stage, true, true));
    without_w_.push_back(moments(stage, true, false));
    forward_only_.push_back(moments(stage, false, false));
  }
  find_paths();
}

std::vector<ScheduleFacts::Again> ScheduleFacts::again_of(int stage, bool weights) const {
  std::vector<Again> again(at(schedule_.micro_batches), recompute_ == Recompute::never ? Again::no : Again::yes);
  if (recompute_ != Recompute::except_last) return again;
  // As recomputed() in program.hpp: not where the backward follows straight upon its forward.
  const std::vector<Action>& row = schedule_.rows[at(rows_[at(stage)].value())];
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (row[i].stage.value() != stage || row[i].op != Op::forward) continue;
    Again& of = again[at(row[i].micro_batch)];
    of = Again::no;
    for (std::size_t k = i + 1; k < row.size(); ++k) {
      const Action& action = row[k];
      const bool own = action.stage.value() == stage;
      if (own && is_gradient(action.op) && action.micro_batch == row[i].micro_batch) break;
      const bool dropped = own && action.op == Op::weight_grad && !weights;
      if (action.op == Op::forward || (own && !dropped)) {
        of = Again::yes;
        break;
      }
      if (!own) of = Again::unknown;  // stays, unless the other stage has no backward or nothing to train
    }
  }
  return again;
}

std::vector<Moment> ScheduleFacts::moments(int stage, bool backward, bool weights) const {
  const std::vector<Again> again = again_of(stage, weights);
  std::vector<Action> actions;
  for (const Action& action : schedule_.rows[at(rows_[at(stage)].value())]) {
    const bool own = action.stage.value() == stage;
    const bool stays = action.op == Op::forward || (action.op == Op::weight_grad ? backward && weights : backward);
    if (!own || stays) actions.push_back(action);
  }
  std::set<Moment> all;
  Moment now;
  const auto message = [&](const Action& action, int count) {
    if (action.stage.value() != stage || action.op == Op::weight_grad) return;
    (action.op == Op::forward ? now.values : now.gradients) += count;
  };
  if (!actions.empty()) message(actions.front(), 1);
  for (std::size_t i = 0; i < actions.size(); ++i) {
    if (i + 1 < actions.size()) message(actions[i + 1], 1);  // posted one action ahead
    const Action& action = actions[i];
    Moment running = now;
    if (action.stage.value() == stage) {
      const Again of = again[at(action.micro_batch)];
      const bool sums = weights && (action.op == Op::backward || action.op == Op::weight_grad);
      if (of != Again::unknown) {
        running.runs = static_cast<int>(action.op);
        running.again = backward && of == Again::yes;
        running.first = sums && !now.summed;
      }
      int& held = of == Again::yes ? now.checkpoints : now.held;
      if (backward && of != Again::unknown && action.op != Op::weight_grad) held += action.op == Op::forward ? 1 : -1;
      if (action.op == Op::input_grad && weights) ++now.weight_grad;
      if (action.op == Op::weight_grad) --now.weight_grad;
      if (sums) now.summed = true;
    }
    all.insert(running);
    message(action, -1);
    all.insert(now);
  }
  return largest(all);
}

double ScheduleFacts::peak_bytes(int stage, const StageCost& cost, bool has_backward, bool has_weight_grad,
                                 double values_bytes, double gradients_bytes) const {
  const std::vector<Moment>& list = (!has_backward     ? forward_only_
                                     : has_weight_grad ? whole_stage_
                                                       : without_w_)[at(stage)];
  double most = 0;
  for (const Moment& moment : list) {
    double bytes = moment.held * cost.activation_bytes + moment.checkpoints * cost.recompute_activation_bytes +
                   moment.weight_grad * cost.weight_grad_bytes + moment.values * values_bytes +
                   moment.gradients * gradients_bytes + (moment.summed ? cost.gradient_bytes : 0.0);
    if (moment.runs >= 0) {
      const Workspace& workspace = moment.again
                                       ? (moment.first ? cost.recompute_first_workspace : cost.recompute_workspace)
                                       : (moment.first ? cost.first_workspace : cost.workspace);
      switch (static_cast<Op>(moment.runs)) {
        case Op::forward: bytes += workspace.forward; break;
        case Op::backward: bytes += workspace.backward; break;
        case Op::input_grad: bytes += workspace.input_grad; break;
        case Op::weight_grad: bytes += workspace.weight_grad; break;
      }
    }
    most = std::max(most, bytes);
  }
  return most;
}

std::vector<ActionCounts> ScheduleFacts::count(const std::vector<Action>& row, std::size_t begin,
                                               std::size_t end) const {
  std::vector<ActionCounts> counts;
  for (std::size_t i = begin; i < end; ++i) {
    const int stage = row[i].stage.value();
    auto of = std::find_if(counts.begin(), counts.end(), [&](const ActionCounts& c) { return c.stage == stage; });
    if (of == counts.end()) of = counts.insert(counts.end(), ActionCounts{stage});
    const Op op = row[i].op;
    if (op == Op::forward) ++of->forwards;
    if (is_gradient(op)) ++of->input_grads;
    if (op == Op::backward || op == Op::weight_grad) ++of->weight_grads;
    if (is_gradient(op) && again_at_least_[at(stage)][at(row[i].micro_batch)] == Again::yes) ++of->again;
  }
  return counts;
}

void ScheduleFacts::find_paths() {
  const int last = schedule_.micro_batches - 1;
  for (int stage = 0; stage < stages(); ++stage) {
    const std::vector<Action>& row = schedule_.rows[at(rows_[at(stage)].value())];
    std::size_t first = 0, gradient = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (row[i].stage.value() != stage) continue;
      if (row[i].op == Op::forward && row[i].micro_batch == 0) first = i;
      if (is_gradient(row[i].op) && row[i].micro_batch == last) gradient = i;
    }
    to_gradient_.push_back(count(row, first, gradient + 1));
    to_end_.push_back(count(row, first, row.size()));
    last_gradient_.push_back(count(row, gradient, gradient + 1).front());
    if (stage == 0) behind_ = count(row, gradient + 1, row.size());
    ActionCounts whole{stage};
    for (const ActionCounts& counts : count(row, 0, row.size()))
      if (counts.stage == stage) whole = counts;
    whole_.push_back(whole);
  }
}

}  // namespace lockstep
