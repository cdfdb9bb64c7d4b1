// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/data/random_stream.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

using Samples = std::vector<std::int64_t>;

/// Fisher-Yates from the last place down (Knuth, TAOCP 2, algorithm P).
template <typename T>
void shuffle(std::vector<T>& items, std::uint64_t key) {
  RandomStream random(key);
  for (std::size_t last = items.size(); last > 1; --last) std::swap(items[last - 1], items[random.below(last)]);
}

/// Always from 0, 1, 2, ...: an order depends on none before it.
Samples permutation(std::int64_t size, std::uint64_t key) {
  Samples order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  shuffle(order, key);
  return order;
}

std::uint64_t key_of(std::uint64_t seed, std::int64_t number, const char* what, std::int64_t part = 0) {
  return mix_seed(seed, static_cast<std::uint64_t>(number), static_cast<std::uint64_t>(part), what);
}

Samples part_of(const Samples& order, std::int64_t begin, std::int64_t count) {
  return {order.begin() + begin, order.begin() + begin + count};
}

class Shuffled : public EpochOrder {
 public:
  Shuffled(std::int64_t size, std::uint64_t seed) : size_(size), seed_(seed) {}
  std::int64_t size() const override { return size_; }
  Samples draws(std::int64_t epoch, std::int64_t begin, std::int64_t count) override {
    if (std::exchange(epoch_, epoch) != epoch) order_ = permutation(size_, key_of(seed_, epoch, "data.order"));
    return part_of(order_, begin, count);
  }

 private:
  std::int64_t size_;
  std::uint64_t seed_;
  std::int64_t epoch_ = -1;
  Samples order_;
};

class InOrder : public EpochOrder {
 public:
  explicit InOrder(std::int64_t size) : size_(size) {}
  std::int64_t size() const override { return size_; }
  Samples draws(std::int64_t, std::int64_t begin, std::int64_t count) override {
    Samples samples(static_cast<std::size_t>(count));
    std::iota(samples.begin(), samples.end(), begin);
    return samples;
  }

 private:
  std::int64_t size_;
};

class Streams : public EpochOrder {
 public:
  Streams(std::int64_t size, std::int64_t streams) : streams_(streams), length_(size / streams) {
    if (length_ == 0)
      throw DataError(concat("data.sampling: order streams: got ", size, " training samples, expected at least ",
                             streams, " (train.batch): a stream for each row of a batch"));
  }
  std::int64_t size() const override { return streams_ * length_; }
  Samples draws(std::int64_t, std::int64_t begin, std::int64_t count) override {
    Samples samples;
    for (std::int64_t draw = begin; draw < begin + count; ++draw)
      samples.push_back(draw % streams_ * length_ + draw / streams_);
    return samples;
  }

 private:
  std::int64_t streams_, length_;
};

class Blocks : public EpochOrder {
 public:
  Blocks(std::int64_t size, std::uint64_t seed, const Sampling& sampling)
      : size_(size), seed_(seed), block_(std::min(sampling.block, size)), window_(sampling.window) {}
  std::int64_t size() const override { return size_; }

  Samples draws(std::int64_t epoch, std::int64_t begin, std::int64_t count) override {
    if (std::exchange(epoch_, epoch) != epoch) {
      blocks_ = permutation((size_ + block_ - 1) / block_, key_of(seed_, epoch, "data.blocks"));
      short_ =
          std::find(blocks_.begin(), blocks_.end(), static_cast<std::int64_t>(blocks_.size()) - 1) - blocks_.begin();
      at_ = -1;
    }
    Samples samples;
    while (count > 0) {
      std::int64_t window = begin / (window_ * block_);
      if (begin >= start_of(window + 1)) ++window;  // behind the block that is short
      if (std::exchange(at_, window) != window) order_ = order_of(window);
      const std::int64_t from = begin - start_of(window);
      const std::int64_t here = std::min(count, static_cast<std::int64_t>(order_.size()) - from);
      samples.insert(samples.end(), order_.begin() + from, order_.begin() + from + here);
      begin += here;
      count -= here;
    }
    return samples;
  }

 private:
  /// The first draw of a window.
  std::int64_t start_of(std::int64_t window) const {
    const std::int64_t blocks = std::min(window * window_, static_cast<std::int64_t>(blocks_.size()));
    const std::int64_t lacking = static_cast<std::int64_t>(blocks_.size()) * block_ - size_;
    return blocks * block_ - (short_ < blocks ? lacking : 0);
  }
  Samples order_of(std::int64_t window) const {
    Samples samples;
    const auto end = std::min<std::int64_t>((window + 1) * window_, static_cast<std::int64_t>(blocks_.size()));
    for (std::int64_t at = window * window_; at < end; ++at) {
      const std::int64_t first = blocks_[static_cast<std::size_t>(at)] * block_;
      for (std::int64_t sample = first; sample < std::min(first + block_, size_); ++sample) samples.push_back(sample);
    }
    shuffle(samples, key_of(seed_, epoch_, "data.window", window));
    return samples;
  }

