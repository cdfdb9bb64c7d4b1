// SPDX-License-Identifier: Apache-2.0
//
// The synthetic reader: what its samples are, and the whole text of every error.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("synthetic: shapes and types of every task", "[contract]") {
  const auto texts = [](const std::string& options) {
    return entry_texts(*open("type: synthetic, " + options).train, 2);
  };
  CHECK(texts("samples: 9, task: regression, inputs: 5, outputs: 3") ==
        std::vector<std::string>{"x Float [2, 5]", "targets Float [2, 3]"});
  CHECK(texts("samples: 9, task: classification, inputs: 5, outputs: 3") ==
        std::vector<std::string>{"x Float [2, 5]", "targets Long [2]"});
  CHECK(texts("samples: 9, task: tokens, context: 6, vocab: 11") ==
        std::vector<std::string>{"x Long [2, 6]", "targets Long [2, 6]"});
  CHECK(texts("samples: 9, task: image_classification, size: 7, channels: 3, classes: 4") ==
        std::vector<std::string>{"x Float [2, 3, 7, 7]", "targets Long [2]"});
  CHECK(texts("samples: 9, task: segmentation, size: 7, classes: 4") ==
        std::vector<std::string>{"x Float [2, 1, 7, 7]", "targets Long [2, 7, 7]"});
}

TEST_CASE("synthetic: a sample is a function of seed, split and index", "[contract]") {
  const std::vector<std::string> tasks = {"task: regression, inputs: 5, outputs: 3, noise: 0.5",
                                          "task: classification, inputs: 5, outputs: 3, noise: 0.5",
                                          "task: tokens, context: 6, vocab: 1000, noise: 0.5",
                                          "task: clicks, fields: [100, 7], noise: 0.5",
                                          "task: image_classification, size: 8, classes: 3, noise: 0.5",
                                          "task: segmentation, size: 8, channels: 2, classes: 3, noise: 0.5"};
  for (const std::string& task : tasks) {
    const DataSplits splits = open("type: synthetic, samples: 9, eval_samples: 4, " + task, {.seed = 3, .context = 0});
    CHECK(splits.train->size() == 9);
    CHECK(splits.eval->size() == 4);
    check_keeps_its_word(*splits.train, {8, 0, 8});
    const Tensors together = splits.train->read({2, 7});
    // Not made in advance (beyond 64 MiB), and with other neighbours: the same sample.
    const auto large = open("type: synthetic, samples: 4000000, " + task, {.seed = 3, .context = 0}).train;
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(splits.train->read({7})[i][0].equal(together[i][1]));
      CHECK(large->read({7})[i][0].equal(together[i][1]));
    }
    const auto other_seed = open("type: synthetic, samples: 9, " + task, {.seed = 4, .context = 0}).train;
    CHECK_FALSE(other_seed->read({7})[0].equal(splits.train->read({7})[0]));
    CHECK_FALSE(splits.eval->read({2})[0].equal(splits.train->read({2})[0]));
    CHECK_FALSE(splits.train->read({3})[0].equal(splits.train->read({2})[0]));
  }
}

TEST_CASE("synthetic: inputs are standard normal", "[contract]") {
  const auto data = open("type: synthetic, samples: 20000, task: regression, inputs: 4, outputs: 1").train;
  const std::vector<float> x = values<float>(data->read(all_of(*data))[0]);
  const auto n = static_cast<double>(x.size());
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  const double square = std::inner_product(x.begin(), x.end(), x.begin(), 0.0) / n;
  CHECK(std::abs(mean) < 5 / std::sqrt(n));
  CHECK(std::abs(square - 1) < 5 * std::sqrt(2 / n));
}

TEST_CASE("synthetic: noise is added to the same teacher", "[contract]") {
  const std::string task = "type: synthetic, samples: 5000, task: regression, inputs: 4, outputs: 2";
  const auto clean = open(task).train, noisy = open(task + ", noise: 0.25").train;
  const std::vector<std::int64_t> first = {0};
  CHECK(clean->read(first)[0].equal(noisy->read(first)[0]));
  const auto all = all_of(*clean);
  const std::vector<float> a = values<float>(clean->read(all)[1]), b = values<float>(noisy->read(all)[1]);
  double square = 0;
  for (std::size_t i = 0; i < a.size(); ++i) square += (a[i] - b[i]) * (a[i] - b[i]);
  CHECK(std::abs(std::sqrt(square / static_cast<double>(a.size())) - 0.25) < 0.01);
}

