// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/worker.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/engine/layer_contract.hpp"
#include "runtime/engine/product_rate.hpp"
#include "runtime/engine/remote_links.hpp"
#include "runtime/engine/results.hpp"
#include "runtime/engine/say_where.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
Worker::Worker(WorkerParts parts)
    : parts_(std::move(parts)),
      handover_(parts_.stage.device),
      watch_(stream()),
      last_(std::make_unique<RowRun>(parts_.row, StepHeader(), watch_, nullptr)),
      dump_(parts_.dump_step, parts_.take_dump) {
  parts_.stage.dump = &dump_;
  const std::vector<WorkerId>& row_of_stage = parts_.programs.wiring().row_of_stage;
  for (std::size_t s = 0; s < row_of_stage.size(); ++s)
    if (row_of_stage[s].value() == parts_.row) ids_.emplace_back(static_cast<int>(s));
  if (parts_.row == 0) ledger_.emplace(*parts_.decider, parts_.stage.metrics);
}

void Worker::build() {
  // Before the layers: here all workers are at the same point, and the memory is free.
  if (parts_.measure_products) product_rate_ = product_rate(stream(), parts_.stage.precision);
  const MemoryPool::Scope memory(*parts_.pool, MemoryKind::parameters);
  WeightOptions weights{parts_.stage.seed, parts_.stage.device, parts_.draws, parts_.make_updater};
  weights.wiring = &parts_.programs.wiring();
  weights.central = parts_.central;
  if (parts_.common && !parts_.makes_common) weights.common = &parts_.common->wait(*parts_.limits.stop);
  if (weights.common) stream().wait(weights.common->ready);
  weights_.emplace(parts_.graph, parts_.partition, ids_, weights, *parts_.pool);
  stages_.emplace(parts_.graph, parts_.partition, ids_, parts_.losses, parts_.stage, *weights_, *parts_.pool,
                  parts_.feeder);
}

void Worker::run() {
  const DeviceStream::Scope device(stream());
  const MemoryPool::Scope memory(*parts_.pool);
  say_where([&] { build(); }, [&] { return concat("worker ", parts_.row, ", building its layers"); });
  if (parts_.keeper && parts_.keeper->restores()) {
    at::NoGradGuard no_grad;
    parts_.keeper->restore(weights_->state(), parts_.limits);
  }
  weights_->fetch_values();
  if (parts_.common && parts_.makes_common) {
    CommonWeights common = weights_->common();
    common.ready = stream().record();
    parts_.common->put(std::move(common));
  }
  do {
    run_program();
  } while (header_.mode != Mode::stop);
}

void Worker::run_program() {
  // The way to the header is the same in every program; the header then says which one it is.
  program_ = &parts_.programs.get(Mode::stop, 0);
  std::size_t position = 0;
  bool have_header = false;
  while (!have_header) {
    const Instruction& instruction = program_->rows[parts_.row][position++];
    guarded(instruction);
    have_header = instruction.kind == InstructionKind::make_header || instruction.kind == InstructionKind::receive;
  }
  const bool computes = header_.mode == Mode::train || header_.mode == Mode::evaluate;
  program_ = &parts_.programs.get(header_.mode, computes ? static_cast<int>(header_.slices.size()) : 0);
  const std::vector<Instruction>& row = program_->rows[parts_.row];
  for (; position < row.size(); ++position) guarded(row[position]);
  end_program();
}

std::string Worker::where(const Instruction& instruction) const {
  const bool computes = instruction.kind == InstructionKind::compute;
  return concat("worker ", parts_.row, " (stage ", join(ids_), "), step ", header_.step, ", ", to_string(header_.mode),
                ", ", describe(*program_, instruction),
                computes ? concat(" (micro-batch ", instruction.action.micro_batch, ")") : "");
}

