// SPDX-License-Identifier: Apache-2.0
//
// Samples with weights: sum w l / sum w n, for every loss; weight 0 leaves out, 1 changes nothing, 2 counts twice; the
// same bits for every cut.
#include <ATen/ATen.h>

#include "runtime/layer/random.hpp"
#include "runtime/training/losses.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// A set with weights of its samples.
class Weighted : public Dataset {
 public:
  Weighted(std::shared_ptr<const Dataset> data, std::vector<float> weights)
      : data_(std::move(data)), weights_(std::move(weights)) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> entries = data_->entries(rows);
    entries.insert(entries.end() - 1, {kSampleWeights, at::kFloat, {rows}, /*differentiable=*/false});
    return entries;
  }
  std::int64_t size() const override { return data_->size(); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    Tensors entries = data_->read(samples);
    at::Tensor weights = at::empty({static_cast<std::int64_t>(samples.size())});
    for (std::size_t i = 0; i < samples.size(); ++i)
      weights[static_cast<std::int64_t>(i)] = weights_[static_cast<std::size_t>(samples[i]) % weights_.size()];
    entries.insert(entries.end() - 1, weights);
    return entries;
  }
  std::string place_of(std::int64_t sample) const override { return concat("row ", sample); }

 private:
  std::shared_ptr<const Dataset> data_;
  std::vector<float> weights_;
};

DataSplits weighted(const DataSplits& data, const std::vector<float>& weights) {
  return {.train = std::make_shared<Weighted>(data.train, weights),
          .eval = std::make_shared<Weighted>(data.eval, weights)};
}

struct Example {
  const char* loss;
  const char* options;
  at::Tensor output, targets;
};

std::vector<Example> examples() {
  const RandomScope scope(5);
  const at::Tensor numbers = at::randn({6, 3}), yes = at::randint(2, {6, 3}).to(at::kFloat);
  const at::Tensor shares = at::softmax(at::randn({6, 3}), -1);
  const at::Tensor one_hot = at::eye(3).index_select(0, at::randint(3, {6}, at::kLong));
  at::Tensor tokens = at::randint(5, {6, 4}, at::kLong);
  tokens[1].fill_(-100);
  tokens[2][1] = -100;
  at::Tensor pixels = at::randint(4, {6, 2, 3}, at::kLong);
  pixels[0][1][2] = -100;
  return {{"mean_squared_error", "{}", at::randn({6, 3}), numbers},
          {"mean_absolute_error", "{}", at::randn({6, 3}), numbers},
          {"huber", "delta: 0.5", at::randn({6, 3}), numbers},
          {"binary_cross_entropy", "{positive_weight: 3, label_smoothing: 0.1}", at::randn({6, 3}), yes},
          {"hinge", "{}", at::randn({6, 3}), yes},
          {"squared_hinge", "{}", at::randn({6, 3}), yes},
          {"categorical_hinge", "{}", at::randn({6, 3}), one_hot},
          {"categorical_cross_entropy", "label_smoothing: 0.2", at::randn({6, 3}), shares},
          {"sparse_categorical_cross_entropy", "{}", at::randn({6, 4, 5}), tokens},
          {"sparse_categorical_cross_entropy", "{class_weights: [1, 0.5, 2, 1, 3], label_smoothing: 0.1}",
           at::randn({6, 4, 5}), tokens},
          {"segmentation_cross_entropy", "{}", at::randn({6, 4, 2, 3}), pixels},
          {"segmentation_cross_entropy", "class_weights: [1, 0.5, 2, 1]", at::randn({6, 4, 2, 3}), pixels}};
}

}  // namespace

TEST_CASE("numerators and denominators of samples are those of each sample alone", "[parity]") {
  for (const Example& its : examples()) {
    INFO(its.loss << " " << its.options);
    const auto loss = loss_kinds().get(its.loss).make(load_config_text(its.options, "options"));
    REQUIRE(loss->takes_weights());
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      const at::Tensor output = its.output.to(dtype);
      const at::Tensor numerators = loss->numerators(output, its.targets);
      const at::Tensor denominators = loss->denominators(its.targets);
      REQUIRE(numerators.sizes() == at::IntArrayRef{6});
      REQUIRE(denominators.sizes() == at::IntArrayRef{6});
      CHECK(denominators.scalar_type() == at::kDouble);
      CHECK(denominators.sum().item<double>() == Approx(loss->denominator(its.targets)));
      for (std::int64_t row = 0; row < 6; ++row) {
        CHECK(numerators[row].item<double>() ==
              Approx(loss->numerator(output.narrow(0, row, 1), its.targets.narrow(0, row, 1)).item<double>())
                  .epsilon(1e-5)
                  .margin(1e-6));
        CHECK(denominators[row].item<double>() ==
              Approx(loss->denominator(its.targets.narrow(0, row, 1))).margin(1e-12));
      }
    }
  }
}

TEST_CASE("samples with weights have the same bits for every cut", "[parity]") {
  const Config config = small_config("sparse_categorical_cross_entropy", 8, 3);
  const Model model = small_gpt(2, 0.1, false);
  const DataSplits data = weighted(token_data(21, 8, 11), {0.5, 2, 1, 0, 3.25});
  const RunRecord reference = reference_run(model, data, config);
  for (const char* schedule : {"gpipe", "1f1b", "zb_h1"})
    CHECK(difference(reference, model, data, with_pipeline(config, 2, schedule)) == "");
  Config replicated = config;
  replicated.train.gradient_groups = 2;
  const RunRecord of_groups = reference_run(model, data, replicated);
  replicated.replicas.count = 2;
  CHECK(difference(of_groups, model, data, with_pipeline(replicated, 2, "1f1b")) == "");
}

TEST_CASE("weight 1 changes nothing but the last digits, 0 leaves a sample out", "[parity]") {
  Config config = small_config("mean_squared_error", 8, 3);
  config.train.steps = 3;
  config.train.precision = Precision::fp64;
  const Model model = mlp_with_skip(0.0, true);
  const auto losses = [&](const DataSplits& data) {
    std::vector<double> found;
    for (const StepResult& result : reference_run(model, data, config).results) found.push_back(result.loss());
    return found;
  };
  const DataSplits data = regression_data(24, 6, 3);
  const std::vector<double> plain = losses(data), ones = losses(weighted(data, {1})),
                            twos = losses(weighted(data, {2}));
  REQUIRE(plain.size() == ones.size());
  for (std::size_t i = 0; i < plain.size(); ++i) {
    CHECK(ones[i] == Approx(plain[i]).epsilon(1e-12));
    CHECK(twos[i] == Approx(plain[i]).epsilon(1e-12));
  }
  CHECK(losses(weighted(data, {1, 0}))[0] != Approx(plain[0]));
  const std::vector<double> none = losses(weighted(data, {0}));
  CHECK(none[0] == 0);
}

TEST_CASE("weights of samples that are none are refused", "[parity]") {
  const Config config = small_config("mean_squared_error", 8, 3);
  for (const float bad : {-1.0F, NAN, INFINITY})
    CHECK_THROWS_WITH(Trainer(mlp_with_skip(0.0, true), weighted(regression_data(21, 6, 3), {1, 1, bad}), config).fit(),
                      Catch::Contains("its weight is ") && Catch::Contains("expected a finite number of 0 or more"));
}
