// SPDX-License-Identifier: Apache-2.0
//
// Metrics of evaluations: the same bits on every number of stages and replicas; the same values for every evaluation
// batch. What they are is compared with scikit-learn in tests/oracle/scores_test.py.
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

struct Case {
  Model model;
  DataSplits data;
  std::string loss;
  std::vector<PluginKind> metrics;
};

std::vector<Case> cases() {
  return {
      {small_gpt(2, 0, false),
       token_data(21, 8, 11),
       "sparse_categorical_cross_entropy",
       {"perplexity", "accuracy", {"top_k_accuracy", load_config_text("k: 3", "metric")}, "f1", "roc_auc"}},
      {mlp_with_skip(0.0, false),
       regression_data(19, 6, 3),
       "mean_squared_error",
       {"mean_absolute_error", "root_mean_squared_error", "r2"}},
      {model_of("type: unet, inputs: 3, channels: 4, depth: 1, classes: 4"),
       image_data(13, 3, 8, 4, true),
       "segmentation_cross_entropy",
       {"mean_iou", "accuracy", "confusion_matrix"}},
      {model_of("type: cnn, inputs: 3, channels: 4, depth: 2, classes: 4"),
       image_data(22, 3, 8, 4, false),
       "sparse_categorical_cross_entropy",
       {"pr_auc", "roc_auc", {"f1", load_config_text("average: micro", "metric")}, "confusion_matrix"}},
  };
}

Config config_of(const Case& its, int micro_batches) {
  Config config = small_config(its.loss, 6, micro_batches);
  config.train.steps = 2;
  config.train.eval_every = 1;
  config.train.metrics = its.metrics;
  return config;
}

std::vector<MetricValue> last_metrics(const RunRecord& run) {
  std::vector<MetricValue> last;
  for (const StepResult& result : run.results)
    if (!result.metrics.empty()) last = result.metrics;
  return last;
}

}  // namespace

TEST_CASE("metrics have the same bits on every number of stages and replicas", "[parity]") {
  for (const Case& its : cases()) {
    Config config = config_of(its, 3);
    config.train.gradient_groups = 2;
    const RunRecord reference = reference_run(its.model, its.data, config);
    REQUIRE(last_metrics(reference).size() == its.metrics.size());
    CHECK(difference(reference, its.model, its.data, with_pipeline(config, 2, "1f1b")) == "");
    config.replicas.count = 2;
    CHECK(difference(reference, its.model, its.data, with_pipeline(config, 2, "1f1b")) == "");
  }
}

TEST_CASE("metrics do not know the batches of an evaluation", "[parity]") {
  for (const Case& its : cases()) {
    std::vector<std::vector<MetricValue>> found;
    for (const int batch : {1, 4, 7, 100}) {
      Config config = config_of(its, 2);
      config.train.eval_batch = batch;
      found.push_back(last_metrics(reference_run(its.model, its.data, config)));
    }
    for (std::size_t run = 1; run < found.size(); ++run)
      for (std::size_t i = 0; i < its.metrics.size(); ++i) {
        INFO(found[0][i].name);
        CHECK(found[run][i].value == Approx(found[0][i].value).epsilon(1e-6));
        CHECK(found[run][i].picture.size() == found[0][i].picture.size());
      }
  }
}

TEST_CASE("a metric that does not fit model and data is refused before anything is built", "[parity]") {
  const auto refused = [](const Case& its, const PluginKind& metric) {
    Config config = config_of(its, 1);
    config.train.metrics = {metric};
    try {
      Trainer trainer(its.model, its.data, config);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK_THAT(refused(cases()[0], "r2"), Catch::Contains("train.metrics: r2: the model puts out ") &&
                                            Catch::Contains("it wants numbers of the shape of the output"));
  CHECK_THAT(refused(cases()[1], "acuracy"), Catch::Contains("train.metrics: there is no metric 'acuracy'") &&
                                                 Catch::Contains("did you mean 'accuracy'?"));
  CHECK_THAT(refused(cases()[0], {"top_k_accuracy", load_config_text("n: 3", "metric")}),
             Catch::Contains("n: got an unknown key, expected k"));
}
