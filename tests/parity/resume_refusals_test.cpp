// SPDX-License-Identifier: Apache-2.0
//
// What a checkpoint is not resumed from: damage, another config, other data; and what of it may be changed knowingly.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/training/data_record.hpp"
#include "tests/parity/resume_fixture.hpp"
#include "tests/temporary_folder.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {
namespace fs = std::filesystem;
}

TEST_CASE("a damaged checkpoint is named with file and tensor", "[parity]") {
  Small the;
  const TemporaryFolder folder;
  const std::string run = folder.path();
  next_leg(the.model, the.data, with_pipeline(the.config, 2, "1f1b"), checkpoints_of(run));
  const std::string last = checkpoint_path(checkpoints_of(run), 5), before = checkpoint_path(checkpoints_of(run), 4);
  REQUIRE(find_damage(last).empty());
  const fs::path shard = shard_of(last, "optimizer-00002");
  const auto expect = [&](const std::string& damage) {
    const std::vector<std::string> findings = find_damage(last);
    REQUIRE(!findings.empty());
    CHECK_THAT(findings.front(), Catch::Contains(damage));
    const CheckpointChoice choice = latest_good_checkpoint(run);
    CHECK(choice.path == before);
    REQUIRE(choice.skipped.size() == 1);
    CHECK_THAT(other_good_checkpoint(last), Catch::Contains("the newest good one beside it is " + before));
  };
  SECTION("one bit of a tensor") {
    std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-3, std::ios::end);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(-3, std::ios::end);
    file.put(byte);
    file.close();
    expect("optimizer-00002-of-00002.safetensors: tensor 'out.bias.exp_avg_sq' at byte ");
    Trainer trainer(the.model, the.data, the.config);
    trainer.resume(last);
    CHECK_THROWS_WITH(record_run(trainer), Catch::Contains("out.bias.exp_avg_sq") && Catch::Contains("was altered"));
  }
  SECTION("cut short") {
    fs::resize_file(shard, fs::file_size(shard) - 5);
    expect(concat(shard.string(), ": has "));
  }
  SECTION("missing") {
    fs::remove(shard);
    expect(concat(shard.string(), ": cannot be read: No such file or directory"));
  }
  SECTION("of another checkpoint") {
    fs::copy_file(shard_of(before, "optimizer-00002"), shard, fs::copy_options::overwrite_existing);
    expect("has other bytes than the manifest says");
  }
  SECTION("the trainer state altered") {
    std::ofstream(last + "/" + kTrainerFile, std::ios::app) << " ";
    expect(concat(last, "/trainer.json: has "));
  }
  SECTION("the manifest cut short") {
    fs::resize_file(last + "/manifest.json", 100);
    expect(concat(last, "/manifest.json: is damaged"));
  }
}

TEST_CASE("what would not go on as the checkpoint's run is refused by its key", "[parity]") {
  Stopped the;
  const auto resume = [&](const Config& config, const Model& model, const DataSplits& data) {
    Trainer trainer(model, data, config);
    trainer.resume(the.checkpoint);
  };
  CHECK_NOTHROW(resume(with_pipeline(the.config, 4, "1f1b"), the.model, the.data));
  const auto refused = [&](const std::string& key, const auto& change) {
    Config config = the.config;
    change(config);
    INFO(key);
    CHECK_THROWS_WITH(resume(config, the.model, the.data), Catch::Contains(key) && Catch::Contains("expected"));
  };
  refused("seed", [](Config& c) { c.seed = 4; });
  refused("train.batch", [](Config& c) { c.train.batch = 6; });
  refused("train.micro_batches", [](Config& c) { c.train.micro_batches = 2; });
  refused("train.optimizer.lr", [](Config& c) { c.train.optimizer.lr = 0.5; });
  refused("train.clip_grad_norm", [](Config& c) { c.train.clip_grad_norm = 0; });
  refused("train.lr_schedule.decay_steps", [](Config& c) { c.train.steps = 9; });
  refused("train.steps", [](Config& c) {
    c.train.steps = 1;
    c.train.lr_schedule.decay_steps = 5;
  });
  refused("workers.threads", [](Config& c) { c.workers.threads = 2; });
  CHECK_THROWS_WITH(resume(the.config, the.model, regression_data(20, 6, 3)), Catch::Contains("training samples"));
  CHECK_THROWS_WITH(resume(the.config, mlp_with_skip(0.25, false), regression_data(22, 6, 3)),
                    Catch::Contains("training samples"));
  Config tokens = the.config;
  tokens.train.loss = "sparse_categorical_cross_entropy";
  CHECK_THROWS_WITH(resume(tokens, small_gpt(2, 0, true), token_data(21, 8, 11)), Catch::Contains("train.loss"));
}