TEST_CASE("synthetic: classes all occur, and noise replaces its share", "[contract]") {
  const std::string task = "type: synthetic, samples: 5000, task: classification, inputs: 6, outputs: 4";
  const auto clean = open(task).train, noisy = open(task + ", noise: 0.4").train;
  const auto all = all_of(*clean);
  const auto a = values<std::int64_t>(clean->read(all)[1]), b = values<std::int64_t>(noisy->read(all)[1]);
  CHECK(std::set<std::int64_t>(a.begin(), a.end()) == std::set<std::int64_t>{0, 1, 2, 3});
  int changed = 0;
  for (std::size_t i = 0; i < a.size(); ++i) changed += a[i] != b[i] ? 1 : 0;
  CHECK(std::abs(changed / 5000.0 - 0.4 * 3 / 4) < 0.03);
}

TEST_CASE("synthetic: without noise every token has one successor, on one cycle, in both splits", "[contract]") {
  const DataSplits splits =
      open("type: synthetic, samples: 50, eval_samples: 50, task: tokens, context: 12, vocab: 10");
  std::vector<std::int64_t> successor(10, -1);
  for (const auto& data : {splits.train, splits.eval}) {
    const Tensors read = data->read(all_of(*data));
    const auto x = values<std::int64_t>(read[0]), targets = values<std::int64_t>(read[1]);
    for (std::size_t i = 0; i < x.size(); ++i) {
      std::int64_t& next = successor.at(static_cast<std::size_t>(x[i]));
      if (next < 0) next = targets[i];
      CHECK(next == targets[i]);
      if (i % 12 != 11) CHECK(x[i + 1] == targets[i]);
    }
  }
  std::set<std::int64_t> cycle;
  for (std::int64_t token = 0; cycle.insert(token).second;) token = successor[static_cast<std::size_t>(token)];
  CHECK(cycle.size() == 10);
}

TEST_CASE("synthetic: clicks depend on their values, and common values are common", "[contract]") {
  const DataSplits splits = open("type: synthetic, samples: 20000, eval_samples: 20000, task: clicks, fields: [20, 3]");
  // By set and pair of values: how many there are, and how many clicks.
  std::array<std::map<std::int64_t, std::pair<double, double>>, 2> seen;
  for (std::size_t set = 0; set < 2; ++set) {
    const auto& data = set == 0 ? splits.train : splits.eval;
    const Tensors read = data->read(all_of(*data));
    CHECK(data->entries(1)[0].below == 20);
    const auto x = values<std::int64_t>(read[0]);
    const auto clicks = values<float>(read[1]);
    for (std::size_t i = 0; i < clicks.size(); ++i) {
      REQUIRE((x[2 * i] >= 0 && x[2 * i] < 20 && x[2 * i + 1] >= 0 && x[2 * i + 1] < 3));
      auto& [count, clicked] = seen[set][x[2 * i] * 3 + x[2 * i + 1]];
      count += 1;
      clicked += static_cast<double>(clicks[i]);
    }
  }
  double least = 1, most = 0;
  for (const auto& [values, of_train] : seen[0]) {
    const auto& of_eval = seen[1].at(values);
    const double a = of_train.second / of_train.first, b = of_eval.second / of_eval.first;
    CHECK(std::abs(a - b) < 5 * std::sqrt(0.25 / of_train.first + 0.25 / of_eval.first));
    least = std::min(least, a);
    most = std::max(most, a);
  }
  CHECK(least < 0.2);
  CHECK(most > 0.6);
  CHECK(seen[0].at(0).first > 4 * seen[0].at(3 * 10).first);
  const auto coins = open("type: synthetic, samples: 9000, task: clicks, fields: [9], noise: 1.0").train;
  CHECK(std::abs(coins->read(all_of(*coins))[1].mean().item<double>() - 0.5) < 0.03);
}

