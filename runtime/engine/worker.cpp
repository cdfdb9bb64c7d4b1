// SPDX-License-Identifier: Apache-2.0
//
// The loop, messages and computes. What follows the computes of a step is in worker_step_end.cpp.
#include "runtime/engine/worker.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"

namespace lockstep {
namespace {

at::Tensor to_tensor(const std::string& bytes) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

std::string to_bytes(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), static_cast<std::size_t>(tensor.numel())};
}

// What goes wrong in `work` gets the place in front.
template <typename Work, typename Where>
void say_where(const Work& work, const Where& where) {
  try {
    work();
  } catch (const JobStopped&) {
    throw;
  } catch (const Error& error) {
    throw Error(concat(where(), ": ", error.what()), error.exit_code());
  } catch (const c10::Error& error) {
    throw Error(concat(where(), ": ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw Error(concat(where(), ": ", error.what()));
  }
}

}  // namespace

Worker::Worker(WorkerParts parts) : parts_(std::move(parts)) {}
Worker::~Worker() = default;

void Worker::build_stages() {
  const MemoryPool::Scope memory(*parts_.pool, MemoryKind::parameters);
  for (int s = 0; s < parts_.partition.stages(); ++s) {
    if (parts_.programs.wiring().row_of_stage[s].value() != parts_.row) continue;
    const StageId id(s);
    stages_[id] = std::make_unique<Stage>(parts_.graph, parts_.partition, id, parts_.losses, parts_.stage, store_);
  }
  std::map<int, Parameter*> first;
  for (auto& [id, stage] : stages_) {
    int layer = stage->first_layer();
    for (std::vector<Parameter>& held : stage->parameters()) {
      for (Parameter& parameter : held) {
        all_.push_back(&parameter);
        parameter.on_new_gradient = [this](const at::Tensor& gradient) {
          parts_.pool->take_over(gradient, MemoryKind::gradients);
        };
        if (!first.emplace(parameter.index, &parameter).second) continue;
        owned_.push_back(&parameter);
        if (parameter.trainable) trained_.push_back(&parameter);
        in_norm_.push_back(parts_.graph.parameters[parameter.index].holders.front() == layer);
      }
      ++layer;
    }
  }
  find_shared_holders();
  find_local_flows();
}

void Worker::find_local_flows() {
  for (const FlowContents& flow : parts_.partition.flows) {
    if (!is_mine(flow.from) || !is_mine(flow.to)) continue;
    flows_from_[flow.from].push_back(&flow);
    flows_to_[flow.to].push_back(&flow);
  }
}

void Worker::run() {
  const MemoryPool::Scope memory(*parts_.pool);
  say_where([&] { build_stages(); }, [&] { return concat("worker ", parts_.row, ", building its layers"); });
  if (parts_.keeper && parts_.keeper->resumes()) restore();
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
  std::vector<int> ids;
  for (const auto& [id, stage] : stages_) ids.push_back(id.value());
  const bool computes = instruction.kind == InstructionKind::compute;
  return concat("worker ", parts_.row, " (stage ", join(ids), "), step ", header_.step, ", ", to_string(header_.mode),
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
  const double start_us = now_us();
  switch (instruction.kind) {
    case InstructionKind::make_header: make_header(); break;
    case InstructionKind::post: parts_.channels[instruction.edge.value()]->post(); break;
    case InstructionKind::receive: receive(instruction); break;
    case InstructionKind::send: send(instruction); break;
    case InstructionKind::compute: compute(instruction.action); break;
    case InstructionKind::shared_sum: sum_shared(instruction.item); break;
    case InstructionKind::norm_parts: collect_norm_parts(); break;
    case InstructionKind::norm_total: total_norm(); break;
    case InstructionKind::update: update(); break;
    case InstructionKind::amend: amend(); break;
    case InstructionKind::wait_sends: finish_sends(); break;
  }
  const double end_us = now_us();
  account(instruction.kind, start_us, end_us);
  if (parts_.spans) record(instruction, start_us, end_us);
}

/// Where the time of an instruction goes in this run's report.
void Worker::account(InstructionKind kind, double start_us, double end_us) {
  WorkerReport& report = current_.report;
  switch (kind) {
    case InstructionKind::receive:
    case InstructionKind::send:
    case InstructionKind::wait_sends: report.wait_us += end_us - start_us; return;
    case InstructionKind::update:
    case InstructionKind::amend: report.update_us += end_us - start_us; [[fallthrough]];
    case InstructionKind::compute:
    case InstructionKind::shared_sum:
    case InstructionKind::norm_parts:
      report.compute_us += end_us - start_us;
      report.end_us = end_us;
      if (report.begin_us == 0) report.begin_us = start_us;
      return;
    case InstructionKind::make_header:
    case InstructionKind::post:
    case InstructionKind::norm_total: return;
  }
}

void Worker::finish_sends() {
  for (std::size_t e = 0; e < program_->edges.size(); ++e) {
    const Edge& edge = program_->edges[e];
    if (edge.from.value() != parts_.row) continue;
    parts_.recorder->pulse().turn_to(edge.to.value());
    parts_.watchdog->begin_wait();
    parts_.channels[e]->finish(parts_.limits);
  }
}

// The program's first instruction, which waits for the header or makes it, is counted to the program it announces.
void Worker::record(const Instruction& instruction, double start_us, double end_us) {
  if (!parts_.spans->takes(header_.mode, header_.step)) return;
  parts_.spans->add(header_.mode, header_.step, instruction, start_us, end_us);
  if (instruction.kind == InstructionKind::compute) parts_.spans->held(end_us, parts_.pool->bytes());
}

// ---- messages ----

void Worker::receive(const Instruction& instruction) {
  const Edge& edge = program_->edges[instruction.edge.value()];
  Message message = parts_.channels[instruction.edge.value()]->receive(parts_.limits);
  parts_.watchdog->heard_from(edge.from.value());
  if (edge.kind == EdgeKind::header) {
    take_header(StepHeader::from_bytes(to_bytes(message.tensors.at(0))));
    return;
  }
  LOCKSTEP_CHECK(message.sequence == header_.sequence, "a message of run ", message.sequence, " in run ",
                 header_.sequence);
  const bool per_micro_batch = edge.kind == EdgeKind::value || edge.kind == EdgeKind::gradient;
  LOCKSTEP_CHECK(!per_micro_batch || message.micro_batch == instruction.action.micro_batch, "micro-batch ",
                 message.micro_batch, " instead of ", instruction.action.micro_batch);
  // What came into a slot is an activation now. In process a gradient becomes ours; a value is also an output that the
  // sender keeps for its backward, and stays on its account, as do shared buffers, of which only the sum will be ours.
  for (const at::Tensor& tensor : message.tensors) {
    if (edge.kind == EdgeKind::gradient) parts_.pool->take_over(tensor, MemoryKind::activations);
    if (edge.kind == EdgeKind::value) parts_.pool->relabel(tensor, MemoryKind::activations);
  }
  consume(edge, message.micro_batch, std::move(message));
}

void Worker::consume(const Edge& edge, int micro_batch, Message message) {
  switch (edge.kind) {
    case EdgeKind::value: put_values(flow(edge), micro_batch, std::move(message.tensors)); return;
    case EdgeKind::gradient: put_gradients(flow(edge), micro_batch, std::move(message.tensors)); return;
    case EdgeKind::shared: {
      const std::vector<StageId>& holders = parts_.partition.topology.shared[edge.item].holders;
      std::size_t next = 0;
      for (std::size_t h = 0; h < holders.size(); ++h)
        if (program_->wiring.row_of_stage[holders[h].value()] == edge.from)
          shared_received_[edge.item][static_cast<int>(h)] = message.tensors.at(next++);
      return;
    }
    case EdgeKind::norm: {
      take_norm_parts(NormParts::from_bytes(to_bytes(message.tensors.at(0))), squares_);
      return;
    }
    case EdgeKind::scale: norm_ = message.tensors.at(0).item<double>(); return;
    case EdgeKind::result: rows_.push_back(RowResult::from_bytes(to_bytes(message.tensors.at(0)))); return;
    case EdgeKind::header: break;
  }
  LOCKSTEP_CHECK(false, "a header where there is none");
}

void Worker::put_values(const FlowContents& flow, int micro_batch, Tensors values) {
  LOCKSTEP_CHECK(values.size() == flow.values.size(), "a value message of the wrong length");
  for (std::size_t i = 0; i < values.size(); ++i)
    stage(flow.to).put_value(micro_batch, flow.values[i], std::move(values[i]));
}

void Worker::put_gradients(const FlowContents& flow, int micro_batch, Tensors gradients) {
  LOCKSTEP_CHECK(gradients.size() == flow.gradients.size(), "a gradient message of the wrong length");
  for (std::size_t i = 0; i < gradients.size(); ++i)
    stage(flow.from).put_gradient(micro_batch, flow.gradients[i].value, flow.gradients[i].use, std::move(gradients[i]));
}

void Worker::send(const Instruction& instruction) {
  const Edge& edge = program_->edges[instruction.edge.value()];
  const int micro_batch = instruction.action.micro_batch;
  parts_.channels[instruction.edge.value()]->send({header_.sequence, micro_batch, contents(edge, micro_batch)},
                                                  parts_.limits);
}

Tensors Worker::contents(const Edge& edge, int micro_batch) {
  switch (edge.kind) {
    case EdgeKind::header: return {to_tensor(header_.to_bytes())};
    case EdgeKind::value: return stage(edge.from_stage).values_of(flow(edge), micro_batch);
    case EdgeKind::gradient: return stage(edge.from_stage).gradients_of(flow(edge), micro_batch);
    case EdgeKind::shared: {
      Tensors buffers;
      for (const Parameter* holder : shared_holders_[edge.item])
        if (holder) buffers.push_back(holder->gradient);
      return buffers;
    }
    case EdgeKind::norm: return {to_tensor(current_.norm.to_bytes())};
    case EdgeKind::scale: return {at::full({}, norm_, at::kDouble)};
    case EdgeKind::result: return {to_tensor(last_.to_bytes())};
  }
  LOCKSTEP_CHECK(false, "unknown edge kind");
}

// ---- headers ----

void Worker::make_header() {
  const double time_us = now_us();
  previous_ = std::move(running_);
  previous_.elapsed_us = time_us - header_time_us_;
  header_time_us_ = time_us;
  if (!saved_.empty()) parts_.director->saved(std::exchange(saved_, {}));
  StepHeader header = parts_.director->next(finished_, parts_.limits);
  header.sequence = previous_.sequence + 1;
  header.finished = std::move(finished_);
  finished_.clear();
  running_ = {};
  running_.sequence = header.sequence;
  running_.mode = header.mode;
  running_.step = header.step;
  running_.heads = header.heads;
  running_.learning_rate = header.learning_rate;
  running_.micro_batches = static_cast<int>(header.slices.size());
  running_.last_of_evaluation = header.last_of_evaluation;
  for (const std::int64_t rows : header.slices) running_.samples += rows;
  take_header(std::move(header));
}

void Worker::take_header(StepHeader header) {
  header_ = std::move(header);
  if (parts_.observer) {
    for (const StepResult& result : header_.finished) parts_.observer->on_result(result);
    if (header_.mode == Mode::stop) parts_.observer->on_stop(header_.stop);
  }
  for (auto& [id, stage] : stages_) stage->begin(header_);
  current_ = {};
  current_.report.row = parts_.row;
  standing_bytes_ = parts_.pool->bytes();
}

// ---- compute ----

void Worker::compute(const Action& action) {
  release_sent();
  Stage& here = stage(action.stage);
  const std::int64_t bytes_before = kept_bytes();
  switch (action.op) {
    case Op::forward:
      if (action.stage.value() == 0) load_data(action.micro_batch);
      here.forward(action.micro_batch, recomputes(action));
      break;
    case Op::backward: here.backward(action.micro_batch); break;
    case Op::input_grad: here.input_grad(action.micro_batch); break;
    case Op::weight_grad: here.weight_grad(action.micro_batch); return;
  }
  note_bytes(action, bytes_before);
  deliver_locally(action);
  sent_ = {action.stage, action.micro_batch, action.op != Op::forward, action.op == Op::input_grad, bytes_before};
}

/// Alive beyond what stood when the run began and the gradients that have been summed since.
std::int64_t Worker::in_flight_bytes() const {
  return parts_.pool->bytes() - standing_bytes_ - gradient_bytes();
}

/// For differences: what this worker's own thread has made and not freed, without summed gradients. (Others free or
/// take over at any time what was sent to them.)
std::int64_t Worker::kept_bytes() const {
  return MemoryPool::net_bytes_of_this_thread() - gradient_bytes();
}

/// `before`: kept when the compute began.
void Worker::note_bytes(const Action& action, std::int64_t before) {
  current_.report.in_flight_bytes = std::max(current_.report.in_flight_bytes, in_flight_bytes());
  StageReport& report = stage(action.stage).report();
  if (action.op == Op::forward) {
    std::int64_t& held = recomputes(action) ? report.checkpoint_bytes : report.held_bytes;
    if (held == 0) held = std::max<std::int64_t>(0, kept_bytes() - before);
  }
}

bool Worker::recomputes(const Action& action) {
  if (program_->recompute == Recompute::never) return false;
  const auto [again, is_new] = recomputed_.try_emplace(program_);
  if (is_new) again->second = recomputed(*program_);
  return again->second[action.stage.value() * program_->micro_batches + action.micro_batch];
}

void Worker::load_data(int micro_batch) {
  Tensors entries = parts_.director->micro_batch(micro_batch);
  LOCKSTEP_CHECK(entries.size() == parts_.graph.sources.size(), "the data gave ", entries.size(), " entries");
  for (std::size_t i = 0; i < entries.size(); ++i)
    stage(StageId(0)).put_value(micro_batch, parts_.graph.sources[i], std::move(entries[i]));
}

void Worker::deliver_locally(const Action& action) {
  Stage& here = stage(action.stage);
  const bool forward = action.op == Op::forward;
  for (const FlowContents* flow : forward ? flows_from_[action.stage] : flows_to_[action.stage]) {
    if (forward)
      put_values(*flow, action.micro_batch, here.values_of(*flow, action.micro_batch));
    else
      put_gradients(*flow, action.micro_batch, here.gradients_of(*flow, action.micro_batch));
  }
}

void Worker::release_sent() {
  if (!sent_.stage.valid()) return;
  if (sent_.gradients) {
    Stage& here = stage(sent_.stage);
    here.release_gradients(sent_.micro_batch);
    StageReport& report = here.report();
    if (sent_.splits && report.held_w_bytes == 0) {
      const std::int64_t held = report.held_bytes > 0 ? report.held_bytes : report.checkpoint_bytes;
      report.held_w_bytes = std::max<std::int64_t>(0, held + kept_bytes() - sent_.bytes_before);
    }
  } else {
    stage(sent_.stage).release_values(sent_.micro_batch);
  }
  sent_ = {};
}

}  // namespace lockstep
