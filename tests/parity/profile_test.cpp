// SPDX-License-Identifier: Apache-2.0
//
// What is measured layer by layer is what a worker that runs all of them reports of itself.
#include <ATen/ATen.h>

#include <atomic>
#include <barrier>
#include <filesystem>
#include <fstream>
#include <thread>

#include "partitioner/profile_cache.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/profile/layer_bench.hpp"
#include "runtime/profile/links.hpp"
#include "runtime/profile/profile_model.hpp"
#include "runtime/training/optimizer.hpp"
#include "runtime/training/precision.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr std::int64_t kBatch = 8;
constexpr int kMicroBatches = 2;
constexpr std::int64_t kRows = kBatch / kMicroBatches;

struct Case {
  std::string name;
  Model model;
  DataSplits data;
  Config config;
};

std::vector<Case> cases() {
  const auto config = [](const std::string& loss, Precision precision = Precision::fp32) {
    Config made = small_config(loss, kBatch, kMicroBatches);
    made.train.precision = precision;
    made.train.steps = 2;
    return made;
  };
  std::vector<Case> all = {
      {"mlp", mlp_with_skip(0.25, true), regression_data(16, 6, 3), config("mean_squared_error")},
      {"gpt", small_gpt(3, 0.1, true), token_data(16, 8, 11), config("sparse_categorical_cross_entropy")},
      {"gpt in bf16", small_gpt(2, 0.1, false), token_data(16, 8, 11),
       config("sparse_categorical_cross_entropy", Precision::bf16)},
      {"gpt in fp64", small_gpt(2, 0.1, true), token_data(16, 8, 11),
       config("sparse_categorical_cross_entropy", Precision::fp64)},
      {"cnn", model_of("type: cnn, inputs: 3, classes: 5, channels: 4, depth: 2"), image_data(16, 3, 8, 5, false),
       config("sparse_categorical_cross_entropy")}};
  all.push_back(all[1]);
  all.back().name = "gpt, partly frozen";
  all.back().config.train.freeze = {"transformer.wpe.weight", "transformer.h.1.*"};
  return all;
}

/// The worker's report of its only stage in the last step, with I and W apart, so that it says what lies between them.
StageReport reported(const Case& the) {
  const TemporaryFolder folder;
  Config config = with_pipeline(the.config, 1, "", 0);
  config.pipeline.schedule = "file:" + folder.path() + "/apart.csv";
  std::ofstream(config.pipeline.schedule_file()) << "0F0,0I0,0W0,0F1,0I1,0W1\n";
  Trainer trainer(the.model, the.data, config);
  struct Last : Observer {
    void on_result(const StepResult& result) override {
      if (result.mode == Mode::train) report = result.workers.at(0).stages.at(0);
    }
    StageReport report;
  } last;
  RunOptions options;
  options.observer = &last;
  trainer.fit(options);
  return last.report;
}

MeasureOptions options_of(const Config& config) {
  MeasureOptions options;
  options.stage.precision = dtype_of(config.train.precision);
  options.repeats = kFewestRepeats;
  options.most_seconds = 0.2;
  options.clip = true;
  options.make_updater = choose_optimizer(config.train).maker();
  return options;
}

LayerSample measured(const Trainer& trainer, int layer, const MeasureOptions& options) {
  const LayerGroup alone{{{0, {layer}}}};
  const Partition partition = one_layer_each(trainer.graph());
  const Tensors no_data;
  return measure_layers({trainer.graph(), partition, alone, kRows, trainer.losses(), options, no_data}).front();
}

ProfileRequest request_of(const Case& the, const Trainer& trainer) {
  ProfileRequest request;
  request.model = the.name;
  request.describe = [&](std::int64_t rows) {
    return describe_model(the.model, the.data.train->entries(rows), trainer.losses(),
                          graph_options(the.config.train, kBenchMicroBatches * rows));
  };
  request.losses = trainer.losses();
  request.rows = {2, kRows};
  request.measure = options_of(the.config);
  request.environment = {{"isa", "any"}};
  return request;
}

}  // namespace

