// SPDX-License-Identifier: Apache-2.0
//
// The parity matrix over MPI: all of it inside one mpirun.
#include <map>
#include <memory>
#include <numeric>

#include "runtime/checkpoint/store.hpp"
#include "runtime/engine/mpi_links.hpp"
#include "runtime/schedule/generators.hpp"
#include "tests/mpi/mpi_test.hpp"
#include "tests/parity/delayed_channel.hpp"
#include "tests/parity/family_cases.hpp"
#include "tests/parity/idling.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

struct Transport {
  int block_bytes = 0;  ///< 0: the default, and slots that hold all messages of these small models
  bool synchronous_sends = false;
  unsigned delays = 0;  ///< seed of random delays; 0: none
};

MpiEndpointOptions endpoint_options(const Transport& transport) {
  MpiEndpointOptions options;
  options.workers = 2;
  options.synchronous_sends = transport.synchronous_sends;
  if (transport.block_bytes > 0) {
    options.block_bytes = transport.block_bytes;
    options.slot_bytes = 64;  // the header alone: everything else travels in blocks
  }
  return options;
}

/// Those of all ranks, on each.
void gather_hashes(RunRecord& run) {
  const std::vector<std::string> all = world().all_gather(run.hashes_to_bytes());
  run.hashes.clear();
  for (const std::string& bytes : all) run.add_hashes(bytes);
}

// What differs from the one-worker run, on every rank the same answer.
std::string difference_over_ranks(const RunRecord& reference, const Model& model, const DataSplits& data,
                                  const Config& config, const Transport& transport = {}) {
  MpiLinks links(world(), endpoint_options(transport));
  Trainer trainer(model, data, config, {RankId(world().rank()), world().size(), &links});
  std::atomic<long> delays{0};
  RunOptions options;
  if (transport.delays > 0) options.wrap_channel = delayed(transport.delays, delays);
  RunRecord tested = record_run(trainer, options);
  CHECK((delays > 20) == (transport.delays > 0));
  gather_hashes(tested);
  return first_difference(reference, tested, trainer.graph()).value_or("");
}

// Workers per rank: even, and everything but one worker on the last rank (3+1 of 4 on two ranks).
std::vector<std::vector<int>> placements(int stages, int ranks) {
  std::vector<std::vector<int>> all = {{}};
  std::vector<int> uneven(static_cast<std::size_t>(ranks), 1);
  uneven[0] = stages - ranks + 1;
  if (stages > ranks) all.push_back(uneven);
  return all;
}

void expect_same_bits(const std::string& name, const Model& model, const DataSplits& data, const std::string& loss,
                      const std::vector<int>& counts = {1, 2, 5, 8}) {
  for (const int micro_batches : counts) {
    const Config config = small_config(loss, 8, micro_batches);
    const RunRecord reference = reference_run(model, data, config);
    for (const std::string schedule : {"gpipe", "1f1b"})
      for (int stages = world().size(); stages <= 4; ++stages)
        for (const std::vector<int>& per_rank : placements(stages, world().size())) {
          INFO(name << ", " << schedule << ", " << stages << " stages as [" << join(per_rank) << "], " << micro_batches
                    << " micro-batches");
          Config placed = with_pipeline(config, stages, schedule);
          placed.workers.per_rank = per_rank;
          CHECK(difference_over_ranks(reference, model, data, placed) == "");
        }
  }
}

}  // namespace

TEST_CASE("an MLP with a skip and dropout trains to the same bits over ranks", "[mpi][parity]") {
  expect_same_bits("mlp", mlp_with_skip(0.25, true), regression_data(21, 6, 3), "mean_squared_error");
}

TEST_CASE("a tied GPT with dropout trains to the same bits over ranks", "[mpi][parity]") {
  expect_same_bits("gpt", small_gpt(3, 0.2, true), token_data(21, 8, 11), "sparse_categorical_cross_entropy");
}

