// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/local_channel.hpp"

#include <map>
#include <tuple>

#include "tests/contract/channel_contract.hpp"

namespace lockstep::test {
namespace {

/// Four workers of one process; both ends of an edge are the same object.
class LocalFabric : public Fabric {
 public:
  LocalFabric() {
    for (int from = 0; from < kWorkers; ++from)
      for (int to = 0; to < kWorkers; ++to)
        for (int lane = 0; lane < kLanes; ++lane) channels_[{from, to, lane}];
  }
  int workers() const override { return kWorkers; }
  bool is_here(int) const override { return true; }
  Channel& sender(int from, int to, int lane) override { return channels_.at({from, to, lane}); }
  Channel& receiver(int from, int to, int lane) override { return channels_.at({from, to, lane}); }
  void meet() override {}

 private:
  static constexpr int kWorkers = 4;
  std::map<std::tuple<int, int, int>, LocalChannel> channels_;
};

}  // namespace

std::unique_ptr<Fabric> make_fabric(const FabricOptions&) {
  return std::make_unique<LocalFabric>();
}

TEST_CASE("in process, tensors are handed over by pointer", "[contract]") {
  LocalChannel channel;
  Waits waits;
  const at::Tensor tensor = patterned({5}, at::kFloat, 1);
  channel.post();
  channel.send(message_of({tensor}), waits.long_enough);
  REQUIRE(channel.receive(waits.long_enough).tensors.at(0).const_data_ptr() == tensor.const_data_ptr());
}

}  // namespace lockstep::test