TEST_CASE("bytes measured layer by layer add up to what a worker reports of the whole stage", "[parity][profile]") {
  for (const Case& the : cases()) {
    INFO(the.name);
    const Trainer trainer(the.model, the.data, one_worker(the.config));
    const StageReport report = reported(the);
    double held = 0, weight_grad = 0, step = 0;
    for (int layer = 0; layer < trainer.graph().layer_count(); ++layer) {
      const LayerSample sample = measured(trainer, layer, options_of(the.config));
      INFO(trainer.graph().layers[layer].name << ": held " << sample.activation_bytes << ", W "
                                              << sample.weight_grad_bytes);
      held += sample.activation_bytes;
      weight_grad += sample.weight_grad_bytes;
      step += sample.step_bytes;
      CHECK(sample.recompute_activation_bytes <= sample.activation_bytes);
      CHECK(sample.forward_workspace_bytes >= sample.activation_bytes);
    }
    // The worker looks at its first micro-batch, which makes the casts of the step, and they stay.
    CHECK(held + step == static_cast<double>(report.activation_bytes));
    // Convolutions that read one value keep one tensor for their weight gradients; measured alone, each has its own.
    if (the.name == "cnn") {
      CHECK(weight_grad > static_cast<double>(report.weight_grad_bytes));
      CHECK(weight_grad < 1.25 * static_cast<double>(report.weight_grad_bytes));
    } else {
      CHECK(weight_grad + step == static_cast<double>(report.weight_grad_bytes));
    }
    CHECK((step > 0) == (the.config.train.precision == Precision::bf16));
  }
}

TEST_CASE("a linear layer keeps its output from F to I, and what its weight gradient needs from I to W",
          "[parity][profile]") {
  const Case the = cases()[0];
  const Trainer trainer(the.model, the.data, one_worker(the.config));
  const int inner = 3;  // fc.1, 16 -> 16
  REQUIRE(trainer.graph().layers[inner].name == "fc.1");
  const LayerSample sample = measured(trainer, inner, options_of(the.config));
  const double entry = 4.0 * kRows * 16;
  CHECK(sample.activation_bytes == entry);
  CHECK(sample.recompute_activation_bytes == 0);
  CHECK(sample.weight_grad_bytes == 2 * entry);                // input and gradient of the output
  CHECK(sample.input_grad_workspace_bytes >= entry);           // the gradient of the input
  CHECK(sample.weight_grad_workspace_bytes >= 4.0 * 16 * 16);  // a product beside the sum
  // In a B the input and the gradient of the output are others' memory: the product comes on top of the gradient of the
  // input alone, and the output has gone.
  CHECK(sample.backward_workspace_bytes >= sample.input_grad_workspace_bytes);
  CHECK(sample.backward_workspace_bytes <=
        std::max(sample.input_grad_workspace_bytes, sample.weight_grad_workspace_bytes));
  CHECK(sample.update_us > 0);
}

TEST_CASE("what a loss keeps is there although its layer is run again", "[parity][profile]") {
  const Case the = cases()[1];
  const Trainer trainer(the.model, the.data, one_worker(the.config));
  const int head = trainer.graph().layer_count() - 1;
  const LayerSample sample = measured(trainer, head, options_of(the.config));
  CHECK(sample.recompute_activation_bytes > 0);
  CHECK(sample.input_grad_us > 0);
}

TEST_CASE("a layer that needs no backward costs a forward and keeps nothing", "[parity][profile]") {
  Case the = cases()[1];
  the.config.train.freeze = {"transformer.w*", "transformer.h.0.*"};
  const Trainer trainer(the.model, the.data, one_worker(the.config));
  const LayerSample sample = measured(trainer, 1, options_of(the.config));
  CHECK(sample.forward_us > 0);
  CHECK(sample.input_grad_us + sample.weight_grad_us + sample.update_us == 0);
  CHECK(sample.activation_bytes == 0);
  CHECK(sample.forward_workspace_bytes > 0);
}

TEST_CASE("layers that sleep cost what they sleep, and more", "[parity][profile]") {
  const Model model =
      model_of("type: delay, layers: 2, width: 4, forward_ms: 3, input_grad_ms: [1, 2], weight_grad_ms: [2, 1]");
  const Trainer trainer(model, regression_data(16, 4, 4),
                        one_worker(small_config("mean_squared_error", kBatch, kMicroBatches)));
  MeasureOptions options = options_of(trainer.config());
  options.workers = 2;
  for (const int layer : {0, 1}) {
    const LayerSample sample = measured(trainer, layer, options);
    CHECK(sample.rows == kRows);
    CHECK(sample.forward_us >= 3000);
    CHECK(sample.input_grad_us >= (layer == 0 ? 1000 : 2000));
    CHECK(sample.weight_grad_us >= (layer == 0 ? 2000 : 1000));
  }
  CHECK(signature_of(trainer.graph(), 0, trainer.losses()) != signature_of(trainer.graph(), 1, trainer.losses()));
}

