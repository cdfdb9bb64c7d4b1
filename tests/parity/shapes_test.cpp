// SPDX-License-Identifier: Apache-2.0
//
// Model shapes that break other pipeline runtimes: batch norm, skips from encoder to decoder, several heads, frozen
// beginnings. Whatever the cut and the schedule, training gives the bits of one worker.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "runtime/config/lr_schedule.hpp"
#include "runtime/engine/stage.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "runtime/layer/image_layers.hpp"
#include "runtime/layer/norms.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/training/losses.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

// 8 samples a batch do not divide by 5 (slices 2, 2, 2, 1, 1); 21 samples make the last batch of an epoch short.
constexpr std::int64_t kBatch = 8;
constexpr std::int64_t kSamples = 21;

const char* const kCnn = "type: cnn, inputs: 2, classes: 3, channels: 4, depth: 2, norm: batch";
const char* const kUnet = "type: unet, inputs: 2, classes: 3, channels: 4, depth: 2, norm: batch";

DataSplits classified() {
  return image_data(kSamples, 2, 8, 3, /*segmentation=*/false);
}
DataSplits segmented() {
  return image_data(kSamples, 2, 8, 3, /*segmentation=*/true);
}

Config config_of(const std::string& loss, int micro_batches, bool clip = true) {
  Config config = small_config(loss, kBatch, micro_batches);
  config.train.steps = 4;
  if (!clip) config.train.clip_grad_norm = 0;
  return config;
}

bool is_legal(const ScheduleGenerator& schedule, const ScheduleShape& shape) {
  try {
    schedule.make(shape);
    return true;
  } catch (const ScheduleError&) {
    return false;
  }
}

/// One reference, every schedule and number of stages, every other one with recompute. Returns the reference.
RunRecord expect_same_bits(const Model& model, const DataSplits& data, const Config& config) {
  RunRecord reference = reference_run(model, data, config);
  REQUIRE(reference.results.size() > 4);
  for (const ScheduleGenerator& schedule : schedule_generators())
    for (int stages = 1; stages <= 4; ++stages) {
      const int each = schedule.virtual_stages.least;
      if (stages % each != 0 || !is_legal(schedule, {stages / each, each, config.train.micro_batches})) continue;
      INFO(schedule.name << ", " << stages << " stages, " << config.train.micro_batches << " micro-batches");
      Config tested = with_pipeline(config, stages, schedule.name, each);
      if (stages % 2 == 0) tested.pipeline.recompute = Recompute::always;
      CHECK(difference(reference, model, data, tested) == "");
    }
  return reference;
}

std::map<std::string, at::Tensor> buffers_of(const Trainer& trainer, const RunRecord& record) {
  std::map<std::string, at::Tensor> values;
  for (const FinalBuffer& buffer : record.buffers) values[trainer.graph().buffers[buffer.index].name] = buffer.value;
  return values;
}

/// The encoder's and decoder's skips travel straight: flows between stages that are no neighbours.
int skips(const Partition& partition) {
  int count = 0;
  for (const Flow& flow : partition.topology.flows)
    if (flow.differentiable && flow.to.value() > flow.from.value() + 1) ++count;
  return count;
}

}  // namespace

TEST_CASE("a CNN with batch norm trains to the same bits for every cut and schedule", "[parity]") {
  const Model model = model_of(kCnn);
  for (const int micro_batches : {1, 5}) {
    const RunRecord reference =
        expect_same_bits(model, classified(), config_of("sparse_categorical_cross_entropy", micro_batches));
    CHECK(reference.buffers.size() == 3 * 6);
  }
}

TEST_CASE("a CNN with batch norm in fp64 trains to the same bits for every cut, its statistics in double", "[parity]") {
  Config config = config_of("sparse_categorical_cross_entropy", 5);
  config.train.precision = Precision::fp64;
  const Model model = model_of(kCnn);
  const RunRecord reference = reference_run(model, classified(), config);
  for (const FinalBuffer& buffer : reference.buffers)
    CHECK(buffer.value.scalar_type() == (buffer.value.dim() == 0 ? at::kLong : at::kDouble));
  for (int stages = 2; stages <= 4; ++stages)
    CHECK(difference(reference, model, classified(), with_pipeline(config, stages, "1f1b")) == "");
}

