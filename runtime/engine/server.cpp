// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/server.hpp"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "runtime/base/clock.hpp"
#include "runtime/comm/backoff.hpp"
#include "runtime/engine/results.hpp"
#include "runtime/engine/say_where.hpp"

namespace lockstep {

using Kind = ServerRequest::Kind;

Server::Server(WorkerParts parts)
    : parts_(std::move(parts)),
      program_(&parts_.programs.get(Mode::stop, 0)),
      number_(parts_.row - (program_->workers() - parts_.partition.topology.servers)),
      clients_(static_cast<std::size_t>(program_->workers() - parts_.partition.topology.servers)),
      gate_(parts_.max_staleness, parts_.partition.topology.replicas.count, parts_.steps_before),
      updates_(parts_.steps_before) {
  for (std::size_t e = 0; e < program_->edges.size(); ++e) {
    const Edge& edge = program_->edges[e];
    if (edge.to.value() == parts_.row) client(edge.from.value()).request = EdgeId(static_cast<int>(e));
    if (edge.from.value() == parts_.row) client(edge.to.value()).reply = EdgeId(static_cast<int>(e));
  }
  forget_report();
  if (!parts_.decider) return;
  Desk::Options desk;
  desk.workers = static_cast<int>(clients_.size());
  desk.servers = parts_.partition.topology.servers;
  desk.replicas = parts_.partition.topology.replicas;
  desk.max_staleness = parts_.max_staleness;
  desk.tellers = parts_.tellers;
  desk.observer = parts_.observer;
  desk.log = parts_.log;
  desk_.emplace(*parts_.decider, parts_.stage.metrics, std::move(desk));
}

void Server::build() {
  auto parts = parts_of_servers(parts_.graph, parts_.partition.topology.servers, parts_.has_whole_tables());
  ServedWeights::Options options{parts_.stage.seed, parts_.draws, parts_.make_updater, /*has_buffers=*/number_ == 0};
  weights_.emplace(parts_.graph, std::move(parts[static_cast<std::size_t>(number_)]), options, *parts_.pool);
}

void Server::run() {
  const MemoryPool::Scope memory(*parts_.pool);
  say_where([&] { build(); }, [&] { return concat("server ", number_, ", building its part"); });
  if (parts_.keeper && parts_.keeper->restores()) {
    const at::NoGradGuard no_grad;
    parts_.keeper->restore(weights_->state(), parts_.limits);
  }
  for (const Client& each : clients_) parts_.channels[index(each.request)]->post();
  while (left_ < static_cast<int>(clients_.size()))
    if (!look()) wait();
  for (const Client& each : clients_) parts_.channels[index(each.reply)]->finish(parts_.limits);
  if (parts_.observer && !desk_) parts_.observer->on_stop(stop_);
}

/// Whether a message had come.
bool Server::look() {
  bool any = false;
  for (std::size_t worker = 0; worker < clients_.size(); ++worker) {
    const Client& of = clients_[worker];
    if (of.has_left || !parts_.channels[index(of.request)]->arrived()) continue;
    receive(static_cast<int>(worker));
    any = true;
  }
  return any;
}

/// For whoever comes first. Who waits for an answer is told whose turn it is, and waits for that one.
void Server::wait() {
  const int update = gate_.waits_for(), at_work = desk_ ? desk_->waits_for() : -1;
  const int first = update >= 0 ? update : at_work;
  if (first >= 0) parts_.recorder->pulse().turn_to(first);
  Backoff backoff;
  const auto arrived = [&] {
    return std::any_of(clients_.begin(), clients_.end(), [&](const Client& each) {
      return !each.has_left && parts_.channels[index(each.request)]->arrived();
    });
  };
  while (!arrived()) {
    if (parts_.limits.stop->raised()) throw JobStopped();
    if (backoff.spin()) continue;
    if (first >= 0)
      parts_.limits.alive();
    else
      parts_.limits.turn_to(Activity::idle);
    backoff.sleep();
  }
  if (first < 0) parts_.limits.turn_to(Activity::none);
}

std::string Server::where(int worker) const {
  const ServerRequest& asked = clients_[static_cast<std::size_t>(worker)].asked;
  return concat("server ", number_, " (row ", parts_.row, "), ", to_string(asked.kind), " of worker ", worker,
                ", step ", asked.step);
}

/// Counted, and drawn in the timeline.
template <typename Work>
void Server::timed(InstructionKind what, std::int64_t step, const Work& work) {
  const double begin = now_us();
  work();
  const double end = now_us();
  report_.count(what, EdgeKind::reply, begin, end);
  if (parts_.spans) parts_.spans->add(Mode::train, step, {what}, begin, end);
}

void Server::receive(int worker) {
  Client& of = client(worker);
  Channel& channel = *parts_.channels[index(of.request)];
  FlightRecord record = record_of(*program_, {InstructionKind::receive, of.request});
  record.step = step_;
  parts_.recorder->begin(record);
  Message message = channel.receive(parts_.limits);
  channel.post();
  parts_.watchdog->heard_from(worker);
  of.asked = ServerRequest::from_bytes(string_of(message.tensors.at(0)));
  step_ = std::max(step_, of.asked.step);
  message.tensors.erase(message.tensors.begin());
  say_where([&] { serve(worker, std::move(message.tensors)); }, [&] { return where(worker); });
  MemoryPool::check_limit();
  parts_.recorder->end();
}

void Server::serve(int worker, Tensors tensors) {
  Client& of = client(worker);
  const ServerRequest& asked = of.asked;
  if (parts_.observer)
    for (const StepResult& result : asked.results) parts_.observer->on_result(result);
  std::vector<UpdateGate::Let> let;
  ServerReply reply;
  switch (asked.kind) {
    case Kind::work: desk_->ask(worker, asked.text, asked.servers); break;
    case Kind::read:
      of.read = std::move(tensors);
      let = gate_.read(worker);
      break;
    case Kind::look: answer(worker, {}, weights_->values(tensors, asked.first)); break;
    case Kind::update:
      of.update = asked;
      of.gradients = std::move(tensors);
      let = gate_.update(worker, asked.step, asked.share);
      break;
    case Kind::squares:
      timed(InstructionKind::reduce, asked.step, [&] { reply.squares = weights_->squares(); });
      answer(worker, std::move(reply));
      break;
    case Kind::settle: let = gate_.settle(worker, asked.step); break;
    case Kind::save:
      if (parts_.keeper) parts_.keeper->save(asked.step, weights_->state(), parts_.limits);
      answer(worker);
      break;
    case Kind::drain:
      if (parts_.keeper) parts_.keeper->drain(parts_.limits);
      answer(worker);
      break;
    case Kind::leave:
      if (asked.text.empty()) stop_ = static_cast<StopReason>(asked.share);
      let = gate_.leave(worker);
      break;
  }
  for (const UpdateGate::Let& each : let) make(each);
  hand_out();
}

void Server::make(const UpdateGate::Let& let) {
  Client& of = client(let.worker);
  const ServerRequest asked = of.asked;
  switch (let.what) {
    case UpdateGate::What::read: {
      Tensors values;
      timed(InstructionKind::norm_parts, asked.step, [&] { values = weights_->values(of.read, asked.first); });
      answer(let.worker, {}, std::move(values));
      return;
    }
    case UpdateGate::What::update: {
      const bool by_itself = let.makes && parts_.max_staleness > 0;
      ServedWeights::Share share{std::exchange(of.gradients, {}), of.read};
      if (by_itself)
        timed(InstructionKind::update, of.update.step,
              [&] { weights_->update(of.update.learning_rate, ++updates_, share); });
      else if (let.makes)
        weights_->keep(of.update.share, std::move(share));
      ServerReply reply;
      if (by_itself) reply.staleness = let.staleness;
      answer(let.worker, std::move(reply));
      return;
    }
    case UpdateGate::What::settle:
      if (let.makes) timed(InstructionKind::update, asked.step, [&] { settle(asked); });
      answer(let.worker);
      return;
    case UpdateGate::What::leave:
      answer(let.worker);
      of.has_left = true;
      ++left_;
      if (desk_) desk_->leave(let.worker, asked.text);
      return;
  }
}

void Server::settle(const ServerRequest& asked) {
  if (parts_.record_hashes) weights_->hash_sums(asked.step, hashes_);
  weights_->settle(asked.learning_rate, ++updates_, asked.coefficient);
  if (parts_.record_hashes) weights_->hash_values(asked.step, hashes_);
}

void Server::add_to(JobOutcome& outcome) const {
  weights_->add_to(outcome);
  outcome.hashes.insert(outcome.hashes.end(), hashes_.begin(), hashes_.end());
}

/// What workers wait for is there as soon as they do, so this waits for nobody.
void Server::answer(int worker, ServerReply reply, Tensors tensors) {
  Client& of = client(worker);
  if (of.has_left) return;
  if (parts_.keeper) reply.saved = parts_.keeper->take_reports();
  set_peaks(report_, parts_.pool->peak_by_kind());
  reply.report = report_;
  forget_report();
  Message message{0, -1, {tensor_of(reply.to_bytes())}};
  message.tensors.insert(message.tensors.end(), tensors.begin(), tensors.end());
  parts_.channels[index(of.reply)]->send(std::move(message), parts_.limits);
}

void Server::forget_report() {
  report_ = {};
  report_.row = parts_.row;
  report_.is_server = true;
}

void Server::hand_out() {
  if (!desk_) return;
  for (Desk::Order& order : desk_->orders(parts_.limits)) {
    ServerReply reply;
    reply.header = order.header.to_bytes();
    answer(order.worker, std::move(reply));
  }
}

}  // namespace lockstep
