// SPDX-License-Identifier: Apache-2.0
#include "partitioner/profile_file.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "partitioner/profile_cache.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

namespace lockstep {
namespace {

LayerSample sample_of(std::int64_t rows, double scale) {
  LayerSample sample;
  sample.rows = rows;
  sample.forward_us = 10 * scale;
  sample.input_grad_us = 20 * scale;
  sample.weight_grad_us = 5 * scale;
  sample.update_us = 7;
  sample.activation_bytes = 1000 * scale;
  sample.recompute_activation_bytes = 100 * scale;
  sample.weight_grad_bytes = 300 * scale;
  sample.step_bytes = 64;
  sample.forward_workspace_bytes = 1100 * scale;
  sample.input_grad_workspace_bytes = 500 * scale;
  sample.weight_grad_workspace_bytes = 600 * scale;
  sample.backward_workspace_bytes = 550 * scale;
  sample.spread = 0.01;
  return sample;
}

Profile small_profile() {
  Profile profile;
  profile.model = "small";
  profile.environment = {{"isa", "avx512"}, {"threads", "1"}};
  profile.layers = {{"h.0", "gpt_block 01", {sample_of(2, 1), sample_of(4, 2)}, 0.02},
                    {"head", "gpt_head 02", {sample_of(4, 3.25)}, 0}};
  profile.links.same_rank.latency_us = 0.5;
  profile.links.same_host = {5, 6000, 0.25e-3};
  profile.links.other_host = {20, 1200.5};
  profile.given_links = {"same_rank", "same_host"};
  profile.workers = {{1, {0, 0}}, {0.5, {1, 1}}};
  return profile;
}

Profile read(const std::string& text) {
  return read_profile(load_config_text(text, "p.yaml"));
}

/// `edit.replaced` of the text of small_profile() is replaced.
std::string error_of(const std::string& replaced, const std::string& with) {
  std::string text = to_json(small_profile());
  const auto at = text.find(replaced);
  REQUIRE(at != std::string::npos);
  text.replace(at, replaced.size(), with);
  try {
    read(text);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_of(const std::string& text) {
  try {
    read(text);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

struct Bad {
  const char *replaced, *with, *message;
};

// clang-format off
const Bad kBadProfiles[] = {
  {"\"format\": 2", "\"format\": 3",
   "p.yaml:2:12: format: got 3, expected 2; another version of Lockstep wrote it: measure again with lockstep profile"},
  {" \"format\": 2,\n", "",
   "p.yaml:1:1: this is no profile; lockstep profile makes one"},
  {"\"model\"", "\"modle\"",
   "p.yaml:3:2: modle: got an unknown key, expected one of format, model, environment, layers, costs, devices, links, adding, workers; did you mean 'model'?"},
  {"\"forward_us\": 10.0", "\"forward_us\": -10.0",
   "p.yaml:16:20: layers[0].samples[0].forward_us: got -10.0, expected a number >= 0"},
  {"\"forward_us\": 10.0", "\"forward_ms\": 10.0",
   "p.yaml:16:6: layers[0].samples[0].forward_us: missing, expected a number >= 0; is 'forward_ms' here a misspelling of it?"},
  {"\"activation_bytes\": 1000.0", "\"activation_bytes\": null",
   "p.yaml:20:26: layers[0].samples[0].activation_bytes: got nothing, expected a number >= 0"},
  {"\"rows\": 4", "\"rows\": 2",
   "p.yaml:31:14: layers[0].samples[1].rows: got 2, expected more than 2, those of the sample before"},
  {"\"rows\": 2", "\"rows\": 0",
   "p.yaml:15:14: layers[0].samples[0].rows: got 0, expected an integer >= 1"},
  {"\"gpt_head 02\"", "\"gpt_block 01\"",
   "p.yaml:50:17: layers[1].signature: got gpt_block 01 twice, expected it once"},
  {"\"latency_us\": 5.0", "\"latency\": 5.0",
   "p.yaml:77:4: links.same_host.latency: got an unknown key, expected one of latency_us, gigabytes_per_s, busy_us_per_mib, assumed; did you mean 'latency_us'?"},
  {"\"gigabytes_per_s\": 6.0", "\"gigabytes_per_s\": 0",
   "p.yaml:78:23: links.same_host.gigabytes_per_s: got 0, expected a number > 0"},
  {"\"same_host\"", "\"same_hots\"",
   "p.yaml:76:3: links.same_hots: got an unknown key, expected one of same_rank, same_host, other_host, to_device, to_host, between_devices; did you mean 'same_host'?"},
  {"\"speed\": 0.5", "\"speed\": 0",
   "p.yaml:94:13: workers[1].speed: got 0, expected a number > 0"},
  {"\"isa\": \"avx512\"", "\"isa\": [1]",
   "p.yaml:5:10: environment.isa: got [1], expected a string"},
};
const Bad kBadByHand[] = {
  {"", "format: 2\nlayers: {h.*: {forward_ms: 1}}\n",
   "p.yaml:2:9: layers: got a mapping, expected a list, as lockstep profile writes it; costs by hand stand under 'costs'"},
  {"", "format: 2\nlayers: [{name: a, signature: b, samples: []}]\n",
   "p.yaml:2:43: layers[0].samples: got none, expected at least one sample"},
  {"", "format: 2\ncosts: {h.*: {forward_us: 1}}\n",
   "p.yaml:2:15: costs.h.*.forward_us: got an unknown key, expected one of rows, forward_ms, input_grad_ms, weight_grad_ms, update_ms, activation_mib, recompute_activation_mib, weight_grad_mib, step_mib, forward_workspace_mib, input_grad_workspace_mib, weight_grad_workspace_mib, backward_workspace_mib; did you mean 'forward_ms'?"},
  {"", "format: 2\ncosts: {h.*: {activation_mib: -1}}\n",
   "p.yaml:2:31: costs.h.*.activation_mib: got -1, expected a number >= 0"},
  {"", "format: 2\ncosts: {h.*: {}}\n",
   "p.yaml:2:14: costs.h.*: got no number, expected at least one, such as forward_ms: 10"},
  {"", "format: 2\ncosts: {h.*: 3}\n",
   "p.yaml:2:14: costs.h.*: got 3, expected a mapping"},
  {"", "format: 2\ndevices: {cuda: {memory: 80 gigs}}\n",
   "p.yaml:2:26: devices.cuda.memory: got 80 gigs, expected a size such as 2GiB, 512MiB or 1.5GB"},
  {"", "format: 2\ndevices: {cuda: {cost: {}}}\n",
   "p.yaml:2:18: devices.cuda.cost: got an unknown key, expected one of memory, costs; did you mean 'costs'?"},
  {"", "format: 2\nworkers: [{count: 0}]\n",
   "p.yaml:2:19: workers[0].count: got 0, expected an integer from 1 to 1048576"},
};
// clang-format on

}  // namespace

TEST_CASE("a profile reads back as it was written", "[unit][profile]") {
  const Profile profile = small_profile();
  const Profile again = read(to_json(profile));
  CHECK(again.model == profile.model);
  CHECK(again.environment == profile.environment);
  CHECK(again.layers == profile.layers);
  CHECK(again.links.same_rank == profile.links.same_rank);  // no limit of bandwidth: the key is left out
  CHECK(again.links.same_host == profile.links.same_host);
  CHECK(again.links.other_host == profile.links.other_host);
  CHECK(again.given_links == profile.given_links);
  CHECK(again.workers == profile.workers);
  CHECK(again.file == "p.yaml");
  CHECK(to_json(again) == to_json(profile));
  CHECK(to_json(read(to_yaml(profile))) == to_json(profile));  // as a plan carries it
}

TEST_CASE("every damaged profile is refused with its place", "[unit][profile]") {
  for (const Bad& bad : kBadProfiles) CHECK(error_of(bad.replaced, bad.with) == bad.message);
  for (const Bad& bad : kBadByHand) CHECK(error_of(bad.with) == bad.message);
}

TEST_CASE("between and beyond the samples a layer costs what the line says, never less than nothing",
          "[unit][profile]") {
  const LayerProfile layer{"h.0", "s", {sample_of(2, 1), sample_of(4, 3)}, 0};
  CHECK(sample_at(layer, 2) == layer.samples[0]);
  CHECK(sample_at(layer, 4) == layer.samples[1]);
  CHECK(sample_at(layer, 3).forward_us == 20);
  CHECK(sample_at(layer, 3).rows == 3);
  CHECK(sample_at(layer, 8).forward_us == 70);
  CHECK(sample_at(layer, 1).forward_us == 5);  // half of what two rows take, where the line says nothing at all
  CHECK(sample_at(layer, 8).update_us == 7);
  CHECK(sample_at(layer, 8).step_bytes == 64);
  // The nearest two of several.
  const LayerProfile bent{"h.0", "s", {sample_of(2, 1), sample_of(4, 3), sample_of(8, 4)}, 0};
  CHECK(sample_at(bent, 3).activation_bytes == 2000);
  CHECK(sample_at(bent, 6).activation_bytes == 3500);
  CHECK(sample_at(bent, 12).activation_bytes == 5000);
}

TEST_CASE("a single sample is scaled with the rows, one of any rows is not", "[unit][profile]") {
  CHECK(sample_at({"a", "s", {sample_of(2, 1)}, 0}, 3).forward_us == 15);
  CHECK(sample_at({"a", "s", {sample_of(2, 1)}, 0}, 3).update_us == 7);
  CHECK(sample_at({"a", "", {sample_of(0, 1)}, 0}, 3).forward_us == 10);
}

TEST_CASE("a layer is found by its signature, whatever its name", "[unit][profile]") {
  const Profile profile = small_profile();
  const LayerProfile layer = profile_of_layer(profile, "h.17", "gpt_block 01");
  CHECK(layer.name == "h.17");
  CHECK(layer.samples == profile.layers[0].samples);
}

TEST_CASE("a layer that was not measured is named, with what to do", "[unit][profile]") {
  Profile profile = small_profile();
  profile.file = "p.json";
  CHECK_THROWS_WITH(profile_of_layer(profile, "h.0", "gpt_block 99"),
                    "p.json: got no cost of layer 'h.0' (gpt_block 99): it is of another model than small, or the "
                    "layer's options, shapes or dtypes have changed since; measure again: lockstep profile CONFIG -o "
                    "p.json");
}

TEST_CASE("numbers by hand take the place of measured ones, and the first pattern that matches counts",
          "[unit][profile]") {
  const Profile by_hand = read(
      "format: 2\ncosts:\n  h.1: {forward_ms: 3}\n  h.*: {rows: 4, forward_ms: 2, activation_mib: 1, update_ms: 1}\n");
  const Profile profile = overlaid(small_profile(), by_hand);
  const auto at = [&](const char* layer, double rows) {
    return sample_at(profile_of_layer(profile, layer, "gpt_block 01"), rows);
  };
  CHECK(at("h.1", 2).forward_us == 3000);
  CHECK(at("h.1", 4).forward_us == 3000);
  CHECK(at("h.1", 4).activation_bytes == 2000);  // as measured
  CHECK(at("h.0", 4).forward_us == 2000);
  CHECK(at("h.0", 2).forward_us == 1000);  // half of the rows
  CHECK(at("h.0", 2).activation_bytes == 524288);
  CHECK(profile_of_layer(profile, "h.0", "gpt_block 01").misfit == 0);  // was of the measured times
  CHECK(at("h.0", 2).update_us == 1000);                                // whatever the rows
  CHECK(at("h.0", 2).input_grad_us == 20);                              // as measured
  CHECK(read(to_json(profile)).costs.size() == 2);                      // and all of that is in the file
  CHECK(to_json(read(to_json(profile))) == to_json(profile));
  CHECK(to_json(read(to_yaml(profile))) == to_json(profile));
}

TEST_CASE("whether anybody said how costs depend on rows", "[unit][profile]") {
  const auto untold = [](const std::string& costs, bool measured) {
    const Profile by_hand = read("format: 2\ncosts:\n  h.0: " + costs + "\n");
    return profile_of_layer(measured ? overlaid(small_profile(), by_hand) : by_hand, "h.0", "gpt_block 01").rows_untold;
  };
  const std::string times = "forward_ms: 3, input_grad_ms: 3, weight_grad_ms: 3";
  CHECK(untold("{" + times + "}", false));
  CHECK_FALSE(untold("{rows: 8, " + times + "}", false));  // in proportion: that is what `rows` says
  CHECK(untold("{forward_ms: 3}", true));                  // over what was measured at two sizes
  CHECK_FALSE(untold("{rows: 2, forward_ms: 3}", true));
  CHECK_FALSE(untold("{update_ms: 3}", true));  // no matter of rows
  Profile one_size = small_profile();
  for (LayerProfile& layer : one_size.layers) layer.samples.resize(1);
  CHECK(profile_of_layer(one_size, "h.0", "gpt_block 01").rows_untold);
}

TEST_CASE("a layer by hand alone needs its three times", "[unit][profile]") {
  const Profile whole = read("format: 2\ncosts: {'*': {forward_ms: 1, input_grad_ms: 2, weight_grad_ms: 0}}\n");
  CHECK(sample_at(profile_of_layer(whole, "fc", "linear 1"), 5).input_grad_us == 2000);
  const Profile scaled =
      read("format: 2\ncosts: {'*': {rows: 2, forward_ms: 1, input_grad_ms: 2, weight_grad_ms: 0}}\n");
  CHECK(sample_at(profile_of_layer(scaled, "fc", "linear 1"), 5).input_grad_us == 5000);
  const Profile lacking = read("format: 2\ncosts: {'*': {forward_ms: 1, weight_grad_ms: 0}}\n");
  CHECK_THROWS_WITH(
      profile_of_layer(lacking, "fc", "linear 1"),
      "p.yaml:2:14: costs.*: got no input_grad_ms, expected forward_ms, input_grad_ms and weight_grad_ms: "
      "layer 'fc' was not measured; write all three, or measure: lockstep profile CONFIG");
}

TEST_CASE("links and workers by hand take the place of all others", "[unit][profile]") {
  const Profile profile =
      overlaid(small_profile(), read("format: 2\nlinks: {other_host: {latency_us: 2, gigabytes_per_s: 25}}\n"
                                     "workers: [{count: 2, host: 0}, {count: 2, host: 1, speed: 0.5}]\n"));
  CHECK(profile.links.same_host == LinkCost{5, 6000, 0.25e-3});
  CHECK(profile.links.other_host == LinkCost{2, 25000});
  CHECK(profile.given_links == std::vector<std::string>{"same_rank", "same_host", "other_host"});
  CHECK(profile.workers == std::vector<ProfiledWorker>{{1, {0, 0}}, {1, {1, 0}}, {0.5, {2, 1}}, {0.5, {3, 1}}});
  const Profile free = read("format: 2\nlinks: {same_rank: {}}\n");
  CHECK(free.links.same_rank.bytes_per_us == std::numeric_limits<double>::infinity());
}

TEST_CASE("measured layers cannot be laid over others", "[unit][profile]") {
  Profile over = small_profile();
  over.file = "over.yaml";
  CHECK_THROWS_WITH(overlaid({}, over), Catch::Contains("over.yaml: got measured layers (key 'layers')"));
}

TEST_CASE("another environment is told, what changes no time is not", "[unit][profile]") {
  Profile profile = small_profile();
  profile.file = "p.json";
  profile.environment.emplace_back("seed", "1");
  CHECK(foreign_environment(profile, {{"isa", "avx512"}, {"seed", "2"}, {"gemm", "mkl"}}).empty());
  CHECK(foreign_environment(profile, {{"isa", "avx2"}, {"threads", "2"}}) ==
        "isa: avx2 here, avx512 in p.json; threads: 2 here, 1 in p.json");
}

namespace {

const char* const kH100 = "cuda NVIDIA H100 80GB HBM3";

/// As measured on a rank with a card and a host.
Profile two_kinds() {
  Profile profile = small_profile();
  profile.file = "p.json";
  profile.layers.push_back({"h.0", "gpt_block 01", {sample_of(2, 0.1), sample_of(4, 0.2)}, 0.01, false, kH100});
  profile.devices = {{kH100, 80.0 * (1 << 30)}};
  profile.links.to_device = {9, 20000};
  profile.links.to_host = {11, 18000};
  profile.links.between_devices = {10, 12000};
  profile.given_links.insert(profile.given_links.end(), {"to_device", "to_host"});
  profile.workers[0].devices = {{"cuda:0", kH100}, {"cuda:1", kH100}};
  return profile;
}

}  // namespace

TEST_CASE("a profile of two kinds of device reads back as it was written", "[unit][profile]") {
  const Profile profile = two_kinds(), again = read(to_json(profile));
  CHECK(again.layers == profile.layers);
  CHECK(again.workers == profile.workers);
  CHECK(again.links.to_device == profile.links.to_device);
  CHECK(again.links.between_devices == profile.links.between_devices);
  CHECK(again.given_links == profile.given_links);
  CHECK(memory_bytes_of(again, kH100) == 80.0 * (1 << 30));
  CHECK(memory_bytes_of(again, "cpu") == 0);
  CHECK(to_json(again) == to_json(profile));
  CHECK(to_json(read(to_yaml(profile))) == to_json(profile));
}

TEST_CASE("a profile of the host alone says nothing of devices, and those before were such", "[unit][profile]") {
  const std::string text = to_json(small_profile());
  for (const char* word : {"device", "cpu", "to_host"}) CHECK(text.find(word) == std::string::npos);
  for (const LayerProfile& layer : read(text).layers) CHECK(layer.kind == "cpu");
}

TEST_CASE("a layer costs on a kind of device what was measured there", "[unit][profile]") {
  const Profile profile = two_kinds();
  CHECK(profile_of_layer(profile, "h.3", "gpt_block 01").samples[0].forward_us == 10);
  CHECK(profile_of_layer(profile, "h.3", "gpt_block 01", kH100).samples[0].forward_us == 1);
  CHECK_THROWS_WITH(profile_of_layer(profile, "head", "gpt_head 02", kH100),
                    "p.json: got no cost of layer 'head' on cuda NVIDIA H100 80GB HBM3, only on cpu; measure it there: "
                    "lockstep profile CONFIG -o profile.json, with a config whose workers.devices names such a device, "
                    "or write costs by hand under devices: {cuda: {costs: ...}}");
  CHECK_THROWS_WITH(profile_of_layer(profile, "h.0", "gpt_block 01", "cuda NVIDIA A100"),
                    Catch::Contains("on cuda NVIDIA A100, only on cpu, cuda NVIDIA H100 80GB HBM3; measure"));
}

TEST_CASE("costs by hand of a kind of device come before those of every kind", "[unit][profile]") {
  const Profile by_hand = read(
      "format: 2\n"
      "costs: {'*': {forward_ms: 4, input_grad_ms: 4, weight_grad_ms: 4}}\n"
      "devices:\n"
      "  '*H100*': {memory: 80GiB, costs: {h.*: {forward_ms: 1, input_grad_ms: 1, weight_grad_ms: 1}}}\n"
      "  cuda: {costs: {h.*: {forward_ms: 2, input_grad_ms: 2, weight_grad_ms: 2}}}\n"
      "workers: [{count: 2, device: cuda NVIDIA H100}, {device: cuda}, {}]\n");
  const auto forward_us = [&](const char* layer, const std::string& kind) {
    return profile_of_layer(by_hand, layer, "", kind).samples[0].forward_us;
  };
  CHECK(forward_us("h.0", kH100) == 1000);
  CHECK(forward_us("h.0", "cuda NVIDIA A100") == 2000);
  CHECK(forward_us("h.0", "cuda") == 2000);
  CHECK(forward_us("h.0", "cpu") == 4000);
  CHECK(forward_us("head", kH100) == 4000);
  CHECK(memory_bytes_of(by_hand, kH100) == 80.0 * (1 << 30));
  CHECK(memory_bytes_of(by_hand, "cuda NVIDIA A100") == 0);
  REQUIRE(by_hand.workers.size() == 4);
  CHECK(by_hand.workers[1].kind == "cuda NVIDIA H100");
  CHECK(by_hand.workers[1].place.rank == 1);
  CHECK(by_hand.workers[3].kind.empty());
  CHECK(to_json(read(to_json(by_hand))) == to_json(by_hand));

  const Profile over = overlaid(two_kinds(), read("format: 2\ndevices: {cuda: {costs: {h.*: {forward_ms: 7}}}}\n"));
  CHECK(profile_of_layer(over, "h.0", "gpt_block 01", kH100).samples[0].forward_us == 7000);
  CHECK(profile_of_layer(over, "h.0", "gpt_block 01", kH100).samples[0].input_grad_us == 2);
  CHECK(profile_of_layer(over, "h.0", "gpt_block 01").samples[0].forward_us == 10);
}

TEST_CASE("another card under the same name is told", "[unit][profile]") {
  CHECK(foreign_environment(two_kinds(), {{"isa", "avx512"}, {"cuda:0", kH100}}).empty());
  CHECK(foreign_environment(two_kinds(), {{"cuda:0", "cuda NVIDIA A100"}, {"cuda:2", kH100}}) ==
        "cuda:0: cuda NVIDIA A100 here, cuda NVIDIA H100 80GB HBM3 in p.json");
}

TEST_CASE("the cache gives back what was stored under the whole key", "[unit][profile]") {
  const test::TemporaryFolder folder;
  const ProfileCache cache(folder.path() + "/a/b");
  CHECK_FALSE(cache.find("key").has_value());
  CHECK(cache.store("key", sample_of(2, 1.0 / 3)).empty());
  CHECK(cache.find("key") == sample_of(2, 1.0 / 3));
  CHECK_FALSE(cache.find("other").has_value());
  std::filesystem::copy_file(cache.file_of("key"), cache.file_of("other"));  // as if the hashes were equal
  CHECK_FALSE(cache.find("other").has_value());
  CHECK(cache.store("other", sample_of(3, 1)).empty());
  CHECK(cache.find("other") == sample_of(3, 1));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path() + "/a/b"), {}) == 2);
}

TEST_CASE("a damaged entry of the cache counts as not there", "[unit][profile]") {
  const test::TemporaryFolder folder;
  const ProfileCache cache(folder.path());
  CHECK(cache.store("key", sample_of(2, 1)).empty());
  const std::string file = cache.file_of("key");
  const auto size = std::filesystem::file_size(file);
  for (const auto cut : {size / 2, size - 3, static_cast<std::uintmax_t>(0)}) {
    std::filesystem::resize_file(file, cut);
    CHECK_FALSE(cache.find("key").has_value());
  }
  CHECK(cache.store("key", sample_of(2, 1)).empty());
  CHECK(cache.find("key") == sample_of(2, 1));
}

TEST_CASE("a cache that cannot be written says so, one without a folder keeps nothing", "[unit][profile]") {
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() + "/file") << "x";
  CHECK_THAT(ProfileCache(folder.path() + "/file/below").store("key", sample_of(2, 1)),
             Catch::Contains("cannot be written"));
  CHECK(ProfileCache("").store("key", sample_of(2, 1)).empty());
  CHECK_FALSE(ProfileCache("").find("key").has_value());
}

}  // namespace lockstep
