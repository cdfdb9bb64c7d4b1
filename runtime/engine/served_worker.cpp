// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/served_worker.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "runtime/base/clock.hpp"
#include "runtime/engine/layer_contract.hpp"
#include "runtime/engine/product_rate.hpp"
#include "runtime/engine/results.hpp"
#include "runtime/engine/say_where.hpp"

namespace lockstep {
namespace {

using Kind = ServerRequest::Kind;

/// Those of ascending numbers that lie in `range`, of the host.
at::Tensor within(const at::Tensor& rows, ElementRange range) {
  const auto* first = rows.const_data_ptr<std::int64_t>();
  const auto* last = first + rows.numel();
  const auto* begin = std::lower_bound(first, last, range.begin);
  const auto* end = std::lower_bound(begin, last, range.end);
  return rows.narrow(0, begin - first, end - begin);
}

}  // namespace

ServedWorker::ServedWorker(WorkerParts parts)
    : parts_(std::move(parts)),
      stream_(parts_.stage.device),
      watch_(stream_),
      program_(&parts_.programs.get(Mode::stop, 0)),
      stage_(parts_.row) {
  const Topology& topology = parts_.partition.topology;
  const int first = program_->workers() - topology.servers;
  servers_.resize(static_cast<std::size_t>(topology.servers));
  for (std::size_t e = 0; e < program_->edges.size(); ++e) {
    const Edge& edge = program_->edges[e];
    const EdgeId id(static_cast<int>(e));
    if (edge.kind == EdgeKind::request && edge.from.value() == parts_.row)
      servers_[static_cast<std::size_t>(edge.to.value() - first)].request = id;
    if (edge.kind == EdgeKind::reply && edge.to.value() == parts_.row)
      servers_[static_cast<std::size_t>(edge.from.value() - first)].reply = id;
  }
}

void ServedWorker::build() {
  if (parts_.measure_products) product_rate_ = product_rate(stream_, parts_.stage.precision);
  const MemoryPool::Scope memory(*parts_.pool, MemoryKind::parameters);
  WeightOptions options{parts_.stage.seed, parts_.stage.device};
  options.wiring = &parts_.programs.wiring();
  options.served = true;
  weights_.emplace(parts_.graph, parts_.partition, std::vector<StageId>{stage_}, options, *parts_.pool);
  stages_.emplace(parts_.graph, parts_.partition, std::vector<StageId>{stage_}, parts_.losses, parts_.stage, *weights_,
                  *parts_.pool, parts_.feeder);
  holders_.resize(parts_.graph.parameters.size());
  for (std::vector<Parameter>& of_layer : weights_->of(stage_).parameters)
    for (Parameter& parameter : of_layer) holders_[static_cast<std::size_t>(parameter.index)].push_back(&parameter);
  auto parts = parts_of_servers(parts_.graph, static_cast<int>(servers_.size()), parts_.has_whole_tables());
  for (std::size_t s = 0; s < servers_.size(); ++s) servers_[s].parts = std::move(parts[s]);
}

std::string ServedWorker::where() const {
  return concat("worker ", parts_.row, ", step ", header_.step, ", ", to_string(header_.mode),
                header_.share >= 0 ? concat(", share ", header_.share) : "");
}

void ServedWorker::run() {
  const DeviceStream::Scope device(stream_);
  const MemoryPool::Scope memory(*parts_.pool);
  say_where([&] { build(); }, [&] { return concat("worker ", parts_.row, ", building its layers"); });
  while (next_order()) {
    try {
      say_where([&] { work(); }, [&] { return where(); });
    } catch (const JobStopped&) {
      throw;
    } catch (const CommError&) {
      throw;
    } catch (const WaitTimeout&) {
      throw;
    } catch (const std::exception& error) {
      if (parts_.stage.links) throw;  // its process would be left with nothing to do
      leave(error.what());
      throw RowLeft(error.what());
    }
  }
  leave("");
}

void ServedWorker::add_to(JobOutcome&) const {}

// ---- messages ----

/// As a worker that runs a program does it: recorded, and measured where there is a run.
template <typename Work>
void ServedWorker::timed(const Instruction& instruction, const Work& work) {
  if (parts_.limits.stop->raised()) throw JobStopped();
  FlightRecord record = record_of(*program_, instruction);
  record.step = header_.step;
  record.mode = header_.mode;
  parts_.recorder->begin(record);
  parts_.watchdog->begin_wait();
  const auto mark = [&] { return is_work(instruction) ? watch_.mark() : Stopwatch::Mark{now_us()}; };
  Stopwatch::Mark begin = mark();
  work();
  MemoryPool::check_limit();
  parts_.recorder->end();
  const EdgeKind edge = is_message(instruction.kind) ? program_->edges[index(instruction.edge)].kind : EdgeKind::value;
  if (current_) current_->did(instruction, edge, std::move(begin), mark(), parts_.pool->bytes());
}

void ServedWorker::count(const Tensors& tensors, std::int64_t WorkerReport::*bytes) {
  if (!current_) return;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) current_->result.report.*bytes += static_cast<std::int64_t>(tensor.nbytes());
}

