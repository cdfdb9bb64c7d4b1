// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/context.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "runtime/base/check.hpp"

namespace lockstep {

void Parameter::begin_gradient(at::Tensor first) {
  gradient = std::move(first);
  if (on_new_gradient) on_new_gradient(gradient);
}

void Parameter::accumulate(const at::Tensor& micro_batch_gradient) {
  LOCKSTEP_CHECK(micro_batch_gradient.sizes() == value.sizes(), "gradient of ", name, " has the wrong shape");
  at::NoGradGuard no_grad;
  if (gradient.defined()) {
    gradient.add_(micro_batch_gradient);
    return;
  }
  at::Tensor first = micro_batch_gradient.to(at::kFloat).contiguous();
  // Later micro-batches are added in place, so nobody else may see this memory: autograd returns the same tensor as the
  // gradient of an input and of a parameter for `x + p`.
  const bool ours_alone = first.storage().use_count() == 1;
  begin_gradient(ours_alone ? std::move(first) : first.clone());
}

const at::Tensor& Parameter::cast(at::ScalarType dtype) {
  if (dtype == value.scalar_type()) return value;
  if (!cast_.defined()) {
    at::NoGradGuard no_grad;
    cast_ = value.to(dtype);
  }
  return cast_;
}

void WeightGradQueue::run() {
  // Each closure holds the tensors it needs: let go of them one by one.
  for (auto& work : work_) {
    work();
    work = nullptr;
  }
  work_.clear();
}

Parameter& LayerContext::parameter(const std::string& local_name) {
  for (Parameter& parameter : parameters_)
    if (parameter.local_name == local_name) return parameter;
  LOCKSTEP_CHECK(false, "the layer did not describe a parameter '", local_name, "'");
}

const at::Tensor& LayerContext::buffer(const std::string& local_name) const {
  if (buffers_)
    for (const Buffer& buffer : *buffers_)
      if (buffer.local_name == local_name) return buffer.value;
  LOCKSTEP_CHECK(false, "the layer did not describe a buffer '", local_name, "'");
}

at::Tensor LayerContext::leaf(const std::string& local_name) {
  Parameter& held = parameter(local_name);
  for (const ParameterLeaf& used : leaves_)
    if (used.parameter == &held) return used.leaf;
  at::Tensor leaf = held.value.detach();
  if (training_ && held.trainable) {
    leaf.requires_grad_(true);
    leaves_.push_back({&held, leaf});
  }
  return leaf;
}

at::Tensor LayerContext::leaf(const std::string& local_name, at::ScalarType dtype) {
  return leaf(local_name).to(dtype);
}

}  // namespace lockstep
