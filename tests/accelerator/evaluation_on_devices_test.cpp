// SPDX-License-Identifier: Apache-2.0
//
// What is measured and answered on devices: the same for every cut.
#include "tests/accelerator/fixture.hpp"
#include "tests/parity/support.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("metrics and norms of a device are the same for every cut", "[parity]") {
  const Simulated simulated;
  Accelerator::set_lag(3);
  const DataSplits data = regression_data(21, 6, 3), tokens = token_data(21, 8, 11);
  struct Job {
    Model model;
    const DataSplits& data;
    std::string loss;
    std::vector<PluginKind> metrics;
  };
  const std::vector<Job> jobs = {{mlp_with_skip(0.25, true), data, "mean_squared_error", {"mean_absolute_error", "r2"}},
                                 {small_gpt(2, 0.0, true),
                                  tokens,
                                  "sparse_categorical_cross_entropy",
                                  {"accuracy", "perplexity", "roc_auc", "f1"}}};
  for (const Job& job : jobs) {
    CAPTURE(job.model.name);
    Config config = small_config(job.loss, 8, 4);
    config.train.metrics = job.metrics;
    config.train.eval_every = 2;
    config.train.norms_every = 1;
    const RunRecord reference = run_on({sim()}, job.model, job.data, one_worker(config));
    const RunRecord tested = run_on({sim(0), sim(1)}, job.model, job.data, with_pipeline(config, 3, "1f1b"));
    CHECK(first_difference(reference, tested, Trainer(job.model, job.data, config).graph()).value_or("") == "");
    std::size_t measured = 0;
    REQUIRE(reference.results.size() == tested.results.size());
    for (std::size_t i = 0; i < tested.results.size(); ++i) {
      const StepResult &a = reference.results[i], &b = tested.results[i];
      measured += b.metrics.size();
      REQUIRE(a.norms.size() == b.norms.size());
      CHECK(b.norms.empty() == (b.mode == Mode::evaluate));
      for (std::size_t n = 0; n < b.norms.size(); ++n)
        CHECK((a.norms[n].weight == Approx(b.norms[n].weight) && a.norms[n].update == Approx(b.norms[n].update) &&
               b.norms[n].weight > 0));
    }
    CHECK(measured == 3 * job.metrics.size());
  }
}

TEST_CASE("a checkpoint of the host answers on a device, the same for every cut", "[parity]") {
  const Simulated simulated;
  Accelerator::set_lag(3);
  const Model model = mlp_with_skip(0.0, true);
  const DataSplits data = regression_data(21, 6, 3);
  Config config = small_config("mean_squared_error", 8, 4);
  config.train.steps = 2;
  config.train.eval_every = 0;
  config.checkpoint.every = "end";
  const TemporaryFolder folder;
  next_leg(model, data, config, folder.path());
  DataSplits asked = data;
  asked.eval = data.train;
  asked.inputs.emplace();
  const auto answers_of = [&](Trainer trainer) {
    trainer.resume(checkpoint_path(folder.path(), 2), {.evaluates = true});
    const std::vector<AnswerForm> forms = trainer.prepare_answers({});
    std::vector<double> numbers;
    trainer.answer(
        [&](const Answers& some) { numbers.insert(numbers.end(), some.heads[0].begin(), some.heads[0].end()); });
    CHECK(static_cast<std::int64_t>(numbers.size()) == 21 * forms[0].numbers());
    return numbers;
  };
  const std::vector<double> one = answers_of(trainer_on({sim()}, model, asked, one_worker(config)));
  CHECK(answers_of(trainer_on({sim(0), sim(1)}, model, asked, with_pipeline(config, 3, "1f1b"))) == one);
  const std::vector<double> host = answers_of(Trainer(model, asked, config));
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(one[i] == Approx(host[i]).epsilon(1e-4).margin(1e-5));
}
