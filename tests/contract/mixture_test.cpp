// SPDX-License-Identifier: Apache-2.0
//
// What the section `data` has whatever the reader: orders, weights, mixtures, further evaluation sets.
#include <map>
#include <set>

#include "runtime/data/sampler.hpp"
#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// Rows "number, class".
std::string csv(int first, int rows, int classes = 3) {
  std::string text = "a,y\n";
  for (int row = 0; row < rows; ++row) text += concat(first + row, ",", row % classes, "\n");
  return text;
}

const std::string kCsv = "type: csv, targets: [y], task: classification";

std::map<std::int64_t, int> counted(const std::vector<std::int64_t>& values) {
  std::map<std::int64_t, int> counts;
  for (const std::int64_t value : values) ++counts[value];
  return counts;
}

}  // namespace

TEST_CASE("an order is read with its keys, and no others", "[contract]") {
  const Folder folder;
  write_file("t.csv", csv(0, 7));
  const auto with = [](const std::string& sampling) { return concat(kCsv, ", train: t.csv, sampling: ", sampling); };
  CHECK(open(with("{}")).sampling.order == SampleOrder::shuffled);
  const Sampling blocks = open(with("{order: blocks, block: 3, window: 2}")).sampling;
  CHECK(blocks.order == SampleOrder::blocks);
  CHECK(blocks.block == 3);
  CHECK(blocks.window == 2);
  CHECK(error_of(with("{order: shuffle}")) ==
        "job.yaml:1:87: data.sampling.order: got shuffle, expected one of shuffled, blocks, in_order, streams; did you "
        "mean 'shuffled'?");
  CHECK_THAT(error_of(with("{block: 3}")), Catch::Contains("data.sampling.block: got an unknown key"));
  CHECK_THAT(error_of(with("{order: blocks, block: 0}")), Catch::Contains("got 0, expected an integer >= 1"));
  CHECK_THAT(error_of(with("{balance: classes, order: streams}")),
             Catch::Contains("data.sampling.order: got streams, expected shuffled; samples are drawn by weights here"));
}

TEST_CASE("classes are drawn equally often, or as their weights say", "[contract]") {
  const Folder folder;
  write_file("t.csv", csv(0, 20, 1) + "20,1\n21,1\n22,2\n");
  const std::string data = concat(kCsv, ", train: t.csv, sampling: ");
  const auto drawn = [](const DataSplits& splits, std::int64_t epochs) {
    const std::vector<std::int64_t> classes = splits.train->classes();
    Sampler sampler(splits.train->size(), 3, splits.sampling);
    std::vector<std::int64_t> seen;
    for (std::int64_t epoch = 0; epoch < epochs; ++epoch)
      for (const std::int64_t sample : sampler.batch(epoch * sampler.epoch_size(), 100))
        seen.push_back(classes.at(static_cast<std::size_t>(sample)));
    return counted(seen);
  };
  CHECK(drawn(open(data + "{balance: classes}"), 3) == std::map<std::int64_t, int>{{0, 24}, {1, 24}, {2, 21}});
  CHECK(drawn(open(data + "{balance: classes, weights: {1: 21, 2: 1}}"), 1) ==
        std::map<std::int64_t, int>{{0, 1}, {1, 21}, {2, 1}});
  CHECK_THAT(error_of(data + "{balance: classes, weights: {7: 2}}"),
             Catch::Contains("got '7', which is no class of the training set, expected some of 0, 1, 2"));
  CHECK_THAT(error_of("type: csv, targets: [y], task: regression, train: t.csv, sampling: {balance: classes}"),
             Catch::Contains("data.sampling.balance: got classes, expected none; the samples of this data have no "
                             "classes that are known beforehand"));
}

