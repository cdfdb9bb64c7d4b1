// SPDX-License-Identifier: Apache-2.0
//
// Sizes of a model that the data knows: inputs, outputs, classes, vocab: auto.
#pragma once

#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {

/// Whether the model leaves any of them to the data.
bool leaves_sizes(const Section& model);

/// `model` with numbers for them. Throws ConfigError where the data does not say.
///
///   inputs            features of x: its last dimension; of images, [rows, channels, height, width], the channels
///   outputs, classes  of class indices one more than the largest, or as many as have names; of numbers the targets of
///                     a sample
///   vocab             of tokens one more than the largest that may come
Section with_sizes(const Section& model, const DataSplits& data);

/// The same, as the model of a checkpoint has them: inputs without targets do not say all.
Section with_sizes(const Section& model, const TrainedOn& trained);

}  // namespace lockstep