TEST_CASE("a checkpoint that is older than a key goes on as before there was one, and not otherwise", "[parity]") {
  Small the;
  const std::string key = "train.post_validation";
  REQUIRE(value_before(key) == "false");
  REQUIRE_FALSE(value_before("train.optimizer.lr"));
  const auto resume = [&](const Config& config, const std::string& unknown) {
    TrainerState older = Trainer(the.model, the.data, the.config).start(), fresh = older;
    std::erase_if(older.numerics, [&](const auto& entry) { return entry.first == unknown; });
    fresh.numerics = numerics_of(config);
    check_resumable(config, fresh, older, "an older one");
  };
  CHECK_NOTHROW(resume(the.config, key));
  Config other = the.config;
  other.train.post_validation = true;
  CHECK_THROWS_WITH(resume(other, key), Catch::Contains(key + ": got true, expected false as in the checkpoint"));
  CHECK_THROWS_WITH(resume(the.config, "train.optimizer.lr"),
                    Catch::Contains("train.optimizer.lr: got 0.01, expected nothing"));
}

TEST_CASE("a checkpoint that does not record the arithmetic of its data goes on with the one of its time", "[parity]") {
  const TemporaryFolder folder, newer;
  const std::string path = folder.path() + "/t.csv";
  std::ofstream file(path);
  for (int i = 0; i < 21; ++i) file << 1700000000 + 37 * i << "," << 0.1 * i << "," << 0.3 * (i % 4) << "\n";
  file.close();
  const DataSplits data = open_data(
      load_config_text("{type: csv, train: " + path + ", targets: [2], task: regression, normalize: true}", "test"),
      {});
  CHECK(data.arithmetic == "float64");
  const DataSplits before = data.unrecorded();
  CHECK(before.arithmetic.empty());
  const Model model = model_of("type: mlp, inputs: 2, width: 4, layers: 1, outputs: 1");
  Config config = small_config("mean_squared_error", 8, 3);
  config.train.eval_every = 0;
  config.checkpoint.every = "1";
  Config part = config;
  part.train.stop_after = 2;
  const auto recorded = [](const std::string& checkpoints) {
    std::ifstream state(list_checkpoints(checkpoints).back().path + "/" + kTrainerFile);
    return std::string(std::istreambuf_iterator<char>(state), {}).find(kDataArithmetic) != std::string::npos;
  };
  const Trainer graph(model, data, config);

  RunRecord run = next_leg(model, before, part, folder.path());
  CHECK_FALSE(recorded(folder.path()));
  append(run, next_leg(model, data, config, folder.path()));
  CHECK_FALSE(recorded(folder.path()));  // so the next part goes on in the same way
  CHECK(first_difference(reference_run(model, before, config), run, graph.graph()).value_or("") == "");

  RunRecord now = next_leg(model, data, part, newer.path());
  CHECK(recorded(newer.path()));
  append(now, next_leg(model, data, config, newer.path()));
  CHECK(first_difference(reference_run(model, data, config), now, graph.graph()).value_or("") == "");
  CHECK(first_difference(reference_run(model, before, config), now, graph.graph()));  // they are not the same
  CHECK_THROWS_WITH(next_leg(model, before, config, newer.path()),
                    Catch::Contains("data.arithmetic: got nothing, expected float64"));
}

namespace {

/// A table in a folder of its own, a config and a run of two steps on it.
struct OnFiles {
  TemporaryFolder folder;
  std::string table = folder.path() + "/t.csv", checkpoints = folder.path() + "/checkpoints";
  Model model = model_of("type: mlp, inputs: 2, width: 4, layers: 1, outputs: 1");
  Config config = small_config("mean_squared_error", 8, 3);

