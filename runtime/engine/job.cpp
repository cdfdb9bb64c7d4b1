// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/job.hpp"

#include <ATen/Parallel.h>

#include <exception>
#include <mutex>
#include <thread>

#include "runtime/base/check.hpp"
#include "runtime/comm/local_channel.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

class Job {
 public:
  explicit Job(const JobSpec& spec) : spec_(spec), edges_(spec.programs.get(Mode::stop, 0).edges) {}

  JobOutcome run() {
    make_channels();
    for (int row = 0; row < rows(); ++row)
      if (is_here(row)) workers_.push_back(make_worker(row));
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      const Cpus cpus = spec_.cpus.empty() ? Cpus{} : spec_.cpus[i];
      threads.emplace_back([this, &worker = *workers_[i], cpus] { run_worker(worker, cpus); });
    }
    for (std::thread& thread : threads) thread.join();
    if (first_error_) std::rethrow_exception(first_error_);
    return outcome();
  }

 private:
  int rows() const { return static_cast<int>(spec_.layout.rank_of_row.size()); }
  RankId rank(WorkerId row) const { return spec_.layout.rank_of_row[row.value()]; }
  bool is_here(int row) const { return rank(WorkerId(row)) == spec_.layout.here; }

  void make_channels() {
    for (int row = 0; row < rows(); ++row) pools_.push_back(is_here(row) ? std::make_unique<MemoryPool>() : nullptr);
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
        channel = spec_.remote->sender(to, index);
      else if (to == spec_.layout.here)
        channel = spec_.remote->receiver(from, index, *pools_[edge.to.value()]);
      else
        continue;
      if (spec_.wrap_channel) channel = spec_.wrap_channel(std::move(channel), static_cast<int>(e));
      by_row_[edge.from.value()][e] = channel.get();
      by_row_[edge.to.value()][e] = channel.get();
      channels_.push_back(std::move(channel));
    }
  }

  std::unique_ptr<Worker> make_worker(int row) {
    StageOptions stage = spec_.stage;
    stage.device = spec_.devices[row];
    const bool first_here = workers_.empty();
    WorkerParts parts{row,
                      spec_.graph,
                      spec_.partition,
                      spec_.losses,
                      spec_.programs,
                      stage,
                      spec_.clip_grad_norm,
                      spec_.make_updater(),
                      by_row_[row],
                      {&stop_, spec_.wait_limit},
                      row == 0 ? spec_.director : nullptr,
                      first_here ? spec_.observer : nullptr,
                      spec_.signalled,
                      spec_.record_hashes,
                      spec_.make_keeper ? spec_.make_keeper(row) : nullptr,
                      pools_[row].get(),
                      span_recorder(row),
                      spec_.log.named(concat("worker ", row))};
    return std::make_unique<Worker>(std::move(parts));
  }

  SpanRecorder* span_recorder(int row) {
    if (spec_.record.steps == 0) return nullptr;
    span_recorders_.push_back(std::make_unique<SpanRecorder>(WorkerId(row), spec_.record));
    return span_recorders_.back().get();
  }

  void run_worker(Worker& worker, const Cpus& cpus) {
    try {
      bind_this_thread(cpus);
      // OpenMP counts threads per calling thread: every worker has to say it for itself.
      at::init_num_threads();
      at::set_num_threads(spec_.threads);
      worker.run();
    } catch (const JobStopped&) {
      // Somebody else has the story.
    } catch (...) {
      std::lock_guard lock(error_mutex_);
      if (!first_error_) first_error_ = std::current_exception();
      stop_.raise();
    }
  }

  JobOutcome outcome() const {
    JobOutcome result;
    for (const auto& worker : workers_) {
      for (const Parameter* parameter : worker->parameters())
        result.parameters.push_back({parameter->index, hash_of(parameter->value), parameter->value});
      for (const Buffer* buffer : worker->buffers())
        result.buffers.push_back({buffer->index, hash_of(buffer->value), buffer->value});
      result.hashes.insert(result.hashes.end(), worker->hashes().begin(), worker->hashes().end());
    }
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
  std::vector<std::unique_ptr<MemoryPool>> pools_;  // by row; null for other ranks' rows
  std::vector<std::unique_ptr<Channel>> channels_;
  std::vector<std::vector<Channel*>> by_row_;
  std::vector<std::unique_ptr<SpanRecorder>> span_recorders_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::mutex error_mutex_;
  std::exception_ptr first_error_;
};

}  // namespace

JobOutcome run_job(const JobSpec& spec) {
  return Job(spec).run();
}

}  // namespace lockstep
