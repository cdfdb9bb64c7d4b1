// SPDX-License-Identifier: Apache-2.0
//
// Internal to runtime/comm/mpi: the two halves of a channel between ranks. See mpi_endpoint.hpp for the protocol.
#pragma once

#include "runtime/comm/channel.hpp"
#include "runtime/comm/mpi/mpi_endpoint.hpp"
#include "runtime/comm/mpi/mpi_progress.hpp"
#include "runtime/comm/mpi/slot.hpp"

namespace lockstep::mpi {

/// A slot in cache lines: aligned, and never half a line.
class SlotBuffer {
 public:
  explicit SlotBuffer(int bytes) : lines_(static_cast<std::size_t>(bytes) / sizeof(Line)) {}
  Bytes bytes() { return std::as_writable_bytes(std::span(lines_)); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> lines_;
};

struct EdgeTags {
  int header, bulk;
};

/// Sending half of one message. Holds the message until MPI has let go of it.
class SendTransfer : public Transfer, public std::enable_shared_from_this<SendTransfer> {
 public:
  SendTransfer(int peer, int edge, EdgeTags tags, const MpiEndpointOptions& options);
  /// Under the mutex; the previous one is done.
  void begin(Message message);
  /// The message can be read from here on.
  void start(RequestList& requests) override;
  void completed(Part part, std::int64_t bytes) override;

 private:
  const EdgeTags tags_;
  const MpiEndpointOptions options_;
  SlotBuffer slot_;
  std::vector<std::byte> description_;
  Message message_;
  int pending_ = 0;

  void let_go();
  void send_in_blocks(const void* from, std::int64_t bytes, Part part, RequestList& requests);
};

/// Receiving half of one message: header, then what the header announces, straight into new tensors.
class ReceiveTransfer : public Transfer, public std::enable_shared_from_this<ReceiveTransfer> {
 public:
  ReceiveTransfer(int peer, int edge, EdgeTags tags, const MpiEndpointOptions& options, Allocate allocate,
                  RequestList& requests);
  void post();  ///< under the mutex
  void completed(Part part, std::int64_t bytes) override;
  void abandon();  ///< under the mutex: the channel is gone
  Message take();  ///< once done

 private:
  const EdgeTags tags_;
  const Allocate allocate_;
  RequestList& requests_;
  SlotBuffer slot_;
  SlotHeader header_;
  std::vector<std::byte> description_;
  Message message_;
  std::int64_t missing_bytes_ = 0;  // of the blocks in flight
  int pending_ = 0;
  bool abandoned_ = false;

  void header_arrived(ConstBytes received);
  void described(ConstBytes description);
  void receive_in_blocks(void* to, std::int64_t bytes, Part part);
};

class MpiSender : public Channel {
 public:
  /// `device_memory`: MPI reads that of devices, too.
  MpiSender(Progress& progress, std::shared_ptr<SendTransfer> transfer, bool device_memory);
  void post() override;
  Message receive(const WaitLimits& limits) override;
  bool arrived() override;
  void send(Message message, const WaitLimits& limits) override;
  void finish(const WaitLimits& limits) override;
  bool is_local() const override { return false; }
  bool wants_host_memory() const override { return !device_memory_; }

 private:
  Progress& progress_;
  std::shared_ptr<SendTransfer> transfer_;
  bool device_memory_;
};

class MpiReceiver : public Channel {
 public:
  MpiReceiver(Progress& progress, std::shared_ptr<ReceiveTransfer> transfer);
  ~MpiReceiver() override;
  void post() override;
  Message receive(const WaitLimits& limits) override;
  bool arrived() override;
  void send(Message message, const WaitLimits& limits) override;
  void finish(const WaitLimits& limits) override;
  bool is_local() const override { return false; }
  bool wants_host_memory() const override { return true; }

 private:
  Progress& progress_;
  std::shared_ptr<ReceiveTransfer> transfer_;
  bool posted_ = false;
};

}  // namespace lockstep::mpi
