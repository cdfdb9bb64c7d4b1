// SPDX-License-Identifier: Apache-2.0
//
// The layer contract: everything stands on it.
//
// A Layer is an immutable description with a function. It owns no tensors: describe() says which parameters it wants
// and which entries it puts out, without building anything; the owner of the layer allocates and initialises the
// parameters and lends them to forward() through the LayerContext. So a model of any size can be listed on any machine,
// and only the worker that owns a layer pays for it.
//
// Values are named. A layer reads the entries named in LayerSpec::inputs and writes those named in outputs; an entry
// lives from the layer that wrote it to the last layer that reads it before it is written again. A skip connection, a
// mask or the targets are nothing special: an entry that a later layer reads. The runtime sends it straight to the
// stage that does.
//
//   "x" -> [embed] -> "x" -> [block 0] -> "x", "skip" -> [block 1] -> "x" -> [join] (reads "x", "skip") -> "x" -> loss
//
// Every layer is an autograd island: its inputs are detached leaves, the engine calls its backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/error.hpp"
#include "runtime/base/location.hpp"

namespace lockstep {

class LayerContext;
class OnnxGraph;
struct Buffer;

/// What is known of an entry before anything runs. `sizes` are full sizes for the number of rows that was asked about;
/// with `batched`, sizes[0] is that number of rows.
struct EntrySpec {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> sizes;
  bool differentiable = true;  ///< false: indices, masks, targets; never has a gradient
  bool batched = true;
  std::int64_t below = 0;  ///< integers (tokens, classes): every value is below this; 0: not known
};

std::string to_string(const EntrySpec& entry);  ///< "x float32 [4, 128]"

/// How a parameter starts. Drawn from a generator seeded by (run seed, parameter name), so that neither the cut nor the
/// order of building matters. Source of the defaults: see each layer.
struct Init {
  enum class Kind { zeros, ones, normal, uniform };
  Kind kind = Kind::zeros;
  double scale = 0.0;  ///< normal: standard deviation; uniform: bound of [-scale, scale]

  static Init zeros() { return {Kind::zeros, 0.0}; }
  static Init ones() { return {Kind::ones, 0.0}; }
  static Init normal(double standard_deviation) { return {Kind::normal, standard_deviation}; }
  static Init uniform(double bound) { return {Kind::uniform, bound}; }
};

/// How a linear weight is stored: [out, in] as torch.nn.Linear, or [in, out] as GPT-2's Conv1D in Hugging Face.
enum class WeightLayout { out_in, in_out };

/// One trainable tensor, a master in float32, or in float64 with train.precision: fp64. `name` is local to the layer
/// ("weight").
struct ParameterSpec {
  std::string name;
  std::vector<std::int64_t> sizes;
  Init init;
  std::string tied_to;  ///< full name of the parameter of an earlier layer that this one is; empty: its own
  std::optional<WeightLayout> linear = {};  ///< it is the weight of a LinearPart (parts.hpp)
  bool is_cast = false;  ///< forward() reads it by Parameter::cast() alone, in the precision of the activations
  bool is_base = false;  ///< of a model that is adapted (low_rank.hpp): never trained, and not saved
  /// A table of which a mini-batch uses a few rows: gradients and updates are those of these rows alone.
  bool is_sparse = false;
};

/// A tensor that belongs to a layer's state and is not trained: running statistics. Saved with the parameters. `name`
/// is local to the layer; every element starts as `value`.
struct BufferSpec {
  std::string name;
  std::vector<std::int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
  double value = 0.0;
};

/// What a layer carries from one training step to the next: recurrent state. Row i belongs to sample i of the
/// mini-batch; it is zeros at the start, and what LayerContext::set_state() has left from then on. Saved with the
/// optimizer's state. An evaluation starts every batch from zeros, and leaves training's state alone.
struct StateSpec {
  std::string name;                 ///< local to the layer
  std::vector<std::int64_t> sizes;  ///< of one row
  at::ScalarType dtype = at::kFloat;
};

struct LayerDescription {
  std::vector<ParameterSpec> parameters;
  /// In the order in which forward() returns them. The caller fills in `name` and `differentiable` (every floating
  /// output).
  std::vector<EntrySpec> outputs;
  std::vector<BufferSpec> buffers = {};
  std::vector<StateSpec> states = {};
  std::int64_t least_rows = 1;  ///< a micro-batch of fewer rows cannot be trained on (batch norm)
};

/// The model does not fit together: found before training. Exit code 2.
class ModelError : public UserError {
 public:
  using UserError::UserError;
};

using Tensors = std::vector<at::Tensor>;

class Layer {
 public:
  virtual ~Layer() = default;

  virtual std::string type() const = 0;  ///< "linear", "gpt_block": for logs and errors

  /// Parameters and outputs for these inputs (one per LayerSpec::inputs, in order). Builds nothing. Throws ModelError
  /// with what it got and what it wanted when dtype or shape do not fit.
  virtual LayerDescription describe(const std::vector<EntrySpec>& inputs) const = 0;

  /// Inputs in the order of LayerSpec::inputs, contiguous, on the worker's device. Called in grad mode in training,
  /// once per micro-batch. Must not write to its inputs (checked by version). Random numbers drawn by torch operators
  /// inside come from the layer's own stream (random.hpp).
  virtual Tensors forward(const Tensors& inputs, LayerContext& context) const = 0;

  /// The end of a training step: brings the layer's buffers up to date. `collected`: what forward() gave to
  /// LayerContext::collect, one entry per micro-batch, ascending whatever the schedule was. Once per step, after the
  /// last backward, without grad mode; only for a layer that collected something.
  virtual void end_step(std::vector<Buffer>& /*buffers*/, const std::vector<Tensors>& /*collected*/) const {}

  /// The same function as nodes of an ONNX graph (onnx_graph.hpp), of a model that answers: nothing is dropped, running
  /// statistics are as they are. `inputs`: values of the graph; gives those of the outputs. Sizes that describe()
  /// leaves open (rows, lengths) have to stay open. Throws ModelError where there is no such form.
  virtual std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const;

  /// What decides its cost and describe() does not show, as text: "heads: 8, dropout: 0.1". A profile measures layers
  /// that agree in this, in type and in all of their descriptions once, and keeps the result for later runs. LayerOf
  /// (layer_of.hpp) makes it from the layer's list of fields, so that none is forgotten.
  virtual std::string options() const { return ""; }
};

/// A layer in its place in a model.
struct LayerSpec {
  std::string name;  ///< unique in the model: "h.3"
  std::shared_ptr<const Layer> layer;
  std::vector<std::string> inputs = {"x"};
  std::vector<std::string> outputs = {"x"};
  std::string parameter_prefix = {};  ///< empty: name + "."; full name = prefix + local name
  Origin origin = {};                 ///< what of a config asked for it, for errors

  std::string full_name(const std::string& parameter) const {
    return (parameter_prefix.empty() ? name + "." : parameter_prefix) + parameter;
  }
};

/// What errors call it: "layer 'h.3' (gpt_block)", of a config "configs/a.yaml:7:5: model.layers[2]: layer '2'
/// (linear)".
std::string layer_text(const LayerSpec& spec);

}  // namespace lockstep
