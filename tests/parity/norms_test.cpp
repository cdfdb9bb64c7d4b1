// SPDX-License-Identifier: Apache-2.0
//
// Norms of parameters, gradients and updates (train.norms_every): those of the weights before and after; the same for
// every cut and number of replicas; nothing of it changes a bit.
#include <ATen/ATen.h>

#include <cmath>

#include "runtime/checkpoint/weight_files.hpp"
#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

std::vector<ParameterNorms> norms_of(const RunRecord& run, std::int64_t step) {
  for (const StepResult& result : run.results)
    if (result.mode == Mode::train && result.step == step) return result.norms;
  return {};
}

void check_alike(const std::vector<ParameterNorms>& a, const std::vector<ParameterNorms>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].parameter == b[i].parameter);
    CHECK(a[i].weight == Approx(b[i].weight).epsilon(1e-12));
    CHECK(a[i].gradient == Approx(b[i].gradient).epsilon(1e-12));
    CHECK(a[i].update == Approx(b[i].update).epsilon(1e-9));
  }
}

}  // namespace

TEST_CASE("norms are those of the weights that a step leaves and of what it changed", "[parity]") {
  Small the;
  the.config.train.norms_every = 2;
  const TemporaryFolder folder;
  Trainer trainer(the.model, the.data, with_pipeline(the.config, 2, "1f1b"));
  const RunRecord run = record_run(trainer, {.checkpoints = folder.path()});
  CHECK(norms_of(run, 3).empty());
  const std::vector<ParameterNorms> norms = norms_of(run, 4);
  const ModelGraph& graph = trainer.graph();
  REQUIRE(norms.size() == graph.parameters.size());
  WeightFiles before(checkpoint_path(folder.path(), 3)), after(checkpoint_path(folder.path(), 4));
  double all = 0;
  for (const ParameterNorms& of : norms) {
    const ParameterInfo& info = graph.parameters[static_cast<std::size_t>(of.parameter)];
    INFO(info.name);
    const at::Tensor was = at::empty(info.sizes), is = at::empty(info.sizes);
    before.read(info.name, was);
    after.read(info.name, is);
    CHECK(of.weight == Approx(is.to(at::kDouble).norm().item<double>()).epsilon(1e-12));
    CHECK(of.update == Approx((is.to(at::kDouble) - was.to(at::kDouble)).norm().item<double>()).epsilon(1e-9));
    CHECK(of.gradient > 0);
    all += of.gradient * of.gradient;
  }
  for (const StepResult& result : run.results)
    if (result.mode == Mode::train && result.step == 4)
      CHECK(std::sqrt(all) == Approx(result.gradient_norm).epsilon(1e-12));
}

TEST_CASE("norms are the same for every cut and number of replicas, and change no bit", "[parity]") {
  Config config = small_config("sparse_categorical_cross_entropy", 8, 4);
  config.train.gradient_groups = 2;
  const DataSplits data = token_data(21, 8, 11);
  for (const bool tied : {false, true}) {
    INFO("tied " << tied);
    const Model model = small_gpt(3, 0.0, tied);
    const RunRecord without = reference_run(model, data, config);
    Config with = config;
    with.train.norms_every = 1;
    const RunRecord reference = reference_run(model, data, with);
    const Trainer described(model, data, config);
    CHECK(first_difference(without, reference, described.graph()).value_or("") == "");
    const std::vector<ParameterNorms> expected = norms_of(reference, 5);
    REQUIRE(expected.size() == described.graph().parameters.size());
    Config cut = with_pipeline(with, 3, "1f1b");
    for (const int replicas : {1, 2})
      for (const bool sharded : {false, true}) {
        if (sharded && replicas == 1) continue;
        cut.replicas.count = replicas;
        cut.replicas.shard_optimizer = sharded;
        Trainer trainer(model, data, cut);
        const RunRecord run = record_run(trainer, {});
        CHECK(first_difference(without, run, trainer.graph()).value_or("") == "");
        check_alike(norms_of(run, 5), expected);
      }
  }
}
