// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/batch_reader.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/base/clock.hpp"

namespace lockstep {
namespace {

std::int64_t sum_of(const std::vector<std::int64_t>& slices, int begin, int end) {
  return std::accumulate(slices.begin() + begin, slices.begin() + end, std::int64_t{0});
}

double denominator_of(const Loss& loss, const GraphHead& head, const Tensors& batch) {
  const at::Tensor& targets = batch[static_cast<std::size_t>(head.source)];
  if (head.weights < 0) return loss.denominator(targets);
  const at::Tensor weights = batch[static_cast<std::size_t>(head.weights_source)].to(at::kDouble);
  return (loss.denominators(targets) * weights).sum().item<double>();
}

}  // namespace

BatchReader::BatchReader(const Assembly& assembly, std::optional<int> replica)
    : assembly_(assembly),
      targets_(assembly.graph, assembly.losses),
      sampler_(assembly.sampler()),
      epoch_(sampler_.epoch_size()),
      last_(sampler_.position_of(assembly.config.train.steps + 1, assembly.config.train.batch)),
      replica_(replica),
      takes_shares_(replica && assembly.config.replicas.has_servers()) {}

const Dataset& BatchReader::dataset(const BatchKey& key) const {
  return key.mode == Mode::train ? *assembly_.data.train : evaluation_set(assembly_.data, key.set);
}

std::int64_t BatchReader::full_batch(Mode mode) const {
  const TrainConfig& train = assembly_.config.train;
  return mode == Mode::train ? train.batch : train.rows_of_evaluation();
}

/// No batch straddles epochs.
BatchKey BatchReader::key_of(Mode mode, int set, std::int64_t position) const {
  BatchKey key{mode, set, position, 0};
  const std::int64_t size = mode == Mode::train ? epoch_ : dataset(key).size();
  key.rows = std::min(full_batch(mode), size - position % size);
  // Answers: every micro-batch is whole.
  if (const std::int64_t whole = assembly_.answer_rows; whole > 0) key.rows = (key.rows + whole - 1) / whole * whole;
  return key;
}

/// An evaluation batch may be smaller than the number of micro-batches.
std::vector<std::int64_t> BatchReader::slices_of(const BatchKey& key) const {
  const std::int64_t batch = full_batch(key.mode);
  return slice_rows(batch, static_cast<int>(std::min<std::int64_t>(assembly_.config.train.micro_batches, batch)),
                    key.rows);
}

std::optional<BatchKey> BatchReader::after(const BatchKey& key) const {
  const std::int64_t next = key.position + key.rows;
  if (next >= (key.mode == Mode::train ? last_ : dataset(key).size())) return std::nullopt;
  return key_of(key.mode, key.set, next);
}

TermRange BatchReader::mine(const std::vector<std::int64_t>& slices) const {
  const int count = static_cast<int>(slices.size());
  return replica_ ? assembly_.partition.topology.replicas.micro_batches_of(*replica_, count) : TermRange{0, count};
}

Tensors BatchReader::read(const BatchKey& key) {
  const std::vector<std::int64_t> slices = slices_of(key);
  const TermRange range = mine(slices);
  const std::int64_t before = sum_of(slices, 0, range.begin), rows = sum_of(slices, range.begin, range.end);
  const Dataset& data = dataset(key);
  std::vector<std::int64_t> samples(static_cast<std::size_t>(rows));
  std::optional<std::int64_t> drawn;
  if (key.mode == Mode::train) {
    const std::lock_guard lock(sampling_);
    const std::vector<std::int64_t> all = sampler_.batch(key.position, key.rows);
    std::copy_n(all.begin() + before, rows, samples.begin());
    drawn = key.position + before;
  } else {
    std::iota(samples.begin(), samples.end(), key.position + before);
    for (std::int64_t& sample : samples) sample = std::min(sample, data.size() - 1);  // answers
  }
  Tensors entries = read_samples(data, samples, drawn);
  targets_.check_batch(data, samples, entries);
  return entries;
}

bool BatchReader::reads_ahead(const BatchKey& key) const {
  return assembly_.config.workers.readers > 0 && !dataset(key).is_in_memory() && !takes_shares_;
}

/// Unless it is there.
void BatchReader::take(const BatchKey& key) {
  if (here_ == key) return;
  here_.reset();
  const double start_us = now_us();
  if (reads_ahead(key)) {
    if (!ahead_) {
      const WorkersConfig& workers = assembly_.config.workers;
      const int threads = dataset(key).reads_in_parallel() ? workers.readers : 1;
      ahead_.emplace(ReadAhead::Options{threads, std::max(workers.read_ahead, threads),
                                        [this](const BatchKey& wanted) { return read(wanted); },
                                        [this](const BatchKey& last) { return after(last); }});
    }
    batch_ = {};  // before the next one is paid for
    batch_ = ahead_->get(key);
  } else {
    batch_ = read(key);
  }
  waited_us_ += now_us() - start_us;
  here_ = key;
  slices_ = slices_of(key);
  first_slice_ = mine(slices_).begin;
}

void BatchReader::open(StepHeader& header, std::int64_t position) {
  const BatchKey key = key_of(header.mode, header.set, position);
  header.position = position;
  header.slices = slices_of(key);
  for (const GraphHead& head : assembly_.graph.heads) header.heads.push_back({0.0, 1.0, head.weight});
  // Who computes a share that is an update knows its denominators.
  if (header.mode == Mode::train && assembly_.config.replicas.updates_by_shares()) return;
  take(key);
  const std::vector<double> of_heads = denominators();
  for (std::size_t head = 0; head < of_heads.size(); ++head) header.heads[head].denominator = of_heads[head];
}

/// A batch whose targets are all ignored has no loss and no gradient; 0 / 1 says so without a NaN.
std::vector<double> BatchReader::denominators() {
  std::vector<double> denominators;
  for (std::size_t head = 0; head < assembly_.losses.size(); ++head) {
    const double denominator = denominator_of(*assembly_.losses[head], assembly_.graph.heads[head], batch_);
    denominators.push_back(denominator > 0 ? denominator : 1.0);
  }
  return denominators;
}

void BatchReader::begin(const StepHeader& header) {
  if (takes_shares_) {
    const std::optional<int> replica = header.share < 0 ? std::nullopt : std::optional(header.share);
    if (replica != std::exchange(replica_, replica)) here_.reset();
  }
  take(key_of(header.mode, header.set, header.position));
}

Tensors BatchReader::micro_batch(int micro_batch) {
  const std::int64_t start = sum_of(slices_, first_slice_, micro_batch);
  Tensors entries;
  for (const at::Tensor& entry : batch_) entries.push_back(entry.narrow(0, start, slices_[micro_batch]).contiguous());
  return entries;
}

std::optional<StepResult> EvaluationSum::add(const StepResult& batch) {
  if (batch.set != 0) return std::nullopt;
  sum_.add(batch);
  if (!batch.last_of_evaluation) return std::nullopt;
  return std::exchange(sum_, {});
}

StepHeader EvaluationPass::next(std::int64_t step) {
  StepHeader header;
  header.mode = Mode::evaluate;
  header.step = step;
  header.set = set_;
  reader_.open(header, position_);
  position_ += sum_of(header.slices, 0, static_cast<int>(header.slices.size()));
  ++batches_;
  const DataSplits& data = assembly_.data;
  header.last_of_evaluation =
      position_ >= evaluation_set(data, set_).size() || batches_ == assembly_.config.train.eval_steps;
  if (header.last_of_evaluation) {
    position_ = batches_ = 0;
    set_ = (set_ + 1) % evaluation_sets(data);
  }
  return header;
}

}  // namespace lockstep
