// SPDX-License-Identifier: Apache-2.0
//
// The order of samples, which is fixed for ever, and what an unknown data type is told.
#include <algorithm>
#include <map>
#include <set>

#include "runtime/data/sampler.hpp"
#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("a data type that does not exist is named, with the nearest one", "[contract]") {
  const std::string names = join(data_readers().names());
  CHECK(error_of("type: txt") ==
        "job.yaml:1:14: data.type: got txt, expected one of " + names + "; did you mean 'text'?");
  CHECK(error_of("train: a") == "job.yaml:1:7: data.type: missing, expected one of " + names);
  const Table<DataReader> readers = data_readers();
  for (const DataReader& reader : readers.entries()) CHECK_FALSE(reader.summary.empty());
}

TEST_CASE("every epoch is a permutation, and epochs and seeds differ", "[contract]") {
  for (const std::int64_t size : {1, 2, 3, 10, 257}) {
    std::vector<std::int64_t> expected(static_cast<std::size_t>(size));
    std::iota(expected.begin(), expected.end(), 0);
    Sampler sampler(size, 7);
    for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
      std::vector<std::int64_t> order = sampler.batch(epoch * size, size);
      std::sort(order.begin(), order.end());
      CHECK(order == expected);
    }
  }
  Sampler one(257, 1), two(257, 2);
  CHECK(one.batch(0, 257) != two.batch(0, 257));
  CHECK(one.batch(0, 257) != one.batch(257, 257));
}

TEST_CASE("the order of samples is fixed for ever", "[contract]") {
  CHECK(Sampler(8, 1).batch(0, 8) == std::vector<std::int64_t>{2, 1, 4, 0, 6, 7, 5, 3});
  CHECK(Sampler(8, 1).batch(8, 8) == std::vector<std::int64_t>{2, 3, 6, 7, 5, 4, 0, 1});
}

TEST_CASE("the last batch of an epoch is short, and no batch straddles epochs", "[contract]") {
  Sampler sampler(10, 3);
  std::vector<std::size_t> sizes;
  std::multiset<std::int64_t> seen;
  for (std::int64_t position = 0; position < 20;) {
    const auto batch = sampler.batch(position, 4);
    sizes.push_back(batch.size());
    seen.insert(batch.begin(), batch.end());
    position += static_cast<std::int64_t>(batch.size());
  }
  CHECK(sizes == std::vector<std::size_t>{4, 4, 2, 4, 4, 2});
  for (std::int64_t sample = 0; sample < 10; ++sample) CHECK(seen.count(sample) == 2);
  CHECK(Sampler(3, 1).batch(0, 100).size() == 3);
}

TEST_CASE("a run resumed at any position sees the same batches", "[contract]") {
  Sampler straight(23, 5);
  for (std::int64_t position = 0; position < 3 * 23; ++position) {
    const auto expected = straight.batch(position, 4);
    CHECK(Sampler(23, 5).batch(position, 4) == expected);
  }
  CHECK(straight.batch(1, 4) == Sampler(23, 5).batch(1, 4));  // backwards, too
}

TEST_CASE("the samples of a step are those that a run comes to", "[contract]") {
  for (const std::int64_t rows : {3, 4, 10, 12}) {
    Sampler sampler(10, 5);
    std::int64_t position = 0;
    for (std::int64_t step = 1; step <= 12; ++step) {
      const auto batch = sampler.batch(position, rows);
      CHECK(Sampler(10, 5).of_step(step, rows) == batch);
      position += static_cast<std::int64_t>(batch.size());
    }
  }
}

TEST_CASE("the first sample of an epoch is any sample, equally often", "[contract]") {
  constexpr int size = 5, epochs = 5000;
  std::vector<int> count(size);
  Sampler sampler(size, 11);
  for (int epoch = 0; epoch < epochs; ++epoch) ++count[static_cast<std::size_t>(sampler.batch(epoch * size, 1)[0])];
  for (const int seen : count) CHECK(std::abs(seen - epochs / size) < 150);  // 5 standard deviations: 141
}

