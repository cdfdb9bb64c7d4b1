// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/data/random_stream.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

/// Fisher-Yates from the last place down (Knuth, TAOCP 2, algorithm P), always from 0, 1, 2, ...: the order of an epoch
/// depends on no earlier one, so a run resumes anywhere without replaying.
std::vector<std::int64_t> shuffled(std::int64_t size, std::uint64_t seed, std::int64_t epoch) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  RandomStream random(mix_seed(seed, static_cast<std::uint64_t>(epoch), 0, "data.order"));
  for (std::size_t last = order.size(); last > 1; --last) std::swap(order[last - 1], order[random.below(last)]);
  return order;
}

}  // namespace

Sampler::Sampler(std::int64_t size, std::uint64_t seed) : size_(size), seed_(seed) {
  LOCKSTEP_CHECK(size >= 1, "size ", size);
}

std::vector<std::int64_t> Sampler::batch(std::int64_t position, std::int64_t batch) {
  LOCKSTEP_CHECK(position >= 0 && batch >= 1, "position ", position, ", batch ", batch);
  const std::int64_t epoch = position / size_;
  if (epoch != epoch_) {
    order_ = shuffled(size_, seed_, epoch);
    epoch_ = epoch;
  }
  const auto first = order_.begin() + position % size_;
  return {first, first + std::min(batch, order_.end() - first)};
}

std::vector<std::int64_t> Sampler::of_step(std::int64_t step, std::int64_t rows) {
  LOCKSTEP_CHECK(step >= 1 && rows >= 1, "step ", step, ", batch ", rows);
  const std::int64_t steps = (size_ + rows - 1) / rows;  // of an epoch
  return batch((step - 1) / steps * size_ + (step - 1) % steps * rows, rows);
}

}  // namespace lockstep
