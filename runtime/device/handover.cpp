// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/handover.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <thread>

#include "runtime/device/staging.hpp"

namespace lockstep {

Lender::~Lender() {
  for (const Kept& each : kept_) try {
      while (!each.until.over()) std::this_thread::yield();
    } catch (const c10::Error&) {  // whoever computes there has it
    }
}

at::Tensor Lender::lend(const at::Tensor& tensor, const DeviceStream& borrower) {
  // Moved from: nobody but the lender lets go of it last.
  const auto give_back = [lender = shared_from_this(), held = tensor, borrower](void*) mutable {
    StreamEvent until;
    try {
      until = borrower.record();
    } catch (const c10::Error&) {  // the device has failed: its next work says so, and this is no place to throw
    }
    lender->keep(std::move(held), std::move(until));
  };
  return at::for_blob(tensor.data_ptr(), tensor.sizes())
      .strides(tensor.strides())
      .deleter(give_back)
      .options(tensor.options().requires_grad(false))
      .target_device(tensor.device())
      .make_tensor();
}

void Lender::keep(at::Tensor tensor, StreamEvent until) {
  const std::lock_guard lock(mutex_);
  kept_.push_back({std::move(tensor), std::move(until)});
}

void Lender::collect() {
  std::vector<Kept> over;  // let go of outside the lock: a tensor's end may bring another one here
  const std::lock_guard lock(mutex_);
  const auto still =
      std::stable_partition(kept_.begin(), kept_.end(), [](const Kept& each) { return !each.until.over(); });
  std::move(still, kept_.end(), std::back_inserter(over));
  kept_.erase(still, kept_.end());
}

Handover::Handover(c10::Device device)
    : stream_(device), lender_(device.is_cpu() ? nullptr : std::make_shared<Lender>()) {}

Loan Handover::loan() const {
  return lender_ ? Loan{stream_.record(), lender_} : Loan{};
}

std::vector<at::Tensor> Handover::take(std::vector<at::Tensor> tensors, const Loan& loan) {
  for (at::Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.device().is_cpu()) continue;
    if (tensor.device() == stream_.device()) {
      stream_.wait(loan.ready);
      if (loan.lender) tensor = loan.lender->lend(tensor, stream_);
      continue;
    }
    const DeviceStream& there = copying(tensor.device());
    there.wait(loan.ready);
    const DeviceStream::Scope scope(there);
    at::Tensor original = std::move(tensor);
    tensor = original.to(stream_.device(), /*non_blocking=*/!stream_.is_of_host());
    if (loan.lender) loan.lender->keep(std::move(original), there.record());
  }
  return tensors;
}

std::vector<at::Tensor> Handover::bring(std::vector<at::Tensor> tensors) {
  if (stream_.is_of_host()) return tensors;
  if (!bringing_) bringing_.emplace(stream_.device());
  {
    const DeviceStream::Scope scope(*bringing_);
    for (at::Tensor& tensor : tensors)
      if (tensor.defined()) tensor = to_device(tensor, stream_.device());
  }
  stream_.wait(bringing_->record());
  // They are not of the stream: let go of by this worker, their memory must not be given out before it is done.
  for (at::Tensor& tensor : tensors)
    if (tensor.defined()) tensor = lender_->lend(tensor, stream_);
  return tensors;
}

std::pair<std::vector<at::Tensor>, Loan> Handover::send_home(std::vector<at::Tensor> tensors) {
  const auto is_there = [](const at::Tensor& tensor) { return tensor.defined() && !tensor.device().is_cpu(); };
  if (std::none_of(tensors.begin(), tensors.end(), is_there)) return {std::move(tensors), {}};
  const DeviceStream& home = copying(stream_.device());
  home.wait(stream_.record());
  const DeviceStream::Scope scope(home);
  std::vector<at::Tensor> originals = tensors;
  for (at::Tensor& tensor : tensors)
    if (tensor.defined()) tensor = to_host_later(tensor);
  const StreamEvent there = home.record();
  for (at::Tensor& original : originals)
    if (is_there(original)) lender_->keep(std::move(original), there);
  return {std::move(tensors), {there, nullptr}};
}

}  // namespace lockstep
