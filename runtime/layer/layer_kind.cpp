// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/layer_kind.hpp"

#include "runtime/layer/norms.hpp"
#include "runtime/layer/recurrent_layers.hpp"

namespace lockstep {

std::string checked_options(const std::string& type, const std::function<void(FieldVisitor&)>& keys) {
  try {
    check_fields(concat("a layer of type ", type), keys);
  } catch (const ConfigError& error) {
    throw ModelError(error.what());
  }
  return line_of(keys);
}

Table<LayerKind> layer_kinds() {
  return {
      "layer",
      {layer_kind<Linear>("linear", "y = x W^T + b over the last dimension"),
       layer_kind<Embedding>("embedding", "rows of a table, by int64 indices"),
       layer_kind<LayerNorm>("layer_norm", "layer normalization, last dimension"),
       layer_kind<RmsNorm>("rms_norm", "root mean square normalization, last dimension"),
       layer_kind<Dropout>("dropout", "zeroes elements with probability p"),
       layer_kind<Add>("add", "sum of the inputs: the end of a skip"),
       layer_kind<Positions>("positions", "adds a learned row to each position"),
       layer_kind<SelfAttention>("self_attention", "attention of an entry to itself, over heads"),
       layer_kind<Recurrent>("lstm", "long short-term memory, along time", {.kind = RecurrentKind::lstm}),
       layer_kind<Recurrent>("gru", "gated recurrent unit, along time", {.kind = RecurrentKind::gru}),
       layer_kind<Lengths>("lengths", "of rows of tokens that end in padding"),
       layer_kind<Concat>("concat", "the inputs side by side in the channels"),
       layer_kind<Flatten>("flatten", "[rows, ...] as [rows, all others]"),
       layer_kind<Convolution>("conv1d", "convolution of signals", {.dims = 1}),
       layer_kind<Convolution>("conv2d", "convolution of images", {.dims = 2}),
       layer_kind<Convolution>("conv_transpose1d", "its transpose: longer signals", {.dims = 1, .transposed = true}),
       layer_kind<Convolution>("conv_transpose2d", "its transpose: larger images", {.dims = 2, .transposed = true}),
       layer_kind<Pool2d>("max_pool2d", "the largest of each window", {.kind = PoolKind::max}),
       layer_kind<Pool2d>("avg_pool2d", "the mean of each window", {.kind = PoolKind::average}),
       layer_kind<GlobalAvgPool>("global_avg_pool", "mean over all positions"),
       layer_kind<Upsample>("upsample", "every pixel, factor times both ways"),
       layer_kind<BatchNorm>("batch_norm", "batch normalization, by channel"),
       layer_kind<GroupNorm>("group_norm", "group normalization, by channel")}};
}

}  // namespace lockstep