TEST_CASE("layers have one signature exactly when nothing that costs differs", "[parity][profile]") {
  const auto signatures = [](const std::string& keys) {
    const Model model = model_of("type: gpt, width: 16, context: 8, vocab: 11, " + keys);
    const Trainer trainer(model, token_data(16, 8, 11),
                          one_worker(small_config("sparse_categorical_cross_entropy", kBatch, kMicroBatches)));
    std::vector<std::string> all;
    for (int layer = 0; layer < trainer.graph().layer_count(); ++layer)
      all.push_back(signature_of(trainer.graph(), layer, trainer.losses()));
    return all;
  };
  const auto plain = signatures("layers: 3, heads: 2");
  REQUIRE(plain.size() == 6);
  CHECK(plain[1] == plain[2]);
  CHECK(plain[1] == plain[3]);
  CHECK(plain[0] != plain[1]);
  CHECK(signatures("layers: 2, heads: 2")[1] == plain[1]);  // of another depth
  CHECK(signatures("layers: 3, heads: 4")[1] != plain[1]);  // same parameters and shapes
  CHECK(signatures("layers: 3, heads: 2, dropout: 0.1")[1] != plain[1]);
  CHECK(signatures("layers: 3, heads: 2, tie_embeddings: false")[5] != plain[5]);
}

TEST_CASE("a model is profiled with equal layers once, from the cache the second time", "[parity][profile]") {
  const Case the = cases()[1];
  const Trainer trainer(the.model, the.data, one_worker(the.config));
  const TemporaryFolder folder;
  ProfileRequest request = request_of(the, trainer);
  request.cache = folder.path() + "/layers";
  int pieces = 0, cached = 0;
  request.progress = [&](const ProfileProgress& progress) {
    CHECK(progress.done == pieces + 1);
    CHECK(progress.total == 4 * 3);  // embed, h.*, ln_f and head; two sizes and one between them
    ++pieces;
    cached += progress.cached ? 1 : 0;
  };
  const Profile first = profile_model(request);
  CHECK(pieces == 12);
  CHECK(cached == 0);
  REQUIRE(first.layers.size() == 4);
  CHECK(first.layers[1].name == "h.0");
  CHECK(first.layers[1].samples.size() == 2);
  for (int layer = 0; layer < trainer.graph().layer_count(); ++layer)
    CHECK_NOTHROW(profile_of_layer(first, trainer.graph().layers[layer].name,
                                   signature_of(trainer.graph(), layer, trainer.losses())));

  pieces = 0;
  const Profile second = profile_model(request);
  CHECK(cached == 12);
  CHECK(to_json(second) == to_json(first));

  // One entry is damaged, and another machine knows none of them.
  const std::string file = std::filesystem::directory_iterator(request.cache)->path();
  std::ofstream(file) << "{\"key\": 3}";
  pieces = cached = 0;
  profile_model(request);
  CHECK(cached == 8);  // the layers of that size are measured in one another's company
  pieces = cached = 0;
  request.environment = {{"isa", "another"}};
  profile_model(request);
  CHECK(cached == 0);
}

