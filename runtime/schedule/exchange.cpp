// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/exchange.hpp"

#include "runtime/schedule/bucket_work.hpp"

namespace lockstep {

namespace {

using Rows = std::vector<WorkerId>;
using Kind = InstructionKind;

Rows rows_between(int first, int end) {
  Rows rows;
  for (int row = first; row < end; ++row) rows.emplace_back(row);
  return rows;
}

/// Writes the lines of the table in exchange.hpp.
class Table {
 public:
  Table(const Topology& topology, const Wiring& wiring, Mode mode, bool clip, bool post_validation)
      : topology_(topology),
        wiring_(wiring),
        mode_(mode),
        clip_(clip),
        post_validation_(clip && post_validation),
        row_0_{WorkerId(0)},
        others_(rows_between(1, wiring.rows)),
        all_(rows_between(0, wiring.rows)) {
    if (topology_.replicas.count == 1 || topology_.servers > 0) return;  // a planner makes thousands of tables
    for (const Bucket& bucket : topology_.buckets) work_.push_back(work_on(bucket, topology_, wiring_));
  }

  std::vector<Exchange> run() {
    if (topology_.servers > 0) {
      const Rows workers = rows_between(0, wiring_.rows - topology_.servers);
      const Rows servers = rows_between(wiring_.rows - topology_.servers, wiring_.rows);
      add(EdgeKind::request, workers, servers);
      add(EdgeKind::reply, servers, workers);
      return std::move(table_);
    }
    headers();
    for (std::size_t i = 0; i < topology_.flows.size(); ++i)
      flow(EdgeKind::value, i, topology_.flows[i].from, topology_.flows[i].to);
    for (std::size_t i = 0; i < topology_.flows.size(); ++i) {
      const Flow& forward = topology_.flows[i];
      if (sends_gradient_back(topology_, forward)) flow(EdgeKind::gradient, i, forward.to, forward.from);
    }
    for (int stage = 0; stage < topology_.stages_of_replica(); ++stage) statistics(stage);
    for (std::size_t i = 0; i < topology_.buckets.size(); ++i) reduce(i);
    for (std::size_t i = 0; i < topology_.shared.size(); ++i) shared(i);
    const bool shards = topology_.replicas.shard_optimizer;
    for (std::size_t i = 0; i < work_.size() && !shards; ++i)
      among(EdgeKind::gather, i, work_[i].sends_of_gradients(), Place::gradients);
    norm();
    scale();
    for (std::size_t i = 0; i < work_.size() && shards; ++i)
      among(EdgeKind::gather, i, work_[i].sends_of_weights(), Place::update);
    for (std::size_t i = 0; i < work_.size(); ++i) among(EdgeKind::ready, i, work_[i].sends_of_word(), Place::update);
    result();
    return std::move(table_);
  }

 private:
  bool trains() const { return mode_ == Mode::train; }
  bool computes() const { return trains() || mode_ == Mode::evaluate; }

  Exchange& add(EdgeKind kind, Rows from, Rows to, int item = -1) {
    Exchange exchange;
    exchange.kind = kind;
    exchange.item = item;
    exchange.from = std::move(from);
    exchange.to = std::move(to);
    return table_.emplace_back(std::move(exchange));
  }

  /// From row 0 to the first row of each replica, and down the rows of each.
  void headers() {
    const int of_replica = wiring_.rows / topology_.replicas.count;
    for (int row = 0; row < wiring_.rows; ++row) {
      Rows to;
      if ((row + 1) % of_replica != 0) to.emplace_back(row + 1);
      for (int first = of_replica; row == 0 && first < wiring_.rows; first += of_replica) to.emplace_back(first);
      if (row > 0 && to.empty()) continue;
      Exchange& header = add(EdgeKind::header, {WorkerId(row)}, std::move(to));
      if (row == 0) header.phases.push_back({Kind::make_header, Place::begin, row_0_});
      for (const Kind what : {Kind::send, Kind::post, Kind::receive}) header.phases.push_back({what, Place::begin});
    }
  }

  void flow(EdgeKind kind, std::size_t item, StageId from, StageId to) {
    Exchange& exchange =
        add(kind, {wiring_.row_of_stage[index(from)]}, {wiring_.row_of_stage[index(to)]}, static_cast<int>(item));
    exchange.stages = {from, to};
    exchange.lanes = wiring_.lanes[item];
    if (kind == EdgeKind::value ? computes() : trains())
      exchange.phases = {{Kind::post, Place::ahead}, {Kind::receive, Place::reader}, {Kind::send, Place::maker}};
  }