TEST_CASE("in every order an epoch has every sample once, and a run resumes anywhere", "[contract]") {
  for (const SampleOrder order : {SampleOrder::shuffled, SampleOrder::blocks, SampleOrder::in_order})
    for (const std::int64_t size : {1, 7, 12, 50})
      for (const std::int64_t block : {1, 4, 5, 100})
        for (const std::int64_t window : {1, 2, 100}) {
          CAPTURE(to_string(order), size, block, window);
          const Sampling sampling{.order = order, .block = block, .window = window};
          Sampler sampler(size, 9, sampling);
          for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
            const auto all = sampler.batch(epoch * size, size);
            CHECK(std::set<std::int64_t>(all.begin(), all.end()).size() == static_cast<std::size_t>(size));
            for (std::int64_t begin = 0; begin < size; begin += 3) {
              const auto part = Sampler(size, 9, sampling).batch(epoch * size + begin, 3);
              CHECK(std::equal(part.begin(), part.end(), all.begin() + begin));
            }
          }
        }
}

TEST_CASE("blocks stay together in windows, and blocks, windows and epochs are mixed", "[contract]") {
  constexpr std::int64_t block = 10, window = 3, size = 95;  // the last block is short
  Sampler sampler(size, 4, {.order = SampleOrder::blocks, .block = block, .window = window});
  std::set<std::vector<std::int64_t>> orders;
  for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
    const auto all = sampler.batch(epoch * size, size);
    orders.insert(all);
    std::set<std::int64_t> seen;
    std::size_t windows = 0;
    for (std::size_t at = 0; at < all.size(); ++windows) {
      std::set<std::int64_t> blocks;
      std::size_t end = at;
      while (end < all.size() && (blocks.count(all[end] / block) || blocks.size() < window))
        blocks.insert(all[end++] / block);
      for (const std::int64_t each : blocks) CHECK(seen.insert(each).second);  // a block is in one window
      CHECK(!std::is_sorted(all.begin() + static_cast<std::ptrdiff_t>(at),
                            all.begin() + static_cast<std::ptrdiff_t>(end)));
      at = end;
    }
    CHECK(windows == 4);
  }
  CHECK(orders.size() == 4);
}

TEST_CASE("rows of streams go on where they ended", "[contract]") {
  Sampler sampler(23, 1, {.order = SampleOrder::streams}, 4);
  CHECK(sampler.epoch_size() == 20);
  CHECK(sampler.batch(0, 4) == std::vector<std::int64_t>{0, 5, 10, 15});
  CHECK(sampler.batch(4, 4) == std::vector<std::int64_t>{1, 6, 11, 16});
  CHECK(sampler.of_step(6, 4) == std::vector<std::int64_t>{0, 5, 10, 15});
  CHECK_THROWS_WITH(Sampler(3, 1, {.order = SampleOrder::streams}, 4),
                    "data.sampling: order streams: got 3 training samples, expected at least 4 (train.batch): a stream "
                    "for each row of a batch");
}

TEST_CASE("groups have their shares exactly, go on through the epochs, and are drawn in mixed order", "[contract]") {
  Sampling sampling;
  sampling.groups = {{{0, 1, 2}, 1}, {{3, 4}, 1}, {{5, 6, 7, 8, 9}, 2}};
  Sampler sampler(10, 6, sampling);
  std::map<std::int64_t, int> counts;
  std::set<std::vector<std::int64_t>> orders;
  for (std::int64_t epoch = 0; epoch < 12; ++epoch) {
    const auto all = sampler.batch(epoch * 10, 10);
    orders.insert(all);
    int of_last = 0;
    for (const std::int64_t sample : all) {
      ++counts[sample];
      of_last += sample >= 5 ? 1 : 0;
    }
    CHECK(of_last == 5);
    CHECK(Sampler(10, 6, sampling).batch(epoch * 10 + 4, 3) ==
          std::vector<std::int64_t>(all.begin() + 4, all.begin() + 7));
  }
  CHECK(orders.size() == 12);
  for (std::int64_t sample = 5; sample < 10; ++sample) CHECK(counts.at(sample) == 12);
  CHECK(counts.at(0) + counts.at(1) + counts.at(2) == 36);  // the largest remainders: 3 of 2.5
  CHECK(counts.at(3) == 12);
}
