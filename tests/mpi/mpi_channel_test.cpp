// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <map>
#include <tuple>

#include "runtime/base/launcher.hpp"
#include "runtime/comm/mpi/mpi_endpoint.hpp"
#include "runtime/comm/mpi/slot.hpp"
#include "tests/contract/channel_contract.hpp"
#include "tests/mpi/mpi_test.hpp"

namespace lockstep::test {
namespace {

/// Two workers per rank; worker w lives on rank w % size, so 0 and 1 are on different ranks, 0 and `size` on the same.
class MpiFabric : public Fabric {
 public:
  explicit MpiFabric(const FabricOptions& options)
      : endpoint_(world(), {options.block_bytes, 4096, true, kThreads, options.synchronous_sends}) {
    for (int from = 0; from < workers(); ++from)
      for (int to = 0; to < workers(); ++to)
        for (int lane = 0; lane < kLanes; ++lane) {
          const int edge = ((from / world().size()) * kThreads + to / world().size()) * kLanes + lane;
          if (is_here(from)) senders_[{from, to, lane}] = endpoint_.sender(to % world().size(), edge);
          if (is_here(to)) receivers_[{from, to, lane}] = endpoint_.receiver(from % world().size(), edge);
        }
  }
  int workers() const override { return world().size() * kThreads; }
  bool is_here(int worker) const override { return worker % world().size() == world().rank(); }
  Channel& sender(int from, int to, int lane) override { return *senders_.at({from, to, lane}); }
  Channel& receiver(int from, int to, int lane) override { return *receivers_.at({from, to, lane}); }
  void meet() override { world().barrier(std::chrono::milliseconds(120'000)); }

 private:
  static constexpr int kThreads = 2;
  MpiEndpoint endpoint_;
  std::map<std::tuple<int, int, int>, std::unique_ptr<Channel>> senders_, receivers_;
};

}  // namespace

std::unique_ptr<Fabric> make_fabric(const FabricOptions& options) {
  return std::make_unique<MpiFabric>(options);
}

TEST_CASE("all_gather gives every rank's value in rank order", "[mpi]") {
  for (int round = 0; round < 20; ++round) {
    const auto value = [round](int rank) {
      return std::string(static_cast<std::size_t>(rank * round * 999), 'x') + std::to_string(rank);
    };
    const std::vector<std::string> values = world().all_gather(value(world().rank()));
    REQUIRE(values.size() == static_cast<std::size_t>(world().size()));
    for (int rank = 0; rank < world().size(); ++rank) REQUIRE(values[static_cast<std::size_t>(rank)] == value(rank));
  }
  REQUIRE(world().all_gather("") == std::vector<std::string>(static_cast<std::size_t>(world().size())));
  REQUIRE_FALSE(world().host().empty());
}

TEST_CASE("no rank passes a barrier before the last one comes", "[mpi]") {
  MpiEndpoint endpoint(world());
  Waits waits;
  const int last = world().size() - 1;
  for (int round = 0; round < 20; ++round) {
    // The last rank comes only when rank 0's message has arrived, which rank 0 sends before its own barrier.
    if (world().rank() == 0) {
      auto out = endpoint.sender(last, 0);
      if (last == 0) break;
      out->send(message_of({}, round), waits.long_enough);
    }
    if (world().rank() == last) REQUIRE(receive_one(*endpoint.receiver(0, 0), waits.long_enough).sequence == round);
    world().barrier();
  }
}

TEST_CASE("tags hold kind and edge, and are checked against the limit of MPI", "[mpi]") {
  using mpi::pack_tag;
  using mpi::TagKind;
  std::vector<bool> used(32768);
  for (int edge = 0; edge < 16383; ++edge)
    for (TagKind kind : {TagKind::header, TagKind::bulk}) {
      const int tag = pack_tag(kind, edge, 32767);
      REQUIRE((tag >= 0 && tag <= 32767));
      REQUIRE(tag != mpi::kHeartbeatTag);
      REQUIRE_FALSE(used[static_cast<std::size_t>(tag)]);
      used[static_cast<std::size_t>(tag)] = true;
    }
  REQUIRE_THROWS_AS(pack_tag(TagKind::header, 16383, 32767), CommError);
  REQUIRE_THROWS_AS(pack_tag(TagKind::bulk, 16383, 32768), CommError);
  REQUIRE(pack_tag(TagKind::bulk, 134217726, 268435455) == 268435455);
  MpiEndpoint endpoint(world());
  REQUIRE_THROWS_AS(endpoint.sender(0, 2147483647), CommError);
}

TEST_CASE("a slot that is not of this edge, protocol or size is refused", "[mpi]") {
  std::vector<std::byte> slot(4096);
  const mpi::Packed packed = mpi::pack(message_of({patterned({3}, at::kFloat, 1)}), 5, 1024, slot);
  REQUIRE(packed.payload_in_slot);
  const auto received = std::span(slot).first(static_cast<std::size_t>(packed.slot_bytes));
  REQUIRE(mpi::read_header(received, 5).payload_bytes == 12);
  REQUIRE_THROWS_AS(mpi::read_header(received, 6), CommError);
  REQUIRE_THROWS_AS(mpi::read_header(received.first(received.size() - 1), 5), CommError);
  REQUIRE_THROWS_AS(mpi::read_header(received.first(10), 5), CommError);
  for (const std::size_t byte :
       {std::size_t{0}, offsetof(mpi::SlotHeader, version), offsetof(mpi::SlotHeader, payload_bytes)}) {
    std::vector<std::byte> spoilt(received.begin(), received.end());
    spoilt[byte] ^= std::byte{0x10};
    REQUIRE_THROWS_AS(mpi::read_header(spoilt, 5), CommError);
  }
}

TEST_CASE("a description that makes no sense is refused", "[mpi]") {
  std::vector<std::byte> slot(4096);
  mpi::pack(message_of({patterned({3}, at::kFloat, 1)}), 5, 1024, slot);
  mpi::SlotHeader header;
  std::memcpy(&header, slot.data(), sizeof(header));
  const auto allocate = [](at::IntArrayRef sizes, at::ScalarType dtype) {
    return at::empty(sizes, at::device(at::kCPU).dtype(dtype));
  };
  auto description = std::span(slot).subspan(mpi::kDescriptionOffset, header.description_bytes);
  REQUIRE(mpi::make_tensors(header, description, allocate).at(0).numel() == 3);
  REQUIRE_THROWS_AS(mpi::make_tensors(header, description.first(description.size() - 1), allocate), CommError);
  description[0] = std::byte{0x7f};
  REQUIRE_THROWS_AS(mpi::make_tensors(header, description, allocate), CommError);
}

TEST_CASE("several launched tasks in a world of one are the user's error", "[mpi]") {
  for (const char* name : {"SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"}) {
    MpiWorld::check_launcher(1);
    setenv(name, "2", 1);
    REQUIRE(launched());
    REQUIRE_THROWS_AS(MpiWorld::check_launcher(1), UserError);
    MpiWorld::check_launcher(2);
    unsetenv(name);
  }
}

TEST_CASE("received tensors come from the given allocator, whose error is thrown by receive", "[mpi][error]") {
  const bool fails = GENERATE(false, true);
  MpiEndpoint endpoint(world());
  Waits waits;
  const int self = world().rank();
  std::atomic<int> calls{0};
  auto in = endpoint.receiver(self, 0, [&](at::IntArrayRef sizes, at::ScalarType dtype) {
    ++calls;
    if (fails) throw UserError("over the limit");
    return at::empty(sizes, at::device(at::kCPU).dtype(dtype));
  });
  auto out = endpoint.sender(self, 0);
  in->post();
  out->send(message_of({patterned({8}, at::kFloat, 1), at::Tensor(), patterned({2}, at::kFloat, 1)}),
            waits.long_enough);
  if (fails) {
    REQUIRE_THROWS_AS(in->receive(waits.long_enough), UserError);
  } else {
    in->receive(waits.long_enough);
    REQUIRE(calls == 2);
  }
}

TEST_CASE("without a helper a message moves while its receiver only looks", "[mpi]") {
  MpiEndpointOptions options;
  options.helper = false;
  MpiEndpoint endpoint(world(), options);
  Waits waits;
  const int last = world().size() - 1;
  if (world().rank() == 0) {
    auto out = endpoint.sender(last, 0);
    out->send(message_of({at::full({1 << 20}, 3.0f)}, 0), waits.long_enough);
    out->finish(waits.long_enough);
  }
  if (world().rank() == last) {
    bool begun = false;  // the header has arrived, and the tensor is being received
    auto in = endpoint.receiver(0, 0, [&](at::IntArrayRef sizes, at::ScalarType dtype) {
      begun = true;
      return at::empty(sizes, dtype);
    });
    in->post();
    while (!begun) endpoint.look();
    REQUIRE(in->receive(waits.long_enough).tensors.at(0).sum().item<double>() == 3.0 * (1 << 20));
  }
  world().barrier();
}

TEST_CASE("workers share cores when there are more of them than cores they may run on", "[mpi]") {
  REQUIRE_FALSE(workers_share_cores(1, 2, 2, 2));
  REQUIRE(workers_share_cores(1, 3, 2, 2));
  REQUIRE(workers_share_cores(2, 2, 2, 2));
  REQUIRE_FALSE(workers_share_cores(1, 8, 1, 8));  // bound to one of 8
  REQUIRE(workers_share_cores(2, 8, 1, 8));
  REQUIRE(world().host_ranks() == world().size());  // the tests run on one host
}

TEST_CASE("a timeout names operation, peer and edge", "[mpi]") {
  MpiEndpoint endpoint(world());
  Waits waits;
  auto in = endpoint.receiver(0, 77);
  in->post();
  REQUIRE_THROWS_WITH(in->receive(waits.short_time), "receive from rank 0 on edge 77: waited 30 ms");
}

TEST_CASE("an endpoint with receives posted and sends unmatched is left without hanging", "[mpi][error]") {
  Waits waits;
  {
    MpiEndpoint endpoint(world());
    auto in = endpoint.receiver(world().rank(), 78);
    auto out = endpoint.sender(world().rank(), 79);
    in->post();
    out->send(message_of({patterned({1 << 20}, at::kFloat, 1)}), waits.long_enough);
  }
  REQUIRE(world().failed());  // the send could not be cancelled: its buffers are leaked, Finalize is skipped
}

TEST_CASE("a truncated message is a CommError on both ways to wait", "[mpi][error]") {
  // Ranks that disagree about the slot: MPI itself refuses the message.
  MpiEndpoint big(world(), {1024, 8192, false});
  MpiEndpoint small(world(), {1024, 64, GENERATE(false, true)});
  Waits waits;
  const int self = world().rank();
  auto out = big.sender(self, 80);
  auto in = small.receiver(self, 80);
  in->post();
  out->send(message_of({patterned({6000}, at::kByte, 1)}), waits.long_enough);
  try {
    in->receive(waits.long_enough);
    FAIL("nothing was thrown");
  } catch (const CommError& error) {
    const std::string text = error.what();
    INFO(text);
    REQUIRE(text.find("MPI_Irecv of 64 bytes, peer rank " + std::to_string(self) + ", tag 162") != std::string::npos);
    REQUIRE(text.find("MPI_ERR_TRUNCATE") != std::string::npos);
  }
  REQUIRE(world().failed());
  REQUIRE(world().all_gather("still alive").size() == static_cast<std::size_t>(world().size()));
}

}  // namespace lockstep::test
