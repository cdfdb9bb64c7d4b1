// SPDX-License-Identifier: Apache-2.0
//
// A small model of every family, and data for it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/data/dataset.hpp"
#include "runtime/layer/model.hpp"

namespace lockstep::test {

/// `keys` of model, and what it trains on: 21 samples, 8 at a time, with sparse_categorical_cross_entropy.
struct FamilyCase {
  std::string keys;
  DataSplits data;
};

/// Adapted ones (model.lora) too.
std::vector<FamilyCase> family_cases();

/// Tokens [rows, 6] below 11.
DataSplits family_tokens(std::int64_t samples = 21);

/// Wide & Deep on six fields, of which clicks_data() uses 11 values each; its tables sparse or not.
Model clicks(bool sparse = true);
DataSplits clicks_data();

/// Samples of another set, some of whose entries are made anew: x, what stands between, targets.
DataSplits changed(const DataSplits& data, const std::vector<std::string>& names,
                   const std::function<Tensors(Tensors)>& change);

}  // namespace lockstep::test