TEST_CASE("a U-Net trains to the same bits for every cut and schedule", "[parity]") {
  const Model model = model_of(kUnet);
  for (const int micro_batches : {2, 5})
    expect_same_bits(model, segmented(), config_of("segmentation_cross_entropy", micro_batches, micro_batches == 5));
  const Trainer trainer(model, segmented(), with_pipeline(config_of("segmentation_cross_entropy", 2), 4, "1f1b"));
  CHECK(skips(trainer.partition()) > 0);
}

TEST_CASE("a U-Net with group norm and nearest upsampling, in bf16, trains to the same bits for every cut",
          "[parity]") {
  Config config = config_of("segmentation_cross_entropy", 3);
  config.train.precision = Precision::bf16;
  const Model model =
      model_of("type: unet, inputs: 2, classes: 3, channels: 4, depth: 1, norm: group, groups: 2, up: nearest");
  const RunRecord reference = reference_run(model, segmented(), config);
  for (int stages = 2; stages <= 4; ++stages)
    CHECK(difference(reference, model, segmented(), with_pipeline(config, stages, "1f1b")) == "");
}

TEST_CASE("deep supervision trains to the same bits for every cut and schedule, heads where their layers are",
          "[parity]") {
  const Model model = model_of(concat(kUnet, ", deep_supervision: true, auxiliary_weight: 0.3"));
  REQUIRE(model.heads.size() == 2);
  const Config config = config_of("segmentation_cross_entropy", 5);
  const RunRecord reference = expect_same_bits(model, segmented(), config);
  for (const StepResult& result : reference.results) {
    REQUIRE(result.heads.size() == 2);
    CHECK(result.heads[0].denominator == result.heads[1].denominator);
    CHECK(result.heads[0].sum != result.heads[1].sum);
    CHECK(result.loss() == result.heads[0].loss() + 0.3 * result.heads[1].loss());
  }
  Config cut = with_pipeline(config, 4, "1f1b");
  cut.pipeline.partition.by = CutBy::layers;
  CHECK(difference(reference, model, segmented(), cut) == "");
  const Trainer trainer(model, segmented(), cut);
  const int layers = trainer.graph().layer_count();
  CHECK(trainer.partition().stage_of(layers) == StageId(3));
  CHECK(trainer.partition().stage_of(layers + 1) < StageId(3));
}

TEST_CASE("a frozen beginning of a CNN takes no backward, and its running statistics still follow the data",
          "[parity]") {
  Config config = config_of("sparse_categorical_cross_entropy", 5);
  config.train.freeze = {"stem.*", "0.0.*"};
  const Model model = model_of(kCnn);
  expect_same_bits(model, classified(), config);
  Config cut = with_pipeline(config, 2, "1f1b");
  cut.pipeline.partition.counts = {10, 11};  // the stem and the first block | the rest
  Trainer trainer(model, classified(), cut);
  CHECK(trainer.partition().topology.has_backward == std::vector<bool>{false, true});
  const RunRecord record = record_run(trainer);
  const auto buffers = buffers_of(trainer, record);
  CHECK(buffers.at("stem.norm.num_batches_tracked").item<std::int64_t>() == config.train.steps);
  CHECK_FALSE(at::equal(buffers.at("stem.norm.running_mean"), at::zeros({4})));
}

TEST_CASE("running statistics are not touched by evaluation, and count steps, not micro-batches", "[parity]") {
  const Model model = model_of(kCnn);
  Config with = config_of("sparse_categorical_cross_entropy", 4), without = with;
  without.train.eval_every = 0;
  Trainer evaluated(model, classified(), with_pipeline(with, 3, "1f1b"));
  Trainer trained(model, classified(), with_pipeline(without, 3, "1f1b"));
  const auto some = buffers_of(evaluated, record_run(evaluated)), others = buffers_of(trained, record_run(trained));
  REQUIRE(some.size() == 18);
  for (const auto& [name, value] : some) {
    INFO(name);
    CHECK(at::equal(value, others.at(name)));
    if (value.dim() == 0) CHECK(value.item<std::int64_t>() == with.train.steps);
  }
}

