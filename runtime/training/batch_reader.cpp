// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/batch_reader.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace lockstep {

BatchReader::BatchReader(const Assembly& assembly, std::optional<int> replica)
    : assembly_(assembly),
      targets_(assembly.graph, assembly.losses),
      sampler_(assembly.data.train->size(), assembly.config.seed),
      replica_(replica) {}

const Dataset& BatchReader::dataset(Mode mode) const {
  return mode == Mode::train ? *assembly_.data.train : *assembly_.data.eval;
}

/// Unless it is there.
void BatchReader::read(const StepHeader& header) {
  const auto rows_of = [&](TermRange slices) {
    return std::accumulate(header.slices.begin() + slices.begin, header.slices.begin() + slices.end, std::int64_t{0});
  };
  const int count = static_cast<int>(header.slices.size());
  const TermRange slices =
      replica_ ? assembly_.partition.topology.replicas.micro_batches_of(*replica_, count) : TermRange{0, count};
  const std::int64_t rows = rows_of(slices), before = rows_of({0, slices.begin}), of_batch = rows_of({0, count});
  if (mode_ == header.mode && position_ == header.position && rows_ == of_batch) return;
  std::vector<std::int64_t> samples(static_cast<std::size_t>(rows));
  if (header.mode == Mode::train) {
    const std::vector<std::int64_t> all = sampler_.batch(header.position, of_batch);
    std::copy_n(all.begin() + before, rows, samples.begin());
  } else {
    std::iota(samples.begin(), samples.end(), header.position + before);
  }
  mode_ = Mode::stop;
  first_slice_ = slices.begin;
  const std::optional<std::int64_t> drawn =
      header.mode == Mode::train ? std::optional(header.position + before) : std::nullopt;
  batch_ = read_samples(dataset(header.mode), samples, drawn);
  targets_.check_batch(dataset(header.mode), samples, batch_);
  mode_ = header.mode;
  position_ = header.position;
  rows_ = of_batch;
}

void BatchReader::open(StepHeader& header, std::int64_t position, std::int64_t batch) {
  const std::int64_t size = dataset(header.mode).size();
  const std::int64_t rows = std::min(batch, size - position % size);  // no batch straddles epochs
  // An evaluation batch may be smaller than the number of micro-batches.
  const int micro_batches = static_cast<int>(std::min<std::int64_t>(assembly_.config.train.micro_batches, batch));
  header.position = position;
  header.slices = slice_rows(batch, micro_batches, rows);
  read(header);
  // A batch whose targets are all ignored has no loss and no gradient; 0 / 1 says so without a NaN.
  for (std::size_t head = 0; head < assembly_.losses.size(); ++head) {
    const GraphHead& of = assembly_.graph.heads[head];
    const double denominator = assembly_.losses[head]->denominator(batch_[of.source]);
    header.heads.push_back({0.0, std::max(1.0, denominator), of.weight});
  }
}

void BatchReader::begin(const StepHeader& header) {
  slices_ = header.slices;
  read(header);
}

Tensors BatchReader::micro_batch(int micro_batch) {
  const std::int64_t start =
      std::accumulate(slices_.begin() + first_slice_, slices_.begin() + micro_batch, std::int64_t{0});
  Tensors entries;
  for (const at::Tensor& entry : batch_) entries.push_back(entry.narrow(0, start, slices_[micro_batch]).contiguous());
  return entries;
}

std::optional<double> EvaluationSum::add(const StepResult& batch) {
  sum_.add(batch);
  if (!batch.last_of_evaluation) return std::nullopt;
  return std::exchange(sum_, {}).loss();
}

StepHeader EvaluationPass::next(std::int64_t step) {
  const TrainConfig& train = assembly_.config.train;
  StepHeader header;
  header.mode = Mode::evaluate;
  header.step = step;
  reader_.open(header, position_, train.rows_of_evaluation());
  position_ += std::accumulate(header.slices.begin(), header.slices.end(), std::int64_t{0});
  ++batches_;
  header.last_of_evaluation = position_ >= assembly_.data.eval->size() || batches_ == train.eval_steps;
  if (header.last_of_evaluation) position_ = batches_ = 0;
  return header;
}

}  // namespace lockstep