void ServedWorker::ask(Server& server, ServerRequest request, const Tensors& tensors) {
  if (const auto untold = untold_.find(program_->edges[index(server.request)].to.value()); untold != untold_.end())
    request.results = std::exchange(untold->second, {});
  timed({InstructionKind::send, server.request}, [&] {
    parts_.channels[index(server.reply)]->post();
    server.is_asked = true;
    Message message{0, -1, {tensor_of(request.to_bytes())}};
    message.tensors.insert(message.tensors.end(), tensors.begin(), tensors.end());
    count(message.tensors, &WorkerReport::sent_bytes);
    parts_.channels[index(server.request)]->send(std::move(message), parts_.limits);
  });
}

ServerReply ServedWorker::answer(Server& server, Tensors* tensors) {
  Message message;
  timed({InstructionKind::receive, server.reply}, [&] {
    message = parts_.channels[index(server.reply)]->receive(parts_.limits);
    server.is_asked = false;
    parts_.watchdog->heard_from(program_->edges[index(server.reply)].from.value());
  });
  count(message.tensors, &WorkerReport::received_bytes);
  ServerReply reply = ServerReply::from_bytes(string_of(message.tensors.at(0)));
  if (tensors) tensors->assign(message.tensors.begin() + 1, message.tensors.end());
  if (reply.report.row >= 0) reports_.push_back(reply.report);
  std::move(reply.saved.begin(), reply.saved.end(), std::back_inserter(saved_));
  return reply;
}

std::vector<ServerReply> ServedWorker::ask_all(const ServerRequest& request) {
  for (Server& server : servers_) ask(server, request);
  std::vector<ServerReply> replies;
  for (Server& server : servers_) replies.push_back(answer(server));
  return replies;
}

/// False: that was the last one.
bool ServedWorker::next_order() {
  ServerRequest request;
  request.text = std::exchange(done_, {});
  request.servers = std::exchange(reports_, {});
  ask(servers_.front(), request);
  header_ = StepHeader::from_bytes(answer(servers_.front()).header);
  if (parts_.observer) {
    for (const StepResult& result : header_.finished) parts_.observer->on_result(result);
    if (header_.mode == Mode::stop) parts_.observer->on_stop(header_.stop);
  }
  for (const int server : parts_.tells)
    untold_[server].insert(untold_[server].end(), header_.finished.begin(), header_.finished.end());
  header_.finished.clear();
  return header_.mode != Mode::stop;
}

/// To the desk, which is the first server, last: then all know what there is of this worker.
void ServedWorker::leave(const std::string& why) {
  current_.reset();
  ServerRequest request;
  request.kind = Kind::leave;
  request.text = why;
  request.share = static_cast<int>(header_.stop);
  for (auto server = servers_.rbegin(); server != servers_.rend(); ++server) {
    if (server->is_asked) answer(*server);
    ask(*server, request);
    answer(*server);
  }
}

// ---- orders ----