namespace {

/// Conv, batch norm, a head on each half: a loop as a LibTorch user writes it, at one micro-batch.
Model two_headed() {
  ConvolutionOptions padded;
  padded.padding = {1};
  padded.bias = false;
  Model model{"two headed", {}};
  model.layers = {{"conv", std::make_shared<Conv2d>(2, 4, Extent{3}, padded)},
                  {"norm", std::make_shared<BatchNorm>(4)},
                  {"act", std::make_shared<Activation>("relu"), {"x"}, {"x"}},
                  {"early", std::make_shared<Conv2d>(4, 3, Extent{1}), {"x"}, {"early"}},
                  {"deep", std::make_shared<Conv2d>(4, 4, Extent{3}, padded), {"x"}, {"h"}},
                  {"add", std::make_shared<Add>(), {"h", "x"}, {"x"}},
                  {"out", std::make_shared<Conv2d>(4, 3, Extent{1})}};
  Head early;
  early.output = "early";
  early.weight = 0.25;
  model.heads.push_back(early);
  return model;
}

}  // namespace

TEST_CASE("two heads and a batch norm give the bits of a hand-written LibTorch loop", "[parity]") {
  at::set_num_threads(1);
  const Model model = two_headed();
  const DataSplits data = image_data(16, 2, 6, 3, /*segmentation=*/true);
  Config config = with_pipeline(config_of("segmentation_cross_entropy", 1, /*clip=*/false), 3, "1f1b");
  config.train.eval_every = 0;
  config.train.optimizer = {};
  config.train.optimizer.type = OptimizerType::sgd;
  config.train.optimizer.lr = 0.1;
  config.train.lr_schedule = {};
  Trainer trainer(model, data, config);
  const RunRecord record = record_run(trainer);

  std::map<std::string, at::Tensor> p;
  for (const ParameterInfo& parameter : trainer.graph().parameters)
    p[parameter.name] = initial_value(parameter, config.seed, at::kCPU).requires_grad_(true);
  const at::Tensor mean = at::zeros({4}), variance = at::ones({4});
  Sampler sampler(16, config.seed);
  const auto loss_of = [](const at::Tensor& output, const at::Tensor& targets) {
    return at::cross_entropy_loss(output, targets, {}, at::Reduction::Sum, -100);
  };
  for (std::int64_t step = 1; step <= config.train.steps; ++step) {
    const Tensors batch = data.train->read(sampler.batch((step - 1) * kBatch, kBatch));
    const at::Tensor convolved = at::conv2d(batch[0], p["conv.weight"], {}, 1, 1);
    const at::Tensor x =
        at::relu(at::batch_norm(convolved, p["norm.weight"], p["norm.bias"], mean, variance, true, 0.1, 1e-5, true));
    const at::Tensor early = at::conv2d(x, p["early.weight"], p["early.bias"]);
    const at::Tensor sum = at::conv2d(x, p["deep.weight"], {}, 1, 1) + x;
    const at::Tensor out = at::conv2d(sum, p["out.weight"], p["out.bias"]);
    const at::Tensor main_loss = loss_of(out, batch[1]), early_loss = loss_of(early, batch[1]);
    const StepResult& result = record.results[step - 1];
    CHECK(result.heads.at(0).sum == main_loss.item<double>());
    CHECK(result.heads.at(1).sum == early_loss.item<double>());
    const auto n = static_cast<float>(result.heads[0].denominator);
    CHECK(batch[1].ge(0).sum().item<double>() == result.heads[0].denominator);
    (main_loss * (1.0f / n) + early_loss * (0.25f * (1.0f / n))).backward();
    const at::NoGradGuard no_grad;
    for (auto& [name, value] : p) {
      at::_fused_sgd_({value}, {value.grad()}, {}, 0.0, 0.0, 0.1, 0.0, false, false, true);
      value.mutable_grad() = at::Tensor();
    }
  }
  for (const FinalParameter& parameter : record.parameters) {
    const std::string& name = trainer.graph().parameters[parameter.index].name;
    INFO(name);
    CHECK(at::equal(parameter.value, p.at(name)));
  }
  const auto buffers = buffers_of(trainer, record);
  CHECK(at::allclose(buffers.at("norm.running_mean"), mean, 1e-6, 1e-6));
  CHECK(at::allclose(buffers.at("norm.running_var"), variance, 1e-6, 1e-6));
}

