// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/predictor.hpp"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/session/prepared_job.hpp"
#include "runtime/training/data_record.hpp"
#include "runtime/training/not_finite.hpp"
#include "runtime/training/request_dataset.hpp"

namespace lockstep {

/// The workers, on a thread of their own.
class Predictor::Job : public Observer {
 public:
  Job(Process& process, ConfigSource source, const std::string& checkpoint, const AnswerOptions& options, bool averaged,
      const std::vector<NamedTensor>& like)
      : requests_(std::make_shared<RequestDataset>(like)) {
    source.data = [requests = requests_, checkpoint] {
      const TrainedOn trained = trained_on(checkpoint);
      DataSplits data{.train = absent_dataset(requests, trained.samples), .eval = requests};
      data.record = trained.record;
      data.inputs.emplace();
      return data;
    };
    if (source.config)
      source.config->replicas = {};
    else
      source.overrides.push_back("replicas={count: 1}");
    job_ = prepare_job(process, source,
                       {.resume = checkpoint, .flag = "checkpoint", .evaluates = true, .averaged = averaged});
    Trainer& trainer = *job_.trainer;
    forms_ = trainer.prepare_answers(options, source.registry(trainer.config()).activations);
    process.connect(trainer);
    thread_ = std::thread([this] { run(); });
  }
  ~Job() override {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  std::vector<NamedTensor> predict(const std::vector<NamedTensor>& rows) {
    std::unique_lock lock(mutex_);
    if (error_) std::rethrow_exception(error_);
    answers_ = {};
    answers_.heads.resize(forms_.size());
    requests_->add(rows);
    changed_.notify_all();
    changed_.wait(lock, [&] { return error_ || answers_.samples == rows_of(rows); });
    if (error_) std::rethrow_exception(error_);
    return tensors_of(forms_, answers_);
  }

  void on_result(const StepResult& result) override {
    if (result.mode != Mode::evaluate || !result.non_finite.found()) return;
    const std::lock_guard lock(mutex_);
    not_finite_ = describe(result.non_finite, job_.trainer->graph());
  }

 private:
  void run() {
    try {
      RunOptions options;
      options.observer = this;
      job_.trainer->answer([this](const Answers& answers) { take(answers); }, options,
                           [this](const WaitLimits& limits) { return wait(limits); });
      const std::lock_guard lock(mutex_);
      if (!ends_)
        error_ = std::make_exception_ptr(
            UserError(concat("an answer is not finite: ", not_finite_, "; look at these inputs")));
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
    changed_.notify_all();
  }

  void take(const Answers& answers) {
    const std::lock_guard lock(mutex_);
    for (std::size_t head = 0; head < forms_.size(); ++head)
      answers_.heads[head].insert(answers_.heads[head].end(), answers.heads[head].begin(), answers.heads[head].end());
    answers_.samples += answers.samples;
    answered_ = answers.first + answers.samples;
    changed_.notify_all();
  }

  std::optional<double> wait(const WaitLimits& limits) {
    bool more = false;
    const double idle_us = idle_until(limits, [&](std::chrono::milliseconds time) {
      std::unique_lock lock(mutex_);
      return changed_.wait_for(lock, time, [&] {
        more = requests_->size() > answered_;
        return more || ends_;
      });
    });
    return more ? std::optional(idle_us) : std::nullopt;
  }

  std::shared_ptr<RequestDataset> requests_;
  PreparedJob job_;
  std::vector<AnswerForm> forms_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Answers answers_;
  std::int64_t answered_ = 0;
  std::string not_finite_;
  std::exception_ptr error_;
  bool ends_ = false;
  std::thread thread_;
};

Predictor::Predictor(Process& process, ConfigSource source, std::string checkpoint, const AnswerOptions& options,
                     bool averaged)
    : process_(process),
      source_(std::move(source)),
      checkpoint_(std::move(checkpoint)),
      options_(options),
      averaged_(averaged) {
  if (process.size() > 1)
    throw UserError(concat("a Predictor in one of ", process.size(),
                           " processes of a launcher, expected one process; under mpirun there is lockstep predict"));
}

Predictor::~Predictor() = default;

std::vector<NamedTensor> Predictor::predict(const std::vector<NamedTensor>& inputs) {
  rows_of(inputs);  // throws when they are none
  if (!job_) job_ = std::make_unique<Job>(process_, source_, checkpoint_, options_, averaged_, inputs);
  return job_->predict(inputs);
}

}  // namespace lockstep
