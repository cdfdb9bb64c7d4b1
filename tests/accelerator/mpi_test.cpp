// SPDX-License-Identifier: Apache-2.0
//
// Devices over MPI: one mpirun, every rank with workers on devices of its own.
#include <ATen/ATen.h>

#include "runtime/engine/mpi_links.hpp"
#include "runtime/schedule/generators.hpp"
#include "tests/accelerator/fixture.hpp"
#include "tests/mpi/mpi_test.hpp"
#include "tests/parity/support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

MpiEndpointOptions endpoint_options(bool in_blocks) {
  MpiEndpointOptions options;
  options.workers = 2;
  if (in_blocks) {
    options.block_bytes = 100;
    options.slot_bytes = 64;  // the header alone
  }
  return options;
}

}  // namespace

TEST_CASE("over ranks devices train to the bits of one worker on one device, and nobody waits for them", "[mpi]") {
  const Simulated simulated;
  Accelerator::set_lag(GENERATE(0, 3));
  const bool in_blocks = GENERATE(false, true), device_buffers = GENERATE(false, true);  // its memory is the host's
  struct Job {
    Model model;
    DataSplits data;
    std::string loss;
  };
  const std::vector<Job> jobs = {{mlp_with_skip(0.0, true), regression_data(21, 6, 3), "mean_squared_error"},
                                 {small_gpt(2, 0.0, true), token_data(13, 8, 11), "sparse_categorical_cross_entropy"}};
  for (const Job& job : jobs) {
    const Config config = small_config(job.loss, 8, 4);
    Trainer alone = trainer_on({sim()}, job.model, job.data, one_worker(config));
    const RunRecord reference = record_run(alone);
    for (const ScheduleGenerator& schedule : schedule_generators()) {
      if (schedule.name != "1f1b" && schedule.name != "zbv") continue;
      for (const std::vector<at::Device>& devices :
           {std::vector{sim(0)}, std::vector{sim(0), sim(1), sim(2), sim(3)}}) {
        const int virtual_stages = schedule.name == "zbv" ? 2 : 1;
        CAPTURE(job.model.name, schedule.name, devices.size(), in_blocks, device_buffers);
        const Config tested = with_pipeline(config, 4, schedule.name, virtual_stages);
        MpiLinks links(world(), endpoint_options(in_blocks), device_buffers);
        const Ranks ranks{RankId(world().rank()), world().size(), &links};
        Trainer trainer = trainer_on(devices, job.model, job.data, tested, ranks);
        RunRecord run = record_run(trainer);
        const std::vector<std::string> all = world().all_gather(run.hashes_to_bytes());
        run.hashes.clear();
        for (const std::string& bytes : all) run.add_hashes(bytes);
        CHECK(first_difference(reference, run, trainer.graph()).value_or("") == "");
      }
    }
  }
}

TEST_CASE("over ranks a step more is no wait more", "[mpi]") {
  const Simulated simulated;
  Accelerator::set_lag(2);
  const auto waits = [](int steps, bool device_buffers) {
    Config config = with_pipeline(small_config("sparse_categorical_cross_entropy", 8, 4), 2, "1f1b");
    config.train.steps = steps;
    config.train.eval_every = 0;
    MpiLinks links(world(), endpoint_options(false), device_buffers);
    const Ranks ranks{RankId(world().rank()), world().size(), &links};
    Accelerator::reset();
    trainer_on({sim()}, small_gpt(2, 0.0, true), token_data(40, 8, 11), config, ranks).fit();
    return Accelerator::counts().waits;
  };
  CHECK(waits(7, false) == waits(3, false));
  CHECK(waits(7, true) == waits(3, true));
}

TEST_CASE("an MPI that takes no memory of devices is not given any", "[mpi]") {
  // Debian's MPICH, and any that was built without CUDA.
  CHECK_THAT(why_no_device_memory("cuda"), Catch::Contains("MPIX_Query_cuda_support"));
  CHECK(why_no_device_memory("sim") == "it is not known whether it takes memory of sim devices");
}