namespace {

// A batch norm that merges with another momentum than it says: weights agree, buffers do not.
class OtherMomentum : public BatchNorm {
 public:
  using BatchNorm::BatchNorm;
  void end_step(std::vector<Buffer>& buffers, const std::vector<Tensors>& collected) const override {
    BatchNorm::end_step(buffers, collected);
    buffers[1].value.add_(1e-3);
  }
};

}  // namespace

TEST_CASE("verify names a buffer that differs", "[parity]") {
  Model model = two_headed();
  const DataSplits data = image_data(16, 2, 6, 3, /*segmentation=*/true);
  Config config = config_of("segmentation_cross_entropy", 2);
  const RunRecord reference = reference_run(model, data, config);
  model.layers[1].layer = std::make_shared<OtherMomentum>(4);
  CHECK_THAT(difference(reference, model, data, with_pipeline(config, 2, "1f1b")),
             Catch::Contains("step 1 (train): buffer norm.running_var"));
}

TEST_CASE("heads and buffers that do not fit are named before anything is built", "[parity]") {
  const DataSplits data = image_data(16, 2, 6, 3, /*segmentation=*/true);
  const Config config = config_of("segmentation_cross_entropy", 2);
  Model model = two_headed();
  SECTION("an output that nobody writes") {
    model.heads[1].output = "late";
    CHECK_THROWS_WITH(Trainer(model, data, config),
                      Catch::Contains("of head 1 reads the entry 'late', which nothing before it writes"));
  }
  SECTION("targets that a layer wrote") {
    model.heads[1].targets = "early";
    CHECK_THROWS_WITH(Trainer(model, data, config), Catch::Contains("targets must be an entry of the data"));
  }
  SECTION("a weight of nothing") {
    model.heads[1].weight = 0;
    CHECK_THROWS_WITH(Trainer(model, data, config), Catch::Contains("of head 1 has the weight 0, expected > 0"));
  }
  SECTION("a loss that there is not") {
    model.heads[1].loss = "segmentation_cross_entropi";
    CHECK_THROWS_WITH(Trainer(model, data, config), Catch::Contains("did you mean 'segmentation_cross_entropy'?"));
  }
  SECTION("two states of one name") {
    model.layers[1].parameter_prefix = "conv.";  // conv.weight
    CHECK_THROWS_WITH(Trainer(model, data, config),
                      Catch::Contains("another parameter, buffer or state has the name conv.weight"));
  }
}

TEST_CASE("a micro-batch of one value per channel is refused before training", "[parity]") {
  Model model{"mlp", {{"fc", std::make_shared<Linear>(6, 3)}, {"norm", std::make_shared<BatchNorm>(3)}}};
  CHECK_THROWS_WITH(Trainer(model, regression_data(16, 6, 3), config_of("mean_squared_error", 5)),
                    Catch::Contains("a batch of 8 samples then has a micro-batch of 1") &&
                        Catch::Contains("layer 'norm' (batch_norm) expects more than 1 value per channel"));
  CHECK_THROWS_WITH(Trainer(model, regression_data(17, 6, 3), config_of("mean_squared_error", 2)),
                    Catch::Contains("a batch of 1 samples (the last of an epoch)"));
  const Config fits = config_of("mean_squared_error", 4);
  CHECK(difference(reference_run(model, regression_data(16, 6, 3), fits), model, regression_data(16, 6, 3),
                   with_pipeline(fits, 2, "1f1b")) == "");
}