TEST_CASE("ranks share the work and come to the same profile", "[parity][profile]") {
  const Case the = cases()[1];
  const Trainer trainer(the.model, the.data, one_worker(the.config));
  constexpr int ranks = 3;
  std::vector<std::string> texts(ranks), profiles(ranks);
  std::vector<int> pieces(ranks);
  std::barrier<> together(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      ProfileRequest request = request_of(the, trainer);
      request.progress = [&](const ProfileProgress& progress) { pieces[rank] = progress.done; };
      ProfileSharing sharing;
      sharing.rank = rank;
      sharing.ranks = ranks;
      sharing.all_gather = [&](const std::string& mine) {
        texts[rank] = mine;
        together.arrive_and_wait();
        const std::vector<std::string> all = texts;
        together.arrive_and_wait();
        return all;
      };
      profiles[rank] = to_json(profile_model(request, sharing));
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(pieces == std::vector<int>{4, 4, 4});
  CHECK(profiles[0] == profiles[1]);
  CHECK(profiles[0] == profiles[2]);
  CHECK(read_profile(load_config_text(profiles[0], "p")).layers.size() == 4);
}

namespace {

/// Fails in the n-th forward of all threads.
class Breaks : public Layer {
 public:
  explicit Breaks(int calls) : left_(calls) {}
  std::string type() const override { return "breaks"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override { return {{}, {inputs[0]}}; }
  Tensors forward(const Tensors& inputs, LayerContext&) const override {
    if (--left_ == 0) throw Error("broken on purpose");
    return {inputs[0] * 2};
  }

 private:
  mutable std::atomic<int> left_;
};

}  // namespace

TEST_CASE("a layer that fails on one thread ends the measurement on all", "[parity][profile]") {
  for (const int calls : {1, 8, 12, 14}) {  // 9 forwards of 3 threads are about bytes
    Model model{"breaks", {{"fc", std::make_shared<Linear>(6, 3)}, {"b", std::make_shared<Breaks>(calls)}}};
    const Trainer trainer(model, regression_data(16, 6, 3),
                          one_worker(small_config("mean_squared_error", kBatch, kMicroBatches)));
    MeasureOptions options = options_of(trainer.config());
    options.workers = 3;
    CHECK_THROWS_WITH(measured(trainer, 1, options),
                      Catch::Contains("layer 'b' (breaks) failed in forward") && Catch::Contains("broken on purpose"));
  }
}

TEST_CASE("rows are measured for the largest micro-batch and half of it", "[parity][profile]") {
  CHECK(rows_to_measure(64, 8, 1) == std::vector<std::int64_t>{4, 8});
  CHECK(rows_to_measure(10, 3, 1) == std::vector<std::int64_t>{2, 4});
  CHECK(rows_to_measure(8, 8, 1) == std::vector<std::int64_t>{1});
  CHECK(rows_to_measure(24, 8, 2) == std::vector<std::int64_t>{2, 3});
  CHECK(rows_to_measure(16, 8, 2) == std::vector<std::int64_t>{2});
}

TEST_CASE("values weigh what travels", "[parity][profile]") {
  const Case the = cases()[1];
  const Trainer trainer(the.model, the.data, one_worker(the.config));
  const std::vector<double> bytes = value_bytes(trainer.graph(), at::kBFloat16);
  const double tokens = kRows * 8;
  CHECK(bytes.at(0) == 8 * tokens);       // x, int64
  CHECK(bytes.at(1) == 8 * tokens);       // targets
  CHECK(bytes.at(2) == 2 * tokens * 16);  // of the embedding
  CHECK(value_bytes(trainer.graph(), at::kFloat).at(2) == 4 * tokens * 16);
}

TEST_CASE("a message between threads takes time, and its size takes none", "[parity][profile]") {
  const LinkCost link = measure_local_link();
  CHECK(link.latency_us > 0);
  CHECK(link.bytes_per_us == std::numeric_limits<double>::infinity());
}

TEST_CASE("attention with dropout that is computed again keeps no weights", "[parity][profile]") {
  constexpr double kLength = 24, kHeads = 2;
  const Model model = model_of("type: gpt, layers: 1, heads: 2, width: 8, context: 24, vocab: 11, dropout: 0.1");
  const Trainer trainer(model, token_data(13, 24, 11), small_config("sparse_categorical_cross_entropy", kRows, 1));
  MeasureOptions options = options_of(trainer.config());
  const LayerSample kept = measured(trainer, 1, options);
  options.stage.recompute_attention = true;
  const LayerSample again = measured(trainer, 1, options);
  // The softmax, the mask of the dropout, and what it leaves.
  const double weights = 4 * kRows * kHeads * kLength * kLength;
  CHECK(kept.activation_bytes - again.activation_bytes >= 2 * weights);
  CHECK(again.recompute_activation_bytes == kept.recompute_activation_bytes);
  CHECK(again.input_grad_workspace_bytes > kept.input_grad_workspace_bytes);
}