  explicit OnFiles(const std::string& keys = "") : keys_(keys) {
    config.train.eval_every = 0;
    config.checkpoint.every = "1";
    write(rows());
    Config part = config;
    part.train.stop_after = 2;
    next_leg(model, data(), part, checkpoints);
  }
  static std::vector<std::string> rows() {
    std::vector<std::string> rows = {"a,b,y\n"};
    for (int i = 0; i < 21; ++i) rows.push_back(concat(0.1 * (i + 1), ",", 17 * i % 5 + 30, ",", 0.3 * (i % 4), "\n"));
    return rows;
  }
  void write(const std::vector<std::string>& rows) const {
    std::ofstream file(table);
    for (const std::string& row : rows) file << row;
  }
  DataSplits data(const std::string& path = "") const { return open_data(section(path), {}); }
  Section section(const std::string& path = "") const {
    return load_config_text(
        concat("{type: csv, train: ", path.empty() ? table : path, ", targets: [y], task: regression", keys_, "}"),
        "test");
  }
  std::string last() const { return list_checkpoints(checkpoints).back().path; }
  /// What a resume says with the table as it is now: "resumed", or the error.
  std::string resume(const ResumeRules& rules = {}, const std::string& path = "") const {
    try {
      Trainer trainer(model, data(path), config);
      trainer.resume(last(), rules);
      return "resumed";
    } catch (const UserError& error) {
      return error.what();
    }
  }

 private:
  std::string keys_;
};

/// As it was written before there was a record of the data.
void forget_data(const std::string& checkpoint) {
  auto manifest = nlohmann::json::parse(text_of_file(checkpoint + "/manifest.json"));
  manifest["files"].erase("data.json");
  std::ofstream(checkpoint + "/manifest.json") << manifest;
  fs::remove(checkpoint + "/data.json");
}

}  // namespace

TEST_CASE("other data under the same name is refused by its file, the same data under another name is not",
          "[parity]") {
  const OnFiles run;
  CHECK(run.resume() == "resumed");
  fs::copy_file(run.table, run.folder.path() + "/copy.csv");
  CHECK(run.resume({}, run.folder.path() + "/copy.csv") == "resumed");
  std::vector<std::string> shuffled = OnFiles::rows(), swapped = shuffled, changed = shuffled;
  std::swap(shuffled[3], shuffled[9]);
  for (std::string& row : swapped) {
    const std::size_t first = row.find(','), second = row.find(',', first + 1);
    row = concat(row.substr(first + 1, second - first - 1), ",", row.substr(0, first), row.substr(second));
  }
  changed[5][0] = '7';
  for (const auto& rows : {shuffled, swapped, changed}) {
    run.write(rows);
    const std::string said = run.resume();
    CHECK_THAT(said, Catch::Contains("data.train: got " + run.table + " (") &&
                         Catch::Contains("expected " + run.table + " (") &&
                         Catch::Contains("train on the same data, wherever it lies") &&
                         Catch::EndsWith("knowingly: --change data"));
    CHECK(run.resume({.changes = {"data"}}) == "resumed");
  }
  std::vector<std::string> fewer = OnFiles::rows();
  fewer.pop_back();
  run.write(fewer);
  CHECK_THAT(run.resume(), Catch::Contains("data: got 20 training samples, expected 21"));
  CHECK(run.resume({.changes = {"data"}}) == "resumed");
}

TEST_CASE("a checkpoint without a record of its data is resumed as it was", "[parity]") {
  const OnFiles run;
  forget_data(run.last());
  CHECK(find_damage(run.last()).empty());
  CHECK(run.resume() == "resumed");
  std::vector<std::string> shuffled = OnFiles::rows();
  std::swap(shuffled[3], shuffled[9]);
  run.write(shuffled);
  CHECK(run.resume() == "resumed");
}

