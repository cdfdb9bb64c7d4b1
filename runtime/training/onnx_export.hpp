// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint's model as ONNX, made without Python: a graph, and the checkpoint's own files for the weights.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/layer/model.hpp"
#include "runtime/training/model_record.hpp"

namespace lockstep {

struct OnnxRequest {
  std::string checkpoint;  ///< its folder
  std::string output;      ///< the folder to write, which must not exist
  std::string base = {};   ///< of an adapter: where its base is; empty: where it says
  bool averaged = false;   ///< the averages of the weights (train.ema) in their place
  bool copies = false;     ///< weights are copied, not linked
  /// Makes the model that the checkpoint is of: recorded_model() of runtime/session, or the program's own.
  std::function<Model(const ModelRecord&)> model = {};
};

struct OnnxModel {
  std::string path;                          ///< of model.onnx
  std::int64_t bytes = 0;                    ///< of it
  std::int64_t own_bytes = 0;                ///< of weights that ONNX has in another order, in a file of their own
  std::vector<std::string> inputs, outputs;  ///< "x int64 [batch, length]"
  std::vector<std::string> linked, copied;   ///< files of weights, by name
};

/// Writes output/model.onnx and, beside it, the files that it names: hard links of the checkpoint's, or copies where
/// the file system cannot link them; what ONNX has in another order (the gates of an LSTM); config.json and the
/// tokenizer's files. Sizes that the model takes in others than it was trained with (rows, lengths) are open. Its
/// outputs are those that losses read, before their activation: "output", and further ones by their entries. Everything
/// is float32. Looks at every byte of the checkpoint's weights. Throws ModelError that names the layer without an ONNX
/// form, CheckpointError, UserError; nothing is left then.
OnnxModel export_onnx(const OnnxRequest& request);

}  // namespace lockstep