TEST_CASE("every schedule, with recompute and workers in other places, trains to the same bits over ranks",
          "[mpi][parity]") {
  const Model model = small_gpt(5, 0.2, true);  // 8 layers
  const DataSplits data = token_data(21, 8, 11);
  const int workers = std::max(2, world().size());
  const Config config = small_config("sparse_categorical_cross_entropy", 8, 8);
  const RunRecord reference = reference_run(model, data, config);
  std::size_t turn = 0;
  for (const ScheduleGenerator& schedule : schedule_generators()) {
    INFO(schedule.name);
    const int each = schedule.virtual_stages.least;
    Config tested = with_pipeline(config, workers * each, schedule.name, each);
    tested.pipeline.recompute = turn % 2 == 0 ? Recompute::always : Recompute::except_last;
    tested.train.post_validation = turn % 2 == 1;
    if (turn % 3 == 0)
      for (int worker = workers; worker-- > 0;) tested.pipeline.placement.push_back(worker);
    CHECK(difference_over_ranks(reference, model, data, tested) == "");
    ++turn;
  }
  // Measures on all ranks first, and every rank has to come to the same schedule.
  CHECK(difference_over_ranks(reference, model, data, with_pipeline(config, workers * 2, "auto", 2)) == "");
}

TEST_CASE("replicas train to the bits of one worker over ranks: mirrored, sharded, several in a rank",
          "[mpi][parity]") {
  const auto expect = [](const char* name, const Model& model, const DataSplits& data, Config config) {
    config.train.gradient_groups = 4;
    const RunRecord reference = reference_run(model, data, config);
    for (const int count : {2, 3, 4})
      for (const int workers : {1, 2})
        for (const bool shards : {false, true})
          for (const ReplicaPlacement placement :
               {ReplicaPlacement::pipeline_first, ReplicaPlacement::replicas_first}) {
            if (count * workers < world().size()) continue;
            INFO(name << ": " << count << " replicas of " << workers << " workers, " << name_of(placement)
                      << (shards ? ", sharded" : ""));
            Config tested = with_pipeline(config, workers, "1f1b");
            tested.replicas = {count, ReplicaStrategy::mirrored, shards, placement};
            CHECK(difference_over_ranks(reference, model, data, tested) == "");
          }
  };
  expect("gpt", small_gpt(3, 0.2, true), token_data(23, 8, 11), small_config("sparse_categorical_cross_entropy", 9, 8));
  Config config = small_config("sparse_categorical_cross_entropy", 9, 5);
  config.train.post_validation = true;
  expect("cnn", model_of("type: cnn, inputs: 3, classes: 4, depth: 2"), image_data(23, 3, 8, 4, false), config);
  // Parameters of several blocks, in messages that are cut.
  Model wide{"mlp", {}};
  for (const auto& [name, in, out] :
       {std::tuple("fc.0", 6, 390), std::tuple("fc.1", 390, 390), std::tuple("out", 390, 3)})
    wide.layers.push_back({name, std::make_shared<Linear>(in, out)});
  expect("wide", wide, regression_data(23, 6, 3), small_config("mean_squared_error", 9, 8));
  expect("sparse", clicks(), clicks_data(), small_config("mean_squared_error", 8, 8));
}

TEST_CASE("servers with staleness 0 train to the bits of one worker over ranks, and the others keep the bound",
          "[mpi][parity]") {
  Config clips = small_config("mean_squared_error", 8, 8);
  clips.train.gradient_groups = 4;
  for (const auto& [model, data] :
       {std::pair(mlp_with_skip(0.2, true), regression_data(23, 6, 3)), std::pair(clicks(), clicks_data())}) {
    const RunRecord reference = reference_run(model, data, clips);
    for (const auto& [count, servers] : {std::pair(2, 1), std::pair(4, 2), std::pair(1, 1), std::pair(1, 3)}) {
      if (count + servers < world().size()) continue;
      INFO(model.name << ": " << count << " replicas, " << servers << " servers");
      Config tested = clips;
      tested.replicas = {
          .count = count, .strategy = ReplicaStrategy::parameter_server, .servers = servers, .max_staleness = 0};
      CHECK(difference_over_ranks(reference, model, data, tested) == "");
      tested.replicas.max_staleness = 2;
      MpiLinks links(world(), endpoint_options({}));
      Trainer trainer(model, data, tested, {RankId(world().rank()), world().size(), &links});
      const RunRecord run = record_run(trainer);
      std::int64_t updates = 0;
      for (const StepResult& step : run.results) {
        CHECK(step.staleness.size() <= 3);
        updates += std::accumulate(step.staleness.begin(), step.staleness.end(), std::int64_t{0});
      }
      CHECK(updates >= 5 * servers);
    }
  }
}

