// SPDX-License-Identifier: Apache-2.0
//
// The order of samples: a function of (seed, epoch), so that a run resumes anywhere without replaying, and knows
// nothing of workers or replicas. Epochs follow one another, batches straddle none: the last of an epoch is short.
//
//   shuffled  a permutation of all samples; with groups, each has its share of as many draws as there are samples, and
//             goes through permutations of its own, one after the other over the epochs
//   blocks    blocks of consecutive samples in a permutation; inside of windows of them the samples are shuffled: what
//             lies in one file is read piece by piece, and memory does not grow with the set
//   in_order  as they lie
//   streams   for models that carry state: row b of every batch goes on where row b of the one before it ended. The
//             set is cut into as many runs as a batch has rows; what is left over is not drawn
#pragma once

#include <memory>
#include <vector>

#include "runtime/data/dataset.hpp"

namespace lockstep {

/// Where the samples of one epoch stand. Used by one thread.
class EpochOrder {
 public:
  virtual ~EpochOrder() = default;
  virtual std::int64_t size() const = 0;  ///< draws of an epoch
  /// The draws [begin, begin + count) of an epoch, within it.
  virtual std::vector<std::int64_t> draws(std::int64_t epoch, std::int64_t begin, std::int64_t count) = 0;
};

class Sampler {
 public:
  /// Of `size` samples. `streams`: with that order, how many: the rows of a batch. Throws DataError when there are
  /// fewer samples.
  Sampler(std::int64_t size, std::uint64_t seed, const Sampling& sampling = {}, std::int64_t streams = 1);
  std::int64_t epoch_size() const { return order_->size(); }
  /// The samples of the batch that starts at `position`, samples drawn since the start: `rows` of them, or fewer at the
  /// end of an epoch.
  std::vector<std::int64_t> batch(std::int64_t position, std::int64_t rows);
  /// Drawn before optimizer step `step`, from 1, of a run with batches of `rows`.
  std::int64_t position_of(std::int64_t step, std::int64_t rows) const;
  /// The samples of that step.
  std::vector<std::int64_t> of_step(std::int64_t step, std::int64_t rows) {
    return batch(position_of(step, rows), rows);
  }

 private:
  std::shared_ptr<EpochOrder> order_;
};

}  // namespace lockstep