void Worker::guarded(const Instruction& instruction) {
  FlightRecord record = record_of(*program_, instruction);
  record.step = header_.step;
  record.mode = header_.mode;
  parts_.recorder->begin(record);
  parts_.watchdog->begin_wait();
  say_where([&] { execute(instruction); }, [&] { return where(instruction); });
  parts_.recorder->end();
}

void Worker::execute(const Instruction& instruction) {
  if (parts_.limits.stop->raised()) throw JobStopped();
  handover_.collect();
  // What is computed takes its time on the device, everything else here.
  const bool computes = is_work(instruction) && instruction.kind != InstructionKind::make_header;
  const auto mark = [&] { return computes ? watch_.mark() : Stopwatch::Mark{now_us()}; };
  Stopwatch::Mark begin = mark();
  switch (instruction.kind) {
    case InstructionKind::make_header: take_header(ledger_->open(parts_.limits)); break;
    case InstructionKind::post: parts_.channels[instruction.edge.value()]->post(); break;
    case InstructionKind::receive: receive(instruction); break;
    case InstructionKind::send: send(instruction); break;
    case InstructionKind::compute: stages_->compute(instruction.action, recomputes(instruction.action)); break;
    case InstructionKind::reduce:
      stages_->release_sent();
      weights_->bucket(instruction.item).reduce();
      break;
    case InstructionKind::shared_sum:
      stages_->release_sent();
      weights_->sum_shared(instruction.item);
      break;
    case InstructionKind::norm_parts: collect_norm_parts(); break;
    case InstructionKind::norm_total: norm_ = ledger_->total_norm(squares_); break;
    case InstructionKind::update: update(); break;
    case InstructionKind::amend: amend(); break;
    case InstructionKind::wait_sends: finish_sends(); break;
  }
  MemoryPool::check_limit();
  if (!current_) return;  // before the first header
  // The program's first instruction, which waits for the header or makes it, is counted to the program it announces.
  const EdgeKind edge = is_message(instruction.kind) ? program_->edges[instruction.edge.value()].kind : EdgeKind::value;
  if (instruction.kind == InstructionKind::receive && edge == EdgeKind::header) begin.told_us += header_.idle_us;
  current_->did(instruction, edge, std::move(begin), mark(), parts_.pool->bytes());
}

// ---- messages ----

void Worker::finish_sends() {
  for (std::size_t e = 0; e < program_->edges.size(); ++e) {
    const Edge& edge = program_->edges[e];
    if (edge.from.value() != parts_.row) continue;
    parts_.recorder->pulse().turn_to(edge.to.value());
    parts_.watchdog->begin_wait();
    parts_.channels[e]->finish(parts_.limits);
  }
}

void Worker::receive(const Instruction& instruction) {
  const Edge& edge = program_->edges[instruction.edge.value()];
  Message message = parts_.channels[instruction.edge.value()]->receive(parts_.limits);
  parts_.watchdog->heard_from(edge.from.value());
  if (edge.kind == EdgeKind::header) {
    take_header(StepHeader::from_bytes(string_of(message.tensors.at(0))));
    return;
  }
  LOCKSTEP_CHECK(message.sequence == header_.sequence, "a message of run ", message.sequence, " in run ",
                 header_.sequence);
  const bool per_micro_batch = edge.kind == EdgeKind::value || edge.kind == EdgeKind::gradient;
  LOCKSTEP_CHECK(!per_micro_batch || message.micro_batch == instruction.action.micro_batch, "micro-batch ",
                 message.micro_batch, " instead of ", instruction.action.micro_batch);
  // What came into a slot is an activation now. In process a gradient becomes ours; a value is also an output that the
  // sender keeps for its backward, and stays on its account, as do shared buffers, of which only the sum will be ours.
  if (parts_.channels[instruction.edge.value()]->is_local()) {
    message.tensors = handover_.take(std::move(message.tensors), message.loan);
    if (edge.kind == EdgeKind::ready) handover_.follow(message.loan);
  } else if (of_layers(edge.kind)) {
    const bool has_numbers = edge.kind == EdgeKind::reduce || edge.kind == EdgeKind::statistics;  // for the host
    const at::Tensor numbers = has_numbers ? message.tensors.at(0) : at::Tensor();
    if (has_numbers) message.tensors[0] = at::Tensor();
    message.tensors = handover_.bring(std::move(message.tensors));
    if (has_numbers) message.tensors[0] = numbers;
  }
  for (const at::Tensor& tensor : message.tensors) {
    if (edge.kind == EdgeKind::gradient) parts_.pool->take_over(tensor, MemoryKind::activations);
    if (edge.kind == EdgeKind::value) parts_.pool->relabel(tensor, MemoryKind::activations);
  }
  consume(edge, std::move(message));
}

