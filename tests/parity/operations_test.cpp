// SPDX-License-Identifier: Apache-2.0
//
// The floating-point operations that a run counts, against those of the model counted by hand. (That they are the same
// for every cut, schedule and recompute, all comparisons of runs look at: support.cpp.)
#include <ATen/ATen.h>

#include "runtime/engine/memory.hpp"
#include "runtime/engine/product_rate.hpp"
#include "runtime/layer/parts.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// In a forward, by layer: multiply-adds of one sample.
struct Counted {
  double forward = 0, input_gradient = 0, weight_gradient = 0;

  /// Like every product: once in the forward, once for each gradient.
  void add(double multiply_adds, bool has_input_gradient = true, bool is_trained = true) {
    forward += multiply_adds;
    if (has_input_gradient) input_gradient += multiply_adds;
    if (is_trained) weight_gradient += multiply_adds;
  }
};

/// Every result of a run of `model` has the operations that were counted by hand.
void check_run(const Model& model, const DataSplits& data, const Config& config, const Counted& sample) {
  Trainer trainer(model, data, with_pipeline(config, 2, "1f1b"));
  const RunRecord run = record_run(trainer);
  REQUIRE(run.results.size() > 5);
  bool trained = false, evaluated = false;
  for (const StepResult& result : run.results) {
    const bool trains = result.mode == Mode::train;
    (trains ? trained : evaluated) = true;
    const double each = sample.forward + (trains ? sample.input_gradient + sample.weight_gradient : 0.0);
    CAPTURE(to_string(result.mode), result.step, result.samples);
    CHECK(result.operations() == 2 * each * static_cast<double>(result.samples));
  }
  CHECK(trained);
  CHECK(evaluated);
}

Config config_of(const std::string& loss) {
  return small_config(loss, 8, 4);
}

}  // namespace

TEST_CASE("linear layers count two operations per multiply-add, three times where they train", "[parity]") {
  Counted sample;
  sample.add(6 * 16, /*has_input_gradient=*/false);
  sample.add(16 * 16);
  sample.add(16 * 16);
  sample.add(16 * 3);
  for (const Recompute recompute : {Recompute::never, Recompute::always}) {
    Config config = config_of("mean_squared_error");
    config.pipeline.recompute = recompute;
    check_run(mlp_with_skip(0.25, true), regression_data(21, 6, 3), config, sample);
  }
}

TEST_CASE("frozen weights have no gradient to count, nor have inputs that nothing trained comes before", "[parity]") {
  Config config = config_of("mean_squared_error");
  const DataSplits data = regression_data(21, 6, 3);
  const Model model = mlp_with_skip(0.0, false);
  const auto check = [&](const std::vector<std::string>& frozen, const Counted& sample) {
    config.train.freeze = frozen;
    check_run(model, data, config, sample);
  };
  Counted first;
  first.add(6 * 16, false, false);
  first.add(16 * 16, false);
  first.add(16 * 16);
  first.add(16 * 3);
  check({"fc.0.*"}, first);
  Counted second;
  second.add(6 * 16, false);
  second.add(16 * 16, true, false);
  second.add(16 * 16);
  second.add(16 * 3);
  check({"fc.1.*"}, second);
}

TEST_CASE("a GPT counts 6 N + 6 L C T operations per token of training", "[parity]") {
  const double layers = 2, width = 16, length = 8, vocab = 11;
  for (const double dropout : {0.0, 0.2})  // attention takes another way
    for (const bool tied : {false, true}) {
      const double weights = layers * 12 * width * width + vocab * width;  // in products
      Counted sample;
      sample.add(length * weights);
      const double attention = layers * width * length * length;  // causal: a half of scores and mixing
      sample.forward += attention;
      sample.input_gradient += 2 * attention;
      check_run(small_gpt(2, dropout, tied), token_data(21, 8, 11), config_of("sparse_categorical_cross_entropy"),
                sample);
      CHECK(2 * (sample.forward + sample.input_gradient + sample.weight_gradient) / length ==
            6 * weights + 6 * layers * width * length);
    }
}