TEST_CASE("a set that is read from no file is known by its samples", "[parity]") {
  Stopped the;
  Trainer other(the.model, {the.data.train, the.data.eval}, the.config);
  CHECK_NOTHROW(other.resume(the.checkpoint));
  const DataSplits longer = regression_data(22, 6, 3);
  class Head : public Dataset {
   public:
    explicit Head(std::shared_ptr<const Dataset> data) : data_(std::move(data)) {}
    std::vector<EntrySpec> entries(std::int64_t rows) const override { return data_->entries(rows); }
    std::int64_t size() const override { return 21; }
    Tensors read(const std::vector<std::int64_t>& samples) const override { return data_->read(samples); }

   private:
    std::shared_ptr<const Dataset> data_;
  };
  Trainer trainer(the.model, {std::make_shared<Head>(longer.train), the.data.eval}, the.config);
  CHECK_THROWS_WITH(trainer.resume(the.checkpoint),
                    Catch::Contains("data.train: got samples (21 of them: hash ") && Catch::Contains("--change data"));
}

TEST_CASE("what a resume refuses can be changed knowingly, and is recorded", "[parity]") {
  Stopped the;
  Config other = the.config;
  other.train.stop_after = 0;
  other.train.batch = 6;
  other.train.optimizer.lr = 0.005;
  other.train.steps = 9;
  const auto resume = [&](const ResumeRules& rules) {
    Trainer trainer(the.model, the.data, other);
    trainer.resume(the.checkpoint, rules);
    return trainer.resumption();
  };
  CHECK_THROWS_WITH(resume({}), Catch::EndsWith("knowingly: --change train.batch=6 --change train.optimizer.lr=0.005 "
                                                "--change train.steps=9"));
  CHECK_THROWS_WITH(resume({.changes = {"train.batch", "train.steps"}}),
                    Catch::Contains("train.optimizer.lr: got 0.005, expected 0.01") &&
                        Catch::EndsWith("knowingly: --change train.optimizer.lr=0.005"));
  CHECK_THROWS_WITH(resume({.changes = {"train.bach"}}),
                    "--change: got train.bach, expected KEY=VALUE or a key of the config, such as data; did you mean "
                    "'train.batch'?");
  const ResumeRules rules = {.changes = {"train.batch", "train.steps", "train.optimizer", "seed"}};
  CHECK(resume(rules).changed == std::vector<std::string>{"train.batch: 6 instead of 8",
                                                          "train.optimizer.lr: 0.005 instead of 0.01",
                                                          "train.lr_schedule.decay_steps: 9 instead of 5"});
  CHECK(resume(rules).notes == std::vector<std::string>{"--change seed: nothing that a resume compares differs there"});
  Trainer trainer(the.model, the.data, other);
  trainer.resume(the.checkpoint, rules);
  const RunRecord run = record_run(trainer, {.checkpoints = the.folder.path()});
  CHECK(run.results.back().step == 9);
  const TrainerState state = state_of(CheckpointStore(list_checkpoints(the.folder.path()).back().path));
  REQUIRE(state.changes.size() == 3);
  CHECK(state.changes[0] == "after step 2: train.batch: 6 instead of 8");
  // From here on it is what this run has.
  Trainer next(the.model, the.data, other);
  CHECK_NOTHROW(next.resume(list_checkpoints(the.folder.path()).back().path));
  CHECK(next.start().changes == state.changes);
}

TEST_CASE("what the data taught goes on with the checkpoint, bit for bit, also when the file does not", "[parity]") {
  const OnFiles run(", normalize: true");
  const auto in_checkpoint = [&] { return state_of(CheckpointStore(run.last())).data->learnt; };
  const std::string learnt = in_checkpoint();
  CHECK(learnt == run.data().record->learnt);  // every bit of it went through the JSON
  const auto scaling = nlohmann::json::parse(learnt)["scaling"];
  REQUIRE(scaling.size() == 2);
  const double mean = scaling[0]["mean"];
  CHECK(mean != static_cast<float>(mean));
  std::vector<std::string> shifted = OnFiles::rows();
  for (std::size_t i = 1; i < shifted.size(); ++i) shifted[i] = "1" + shifted[i];
  run.write(shifted);
  Trainer trainer(run.model, run.data(), run.config);
  CHECK(trainer.data().record->learnt != learnt);
  trainer.resume(run.last(), {.changes = {"data"}});
  CHECK(trainer.data().record->learnt == learnt);
  record_run(trainer, {.checkpoints = run.checkpoints});
  CHECK(in_checkpoint() == learnt);
  CHECK(run.resume() == "resumed");  // the data is now this file

  // And through an unchanged file.
  const OnFiles plain(", normalize: true");
  const RunRecord unbroken = reference_run(plain.model, plain.data(), plain.config);
  RunRecord rest = next_leg(plain.model, plain.data(), with_pipeline(plain.config, 2, "1f1b"), plain.checkpoints);
  RunRecord expected = unbroken;
  std::erase_if(expected.results, [](const StepResult& result) { return result.step <= 2; });
  CHECK(first_difference(expected, rest, trainer.graph()).value_or("") == "");
}