TEST_CASE("synthetic: an image of a class shows its pattern, somewhere on nothing", "[contract]") {
  const DataSplits splits =
      open("type: synthetic, samples: 300, eval_samples: 300, task: image_classification, size: 9, classes: 3");
  std::map<std::int64_t, at::Tensor> pattern;
  std::set<std::pair<std::int64_t, std::int64_t>> places;
  for (const auto& data : {splits.train, splits.eval}) {
    const Tensors read = data->read(all_of(*data));
    for (std::int64_t i = 0; i < data->size(); ++i) {
      const at::Tensor image = read[0][i][0], lit = image.ne(0).nonzero();
      REQUIRE(lit.size(0) == 25);
      const auto top = lit[0][0].item<std::int64_t>(), left = lit[0][1].item<std::int64_t>();
      places.insert({top, left});
      const at::Tensor shown = image.narrow(0, top, 5).narrow(1, left, 5);
      const auto [known, is_new] = pattern.emplace(read[1][i].item<std::int64_t>(), shown);
      CHECK(known->second.equal(shown));
    }
  }
  CHECK(pattern.size() == 3);
  CHECK(places.size() == 25);
}

TEST_CASE("synthetic: a pixel of a class has its colour, and classes cover each other in order", "[contract]") {
  const auto data = open("type: synthetic, samples: 200, task: segmentation, size: 8, channels: 2, classes: 3").train;
  const Tensors read = data->read(all_of(*data));
  const at::Tensor pixels = read[0].permute({0, 2, 3, 1}).reshape({-1, 2}), classes = read[1].flatten();
  std::map<std::int64_t, at::Tensor> colour = {{0, at::zeros({2})}};
  for (std::int64_t i = 0; i < classes.size(0); ++i) {
    const auto [known, is_new] = colour.emplace(classes[i].item<std::int64_t>(), pixels[i]);
    CHECK(known->second.equal(pixels[i]));
  }
  CHECK(colour.size() == 3);
  // The last class covers the others: a whole rectangle of 2 to 4 pixels high and wide.
  for (std::int64_t i = 0; i < data->size(); ++i) {
    const at::Tensor last = read[1][i].eq(2).nonzero();
    const at::Tensor extent = std::get<0>(last.max(0)) - std::get<0>(last.min(0)) + 1;
    CHECK(last.size(0) == extent.prod().item<std::int64_t>());
    CHECK(extent.ge(2).all().item<bool>());
    CHECK(extent.le(4).all().item<bool>());
  }
}

TEST_CASE("synthetic: keys of another task and senseless values are refused", "[contract]") {
  const std::vector<Bad> cases = {
      {"type: synthetic, task: regression, inputs: 2, outputs: 1",
       "job.yaml:1:7: data.samples: missing, expected an integer >= 1"},
      {"type: synthetic, samples: 0, task: regression, inputs: 2, outputs: 1",
       "job.yaml:1:34: data.samples: got 0, expected an integer >= 1"},
      {"type: synthetic, samples: 1, task: token",
       "job.yaml:1:43: data.task: got token, expected one of regression, classification, tokens, "
       "clicks, image_classification, segmentation; did you mean 'tokens'?"},
      {"type: synthetic, samples: 1, task: segmentation, size: 4, classes: 1",
       "job.yaml:1:75: data.classes: got 1, expected an integer from 2 to 65536"},
      {"type: synthetic, samples: 1, task: regression, inputs: 2, outputs: 1, vocab: 4",
       "job.yaml:1:78: data.vocab: got an unknown key, expected one of type, samples, eval_samples, task, noise, "
       "inputs, "
       "outputs"},
      {"type: synthetic, samples: 1, task: tokens, context: 2, vocab: 4, inputs: 2",
       "job.yaml:1:73: data.inputs: got an unknown key, expected one of type, samples, eval_samples, task, noise, "
       "context, vocab"},
      {"type: synthetic, samples: 1, task: tokens, vocab: 4",
       "job.yaml:1:7: data.context: missing, expected an integer from 1 to 16777216; this model has none that could be "
       "the default"},
      {"type: synthetic, samples: 1, task: tokens, context: 2, vocab: 1",
       "job.yaml:1:70: data.vocab: got 1, expected an integer from 2 to 16777216"},
      {"type: synthetic, samples: 1, task: classification, inputs: 2, outputs: 1",
       "job.yaml:1:79: data.outputs: got 1, expected an integer from 2 to 1048576"},
      {"type: synthetic, samples: 1, task: classification, inputs: 2, outputs: 2, noise: 1.5",
       "job.yaml:1:89: data.noise: got 1.5, expected a number from 0 to 1"},
      {"type: synthetic, samples: 1, task: regression, inputs: 2, outputs: 2, noise: -1",
       "job.yaml:1:85: data.noise: got -1, expected a number >= 0"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
}
