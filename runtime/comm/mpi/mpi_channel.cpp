// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi/mpi_channel.hpp"

#include <c10/core/Layout.h>

#include <algorithm>

#include "runtime/base/check.hpp"

namespace lockstep::mpi {
namespace {

void check_travels(const at::Tensor& tensor, bool device_memory) {
  if (!tensor.defined()) return;
  LOCKSTEP_CHECK(device_memory || tensor.device().is_cpu(), "MPI reads memory of the host, not of ", tensor.device());
  LOCKSTEP_CHECK(tensor.layout() == at::kStrided && tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg() &&
                     !tensor.is_quantized(),
                 "only plain contiguous tensors travel");
}

}  // namespace

// --- SendTransfer
// --------------------------------------------------------------------------------------------------------

SendTransfer::SendTransfer(int peer, int edge, EdgeTags tags, const MpiEndpointOptions& options)
    : Transfer(peer, edge), tags_(tags), options_(options), slot_(options.slot_bytes) {}

void SendTransfer::begin(Message message) {
  Transfer::begin();
  message_ = std::move(message);
}

void SendTransfer::start(RequestList& requests) {
  Packed packed = pack(message_, edge(), options_.block_bytes, slot_.bytes());
  description_ = std::move(packed.description);
  if (packed.payload_in_slot) let_go();
  pending_ = 1;
  requests.send(slot_.bytes().data(), packed.slot_bytes, tags_.header, Part::header, shared_from_this(),
                options_.synchronous_sends);
  send_in_blocks(description_.data(), static_cast<std::int64_t>(description_.size()), Part::description, requests);
  for (const at::Tensor& tensor : message_.tensors)
    if (tensor.defined())
      send_in_blocks(tensor.const_data_ptr(), static_cast<std::int64_t>(tensor.nbytes()), Part::block, requests);
}

void SendTransfer::let_go() {
  if (message_.loan.lender)  // whoever made a device's memory is the one who frees it
    for (at::Tensor& tensor : message_.tensors)
      if (tensor.defined()) message_.loan.lender->keep(std::move(tensor), {});
  message_.tensors.clear();
}

void SendTransfer::send_in_blocks(const void* from, std::int64_t bytes, Part part, RequestList& requests) {
  const auto* first = static_cast<const std::byte*>(from);
  for (std::int64_t at = 0; at < bytes; at += options_.block_bytes) {
    requests.send(first + at, std::min(options_.block_bytes, bytes - at), tags_.bulk, part, shared_from_this(), false);
    ++pending_;
  }
}

void SendTransfer::completed(Part, std::int64_t) {
  if (--pending_ > 0) return;
  let_go();
  finish();
}

// --- ReceiveTransfer
// -----------------------------------------------------------------------------------------------------

ReceiveTransfer::ReceiveTransfer(int peer, int edge, EdgeTags tags, const MpiEndpointOptions& options,
                                 Allocate allocate, RequestList& requests)
    : Transfer(peer, edge),
      tags_(tags),
      allocate_(std::move(allocate)),
      requests_(requests),
      slot_(options.slot_bytes) {}

void ReceiveTransfer::post() {
  begin();
  requests_.receive(slot_.bytes().data(), static_cast<std::int64_t>(slot_.bytes().size()), tags_.header, Part::header,
                    shared_from_this());
}

void ReceiveTransfer::completed(Part part, std::int64_t bytes) {
  if (abandoned_) return;
  if (part == Part::header) return header_arrived(slot_.bytes().first(static_cast<std::size_t>(bytes)));
  missing_bytes_ -= bytes;
  if (--pending_ > 0) return;
  if (missing_bytes_ != 0)
    throw CommError(
        concat("a block from rank ", peer(), " on edge ", edge(), " came ", missing_bytes_, " bytes short"));
  if (part == Part::description) return described(description_);
  finish();
}

void ReceiveTransfer::header_arrived(ConstBytes received) {
  header_ = read_header(received, edge());
  message_.sequence = header_.sequence;
  message_.micro_batch = header_.micro_batch;
  if (header_.description_in_slot != 0) {
    described(received.subspan(kDescriptionOffset, header_.description_bytes));
    if (header_.payload_in_slot != 0) {
      copy_payload(header_, received, message_.tensors);
      finish();
    }
    return;
  }
  description_.resize(header_.description_bytes);
  receive_in_blocks(description_.data(), static_cast<std::int64_t>(description_.size()), Part::description);
}

void ReceiveTransfer::described(ConstBytes description) {
  message_.tensors = make_tensors(header_, description, allocate_);
  if (header_.payload_in_slot != 0) return;
  for (const at::Tensor& tensor : message_.tensors)
    if (tensor.defined())
      receive_in_blocks(tensor.mutable_data_ptr(), static_cast<std::int64_t>(tensor.nbytes()), Part::block);
  if (pending_ == 0) finish();
}

void ReceiveTransfer::receive_in_blocks(void* to, std::int64_t bytes, Part part) {
  const auto block_bytes = static_cast<std::int64_t>(header_.block_bytes);
  auto* first = static_cast<std::byte*>(to);
  for (std::int64_t at = 0; at < bytes; at += block_bytes) {
    const std::int64_t size = std::min(block_bytes, bytes - at);
    requests_.receive(first + at, size, tags_.bulk, part, shared_from_this());
    missing_bytes_ += size;
    ++pending_;
  }
}

void ReceiveTransfer::abandon() {
  abandoned_ = true;
  if (!done()) requests_.cancel(*this);
}

Message ReceiveTransfer::take() {
  Message message = std::move(message_);
  message_ = Message();
  return message;
}

// --- the halves of the channel
// -------------------------------------------------------------------------------------------

MpiSender::MpiSender(Progress& progress, std::shared_ptr<SendTransfer> transfer, bool device_memory)
    : progress_(progress), transfer_(std::move(transfer)), device_memory_(device_memory) {}

void MpiSender::post() {
  LOCKSTEP_CHECK(false, "post on the sending half of an edge");
}
Message MpiSender::receive(const WaitLimits&) {
  post();
  return {};
}

bool MpiSender::arrived() {
  post();
  return false;
}

void MpiSender::send(Message message, const WaitLimits& limits) {
  for (const at::Tensor& tensor : message.tensors) check_travels(tensor, device_memory_);
  finish(limits);
  std::lock_guard lock(progress_.mutex());
  const StreamEvent ready = message.loan.ready;
  transfer_->begin(std::move(message));
  progress_.start(transfer_, ready);
}

void MpiSender::finish(const WaitLimits& limits) {
  progress_.wait(*transfer_, "send to", limits);
}

MpiReceiver::MpiReceiver(Progress& progress, std::shared_ptr<ReceiveTransfer> transfer)
    : progress_(progress), transfer_(std::move(transfer)) {}

MpiReceiver::~MpiReceiver() {
  try {
    std::lock_guard lock(progress_.mutex());
    transfer_->abandon();
  } catch (...) {
    // MPI refused the cancel: the request stays in the list, which leaks it in the end.
  }
}

void MpiReceiver::post() {
  LOCKSTEP_CHECK(!posted_, "a receive is already posted on this channel");
  std::lock_guard lock(progress_.mutex());
  transfer_->post();
  posted_ = true;
  progress_.started();
}

Message MpiReceiver::receive(const WaitLimits& limits) {
  LOCKSTEP_CHECK(posted_, "receive without post");
  progress_.wait(*transfer_, "receive from", limits);
  posted_ = false;
  return transfer_->take();
}

bool MpiReceiver::arrived() {
  progress_.look();
  return transfer_->done();
}

void MpiReceiver::send(Message, const WaitLimits&) {
  LOCKSTEP_CHECK(false, "send on the receiving half of an edge");
}
void MpiReceiver::finish(const WaitLimits& limits) {
  send({}, limits);
}

}  // namespace lockstep::mpi
