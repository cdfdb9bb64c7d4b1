// SPDX-License-Identifier: Apache-2.0
//
// What a run says of the machine it runs on. That variables of MKL, oneDNN and ATen show in it is tests/cli's business:
// they are read once per process.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <map>

#include "runtime/device/card.hpp"
#include "runtime/training/environment.hpp"
#include "runtime/training/operator_probe.hpp"
#include "runtime/training/trainer_state.hpp"
#include "tests/test.hpp"

using namespace lockstep;

namespace {

std::map<std::string, std::string> probe(Precision precision = Precision::fp32) {
  const auto entries = operator_probe(precision);
  return {entries.begin(), entries.end()};
}

}  // namespace

TEST_CASE("the probe is the same every time, on any number of threads, and leaves that number alone", "[contract]") {
  const auto first = probe();
  CHECK(first.size() == 11);
  const int before = at::get_num_threads();
  for (const int threads : {1, 2, 4}) {
    at::set_num_threads(threads);
    CHECK(probe() == first);
    CHECK(at::get_num_threads() == threads);
  }
  at::set_num_threads(before);
  for (const Precision precision : {Precision::bf16, Precision::fp64}) {
    auto all = probe(precision);
    CHECK(all.erase(concat("matmul_", to_string(precision))) == 1);
    CHECK(all == first);
  }
}

TEST_CASE("the probe draws no random number", "[contract]") {
  at::manual_seed(3);
  const at::Tensor expected = at::rand({4});
  at::manual_seed(3);
  probe();
  CHECK(at::equal(at::rand({4}), expected));
}

TEST_CASE("the probe shows that denormals are flushed", "[contract]") {
  const auto before = probe();
  REQUIRE(at::globalContext().setFlushDenormal(true));
  const auto flushed = probe();
  at::globalContext().setFlushDenormal(false);
  CHECK(flushed.at("denormals") != before.at("denormals"));
  CHECK(flushed.at("matmul") == before.at("matmul"));
  CHECK(probe() == before);
}

TEST_CASE("the environment names the libraries that are loaded, and a difference says both values", "[contract]") {
  const Environment here = environment_of(Config());
  std::map<std::string, std::string> entries(here.entries.begin(), here.entries.end());
  for (const char* key : {"torch", "mkl", "onednn"}) {
    INFO(key << " " << entries.at(key));
    CHECK(entries.at(key).find_first_of("0123456789") != std::string::npos);
    CHECK(entries.at(key).find(' ') == std::string::npos);
  }
  TrainerState state;
  state.environment = here;
  CHECK(environment_difference(state, here).empty());
  for (auto& [key, value] : state.environment.entries)
    if (key == "operator.exp") value = "00000000";
  CHECK(environment_difference(state, here) == "operator.exp " + entries.at("operator.exp") + " instead of 00000000");
  std::erase_if(state.environment.entries, [](const auto& entry) { return entry.first.starts_with("operator."); });
  CHECK(environment_difference(state, here).empty());  // an older checkpoint
}

TEST_CASE("CUDA's driver is asked for the name of a card, and its absence is no error", "[contract]") {
  CHECK(card_of(at::Device("cuda:1"), PRETENDED_DRIVER) == "Pretended 41");
  CHECK(card_of(at::Device("cuda"), PRETENDED_DRIVER) == "Pretended 40");
  CHECK(card_of(at::Device("cuda:2"), PRETENDED_DRIVER).empty());
  CHECK(card_of(at::kCPU, PRETENDED_DRIVER).empty());
  CHECK(card_of(at::Device("cuda"), "libno_such_driver.so.1").empty());
}

TEST_CASE("a LibTorch of another minor version is refused, of another patch it is not", "[contract]") {
  CHECK(libtorch_mismatch("2.13.0", "2.13.0").empty());
  CHECK(libtorch_mismatch("2.13.0", "2.13.1").empty());
  CHECK_THAT(libtorch_mismatch("2.13.0", "2.11.0"),
             Catch::StartsWith("LibTorch 2.11.0 is loaded, but this Lockstep was built with 2.13.0") &&
                 Catch::Contains("the lib folder of a LibTorch 2.13"));
  CHECK_FALSE(libtorch_mismatch("2.1.0", "2.11.0").empty());
  CHECK(libtorch_mismatch(built_libtorch(), loaded_libtorch()).empty());
}