void Worker::consume(const Edge& edge, Message message) {
  Tensors& tensors = message.tensors;
  switch (edge.kind) {
    case EdgeKind::value: stages_->put_values(flow(edge), message.micro_batch, std::move(tensors)); return;
    case EdgeKind::gradient: stages_->put_gradients(flow(edge), message.micro_batch, std::move(tensors)); return;
    case EdgeKind::shared: {
      const std::vector<StageId>& holders = parts_.partition.topology.shared[edge.item].holders;
      std::size_t next = 0;
      for (std::size_t h = 0; h < holders.size(); ++h)
        if (program_->wiring.row_of_stage[holders[h].value()] == edge.from)
          weights_->put_shared_gradient(edge.item, static_cast<int>(h), tensors.at(next++));
      return;
    }
    case EdgeKind::statistics: stages_->put_statistics(in_this_replica(edge), tensors); return;
    case EdgeKind::reduce: weights_->bucket(edge.item).put_gradients(tensors); return;
    case EdgeKind::gather:
      if (gathers_weights())
        weights_->bucket(edge.item).put_values(edge.from, tensors);
      else
        weights_->bucket(edge.item).put_sums(edge.from, tensors);
      return;
    case EdgeKind::ready: return;
    case EdgeKind::norm: {
      const auto numbers = [](const at::Tensor& tensor) {
        const auto* first = tensor.const_data_ptr<int>();
        return std::vector<int>(first, first + tensor.numel());
      };
      ledger_->add({numbers(tensors.at(0)), numbers(tensors.at(1)), tensors.at(2)});
      return;
    }
    case EdgeKind::scale: norm_ = tensors.at(0); return;
    case EdgeKind::result: ledger_->add(RowResult::from_bytes(string_of(tensors.at(0)))); return;
    case EdgeKind::header:
    case EdgeKind::request:
    case EdgeKind::reply: break;
  }
  LOCKSTEP_CHECK(false, "a ", to_string(edge.kind), " where there is none");
}

void Worker::send(const Instruction& instruction) {
  const Edge& edge = program_->edges[instruction.edge.value()];
  const int micro_batch = instruction.action.micro_batch;
  Channel& channel = *parts_.channels[instruction.edge.value()];
  Message message{header_.sequence, micro_batch, contents(edge, micro_batch)};
  if (channel.wants_host_memory())
    std::tie(message.tensors, message.loan) = handover_.send_home(std::move(message.tensors));
  else
    message.loan = handover_.loan();
  channel.send(std::move(message), parts_.limits);
}