TEST_CASE("a record of the data is read back bit for bit, and a damaged one is named", "[parity]") {
  DataRecord record;
  record.train = {{"a/b.csv", 12, 0xfedcba9876543210}};
  record.eval = {{"", 64, 7}};
  const nlohmann::ordered_json taught = {{"columns", {"a", "y"}},
                                         {"scaling",
                                          {{{"column", "a"}, {"mean", 1.0 / 3}, {"deviation", 5e-324}},
                                           {{"column", "y"}, {"mean", -1.7e9 - 0.1}, {"deviation", 0.0}}}},
                                         {"categories", {{"color", {"blue", "red"}}}}};
  record.learnt = taught.dump();
  const std::string json = to_json(record);
  CHECK(nlohmann::json::parse(json)["scaling"][0]["mean"] == 1.0 / 3);  // at the top, for whoever reads it
  const DataRecord read = data_record(json, "x/data.json");
  CHECK(read.learnt == record.learnt);
  CHECK(nlohmann::json::parse(read.learnt) == taught);
  CHECK(learnt_lines(read) ==
        std::vector<std::string>{"columns: a, y", "scaling of a: mean 0.333333, deviation 4.94066e-324",
                                 "scaling of y: mean -1.7e+09, deviation 0", "categories of color: blue, red"});
  CHECK_FALSE(data_difference(read.train, record.train));
  CHECK_FALSE(data_difference(read.eval, record.eval));
  CHECK(data_difference(read.train, {})->before == "0 files");
  for (const char* text : {"", "{}", "[]", R"({"train": 3})", R"({"train": [{"file": "a", "bytes": 1, "hash": "x"}]})"})
    CHECK_THROWS_WITH(data_record(text, "x/data.json"), Catch::StartsWith("x/data.json: is damaged: "));
}

TEST_CASE("an evaluation asks for the checkpoint's model and data, not for how it was trained", "[parity]") {
  Stopped the;
  const auto resume = [&](const Config& config) {
    Trainer trainer(the.model, the.data, config);
    trainer.resume(the.checkpoint, {.evaluates = true});
  };
  Config other = the.config;
  other.train.optimizer.lr = 0.5;
  other.train.steps = 1;
  CHECK_NOTHROW(resume(other));
  other.seed = 4;
  CHECK_THROWS_WITH(resume(other), Catch::EndsWith("the evaluation would not be that of what it has trained; set it as "
                                                   "it was"));
}

TEST_CASE("a model that the checkpoint's weights do not fit is refused without a way to go on", "[parity]") {
  const auto state_of_model = [](const std::string& width) {
    const Config config = read_config(load_config_text(
        "train: {steps: 2, batch: 8, loss: mean_squared_error}\ndata: {type: b}\nmodel: {type: mlp, width: " + width +
            "}",
        "m.yaml"));
    TrainerState state;
    state.step = 1;
    state.numerics = numerics_of(config);
    return std::pair(config, state);
  };
  const auto now = state_of_model("16");
  const TrainerState saved = state_of_model("8").second;
  const auto resume = [&](const std::string& misfit) {
    check_resumable(now.first, now.second, saved, "DIR", {.misfit = misfit});
  };
  CHECK_THROWS_WITH(resume(""), Catch::EndsWith("knowingly: --change model.width=16"));
  CHECK_THROWS_WITH(
      resume("tensor 'fc.0.weight': is of another size"),
      Catch::EndsWith("model.width: got 16, expected 8 as in the checkpoint DIR: its weights do not fit this "
                      "model; set it as it was (tensor 'fc.0.weight': is of another size)"));
}