void ServedWorker::work() {
  current_ = std::make_unique<RowRun>(parts_.row, header_, watch_, parts_.spans);
  const bool trains = header_.mode == Mode::train, has_share = trains && header_.share >= 0;
  if (has_share || header_.mode == Mode::evaluate) {
    stages_->begin(header_, *current_);
    RowResult& result = current_->result;
    if (has_share && by_shares()) {
      result.denominators = parts_.feeder->denominators();
      for (std::size_t head = 0; head < result.denominators.size(); ++head)
        header_.heads[head].denominator = result.denominators[head];
    }
    compute(actions());
    if (has_share) hand_in();
    weights_->forget_gradients();
  } else if (trains) {
    current_->result.norm = settle();
  } else {
    keep();
  }
  end_run();
}

void ServedWorker::compute(const std::vector<Action>& actions) {
  const Replicas& replicas = parts_.partition.topology.replicas;
  constexpr TermRange all{0, std::numeric_limits<int>::max()};
  weights_->of(stage_).at_work.mine = by_shares() ? all : replicas.groups_of(std::max(header_.share, 0));
  read_weights(actions);
  const std::size_t micro_batches = header_.slices.size();
  const std::vector<bool> again = recomputed(parts_.programs.get(header_.mode, static_cast<int>(micro_batches)));
  for (const Action& action : actions) {
    const std::size_t at = index(action.stage) * micro_batches + static_cast<std::size_t>(action.micro_batch);
    Action here = action;
    here.stage = stage_;
    timed({InstructionKind::compute, {}, here}, [&] { stages_->compute(here, again[at]); });
  }
  stages_->release_sent();
}

void ServedWorker::keep() {
  ServerRequest request;
  request.step = header_.step;
  request.kind = Kind::save;
  if (header_.save) ask_all(request);
  request.kind = Kind::drain;
  if (header_.stop != StopReason::none) ask_all(request);
}

void ServedWorker::end_run() {
  current_->end();
  current_->settle([this] {
    if (parts_.limits.stop->raised()) throw JobStopped();
    parts_.limits.alive();
  });
  RowResult& result = current_->result;
  result.saved = std::exchange(saved_, {});
  result.signalled = parts_.signalled && parts_.signalled->load();
  find_non_finite(result, parts_.graph, static_cast<int>(header_.slices.size()));
  WorkerReport& report = result.report;
  set_peaks(report, parts_.pool->peak_by_kind());
  report.product_rate = product_rate_;
  report.data_us = parts_.feeder->take_waited_us();
  done_ = result.to_bytes();
  current_.reset();
}

/// What the rows of the program compute of the share, or of all shares.
std::vector<Action> ServedWorker::actions() const {
  const Program& program = parts_.programs.get(header_.mode, static_cast<int>(header_.slices.size()));
  std::vector<Action> actions;
  for (int replica = 0; replica < program.topology.replicas.count; ++replica)
    for (const Instruction& instruction : program.rows[static_cast<std::size_t>(replica)])
      if (instruction.kind == InstructionKind::compute && (header_.share < 0 || header_.share == replica))
        actions.push_back(instruction.action);
  return actions;
}

// ---- weights ----