  static std::vector<Phase> all_at(Place place) {
    return {{Kind::send, place}, {Kind::post, place}, {Kind::receive, place}};
  }

  /// To and from all replicas of a stage.
  Exchange& among_replicas(EdgeKind kind, StageId stage, int item) {
    Rows rows;
    std::vector<StageId> stages;
    for (int replica = 0; replica < topology_.replicas.count; ++replica) {
      stages.push_back(topology_.in_replica(stage, replica));
      rows.push_back(wiring_.row_of_stage[index(stages.back())]);
    }
    Exchange& exchange = add(kind, rows, rows, item);
    exchange.stages = std::move(stages);
    return exchange;
  }

  void statistics(int stage) {
    if (topology_.replicas.count == 1 || !topology_.has_statistics[static_cast<std::size_t>(stage)]) return;
    Exchange& exchange = among_replicas(EdgeKind::statistics, StageId(stage), stage);
    if (trains()) exchange.phases = all_at(Place::gradients);
  }

  void reduce(std::size_t item) {
    if (topology_.replicas.groups == 1) return;
    Exchange& exchange = among_replicas(EdgeKind::reduce, topology_.buckets[item].stage, static_cast<int>(item));
    if (trains())
      exchange.phases = {{Kind::send, Place::last_weight_grad},
                         {Kind::post, Place::last_weight_grad},
                         {Kind::receive, Place::gradients},
                         {Kind::reduce, Place::gradients, exchange.from}};
  }

  void among(EdgeKind kind, std::size_t item, std::vector<BucketWork::Rows> pairs, Place place) {
    if (pairs.empty()) return;
    Exchange& exchange = add(kind, work_[item].rows, work_[item].rows, static_cast<int>(item));
    exchange.pairs = std::move(pairs);
    if (trains()) exchange.phases = all_at(place);
  }

  void shared(std::size_t item) {
    const Shared& of = topology_.shared[item];
    const Rows rows = rows_holding(of, wiring_);
    Exchange& exchange = add(EdgeKind::shared, rows, rows, static_cast<int>(item));
    exchange.stages = of.holders;
    if (!trains()) return;
    switch (of.algorithm) {
      case Shared::Algorithm::all_to_all:
        exchange.phases = {{Kind::post, Place::gradients},
                           {Kind::send, Place::gradients},
                           {Kind::receive, Place::gradients},
                           {Kind::shared_sum, Place::gradients, rows}};
        break;
    }
  }

  void norm() {
    Exchange& norm = add(EdgeKind::norm, others_, row_0_);
    if (!trains()) return;
    if (!clip_) {
      norm.phases = {{Kind::norm_parts, Place::norm, all_}};
      return;
    }
    norm.phases = {{Kind::post, Place::norm},
                   {Kind::norm_parts, Place::norm, all_},
                   {Kind::send, Place::norm},
                   {Kind::receive, Place::total},
                   {Kind::norm_total, Place::total, row_0_}};
  }

  void scale() {
    Exchange& scale = add(EdgeKind::scale, row_0_, others_);
    if (!trains()) return;
    if (clip_) scale.phases = {{Kind::send, Place::total}, {Kind::post, Place::total}, {Kind::receive, Place::total}};
    scale.phases.push_back({Kind::update, post_validation_ ? Place::norm : Place::update, all_});
    if (post_validation_) scale.phases.push_back({Kind::amend, Place::update, all_});
  }

  void result() {
    Exchange& result = add(EdgeKind::result, others_, row_0_);
    if (mode_ != Mode::stop)
      result.phases = {{Kind::post, Place::begin}, {Kind::send, Place::first_compute}, {Kind::receive, Place::end}};
  }

  const Topology& topology_;
  const Wiring& wiring_;
  const Mode mode_;
  const bool clip_, post_validation_;
  const Rows row_0_, others_, all_;
  std::vector<BucketWork> work_;  // by bucket, where there are several replicas
  std::vector<Exchange> table_;
};

}  // namespace

std::vector<Exchange> exchanges_of(const Topology& topology, const Wiring& wiring, Mode mode, bool clip,
                                   bool post_validation) {
  return Table(topology, wiring, mode, clip, post_validation).run();
}

}  // namespace lockstep
