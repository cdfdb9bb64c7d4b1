// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/handover.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <thread>

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
    lender->keep(std::move(held), borrower.record());
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
    const DeviceStream& there = copying_.try_emplace(tensor.device(), tensor.device()).first->second;
    there.wait(loan.ready);
    const DeviceStream::Scope scope(there);
    at::Tensor original = std::move(tensor);
    tensor = original.to(stream_.device(), /*non_blocking=*/!stream_.is_of_host());
    if (loan.lender) loan.lender->keep(std::move(original), there.record());
  }
  return tensors;
}

}  // namespace lockstep