/// By table, ascending, of the host: what layers will read of these micro-batches. They are asked, with entries that
/// are there already: those of the data (check_served()).
std::map<int, at::Tensor> ServedWorker::rows_used(const std::vector<Action>& actions) {
  std::map<int, Tensors> asked;
  StageWeights& held = weights_->of(stage_);
  for (const Action& action : actions) {
    if (action.op != Op::forward) continue;
    const Tensors entries = parts_.feeder->micro_batch(action.micro_batch);
    for (std::size_t layer = 0; layer < held.parameters.size(); ++layer) {
      std::vector<Parameter>& parameters = held.parameters[layer];
      const bool has_table = std::any_of(parameters.begin(), parameters.end(),
                                         [](const Parameter& parameter) { return parameter.is_sparse; });
      if (!has_table) continue;
      Tensors inputs;
      for (const int id : parts_.graph.inputs[layer]) {
        const std::vector<int>& sources = parts_.graph.sources;
        const auto source = std::find(sources.begin(), sources.end(), id) - sources.begin();
        inputs.push_back(entries.at(static_cast<std::size_t>(source)));
      }
      for (Parameter& parameter : parameters)
        if (parameter.is_sparse) parameter.asked_rows = &asked[parameter.index];
      WeightGradQueue queue;
      LayerContext context(parameters, queue, at::Tensor(), /*training=*/false, parts_.stage.precision);
      parts_.graph.layers[layer].layer->forward(inputs, context);
      for (Parameter& parameter : parameters) parameter.asked_rows = nullptr;
    }
  }
  std::map<int, at::Tensor> rows;
  for (std::size_t p = 0; p < holders_.size(); ++p) {
    const int table = static_cast<int>(p);
    if (!parts_.graph.parameters[p].is_sparse) continue;
    Tensors flat;
    for (const at::Tensor& each : asked[table]) flat.push_back(each.reshape({-1}).to(at::kCPU));
    rows[table] = flat.empty() ? at::empty({0}, at::kLong) : std::get<0>(at::_unique2(at::cat(flat), /*sorted=*/true));
  }
  return rows;
}

void ServedWorker::read_weights(const std::vector<Action>& actions) {
  const at::NoGradGuard no_grad;
  rows_ = rows_used(actions);
  ServerRequest request;
  request.kind = header_.mode == Mode::train ? Kind::read : Kind::look;
  request.step = header_.step;
  request.share = header_.share;
  request.first = !std::exchange(has_read_, true);
  for (Server& server : servers_) {
    Tensors rows;
    for (const Slice& part : server.parts)
      if (const ParameterInfo& info = parts_.graph.parameters[static_cast<std::size_t>(part.parameter)]; info.is_sparse)
        rows.push_back(within(rows_.at(part.parameter), rows_of(info, part)));
    ask(server, request, rows);
  }
  std::map<int, Tensors> of_tables;
  for (Server& server : servers_) {
    Tensors values;
    answer(server, &values);
    put_values(server, values, request.first, of_tables);
  }
  for (auto& [table, pieces] : of_tables) {
    const at::Tensor value = pieces.size() == 1 ? pieces.front() : at::cat(pieces);
    for (Parameter* holder : holders_[static_cast<std::size_t>(table)]) {
      holder->value = value.to(parts_.stage.device);
      holder->held_rows = rows_.at(table).to(parts_.stage.device);
    }
  }
}

void ServedWorker::put_values(const Server& server, const Tensors& values, bool all,
                              std::map<int, Tensors>& of_tables) {
  std::size_t next = 0;
  for (const Slice& part : server.parts) {
    const auto p = static_cast<std::size_t>(part.parameter);
    const ParameterInfo& info = parts_.graph.parameters[p];
    if (info.is_sparse)
      of_tables[part.parameter].push_back(values.at(next++));
    else if (info.trainable || all)
      holders_[p].front()->value.copy_(values.at(next++));
  }
  if (&server != &servers_.front()) return;
  for (std::vector<Buffer>& of_layer : weights_->of(stage_).buffers)
    for (Buffer& buffer : of_layer) buffer.value.copy_(values.at(next++));
}

/// A share is an update: of one gradient for each parameter, clipped by its own norm. Else all that has been added up.
void ServedWorker::hand_in() {
  const at::NoGradGuard no_grad;
  Sums sums(holders_.size());
  for (std::size_t p = 0; p < holders_.size(); ++p) {
    if (!parts_.graph.parameters[p].trainable) continue;
    for (Parameter* holder : holders_[p]) {
      sums[p].push_back(holder->add_up());
      for (GroupSum& sum : sums[p].back()) {
        sum.sum.values = sum.sum.values.to(at::kCPU);
        if (sum.sum.rows.defined()) sum.sum.rows = sum.sum.rows.to(at::kCPU);
      }
    }
  }
  RowResult& result = current_->result;
  if (by_shares()) result.norm = clip(sums);
  ServerRequest request;
  request.kind = Kind::update;
  request.step = header_.step;
  request.share = header_.share;
  request.learning_rate = header_.learning_rate;
  for (Server& server : servers_) ask(server, request, gradients_for(server, sums));
  for (Server& server : servers_) {
    const std::int64_t staleness = answer(server).staleness;
    if (staleness < 0) continue;
    result.staleness.resize(std::max(result.staleness.size(), static_cast<std::size_t>(staleness) + 1));
    ++result.staleness[static_cast<std::size_t>(staleness)];
  }
}

