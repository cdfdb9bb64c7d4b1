// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints that Lockstep 0.1.0 wrote (tests/golden/checkpoints) are resumed for ever. What they go on to is compared
// with itself, on several workers: stored bits would be those of one instruction set.
#include <filesystem>

#include "runtime/checkpoint/manifest.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

namespace fs = std::filesystem;

constexpr const char* kCheckpoint = "step-00000004";
constexpr std::int64_t kStep = 4,
                       kMoreSteps = 9;  // behind the end of an epoch and, of csv, a drop of the learning rate

/// The folder of a checkpoint as the working folder, for its config names data relative to it.
class Golden {
 public:
  explicit Golden(const std::string& name) : before_(fs::current_path()) {
    fs::current_path(concat(LOCKSTEP_SOURCE_DIR, "/tests/golden/checkpoints/", name));
  }
  ~Golden() { fs::current_path(before_); }
  Golden(const Golden&) = delete;
  Golden& operator=(const Golden&) = delete;

  RunRecord resume(std::int64_t steps, int stages, const std::string& schedule) {
    Config config = with_pipeline(read_config(load_config_file("config.yaml")), stages, schedule);
    config.pipeline.placement.clear();
    config.train.steps = steps;
    config.checkpoint = {};
    const Model model = make_model(config.model);
    DataContext context{.seed = config.seed};
    if (config.model.has("context")) context.context = config.model.get<std::int64_t>("context");
    Trainer trainer(model, open_data(config.data, context), config);
    trainer.resume(kCheckpoint);
    graph_ = trainer.graph();
    return record_run(trainer);
  }
  const ModelGraph& graph() const { return graph_; }

 private:
  fs::path before_;
  ModelGraph graph_;
};

}  // namespace

TEST_CASE("a checkpoint of 0.1.0 is whole, and is loaded as its manifest says", "[parity]") {
  for (const char* name : {"gpt", "csv"}) {
    Golden golden(name);
    INFO(name);
    CHECK(find_damage(kCheckpoint).empty());
    std::map<std::string, std::uint64_t> expected;
    for (const auto& [file, shard] : read_manifest(kCheckpoint).shards)
      if (file.starts_with("model-")) expected.insert(shard.tensors.begin(), shard.tensors.end());
    for (const int stages : {1, 2}) {
      std::map<std::string, std::uint64_t> loaded;
      for (const FinalParameter& parameter : golden.resume(kStep, stages, "gpipe").parameters)
        loaded[golden.graph().parameters[parameter.index].name] = parameter.hash;
      CHECK(loaded == expected);
    }
  }
}

TEST_CASE("a checkpoint of 0.1.0 goes on to the same bits on any number of workers", "[parity]") {
  for (const char* name : {"gpt", "csv"}) {
    Golden golden(name);
    INFO(name);
    const RunRecord one = golden.resume(kMoreSteps, 1, "gpipe");
    REQUIRE(one.results.size() == kMoreSteps - kStep);
    CHECK(one.results.front().step == kStep + 1);
    for (const char* schedule : {"gpipe", "1f1b"})
      CHECK(first_difference(one, golden.resume(kMoreSteps, 2, schedule), golden.graph()).value_or("") == "");
    CHECK(first_difference(one, golden.resume(kMoreSteps - 1, 2, "1f1b"), golden.graph()));  // would be seen
  }
}
