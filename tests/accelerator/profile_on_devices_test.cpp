// SPDX-License-Identifier: Apache-2.0
//
// Layers measured on a device, and on what else the config names.
#include <algorithm>

#include "runtime/profile/links.hpp"
#include "runtime/session/profiling.hpp"
#include "tests/accelerator/fixture.hpp"
#include "tests/parity/support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

Profile measured(const std::vector<std::string>& devices, const ProfilingOptions& options, int stages = 2) {
  const Model model = small_gpt(2, 0.0, true);
  Config config = with_pipeline(small_config("sparse_categorical_cross_entropy", 8, 2), stages, "1f1b");
  const Trainer whole(model, token_data(16, 8, 11), one_worker(config));
  config.workers.devices = devices;
  Process alone;
  return measure_profile(alone, config, whole, options);
}

ProfilingOptions quick() {
  ProfilingOptions options;
  options.repeats = kFewestRepeats;
  options.most_seconds = 0.2;
  options.cache = false;
  return options;
}

}  // namespace

TEST_CASE("a layer is measured once on each kind of device that workers.devices names", "[parity][profile]") {
  const Simulated simulated;
  Accelerator::set_lag(2);
  std::vector<std::string> seen;
  ProfilingOptions options = quick();
  options.progress = [&](const ProfileProgress& progress) {
    if (std::find(seen.begin(), seen.end(), progress.kind) == seen.end()) seen.push_back(progress.kind);
  };
  const Profile profile = measured({"sim:0", "cpu", "sim:1", "cpu"}, options);
  CHECK(seen == std::vector<std::string>{"sim", "cpu"});
  const auto of_kind = [&](const std::string& kind) {
    return std::count_if(profile.layers.begin(), profile.layers.end(),
                         [&](const LayerProfile& layer) { return layer.kind == kind; });
  };
  CHECK(of_kind("sim") == 4);
  CHECK(of_kind("cpu") == 4);
  for (const LayerProfile& layer : profile.layers)
    for (const LayerSample& sample : layer.samples) {
      CAPTURE(layer.name, layer.kind, sample.rows);
      CHECK(sample.forward_us > 0);
      CHECK(sample.input_grad_us + sample.weight_grad_us > 0);
      CHECK(sample.update_us >= 0);
      CHECK(sample.activation_bytes > 0);
    }
  REQUIRE(profile.devices.size() == 1);
  CHECK(profile.devices[0].kind == "sim");
  REQUIRE(profile.workers.size() == 1);
  CHECK(profile.workers[0].devices ==
        std::vector<std::pair<std::string, std::string>>{{"sim:0", "sim"}, {"sim:1", "sim"}});
  for (const char* link : {"to_device", "to_host", "between_devices"})
    CHECK(std::count(profile.given_links.begin(), profile.given_links.end(), link) == 1);
  CHECK(profile.links.to_device.latency_us > 0);
  CHECK(to_json(read_profile(load_config_text(to_json(profile), "p"))) == to_json(profile));
}

TEST_CASE("workers that share a device are measured together, each on a stream of its own", "[parity][profile]") {
  const Simulated simulated;
  ProfilingOptions options = quick();
  options.workers = 3;
  measured({"sim:0"}, options);
  CHECK(Accelerator::counts().streams >= 3);
}

TEST_CASE("what was measured on the host is not found in the cache for a device, nor the other way round",
          "[parity][profile]") {
  const Simulated simulated;
  const TemporaryFolder folder;
  const Model model = small_gpt(2, 0.0, true);
  const DataSplits data = token_data(16, 8, 11);
  const Trainer whole(model, data, one_worker(small_config("sparse_categorical_cross_entropy", 8, 2)));
  ProfileRequest request;
  request.describe = [&](std::int64_t rows) { return describe_for(whole, rows); };
  request.losses = whole.losses();
  request.rows = {2, 4};
  request.measure.repeats = kFewestRepeats;
  request.cache = folder.path();
  int cached = 0;
  request.progress = [&](const ProfileProgress& progress) { cached += progress.cached ? 1 : 0; };
  const auto cached_on = [&](at::Device device, const std::string& kind) {
    cached = 0;
    request.measure.stage.device = device;
    request.kind = kind;
    profile_model(request);
    return cached;
  };
  CHECK(cached_on(at::kCPU, "cpu") == 0);
  CHECK(cached_on(sim(), "sim") == 0);
  CHECK(cached_on(sim(), "another sim") == 0);
  CHECK(cached_on(sim(1), "sim") == 12);  // one card is like another
  CHECK(cached_on(at::kCPU, "cpu") == 12);
}

TEST_CASE("a copy between memories takes the longer the more there is", "[parity][profile]") {
  const Simulated simulated;
  Accelerator::set_lag(2);
  const std::vector<std::pair<at::Device, at::Device>> ways = {{at::kCPU, sim()}, {sim(), at::kCPU}, {sim(), sim(1)}};
  for (const auto& [from, to] : ways) {
    const LinkCost link = measure_copy(from, to);
    CHECK(link.latency_us > 0);
    CHECK(link.bytes_per_us < 1e6);
  }
}