TEST_CASE("a U-Net with batch norm, skips and two heads trains to the same bits over ranks", "[mpi][parity]") {
  expect_same_bits("unet", model_of("type: unet, inputs: 2, classes: 3, channels: 4, depth: 2, deep_supervision: true"),
                   image_data(21, 2, 8, 3, /*segmentation=*/true), "segmentation_cross_entropy", {5});
}

TEST_CASE("a rate that follows evaluations, a factored optimizer and averages train to the same bits over ranks",
          "[mpi][parity]") {
  const Model model = mlp_with_skip(0.25, true);
  const DataSplits data = regression_data(21, 6, 3);
  Config config = small_config("mean_squared_error", 8, 2);
  config.train.steps = 10;
  config.train.eval_every = 1;
  config.train.optimizer.type = OptimizerType::adafactor;
  config.train.ema = {true, 0.9};
  config.train.lr_schedule = {};
  config.train.lr_schedule.type = LrScheduleType::plateau;
  config.train.lr_schedule.patience = 0;
  config.train.lr_schedule.threshold = 0.5;
  const RunRecord reference = reference_run(model, data, config);
  CHECK(reference.results.back().mode == Mode::evaluate);
  for (const std::string schedule : {"gpipe", "1f1b"})
    CHECK(difference_over_ranks(reference, model, data, with_pipeline(config, 4, schedule), {.delays = 3}) == "");
}

TEST_CASE("workers in reversed places and payloads in small blocks change no bit", "[mpi][parity]") {
  const Model model = small_gpt(3, 0.2, true);
  const DataSplits data = token_data(21, 8, 11);
  Config config = small_config("sparse_categorical_cross_entropy", 8, 4);
  const RunRecord reference = reference_run(model, data, config);
  config = with_pipeline(config, 4, "1f1b");
  config.pipeline.placement = {3, 1, 2, 0};
  CHECK(difference_over_ranks(reference, model, data, config, {.block_bytes = 512}) == "");
}

TEST_CASE("random delays, blocks of 1 KiB and sends that wait for their post change no bit", "[mpi][parity]") {
  const Model model = small_gpt(3, 0.2, true);
  const DataSplits data = token_data(21, 8, 11);
  const Config config = small_config("sparse_categorical_cross_entropy", 8, 2);  // activations of 2 KiB
  const RunRecord reference = reference_run(model, data, config);
  for (const std::string schedule : {"gpipe", "1f1b", "zb_h1"})
    for (const unsigned seed : {1U, 2U})
      for (const bool synchronous : {false, true}) {
        INFO(schedule << ", seed " << seed << (synchronous ? ", synchronous" : ""));
        const Transport transport{.block_bytes = 1024, .synchronous_sends = synchronous, .delays = seed};
        CHECK(difference_over_ranks(reference, model, data, with_pipeline(config, 4, schedule), transport) == "");
      }
}

TEST_CASE("a run that goes from ranks to one process and back gives the bits of the unbroken one", "[mpi][parity]") {
  const Model model = small_gpt(3, 0.2, true);
  const DataSplits data = token_data(21, 8, 11);
  const Config config = small_config("sparse_categorical_cross_entropy", 8, 5);
  const RunRecord unbroken = reference_run(model, data, config);
  // The folder of rank 0 is everybody's.
  const auto mine = world().rank() == 0 ? std::make_unique<TemporaryFolder>() : nullptr;
  const std::string folder = world().all_gather(mine ? mine->path() : "").front();
  RunRecord run;
  const auto over_ranks = [&](int stages, const std::string& schedule, std::vector<int> placement, int steps) {
    Config of_leg = with_pipeline(config, stages, schedule);
    of_leg.pipeline.placement = std::move(placement);
    of_leg.train.stop_after = steps;
    MpiLinks links(world(), endpoint_options({}));
    RunRecord leg = next_leg(model, data, of_leg, folder, {RankId(world().rank()), world().size(), &links});
    gather_hashes(leg);
    append(run, leg);
  };
  over_ranks(4, "gpipe", {3, 1, 2, 0}, 2);  // row 0, which publishes, is not on rank 0
  if (world().rank() == 0) {
    Config alone = with_pipeline(config, 2, "1f1b");
    alone.train.stop_after = 1;
    append(run, next_leg(model, data, alone, folder));
  }
  world().barrier();
  over_ranks(world().size(), "1f1b", {}, 0);
  if (world().rank() == 0) {
    const Trainer trainer(model, data, one_worker(config), Ranks{});
    CHECK(first_difference(unbroken, run, trainer.graph()).value_or("") == "");
  }
}