NormParts ServedWorker::clip(Sums& sums) const {
  NormParts norm;
  for (std::size_t p = 0; p < sums.size(); ++p) {
    Gradient all;
    for (std::vector<GroupSum>& of_holder : std::exchange(sums[p], {}))
      for (GroupSum& sum : of_holder) all = all.values.defined() ? sum_of(std::move(all), sum.sum) : std::move(sum.sum);
    if (!parts_.graph.parameters[p].trainable) continue;
    if (!all.values.defined()) refuse_unused(parts_.graph, static_cast<int>(p));
    norm.parameters.push_back(static_cast<int>(p));
    norm.blocks.push_back(SquaredNorms::kWhole);
    norm.squares.push_back(squared_norm(all.values));
    sums[p].push_back({{0, std::move(all)}});
  }
  if (const double coefficient = clip_coefficient(norm); !(coefficient >= 1.0))
    for (auto& of_parameter : sums)
      for (std::vector<GroupSum>& of_holder : of_parameter) of_holder.front().sum.values.mul_(coefficient);
  return norm;
}

/// As torch.nn.utils.clip_grad_norm_: max_norm / (norm + 1e-6), here 1 where nothing is clipped.
double ServedWorker::clip_coefficient(const NormParts& norm) const {
  return parts_.clip_grad_norm > 0 ? parts_.clip_grad_norm / (norm_of(norm) + 1e-6) : 1.0;
}

Tensors ServedWorker::gradients_for(const Server& server, const Sums& sums) {
  std::vector<std::int64_t> numbers;
  Tensors message = {at::Tensor()};
  for (std::size_t at = 0; at < server.parts.size(); ++at) {
    const Slice& part = server.parts[at];
    const auto p = static_cast<std::size_t>(part.parameter);
    const ParameterInfo& info = parts_.graph.parameters[p];
    for (std::size_t holder = 0; holder < sums[p].size(); ++holder)
      for (const GroupSum& sum : sums[p][holder]) {
        numbers.insert(numbers.end(), {static_cast<std::int64_t>(at), static_cast<std::int64_t>(holder), sum.first});
        if (!info.is_sparse) {
          message.push_back(sum.sum.values);
          continue;
        }
        const ElementRange range = rows_of(info, part);
        const at::Tensor rows = within(sum.sum.rows, range);
        const std::int64_t first = within(sum.sum.rows, {0, range.begin}).numel();
        message.push_back(sum.sum.values.narrow(0, first, rows.numel()));
        const at::Tensor read = within(rows_.at(part.parameter), range);
        message.push_back(rows.equal(read) ? at::Tensor() : rows);
      }
  }
  message.front() = at::tensor(numbers, at::kLong).view({-1, 3});
  if (&server != &servers_.front()) return message;
  const Tensors statistics = stages_->take_statistics(stage_);
  for (const at::Tensor& tensor : statistics) message.push_back(tensor.defined() ? tensor.to(at::kCPU) : tensor);
  return message;
}

NormParts ServedWorker::settle() {
  ServerRequest request;
  request.step = header_.step;
  request.kind = Kind::squares;
  NormParts norm;
  for (const ServerReply& reply : ask_all(request)) {
    norm.parameters.insert(norm.parameters.end(), reply.squares.parameters.begin(), reply.squares.parameters.end());
    norm.blocks.insert(norm.blocks.end(), reply.squares.blocks.begin(), reply.squares.blocks.end());
    norm.squares.insert(norm.squares.end(), reply.squares.squares.begin(), reply.squares.squares.end());
  }
  request.kind = Kind::settle;
  request.learning_rate = header_.learning_rate;
  request.coefficient = clip_coefficient(norm);
  ask_all(request);
  return norm;
}

}  // namespace lockstep
