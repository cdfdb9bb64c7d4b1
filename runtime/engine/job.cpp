// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/job.hpp"

#include <ATen/Parallel.h>

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "runtime/base/check.hpp"
#include "runtime/comm/local_channel.hpp"
#include "runtime/engine/served_worker.hpp"
#include "runtime/engine/server.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

std::string host_name() {
  char name[64] = "";
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

class Job {
 public:
  explicit Job(const JobSpec& spec) : spec_(spec), edges_(spec.programs.get(Mode::stop, 0).edges) {}

  JobOutcome run() {
    make_channels();
    make_recorders();
    for (int row = 0; row < rows(); ++row)
      if (is_here(row)) rows_.push_back(make_row(row));
    std::vector<std::thread> threads;
    std::size_t next = 0;
    for (int row = 0; row < rows(); ++row) {
      if (!is_here(row)) continue;
      const Cpus cpus = spec_.cpus.empty() ? Cpus{} : spec_.cpus[next];
      threads.emplace_back(
          [this, row, worker = rows_[next++].get(), cpus] { run_worker(*worker, *recorders_[row], cpus); });
    }
    for (std::thread& thread : threads) thread.join();
    if (first_error_) std::rethrow_exception(first_error_);
    if (heartbeats_) heartbeats_->finish();
    return outcome();
  }

 private:
  int rows() const { return static_cast<int>(spec_.layout.rank_of_row.size()); }
  RankId rank(WorkerId row) const { return spec_.layout.rank_of_row[row.value()]; }
  bool is_here(int row) const { return rank(WorkerId(row)) == spec_.layout.here; }

  void make_channels() {
    for (int row = 0; row < rows(); ++row)
      pools_.push_back(is_here(row) ? std::make_unique<MemoryPool>(spec_.memory_limit, spec_.devices[row]) : nullptr);
    std::map<std::pair<RankId, RankId>, int> edges_between;
    by_row_.assign(rows(), std::vector<Channel*>(edges_.size(), nullptr));
    for (std::size_t e = 0; e < edges_.size(); ++e) {
      const Edge& edge = edges_[e];
      const RankId from = rank(edge.from), to = rank(edge.to);
      const int index = edges_between[{from, to}]++;
      std::unique_ptr<Channel> channel;
      if (from == spec_.layout.here && to == spec_.layout.here)
        channel = std::make_unique<LocalChannel>();
      else if (from == spec_.layout.here)
        channel = spec_.remote->sender(to, index, of_layers(edge.kind));
      else if (to == spec_.layout.here)
        channel = spec_.remote->receiver(from, index, of_layers(edge.kind), *pools_[edge.to.value()]);
      else
        continue;
      if (spec_.wrap_channel) channel = spec_.wrap_channel(std::move(channel), static_cast<int>(e));
      by_row_[edge.from.value()][e] = channel.get();
      by_row_[edge.to.value()][e] = channel.get();
      channels_.push_back(std::move(channel));
    }
  }

  void make_recorders() {
    std::vector<Pulse*> pulses;
    for (int row = 0; row < rows(); ++row) {
      std::unique_ptr<FlightRecorder>& recorder = recorders_.emplace_back();
      if (is_here(row)) recorder = make_recorder(row);
      pulses.push_back(recorder ? &recorder->pulse() : nullptr);
    }
    board_ = std::make_unique<PulseBoard>(pulses);
    const std::vector<RankId> ranks = neighbours();
    const auto interval =
        std::clamp(spec_.wait_limit / 8, std::chrono::milliseconds(20), std::chrono::milliseconds(1000));
    if (!ranks.empty()) heartbeats_ = spec_.remote->heartbeats(*board_, ranks, interval);
    for (int row = 0; row < rows(); ++row) watchdogs_.push_back(is_here(row) ? make_watchdog(row) : nullptr);
  }

  std::unique_ptr<FlightRecorder> make_recorder(int row) {
    FlightOwner owner{row, spec_.layout.here.value(), 1, spec_.remote ? spec_.remote->host() : host_name(), ""};
    for (const RankId other : spec_.layout.rank_of_row) owner.ranks = std::max(owner.ranks, other.value() + 1);
    owner.replica = replica_of(row);
    for (const int stage : stages_of(row))
      for (int layer = layers_of(stage).first; layer < layers_of(stage).end; ++layer)
        owner.owns += concat(stage, "\t", layer, "\t", spec_.graph.layers[layer].name, "\n");
    const std::string file =
        spec_.recorder_folder.empty() ? "" : concat(spec_.recorder_folder, "/worker-", row, ".bin");
    auto recorder = std::make_unique<FlightRecorder>(file, owner);
    if (!recorder->warning().empty() && !warned_) {
      warned_ = true;  // once per process
      spec_.log.warn(concat("no flight recorder: ", recorder->warning(), "; `lockstep why` will know less"));
    }
    return recorder;
  }

  std::unique_ptr<Watchdog> make_watchdog(int row) {
    WatchdogOptions options;
    options.row = row;
    options.limit = spec_.wait_limit;
    options.startup = spec_.startup_limit;
    options.save = spec_.save_limit;
    options.who = [this](int other) { return who(other); };
    options.layer = [this](int layer) { return spec_.graph.layers[layer].name; };
    options.log = spec_.log.named(concat("worker ", row));
    return std::make_unique<Watchdog>(*board_, std::move(options));
  }

  LayerRange layers_of(int stage) const { return spec_.partition.layers_of(StageId(stage)); }

  std::vector<int> stages_of(int row) const {
    std::vector<int> stages;
    for (int stage = 0; stage < spec_.partition.stages(); ++stage)
      if (spec_.programs.wiring().row_of_stage[stage].value() == row) stages.push_back(stage);
    return stages;
  }

  std::string who(int row) const {
    std::string stages;
    for (const int stage : stages_of(row)) {
      const int first = layers_of(stage).first, last = layers_of(stage).end - 1;
      stages += concat(stages.empty() ? "" : "; ", "stage ", stage, ": ", spec_.graph.layers[first].name);
      if (last > first) stages += concat(" .. ", spec_.graph.layers[last].name);
    }
    const std::string on = spec_.remote ? concat(", rank ", rank(WorkerId(row))) : "";
    if (row >= first_server()) return concat("server ", row - first_server(), " (row ", row, on, ")");
    const std::string replica = replica_of(row) < 0 ? "" : concat("replica ", replica_of(row), ", ");
    return concat("worker ", row, " (", replica, stages, on, ")");
  }

  /// -1: there is one pipeline.
  int replica_of(int row) const {
    const Topology& topology = spec_.partition.topology;
    const bool has_none = topology.replicas.count == 1 || row >= first_server();
    return has_none ? -1 : topology.replica_of(StageId(stages_of(row).front()));
  }

  std::vector<RankId> neighbours() const {
    std::set<RankId> ranks;
    for (const Edge& edge : edges_)
      for (const auto& [end, other] : {std::pair(edge.from, edge.to), std::pair(edge.to, edge.from)})
        if (rank(end) == spec_.layout.here && rank(other) != spec_.layout.here) ranks.insert(rank(other));
    return {ranks.begin(), ranks.end()};
  }

  /// Rows of servers are the last ones, and the first of them decides.
  int servers() const { return spec_.partition.topology.servers; }
  int first_server() const { return rows() - servers(); }
  int deciding_row() const { return servers() > 0 ? first_server() : 0; }
  /// The first row of each process, but that of the deciding one.
  std::set<int> tellers() const {
    std::map<RankId, int> first;
    for (int row = 0; row < first_server(); ++row) first.try_emplace(rank(WorkerId(row)), row);
    first.erase(rank(WorkerId(deciding_row())));
    std::set<int> rows;
    for (const auto& [on, row] : first) rows.insert(row);
    if (!servers_to_tell().empty()) rows.insert(0);
    return rows;
  }
  /// The first server of each process that has no worker and does not decide: row 0 tells it results.
  std::set<int> servers_to_tell() const {
    std::map<RankId, int> first;
    for (int row = first_server(); row < rows(); ++row) first.try_emplace(rank(WorkerId(row)), row);
    for (int row = 0; row < first_server(); ++row) first.erase(rank(WorkerId(row)));
    first.erase(rank(WorkerId(deciding_row())));
    std::set<int> servers;
    for (const auto& [on, row] : first) servers.insert(row);
    return servers;
  }
  bool observes(int row) const {
    if (servers() == 0) return rows_.empty();
    if (row >= first_server()) return row == deciding_row() || servers_to_tell().contains(row);
    return rank(WorkerId(row)) != rank(WorkerId(deciding_row())) && tellers().contains(row);
  }

  std::unique_ptr<Row> make_row(int row) {
    StageOptions stage = spec_.stage;
    stage.device = spec_.devices[row];
    stage.pulse = &recorders_[row]->pulse();
    stage.links = spec_.remote;
    WorkerParts parts{
        .row = row,
        .graph = spec_.graph,
        .partition = spec_.partition,
        .losses = spec_.losses,
        .programs = spec_.programs,
        .stage = stage,
        .draws = spec_.draws,
        .common = common_of(row),
        .makes_common = is_first_in_memory(row),
        .central = spec_.central_storage,
        .clip_grad_norm = spec_.clip_grad_norm,
        .make_updater = spec_.make_updater,
        .max_staleness = spec_.max_staleness,
        .steps_before = spec_.steps_before,
        .channels = by_row_[row],
        .limits = {&stop_, Watchdog::scan_every(spec_.wait_limit), watchdogs_[row].get(), stage.pulse},
        .decider = row == deciding_row() ? spec_.decider : nullptr,
        .feeder = feeder_of(row),
        .observer = observes(row) ? spec_.observer : nullptr,
        .signalled = spec_.signalled,
        .record_hashes = spec_.record_hashes,
        .measure_products = spec_.measure_products,
        .dump_step = spec_.dump_step,
        .take_dump = spec_.take_dump,
        .keeper = spec_.make_keeper && row >= first_keeping_row() ? spec_.make_keeper(row) : nullptr,
        .tellers = tellers(),
        .tells = row == 0 ? servers_to_tell() : std::set<int>{},
        .pool = pools_[row].get(),
        .spans = span_recorder(row),
        .recorder = recorders_[row].get(),
        .watchdog = watchdogs_[row].get(),
        .log = spec_.log.named(concat("worker ", row)),
    };
    if (servers() == 0) return std::make_unique<Worker>(std::move(parts));
    if (row >= first_server()) return std::make_unique<Server>(std::move(parts));
    return std::make_unique<ServedWorker>(std::move(parts));
  }
  /// Servers have all that is saved.
  int first_keeping_row() const { return servers() > 0 ? first_server() : 0; }

  /// Of the replica whose first stage the row has.
  Feeder* feeder_of(int row) const {
    const Topology& topology = spec_.partition.topology;
    for (int replica = 0; replica < topology.replicas.count; ++replica)
      if (row_of(topology.in_replica(StageId(0), replica)) == row)
        return spec_.feeders.at(static_cast<std::size_t>(replica));
    return nullptr;
  }
  int row_of(StageId stage) const { return spec_.programs.wiring().row_of_stage[index(stage)].value(); }

  /// The rows in the memory of `row` that hold what it holds, ascending: one of each replica there.
  std::vector<int> alike(int row) const {
    const Topology& topology = spec_.partition.topology;
    const Wiring& wiring = spec_.programs.wiring();
    std::vector<int> rows;
    for (int replica = 0; replica < topology.replicas.count; ++replica) {
      const int other = row_of(topology.in_replica(StageId(stages_of(row).front()), replica));
      if (wiring.memory_of(WorkerId(other)) == wiring.memory_of(WorkerId(row))) rows.push_back(other);
    }
    return rows;
  }
  bool is_first_in_memory(int row) const { return servers() == 0 && alike(row).front() == row; }
  CommonPlace* common_of(int row) {
    if (servers() > 0) return nullptr;  // no worker keeps any
    const std::vector<int> rows = alike(row);
    return rows.size() > 1 ? &common_[rows.front()] : nullptr;
  }

  SpanRecorder* span_recorder(int row) {
    if (spec_.record.steps == 0) return nullptr;
    span_recorders_.push_back(std::make_unique<SpanRecorder>(WorkerId(row), spec_.record));
    return span_recorders_.back().get();
  }

  void run_worker(Row& worker, FlightRecorder& recorder, const Cpus& cpus) {
    try {
      bind_this_thread(cpus);
      // OpenMP counts threads per calling thread: every worker has to say it for itself.
      at::init_num_threads();
      at::set_num_threads(spec_.threads);
      worker.run();
      recorder.finish(FlightEnd::done);
    } catch (const JobStopped&) {
      recorder.finish(FlightEnd::stopped);  // somebody else has the story
    } catch (const RowLeft& error) {
      recorder.finish(FlightEnd::failed, error.what());  // the others go on
    } catch (const std::exception& error) {
      recorder.finish(FlightEnd::failed, error.what());
      failed(std::current_exception());
    } catch (...) {
      recorder.finish(FlightEnd::failed, "an exception that is none of the standard library's");
      failed(std::make_exception_ptr(Error("an exception that is none of the standard library's")));
    }
  }

  void failed(std::exception_ptr error) {
    std::lock_guard lock(error_mutex_);
    if (!first_error_) first_error_ = std::move(error);
    stop_.raise();
  }

  JobOutcome outcome() const {
    JobOutcome result;
    for (const auto& row : rows_) row->add_to(result);
    for (const auto& recorder : span_recorders_) {
      Recorded& recorded = result.recorded;
      recorded.spans.insert(recorded.spans.end(), recorder->spans().begin(), recorder->spans().end());
      recorded.memory.insert(recorded.memory.end(), recorder->memory().begin(), recorder->memory().end());
      recorded.cut = recorded.cut || recorder->cut();
    }
    return result;
  }

  const JobSpec& spec_;
  std::vector<Edge> edges_;
  StopFlag stop_;
  std::vector<std::unique_ptr<MemoryPool>> pools_;          // by row; null for other ranks' rows
  std::vector<std::unique_ptr<FlightRecorder>> recorders_;  // the same
  std::unique_ptr<PulseBoard> board_;
  std::unique_ptr<Heartbeats> heartbeats_;            // null when all rows are here
  std::vector<std::unique_ptr<Watchdog>> watchdogs_;  // by row, as pools_
  bool warned_ = false;
  std::vector<std::unique_ptr<Channel>> channels_;
  std::vector<std::vector<Channel*>> by_row_;
  std::vector<std::unique_ptr<SpanRecorder>> span_recorders_;
  std::map<int, CommonPlace> common_;  // by its first row
  std::vector<std::unique_ptr<Row>> rows_;
  std::mutex error_mutex_;
  std::exception_ptr first_error_;
};

}  // namespace

void hash_gradient(std::int64_t step, int parameter, const Gradient& gradient, std::vector<ParameterHash>& hashes,
                   std::optional<ElementRange> elements) {
  const auto add = [&](std::int64_t block, const at::Tensor& tensor) {
    hashes.push_back({step, parameter, Hashed::gradient, static_cast<int>(block), hash_of(tensor)});
  };
  if (gradient.rows.defined()) {
    add(0, gradient.values);
    add(1, gradient.rows);
    return;
  }
  const auto [begin, end] = elements.value_or(ElementRange{0, gradient.values.numel()});
  for (std::int64_t at = begin; at < end; at += kNormBlock)
    add(at / kNormBlock, elements_of(gradient.values, at, std::min(at + kNormBlock, end)));
}

void JobOutcome::add(FinalParameter parameter, const std::string& name, bool trainable) {
  const TensorScan scan = scan_of(parameter.value);
  parameter.hash = scan.hash;
  if (!scan.finite && trainable && not_finite.empty()) not_finite = name + not_finite_element(parameter.value);
  parameters.push_back(std::move(parameter));
}

JobOutcome run_job(const JobSpec& spec) {
  return Job(spec).run();
}

}  // namespace lockstep