TEST_CASE("a mixture draws its sources by weight, each through permutations of its own", "[contract]") {
  const Folder folder;
  write_file("a.csv", csv(0, 10));
  write_file("b.csv", csv(100, 30));
  write_file("e.csv", csv(500, 4));
  const auto source = [](const std::string& more) { return concat("{", kCsv, ", ", more, "}"); };
  const DataSplits splits = open(concat("type: mixture, sources: [", source("train: a.csv, eval: e.csv, weight: 3"),
                                        ", ", source("train: b.csv, eval: e.csv, weight: 1, name: other"), "]"));
  REQUIRE(splits.train->size() == 40);
  CHECK(splits.train->is_in_memory());
  REQUIRE(splits.further_evals.size() == 1);
  CHECK(splits.further_evals[0].name == "other");
  CHECK(splits.record->train.size() == 2);
  check_keeps_its_word(*splits.train, {39, 0, 10});
  CHECK(values<float>(splits.train->read({39, 0, 10})[0]) == std::vector<float>{129, 0, 100});
  CHECK(splits.train->place_of(10) == "b.csv:2");
  Sampler sampler(40, 1, splits.sampling);
  std::vector<std::int64_t> drawn;
  for (std::int64_t epoch = 0; epoch < 3; ++epoch)
    for (const std::int64_t sample : sampler.batch(epoch * 40, 40)) drawn.push_back(sample);
  const auto counts = counted(drawn);  // 30 of 10 and 10 of 30, three times: each 9 times and once
  for (std::int64_t sample = 0; sample < 40; ++sample) CHECK(counts.at(sample) == (sample < 10 ? 9 : 1));
  const DataSplits even =
      open(concat("type: mixture, sources: [", source("train: a.csv"), ", ", source("train: b.csv"), "]"));
  Sampler all(40, 1, even.sampling);
  CHECK(counted(all.batch(0, 40)).size() == 40);
}

TEST_CASE("what is no mixture is refused", "[contract]") {
  const Folder folder;
  write_file("a.csv", csv(0, 10));
  write_file("t.txt", std::string(100, 'x'));
  const std::string a = concat("{", kCsv, ", train: a.csv}");
  CHECK_THAT(
      error_of(concat("type: mixture, sources: [", a, "]")),
      Catch::Contains("data.sources: got") && Catch::Contains("expected at least two sections like `data` itself"));
  CHECK_THAT(error_of(concat("type: mixture, sources: [", a, ", {type: text, train: t.txt, context: 4}]")),
             Catch::Contains("data.sources[1].type: got samples of the form x Long [4], targets Long [4], expected x "
                             "Float [1], targets Long [] as the first source has"));
  CHECK_THAT(
      error_of(concat("type: mixture, sources: [", a, ", {type: csv, train: no.csv, targets: [y], task: regression}]")),
      Catch::Contains("no.csv: cannot be read"));
  CHECK_THAT(error_of(concat("type: mixture, sources: [", a, ", {", kCsv, ", train: a.csv, weight: 0}]")),
             Catch::Contains("data.sources[1].weight: got 0, expected a number > 0"));
  CHECK_THAT(error_of(concat("type: mixture, sampling: {balance: classes}, sources: [", a, ", ", a, "]")),
             Catch::Contains("expected none; a mixture draws by the weights of its sources"));
}

TEST_CASE("further evaluation sets differ from the section in what they name", "[contract]") {
  const Folder folder;
  write_file("t.csv", "a,y\n1,0\n3,1\n5,0\n");
  write_file("e.csv", "a,y\n7,1\n");
  write_file("f.csv", "a,y\n9,0\n11,1\n");
  const std::string data = concat(kCsv, ", normalize: true, train: t.csv, eval: e.csv, evals: ");
  const DataSplits splits = open(data + "{hard: {eval: f.csv}, same: {}}");
  REQUIRE(evaluation_sets(splits) == 3);
  CHECK(evaluation_set(splits, 0).size() == 1);
  CHECK(evaluation_set(splits, 1).size() == 2);
  CHECK(name_of_set(splits, 1) == "evaluation set 'hard'");
  CHECK(name_of_set(splits, 2) == "evaluation set 'same'");
  const float deviation = std::sqrt(8.0F / 3);
  CHECK(values<float>(evaluation_set(splits, 1).read({0})[0])[0] == Approx((9 - 3) / deviation));  // as training taught
  CHECK(splits.record->eval.size() == 3);
  CHECK_THAT(error_of(data + "{hard: {eval: no.csv}}"), Catch::Contains("no.csv: cannot be read"));
  CHECK_THAT(error_of(data + "{hard: {evil: f.csv}}"), Catch::Contains("data.evil: got an unknown key"));
  CHECK_THAT(error_of(data + "{hard: f.csv}"), Catch::Contains("data.evals.hard"));
  CHECK_THAT(error_of(concat(kCsv, ", train: t.csv, evals: {hard: {eval: f.csv}}")),
             Catch::Contains("data.eval: missing, expected a set to evaluate first; evals has further ones"));
}