TEST_CASE("a rank has all weights and gradients, and of a sharded optimizer its part", "[mpi][parity]") {
  Model model{"mlp", {}};
  for (const char* name : {"fc.0", "fc.1", "fc.2"})
    model.layers.push_back({name, std::make_shared<Linear>(1024, 1024)});
  const DataSplits data = regression_data(23, 1024, 1024);
  const double parameters = 3 * (1024 * 1024 + 1024);
  for (const bool shards : {false, true}) {
    Config config = with_pipeline(small_config("mean_squared_error", 8, 4), 1, "1f1b");
    config.train.clip_grad_norm = 0;
    config.train.eval_every = 0;
    config.replicas.count = world().size();
    config.replicas.shard_optimizer = shards;
    MpiLinks links(world(), endpoint_options({}));
    Trainer trainer(model, data, config, {RankId(world().rank()), world().size(), &links});
    const RunRecord run = record_run(trainer);
    const WorkerReport& worker = run.results.back().workers.at(static_cast<std::size_t>(world().rank()));
    const auto bytes = [&](MemoryKind kind) {
      return static_cast<double>(worker.peak_by_kind[static_cast<std::size_t>(kind)]);
    };
    INFO("sharded " << shards);
    CHECK(bytes(MemoryKind::parameters) == Approx(4 * parameters).epsilon(0.05));
    CHECK(bytes(MemoryKind::gradients) == Approx(4 * parameters).epsilon(0.05));
    CHECK(bytes(MemoryKind::optimizer) == Approx(8 * parameters / (shards ? world().size() : 1)).epsilon(0.05));
  }
}

TEST_CASE("a sharded optimizer's state goes from ranks to ranks, to one process and back", "[mpi][parity]") {
  Model model{"mlp", {}};  // of parameters that are divided
  for (const auto& [name, in, out] :
       {std::tuple("fc.0", 6, 390), std::tuple("fc.1", 390, 390), std::tuple("out", 390, 3)})
    model.layers.push_back({name, std::make_shared<Linear>(in, out)});
  const DataSplits data = regression_data(23, 6, 3);
  Config config = small_config("mean_squared_error", 9, 8);
  config.train.gradient_groups = 4;
  config.train.ema = {true, 0.9};
  const RunRecord unbroken = reference_run(model, data, config);
  const auto mine = world().rank() == 0 ? std::make_unique<TemporaryFolder>() : nullptr;
  const std::string folder = world().all_gather(mine ? mine->path() : "").front();
  RunRecord run;
  const auto over_ranks = [&](int replicas, bool shards) {
    Config of_leg = with_pipeline(config, 4 / replicas, "1f1b");
    of_leg.replicas.count = replicas;
    of_leg.replicas.shard_optimizer = shards;
    of_leg.train.stop_after = 1;
    MpiLinks links(world(), endpoint_options({}));
    RunRecord leg = next_leg(model, data, of_leg, folder, {RankId(world().rank()), world().size(), &links});
    gather_hashes(leg);
    append(run, leg);
  };
  over_ranks(4, true);
  over_ranks(2, true);
  if (world().rank() == 0) {
    CheckpointStore store(checkpoint_path(folder, 2));
    CHECK(store.entry(TensorKind::optimizer, "fc.1.weight.exp_avg").sizes == std::vector<std::int64_t>{390, 390});
    const MappedWeights averages(store, /*averaged=*/true);
    CHECK(averages.tensors().size() == 6);
    Config alone = with_pipeline(config, 2, "1f1b");
    alone.train.stop_after = 1;
    append(run, next_leg(model, data, alone, folder));
  }
  world().barrier();
  over_ranks(4, false);
  over_ranks(4, true);
  if (world().rank() == 0) {
    const Trainer trainer(model, data, one_worker(config), Ranks{});
    CHECK(first_difference(unbroken, run, trainer.graph()).value_or("") == "");
  }
}

TEST_CASE("a decider that is idle far longer than the watchdog's limit ends no job over ranks", "[mpi]") {
  MpiLinks links(world(), endpoint_options({}));
  check_idling(with_pipeline(small_config("mean_squared_error", 8, 4), 4, "1f1b"),
               {RankId(world().rank()), world().size(), &links});
}