TEST_CASE("a CNN counts its convolutions, strided ones and those of skips", "[parity]") {
  Counted sample;
  sample.add(16 * 8 * 8 * 3 * 9, /*has_input_gradient=*/false);
  for (int i = 0; i < 2; ++i) sample.add(16 * 8 * 8 * 16 * 9);
  sample.add(32 * 4 * 4 * 16 * 9);
  sample.add(32 * 4 * 4 * 32 * 9);
  sample.add(32 * 4 * 4 * 16);
  sample.add(32 * 4);
  check_run(model_of("type: cnn, inputs: 3, classes: 4, depth: 2"), image_data(21, 3, 8, 4, false),
            config_of("sparse_categorical_cross_entropy"), sample);
}

TEST_CASE("a U-Net counts transposed convolutions by the elements that they read", "[parity]") {
  Counted sample;
  sample.add(4 * 8 * 8 * 2 * 9, /*has_input_gradient=*/false);
  sample.add(4 * 8 * 8 * 4 * 9);
  sample.add(8 * 4 * 4 * 4 * 9);
  sample.add(8 * 4 * 4 * 8 * 9);
  sample.add(8 * 4 * 4 * 4 * 4);  // up, 2 x 2
  sample.add(4 * 8 * 8 * 8 * 9);
  sample.add(4 * 8 * 8 * 4 * 9);
  sample.add(3 * 8 * 8 * 4);
  check_run(model_of("type: unet, inputs: 2, classes: 3, channels: 4, depth: 1"), image_data(21, 2, 8, 3, true),
            config_of("segmentation_cross_entropy"), sample);
}

TEST_CASE("groups divide a convolution's operations", "[parity]") {
  Counted sample;
  sample.add(6 * 3 * 7 * (4 / 2) * 3 * 2, /*has_input_gradient=*/false);  // 8 x 8 becomes 3 x 7
  sample.add(6 * 3);
  check_run(model_of("type: sequential, layers: [{type: conv2d, in: 4, out: 6, kernel: [3, 2], stride: [2, 1], "
                     "groups: 2}, {type: global_avg_pool}, {type: linear, in: 6, out: 3}]"),
            image_data(21, 4, 8, 3, false), config_of("sparse_categorical_cross_entropy"), sample);
}

TEST_CASE("attention that is not causal counts every pair, and a layer counts what it says", "[parity]") {
  std::vector<Parameter> none;
  WeightGradQueue queue;
  LayerContext context(none, queue, at::Tensor(), /*training=*/false, at::kFloat);
  const at::Tensor q = at::zeros({3, 5, 8}), k = at::zeros({3, 7, 8});
  AttentionPart{.heads = 2}(context, q, k, k);
  CHECK(context.operations() == 2.0 * 2 * 3 * 5 * 7 * 8);
  context.count_products(100, 2);
  CHECK(context.operations() == 2.0 * 2 * 3 * 5 * 7 * 8 + 600);
}

TEST_CASE("measuring what a device can do changes neither bits nor peaks, and every worker says what came out",
          "[parity]") {
  const DataSplits data = regression_data(21, 6, 3);
  const auto run = [&](int stages, bool measures) {
    Trainer trainer(mlp_with_skip(0.25, true), data, with_pipeline(config_of("mean_squared_error"), stages, "1f1b"));
    return record_run(trainer, {.measure_products = measures});
  };
  for (const int stages : {1, 3}) {
    const RunRecord plain = run(stages, false), measured = run(stages, true);
    CHECK(first_difference(plain, measured,
                           Trainer(mlp_with_skip(0.25, true), data, config_of("mean_squared_error")).graph())
              .value_or("") == "");
    for (const StepResult& result : measured.results) {
      CHECK(result.product_rate() > 1e6);
      for (const WorkerReport& worker : result.workers) CHECK(worker.product_rate < result.product_rate() * 1.0001);
    }
    for (const StepResult& result : plain.results) CHECK(result.product_rate() == 0);
    if (stages > 1) continue;  // when a worker lets go of what it has sent depends on others
    CHECK(measured.results.back().workers[0].peak_by_kind == plain.results.back().workers[0].peak_by_kind);
  }
}

TEST_CASE("a square product is measured in every precision, beside the books of memory", "[parity]") {
  MemoryPool pool;
  const MemoryPool::Scope scope(pool);
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    CAPTURE(dtype);
    CHECK(product_rate(DeviceStream(at::kCPU), dtype) > 1e6);
  }
  CHECK(pool.bytes() == 0);
  CHECK(pool.peak_bytes() <= 64);
}
