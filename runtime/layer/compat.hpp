// SPDX-License-Identifier: Apache-2.0
//
// What differs between the versions of LibTorch that Lockstep builds with, all of it.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/version.h>

#include <memory>

namespace lockstep {

/// A node of autograd's graph, held as autograd holds them.
template <typename N>
auto make_node() {
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 13
  return std::shared_ptr<N>(new N(), torch::autograd::deleteNode);
#else
  return c10::make_intrusive<N>();
#endif
}

}  // namespace lockstep
