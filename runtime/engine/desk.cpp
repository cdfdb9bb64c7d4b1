// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/desk.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"

namespace lockstep {

Desk::Desk(Decider& decider, const Metrics& metrics, Options options)
    : decider_(decider),
      results_(metrics),
      options_(std::move(options)),
      book_(by_shares() ? options_.max_staleness + 1 : options_.workers, /*settles=*/!by_shares()) {}

Desk::Run& Desk::run_of(std::int64_t sequence) {
  const auto run =
      std::find_if(runs_.begin(), runs_.end(), [=](const Run& of) { return of.header.sequence == sequence; });
  LOCKSTEP_CHECK(run != runs_.end(), "run ", sequence, " is not at work");
  return *run;
}

void Desk::ask(int worker, const std::string& done, const std::vector<WorkerReport>& servers) {
  waiting_.push_back(worker);
  if (done.empty()) return;
  const auto of = at_work_.find(worker);
  LOCKSTEP_CHECK(of != at_work_.end(), "worker ", worker, " has done what it was not told to do");
  Run& run = run_of(of->second);
  at_work_.erase(of);
  run.rows.push_back(RowResult::from_bytes(done));
  std::vector<std::string>& saved = run.rows.back().saved;
  std::move(saved.begin(), saved.end(), std::back_inserter(saved_));
  run.servers.insert(run.servers.end(), servers.begin(), servers.end());
  run.is_done = run.header.mode != Mode::train || book_.done(worker);
  finish_runs();
}

void Desk::leave(int worker, const std::string& why) {
  left_.insert(worker);
  std::erase(waiting_, worker);
  if (const auto of = at_work_.find(worker); of != at_work_.end()) {
    if (run_of(of->second).header.mode != Mode::train) to_hand_out_.push_front(of->second);
    at_work_.erase(of);
  }
  book_.leave(worker);
  if (why.empty()) return;
  if (first_failure_.empty()) first_failure_ = why;
  const int left = options_.workers - static_cast<int>(left_.size());
  if (left == 0) throw Error(concat("no worker is left; the first failed like this: ", first_failure_));
  options_.log.error(concat("worker ", worker, " has failed, ", left, left == 1 ? " goes" : " go",
                            " on without it, and what it had to do is done again: ", why));
}

/// Completes results from the front, so that they are told in order.
void Desk::finish_runs() {
  while (!runs_.empty() && runs_.front().is_done) {
    Run run = std::move(runs_.front());
    runs_.pop_front();
    if (run.header.mode != Mode::train && run.header.mode != Mode::evaluate) continue;
    StepResult result = merged(std::move(run));
    if (options_.observer) options_.observer->on_result(result);
    for (const int teller : options_.tellers) untold_[teller].push_back(result);
    finished_.push_back(std::move(result));
  }
}

StepResult Desk::merged(Run run) {
  StepResult result = result_of(run.header);
  const double now = now_us();
  result.elapsed_us = now - std::exchange(last_end_us_, now);
  double squares = 0;
  int shares = 0;
  std::map<int, RowResult> by_row;
  for (int row = 0; row < options_.workers + options_.servers; ++row) {  // those without a share too
    by_row[row].report.row = row;
    by_row[row].report.is_server = row >= options_.workers;
  }
  for (RowResult& row : run.rows) {
    for (std::size_t i = 0; i < row.staleness.size(); ++i) {
      result.staleness.resize(std::max(result.staleness.size(), row.staleness.size()));
      result.staleness[i] += row.staleness[i];
    }
    if (!row.denominators.empty()) {  // a share that was an update by itself
      if (shares == 0)
        for (HeadLoss& head : result.heads) head.denominator = 0;
      for (std::size_t head = 0; head < row.denominators.size(); ++head)
        result.heads[head].denominator += row.denominators[head];
      squares += std::pow(norm_of(row.norm), 2);
      ++shares;
      row.norm = {};
    }
    RowResult& all = by_row.at(row.report.row);
    add_to(all.report, row.report);
    all.losses.insert(all.losses.end(), row.losses.begin(), row.losses.end());
    all.metrics.insert(all.metrics.end(), row.metrics.begin(), row.metrics.end());
    all.non_finite = first_of(all.non_finite, row.non_finite);
    all.signalled = all.signalled || row.signalled;
    if (all.norm.parameters.empty()) all.norm = row.norm;
  }
  for (const WorkerReport& server : run.servers) add_to(by_row.at(server.row).report, server);
  std::vector<RowResult> rows;
  for (auto& [number, row] : by_row) rows.push_back(std::move(row));
  results_.complete(result, std::move(rows));
  if (shares > 0) result.gradient_norm = std::sqrt(squares / shares);
  return result;
}

void Desk::open(StepHeader header) {
  if (sequence_ < 0) last_end_us_ = now_us();
  header.sequence = ++sequence_;
  if (header.mode == Mode::train) {
    int shares = 0;
    for (int replica = 0; replica < options_.replicas.count; ++replica) {
      const TermRange mine = options_.replicas.micro_batches_of(replica, static_cast<int>(header.slices.size()));
      shares += mine.begin < mine.end ? 1 : 0;
    }
    book_.open(header.step, shares);
    saves_ = std::exchange(header.save, false);
    save_step_ = header.step;
  } else {
    to_hand_out_.push_back(header.sequence);
  }
  runs_.push_back({std::move(header), {}, {}});
}

/// Opens what comes next; whether it could.
bool Desk::decide(const WaitLimits& limits) {
  if (stop_) return false;
  if (saves_ && runs_.empty()) {  // whole mini-batches are in
    StepHeader save;
    save.mode = Mode::flush;
    save.step = save_step_;
    save.save = true;
    saves_ = false;
    open(std::move(save));
    return true;
  }
  if (saves_) return false;
  if (!decided_) {
    if (!saved_.empty()) decider_.saved(std::exchange(saved_, {}));
    for (StepResult& result : std::exchange(finished_, {})) decider_.take(result);
    decided_ = decider_.next(limits);
  }
  const bool goes_on = !runs_.empty() && runs_.back().header.mode == decided_->mode &&
                       (decided_->mode == Mode::train || decided_->mode == Mode::evaluate);
  if (!runs_.empty() && !goes_on) return false;
  if (decided_->mode == Mode::stop) {
    stop_ = std::move(decided_);
    if (options_.observer) options_.observer->on_stop(stop_->stop);
    return false;
  }
  open(*std::exchange(decided_, std::nullopt));
  return true;
}

std::optional<StepHeader> Desk::next_for(int worker, const WaitLimits& limits) {
  do {
    if (!to_hand_out_.empty()) {
      const std::int64_t sequence = to_hand_out_.front();
      to_hand_out_.pop_front();
      at_work_[worker] = sequence;
      return run_of(sequence).header;
    }
    if (const std::optional<Share> share = book_.take(worker)) {
      const auto run = std::find_if(runs_.begin(), runs_.end(), [&](const Run& of) {
        return of.header.mode == Mode::train && of.header.step == share->step;
      });
      at_work_[worker] = run->header.sequence;
      StepHeader header = run->header;
      header.share = share->share;
      return header;
    }
    if (!book_.is_empty()) return std::nullopt;  // as many are under way as may be
  } while (decide(limits));
  return stop_;
}

std::vector<Desk::Order> Desk::orders(const WaitLimits& limits) {
  std::vector<Order> orders;
  while (!waiting_.empty()) {
    const int worker = waiting_.front();
    std::optional<StepHeader> header = next_for(worker, limits);
    if (!header) break;
    waiting_.pop_front();
    if (const auto untold = untold_.find(worker); untold != untold_.end())
      header->finished = std::exchange(untold->second, {});
    orders.push_back({worker, std::move(*header)});
  }
  return orders;
}

}  // namespace lockstep
