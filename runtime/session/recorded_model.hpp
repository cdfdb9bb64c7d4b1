// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "runtime/layer/model.hpp"
#include "runtime/training/model_record.hpp"

namespace lockstep {

/// The model of a checkpoint, without its config. `plugins`: instead of those that training named; none: those. Throws
/// UserError: it was a program's own model, or a plug-in cannot be loaded.
Model recorded_model(const ModelRecord& record, const std::vector<std::string>& plugins = {});

}  // namespace lockstep
