// SPDX-License-Identifier: Apache-2.0
//
// A model of any family with low-rank adapters on its linear parts (runtime/layer/low_rank.hpp): `model.lora`.
#pragma once

#include "runtime/layer/low_rank.hpp"
#include "runtime/layer/model.hpp"

namespace lockstep {

/// The layers of `model`, whose parameters are a base that stays as it is, but for config.modules_to_save; and the
/// adapters of config.targets, which are trained. Names that mean nothing are found when the model is described.
Model with_adapters(Model model, const LowRankConfig& config);

}  // namespace lockstep