Tensors Worker::contents(const Edge& edge, int micro_batch) {
  switch (edge.kind) {
    case EdgeKind::header: return {tensor_of(header_.to_bytes())};
    case EdgeKind::value: return stages_->values_of(flow(edge), micro_batch);
    case EdgeKind::gradient: return stages_->gradients_of(flow(edge), micro_batch);
    case EdgeKind::shared: return weights_->shared_gradients(edge.item);
    case EdgeKind::statistics: return stages_->statistics(in_this_replica(edge));
    case EdgeKind::reduce: stages_->release_sent(); return weights_->bucket(edge.item).gradients_for(edge.to);
    case EdgeKind::gather:
      return gathers_weights() ? weights_->bucket(edge.item).values() : weights_->bucket(edge.item).sums_for(edge.to);
    case EdgeKind::ready: return {};
    case EdgeKind::norm:
      return {at::tensor(squares_.parameters, at::kInt), at::tensor(squares_.blocks, at::kInt), squares_.squares};
    case EdgeKind::scale: return {norm_};
    case EdgeKind::result: return {tensor_of(settled_last().to_bytes())};
    case EdgeKind::request:
    case EdgeKind::reply: break;
  }
  LOCKSTEP_CHECK(false, "unknown edge kind");
}

// ---- a program's ends, and the end of a step ----

void Worker::take_header(StepHeader header) {
  header_ = std::move(header);
  if (parts_.observer) {
    for (const StepResult& result : header_.finished) parts_.observer->on_result(result);
    if (header_.mode == Mode::stop) parts_.observer->on_stop(header_.stop);
  }
  current_ = std::make_unique<RowRun>(parts_.row, header_, watch_, parts_.spans);
  stages_->begin(header_, *current_);
  if (header_.norms)  // nobody updates what is here before all have their gradients
    for (const Slice& slice : weights_->summed()) before_.push_back(values_of(slice).clone());
}

at::Tensor Worker::values_of(const Slice& slice) const {
  return elements_of(weights_->trained()[static_cast<std::size_t>(slice.parameter)]->value, slice.begin, slice.end);
}

void Worker::measure_changes() {
  if (before_.empty()) return;
  const at::NoGradGuard no_grad;
  ChangeParts& changes = current_->result.changes;
  Tensors squares;
  std::size_t next = 0;
  for (const Slice& slice : weights_->summed()) {
    const at::Tensor now = values_of(slice).to(at::kDouble), change = now - before_[next++].to(at::kDouble);
    changes.parameters.push_back(weights_->trained()[static_cast<std::size_t>(slice.parameter)]->index);
    changes.begins.push_back(slice.begin);
    squares.push_back(now.square().sum());
    squares.push_back(change.square().sum());
  }
  before_.clear();
  current_->readings.add(at::stack(squares), [&changes](std::span<const double> numbers) {
    changes.squares.assign(numbers.begin(), numbers.end());
  });
}

bool Worker::recomputes(const Action& action) {
  if (program_->recompute == Recompute::never) return false;
  const auto [again, is_new] = recomputed_.try_emplace(program_);
  if (is_new) again->second = recomputed(*program_);
  return again->second[action.stage.value() * program_->micro_batches + action.micro_batch];
}

void Worker::collect_norm_parts() {
  stages_->release_sent();
  squares_ = weights_->squared_norms();
  if (parts_.record_hashes) record_gradients();
  if (dump_.wants(header_)) dump_gradients();
  current_->result.norm.parameters = squares_.parameters;
  current_->result.norm.blocks = squares_.blocks;
  current_->readings.add(squares_.squares, [this, &result = current_->result,
                                            micro_batches = program_->micro_batches](std::span<const double> squares) {
    result.norm.squares.assign(squares.begin(), squares.end());
    find_non_finite(result, parts_.graph, micro_batches);
  });
}

/// Double [], where the norm is; undefined: nothing is clipped.
at::Tensor Worker::clip_coefficient() const {
  if (parts_.clip_grad_norm <= 0) return {};
  // As torch.nn.utils.clip_grad_norm_: max_norm / (norm + 1e-6), never above 1.
  return at::full_like(norm_, parts_.clip_grad_norm).div(norm_ + 1e-6);
}

void Worker::update() {
  if (program_->post_validation) {  // as if nothing had to be clipped; amend() knows better
    weights_->update_for_now(header_.learning_rate, header_.step);
    return;
  }
  weights_->update(header_.learning_rate, header_.step, clip_coefficient());
  weights_->forget_gradients();
}

