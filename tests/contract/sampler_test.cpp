// SPDX-License-Identifier: Apache-2.0
//
// The order of samples, which is fixed for ever, and what an unknown data type is told.
#include <algorithm>
#include <map>
#include <set>

#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("a data type that does not exist is named, with the nearest one", "[contract]") {
  CHECK(error_of("type: txt") ==
        "job.yaml:1:14: data.type: got txt, expected one of text, csv, synthetic; did you mean 'text'?");
  CHECK(error_of("train: a") == "job.yaml:1:7: data.type: missing, expected one of text, csv, synthetic");
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
