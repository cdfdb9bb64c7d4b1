// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/step_dump.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <vector>

namespace lockstep {

void StepDump::add(const std::string& name, int micro_batch, const at::Tensor& tensor) {
  if (tensor.defined()) tensors_[name].try_emplace(micro_batch, tensor.detach());
}

void StepDump::finish(int row) {
  const at::NoGradGuard no_grad;
  DumpedTensors joined;
  for (const auto& [name, parts] : std::exchange(tensors_, {})) {
    std::vector<at::Tensor> all;
    for (const auto& [micro_batch, part] : parts) all.push_back(part);
    joined[name] = (all.size() == 1 ? all[0] : at::cat(all)).to(at::kCPU).contiguous();
  }
  take_(row, joined);
}

}  // namespace lockstep