  std::int64_t size_;
  std::uint64_t seed_;
  std::int64_t block_, window_;
  std::int64_t epoch_ = -1;
  Samples blocks_;          // of the epoch
  std::int64_t short_ = 0;  // where in it the set's last block stands, which may be short
  std::int64_t at_ = -1;    // the window that is there
  Samples order_;           // of it
};

class Grouped : public EpochOrder {
 public:
  Grouped(std::int64_t size, std::uint64_t seed, std::vector<SampleGroup> groups)
      : size_(size), seed_(seed), groups_(std::move(groups)), counts_(shares(size, groups_)) {}
  std::int64_t size() const override { return size_; }

  Samples draws(std::int64_t epoch, std::int64_t begin, std::int64_t count) override {
    if (std::exchange(epoch_, epoch) != epoch) order_ = order_of(epoch);
    return part_of(order_, begin, count);
  }

 private:
  /// So many draws of each, by the largest remainders.
  static Samples shares(std::int64_t size, const std::vector<SampleGroup>& groups) {
    double sum = 0;
    for (const SampleGroup& group : groups) sum += group.weight;
    Samples counts;
    std::vector<std::pair<double, std::size_t>> rests;
    std::int64_t left = size;
    for (const SampleGroup& group : groups) {
      const double share = static_cast<double>(size) * (group.weight / sum);
      counts.push_back(static_cast<std::int64_t>(share));
      rests.emplace_back(std::floor(share) - share, rests.size());
      left -= counts.back();
    }
    std::sort(rests.begin(), rests.end());
    for (std::size_t i = 0; left > 0; i = (i + 1) % rests.size(), --left) ++counts[rests[i].second];
    return counts;
  }

  Samples order_of(std::int64_t epoch) const {
    std::vector<std::uint32_t> group_of_draw;
    group_of_draw.reserve(static_cast<std::size_t>(size_));
    for (std::size_t group = 0; group < groups_.size(); ++group)
      group_of_draw.insert(group_of_draw.end(), static_cast<std::size_t>(counts_[group]),
                           static_cast<std::uint32_t>(group));
    shuffle(group_of_draw, key_of(seed_, epoch, "data.groups"));
    std::vector<Samples> drawn;
    for (std::size_t group = 0; group < groups_.size(); ++group) drawn.push_back(drawn_of(group, epoch));
    Samples next(groups_.size()), order;
    order.reserve(group_of_draw.size());
    for (const std::uint32_t group : group_of_draw)
      order.push_back(drawn[group][static_cast<std::size_t>(next[group]++)]);
    return order;
  }

  /// Its draws of one epoch: it goes on in its permutations where the epoch before ended.
  Samples drawn_of(std::size_t group, std::int64_t epoch) const {
    const Samples& samples = groups_[group].samples;
    const auto size = static_cast<std::int64_t>(samples.size());
    Samples drawn, order;
    std::int64_t round = -1;
    for (std::int64_t draw = epoch * counts_[group]; draw < (epoch + 1) * counts_[group]; ++draw) {
      if (std::exchange(round, draw / size) != draw / size)
        order = permutation(size, key_of(seed_, round, "data.group", static_cast<std::int64_t>(group)));
      drawn.push_back(samples[static_cast<std::size_t>(order[static_cast<std::size_t>(draw % size)])]);
    }
    return drawn;
  }

  std::int64_t size_;
  std::uint64_t seed_;
  std::vector<SampleGroup> groups_;
  Samples counts_;  // draws of an epoch, by group
  std::int64_t epoch_ = -1;
  Samples order_;
};

std::shared_ptr<EpochOrder> order_of(std::int64_t size, std::uint64_t seed, const Sampling& sampling,
                                     std::int64_t streams) {
  switch (sampling.order) {
    case SampleOrder::shuffled:
      if (sampling.groups.empty()) return std::make_shared<Shuffled>(size, seed);
      return std::make_shared<Grouped>(size, seed, sampling.groups);
    case SampleOrder::blocks: return std::make_shared<Blocks>(size, seed, sampling);
    case SampleOrder::in_order: return std::make_shared<InOrder>(size);
    case SampleOrder::streams: return std::make_shared<Streams>(size, streams);
  }
  return nullptr;
}

}  // namespace

Sampler::Sampler(std::int64_t size, std::uint64_t seed, const Sampling& sampling, std::int64_t streams) {
  LOCKSTEP_CHECK(size >= 1 && streams >= 1, "size ", size, ", streams ", streams);
  order_ = order_of(size, seed, sampling, streams);
}

std::vector<std::int64_t> Sampler::batch(std::int64_t position, std::int64_t rows) {
  LOCKSTEP_CHECK(position >= 0 && rows >= 1, "position ", position, ", batch ", rows);
  const std::int64_t size = epoch_size(), begin = position % size;
  return order_->draws(position / size, begin, std::min(rows, size - begin));
}

std::int64_t Sampler::position_of(std::int64_t step, std::int64_t rows) const {
  LOCKSTEP_CHECK(step >= 1 && rows >= 1, "step ", step, ", batch ", rows);
  const std::int64_t size = epoch_size(), steps = (size + rows - 1) / rows;  // of an epoch
  return (step - 1) / steps * size + (step - 1) % steps * rows;
}

}  // namespace lockstep
