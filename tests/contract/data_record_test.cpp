// SPDX-License-Identifier: Apache-2.0
//
// What a run's data was, for who goes on: files by their bytes, what they taught.
#include <nlohmann/json.hpp>

#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

std::uint64_t hash_of_train(const std::string& data, const DataContext& context = {}) {
  const DataSplits splits = open(data, context);
  REQUIRE(splits.record);
  REQUIRE(splits.record->train.size() == 1);
  return splits.record->train[0].hash;
}

}  // namespace

TEST_CASE("a file is known by its bytes, whatever it is called", "[contract]") {
  const Folder folder;
  const std::string rows = "1,2\n3,4\n5,6\n";
  write_file("t.csv", rows);
  write_file("copy/of.csv", rows);
  const auto csv = [](const std::string& path) {
    return hash_of_train("type: csv, train: " + path + ", targets: [1], task: regression");
  };
  const std::uint64_t hash = csv("t.csv");
  CHECK(csv("copy/of.csv") == hash);
  CHECK(csv(folder.path() + "/t.csv") == hash);
  for (const char* other : {"3,4\n1,2\n5,6\n", "2,1\n4,3\n6,5\n", "1,2\n3,4\n5,7\n", "1,2\n3,4\n5,6\n\n"}) {
    write_file("t.csv", other);
    INFO(other);
    CHECK(csv("t.csv") != hash);
  }
  write_file("a.txt", "abcdefgh");
  const auto text = [](const std::string& more = "") {
    return hash_of_train("type: text, train: a.txt, context: 4" + more);
  };
  const std::uint64_t whole = text();
  CHECK(text(", max_bytes: 6") != whole);  // of what was read
  write_file("a.txt", "abcdefgi");
  CHECK(text() != whole);
}

TEST_CASE("files are recorded in the order in which they were read; of made-up samples the config says all",
          "[contract]") {
  const Folder folder;
  write_file("b.txt", "bbbb");
  write_file("a.txt", "aaaaaa");
  write_file("e.txt", "eeeee");
  const DataRecord record = *open("type: text, train: '[ab].txt', eval: e.txt, context: 4").record;
  REQUIRE(record.train.size() == 2);
  CHECK(record.train[0].path == "a.txt");
  CHECK(record.train[0].size == 6);
  CHECK(record.train[1].path == "b.txt");
  REQUIRE(record.eval.size() == 1);
  CHECK(record.eval[0].path == "e.txt");
  const DataSplits made = open("type: synthetic, task: regression, inputs: 2, outputs: 1, samples: 8");
  REQUIRE(made.record);
  CHECK(made.record->train.empty());
}

TEST_CASE("who only evaluates does not open the training files", "[contract]") {
  const Folder folder;
  write_file("e.csv", "a,b,y\n1,2,3\n4,5,6\n");
  write_file("e.txt", "abcdefgh");
  DataContext context;
  context.trained = TrainedOn{17, {}};
  for (const char* data : {"type: csv, train: gone.csv, eval: e.csv, targets: [y], task: regression",
                           "type: text, train: gone.txt, eval: e.txt, context: 3"}) {
    INFO(data);
    CHECK(error_of(data) != "no error");
    const DataSplits splits = open(data, context);
    CHECK(splits.eval->size() == 2);
    CHECK(splits.train->size() == 17);
    CHECK(entry_texts(*splits.train, 5) == entry_texts(*splits.eval, 5));
    CHECK_THROWS_WITH(splits.train->read({0}), Catch::Contains("was not opened"));
  }
}

TEST_CASE("csv: what normalize taught is recorded, and takes the place of the training file", "[contract]") {
  const Folder folder;
  write_file("t.csv", "a,same,y\n1,7,10\n3,7,20\n5,7,30\n8,7,40\n");
  write_file("e.csv", "a,same,y\n4,8,50\n");
  const std::string data = "type: csv, train: t.csv, eval: e.csv, targets: [y], task: regression, normalize: true";
  const DataSplits splits = open(data);
  const std::string learnt = splits.record->learnt;
  const auto json = nlohmann::json::parse(learnt);
  CHECK(json["columns"] == nlohmann::json({"a", "same", "y"}));
  REQUIRE(json["scaling"].size() == 2);
  CHECK(json["scaling"][0]["column"] == "a");
  CHECK(json["scaling"][0]["mean"] == 4.25);
  CHECK(json["scaling"][1]["deviation"] == 0);
  const std::vector<float> x = values<float>(splits.eval->read({0})[0]);

  DataContext context;
  context.trained = TrainedOn{4, *splits.record};
  write_file("t.csv", "a,same,y\n100,7,10\n300,7,20\n");
  CHECK(values<float>(open(data, context).eval->read({0})[0]) == x);
  CHECK(values<float>(open(data).eval->read({0})[0]) != x);
  const DataSplits again = open(data).taught_by(*splits.record);
  CHECK(values<float>(again.eval->read({0})[0]) == x);
  CHECK(again.record->learnt == learnt);
  CHECK(again.record->train[0].hash == open(data).record->train[0].hash);
  std::filesystem::remove("t.csv");
  CHECK(values<float>(open(data, context).eval->read({0})[0]) == x);

  write_file("e.csv", "same,a,y\n4,8,50\n");
  CHECK(error_of(data, context) ==
        "e.csv: got 3 columns (same, a, y), expected 3 columns (a, same, y) as in the training data of the checkpoint");
  write_file("e.csv", "4,8,9,50\n");
  auto without_names = json;
  without_names.erase("columns");
  context.trained->record.learnt = without_names.dump();
  CHECK(error_of("type: csv, train: t.csv, eval: e.csv, targets: [3], task: regression, normalize: true", context) ==
        "e.csv: got 3 features, expected 2, of which the checkpoint has the scaling");
}