void Worker::amend() {
  weights_->amend(header_.learning_rate, header_.step, clip_coefficient());
  weights_->forget_gradients();
}

void Worker::record_gradients() {
  for (const Slice& slice : weights_->summed()) {
    const Parameter& parameter = *weights_->trained()[static_cast<std::size_t>(slice.parameter)];
    hash_gradient(header_.step, parameter.index, {parameter.gradient, parameter.rows}, hashes_,
                  ElementRange{slice.begin, slice.end});
  }
}

void Worker::dump_gradients() {
  for (const Slice& slice : weights_->summed()) {
    const Parameter& parameter = *weights_->trained()[static_cast<std::size_t>(slice.parameter)];
    const bool whole = slice.begin == 0 && slice.end == parameter.value.numel();
    const std::string name = concat("parameter_gradient/", parts_.graph.parameters[parameter.index].name);
    if (parameter.is_sparse)  // as whoever compares it has it
      dump_.add(name, 0, at::zeros_like(parameter.value).index_copy_(0, parameter.rows, parameter.gradient));
    else if (whole)
      dump_.add(name, 0, parameter.gradient.clone());
    else
      dump_.add(concat(name, "[", slice.begin, ":", slice.end, "]"), 0,
                elements_of(parameter.gradient, slice.begin, slice.end).clone());
  }
}

void Worker::record_hash(int index, Hashed what, const at::Tensor& tensor) {
  if (parts_.record_hashes) hashes_.push_back({header_.step, index, what, 0, hash_of(tensor)});
}

void Worker::end_program() {
  stages_->release_sent();
  if (dump_.wants(header_)) dump_.finish(parts_.row);
  if (header_.mode == Mode::train) {
    stages_->end_step();
    if (parts_.central) weights_->fetch_values();
    for (const Parameter* parameter : weights_->trained())
      record_hash(parameter->index, Hashed::value, parameter->value);
    for (const Buffer* buffer : weights_->buffers()) record_hash(buffer->index, Hashed::buffer, buffer->value);
    measure_changes();
  }
  current_->end();
  WorkerReport& report = current_->result.report;
  set_peaks(report, parts_.pool->peak_by_kind());
  report.product_rate = product_rate_;
  if (parts_.feeder) report.data_us = parts_.feeder->take_waited_us();
  current_->result.signalled = parts_.signalled && parts_.signalled->load();
  if (parts_.keeper) keep();
  if (ledger_) ledger_->close(settled_last());
  last_ = std::move(current_);
}

void Worker::add_to(JobOutcome& outcome) const {
  stream().synchronize();
  for (const Parameter* parameter : weights_->parameters())
    outcome.add({parameter->index, 0, parameter->value}, parameter->name, parameter->trainable);
  for (const Buffer* buffer : weights_->buffers())
    outcome.buffers.push_back({buffer->index, hash_of(buffer->value), buffer->value});
  outcome.hashes.insert(outcome.hashes.end(), hashes_.begin(), hashes_.end());
}

const RowResult& Worker::settled_last() {
  WaitClock clock;
  std::chrono::milliseconds limit = parts_.limits.timeout;
  last_->settle([&] {
    if (parts_.limits.stop->raised()) throw JobStopped();
    parts_.limits.alive();
    if (parts_.stage.links) parts_.stage.links->look();
    if (const auto waited = clock.look(); waited >= limit) limit = parts_.limits.overdue(waited, "");
  });
  return last_->result;
}

void Worker::keep() {
  say_where(
      [&] {
        if (header_.save) parts_.keeper->save(header_.step, weights_->state(), parts_.limits);
        if (header_.mode == Mode::flush) parts_.keeper->drain(parts_.limits);
        current_->result.saved = parts_.keeper->take_reports();
      },
      [&] { return concat("worker ", parts_.row, ", after step ", header_.step); });
}

}  // namespace lockstep
