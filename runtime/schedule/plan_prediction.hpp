// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/schedule/simulation.hpp"

namespace lockstep {

/// One layer, on its worker.
struct PredictedLayer {
  std::string name;
  double forward_us = 0, input_grad_us = 0, weight_grad_us = 0;  ///< of one micro-batch
  double step_us = 0;  ///< of all micro-batches, forwards that are run again included
};

struct PredictedStage {
  int row = 0;
  int layers = 0;
  std::int64_t parameters = 0;  ///< elements
  int in_flight = 0;            ///< most micro-batches alive
  double state_bytes = 0;       ///< parameters, gradients, optimizer state
};

/// What the simulator says. Bytes are whole numbers, times have six digits in the file.
struct PlanPrediction {
  double step_us = 0;   ///< per step, when steps follow one another
  double alone_us = 0;  ///< a step by itself
  double bubble = 0, bubble_steady = 0;
  double with_all_us = 0;  ///< per step with the idle workers too; 0: no such plan fits, or is possible
  std::vector<double> compute_us, wait_us, peak_bytes;  ///< by row
  std::vector<PredictedStage> stages;                   ///< of all replicas
  std::vector<PredictedLayer> layers;                   ///< of the first one, as those of its stages follow one another
  Costs costs;  ///< times, messages and links of the stages, which give the same timeline; no bytes of memory

  /// Position in `layers` of the first one of a stage, of any replica.
  std::size_t first_layer(std::size_t stage) const {
    std::size_t layer = 0;
    for (std::size_t s = 0; s < stage; ++s)
      layer = (layer + static_cast<std::size_t>(stages[s].layers)) % layers.size();
    return layer;
  }
};

}  // namespace lockstep
