// SPDX-License-Identifier: Apache-2.0
//
// Which layers are measured in each other's company. Torch-free.
#pragma once

#include <vector>

namespace lockstep {

/// Beyond what the caches of one core keep.
inline constexpr double kCacheBytes = 64.0 * 1048576;

/// Layers of a model that cost the same.
struct AlikeLayers {
  std::vector<int> layers;  ///< ascending
  double bytes = 0;         ///< that one of them touches in F, I and W
};

struct LayerGroup {
  struct Member {
    int kind = 0;             ///< index in the list of kinds
    std::vector<int> layers;  ///< of this kind; the same one may stand there several times
  };
  std::vector<Member> members;
};

/// Every kind is in one group. A group holds what one of `workers` equal workers holds of the model; when that is more
/// than the caches are, as much as they are, and what is large fills a group by itself. So a layer never finds more of
/// itself in the caches than in a run, and a model that fits nowhere is measured piece by piece.
std::vector<LayerGroup> layer_groups(const std::vector<AlikeLayers>& kinds, int workers,
                                     double cache_bytes = kCacheBytes);

}  // namespace lockstep
