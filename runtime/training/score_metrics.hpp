// SPDX-License-Identifier: Apache-2.0
//
// Areas under curves over all thresholds of a score: roc_auc and pr_auc of metric_kinds.hpp. Private to this folder.
#pragma once

#include <memory>

#include "runtime/layer/metric.hpp"

namespace lockstep {

std::unique_ptr<Metric> roc_auc();
std::unique_ptr<Metric> pr_auc();

}  // namespace lockstep
