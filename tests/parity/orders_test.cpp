// SPDX-License-Identifier: Apache-2.0
//
// Every order of samples, stopped at random places and gone on with in other cuts and other numbers of replicas.
#include <numeric>
#include <random>
#include <set>

#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

std::vector<std::int64_t> range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(end - begin));
  std::iota(all.begin(), all.end(), begin);
  return all;
}

std::vector<std::pair<std::string, Sampling>> orders() {
  Sampling groups;
  groups.groups = {{range(0, 3), 2}, {range(3, 21), 1}};
  return {{"shuffled", {}},
          {"blocks", {.order = SampleOrder::blocks, .block = 4, .window = 2}},
          {"in_order", {.order = SampleOrder::in_order}},
          {"streams", {.order = SampleOrder::streams}},
          {"groups", groups}};
}

}  // namespace

TEST_CASE("every order goes on from any step, on other workers and replicas, to the same bits", "[parity]") {
  Small the;
  the.config.train.steps = 9;  // into the third epoch
  the.config.train.gradient_groups = 3;
  std::set<double> losses;
  for (const auto& [name, sampling] : orders()) {
    CAPTURE(name);
    the.data.sampling = sampling;
    const RunRecord unbroken = reference_run(the.model, the.data, the.config);
    losses.insert(unbroken.results.back().loss());
    for (const unsigned seed : {1U, 2U, 3U}) {
      CAPTURE(seed);
      std::mt19937 random(seed);
      const auto below = [&](int end) { return static_cast<int>(random() % static_cast<unsigned>(end)); };
      const TemporaryFolder folder;
      RunRecord run;
      while (run.results.empty() || run.results.back().step < the.config.train.steps) {
        Config leg = with_pipeline(the.config, 1 + below(3), below(2) ? "1f1b" : "gpipe");
        leg.replicas.count = 1 + below(3);
        leg.workers.readers = below(3);
        leg.train.stop_after = 1 + below(4);
        append(run, next_leg(the.model, the.data, leg, folder.path()));
      }
      const Trainer trainer(the.model, the.data, one_worker(the.config));
      CHECK(first_difference(unbroken, run, trainer.graph()).value_or("") == "");
    }
  }
  CHECK(losses.size() == orders().size());
}
