// SPDX-License-Identifier: Apache-2.0
//
// What the layers of a stage leave behind in a training step: statistics for their buffers, and states for the next
// step. By layer of the stage and micro-batch; replicas exchange it, so that each has all of it. One thread.
#pragma once

#include <map>
#include <vector>

#include "runtime/layer/context.hpp"

namespace lockstep {

class Collected {
 public:
  using States = std::map<int, at::Tensor>;  ///< by buffer

  Collected(int layers, at::Device device)
      : device_(device), statistics_(static_cast<std::size_t>(layers)), states_(statistics_.size()) {}

  /// From a forward. Computed again, a layer collects the same once more: the first counts.
  void add(int layer, int micro_batch, LayerContext& context);

  /// All of it in one list, for the same stage of other replicas; and what they have, on this one's device.
  Tensors message() const;
  void put(const Tensors& message);

  void clear();
  /// In micro-batch order. Gone afterwards.
  std::vector<Tensors> take_statistics(int layer);
  std::map<int, States> take_states(int layer);

 private:
  at::Device device_;
  std::vector<std::map<int, Tensors>> statistics_;
  std::vector<std::map<int, States>> states_;
};

}  // namespace lockstep
