// SPDX-License-Identifier: Apache-2.0
//
// A model as ONNX (https://onnx.ai; operators of opset 17, IR version 8), which layers write node by node:
//
//   return graph.add("Add", {graph.add("MatMul", {x, graph.parameter("weight")}), graph.parameter("bias")});
//
// Values are names; what is floating-point is float32, sizes are those of forward(). Weights are not in the file: an
// initializer says in which safetensors file beside it its bytes are, and where. What is small (shapes, constants) is
// in it; what has to be another tensor than the checkpoint has goes to a second file. The protobuf format is written by
// hand: the system's library clashes with the one inside LibTorch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lockstep {

class LowRank;

/// Where the bytes of a tensor are.
struct OnnxWeight {
  std::string file;  ///< beside the model
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> sizes;
  std::int64_t offset = 0, bytes = 0;
};

using OnnxAttribute = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>>;

/// An input or output of the model; a size is a number, or a name for one that is open.
struct OnnxEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<std::variant<std::int64_t, std::string>> sizes;
};

class OnnxGraph {
 public:
  using Names = std::vector<std::string>;
  using Sizes = std::vector<std::int64_t>;
  using Attributes = std::vector<std::pair<std::string, OnnxAttribute>>;

  /// By the full name of a weight: where it is, and its values, for those that have to become others.
  OnnxGraph(std::function<OnnxWeight(const std::string&)> weight, std::function<at::Tensor(const std::string&)> read)
      : weight_(std::move(weight)), read_(std::move(read)) {}

  // ---- for layers ----

  /// A node: the names of its outputs. An input that is empty is left out.
  Names add(const std::string& op, const Names& inputs, const Attributes& attributes, int outputs);
  std::string add(const std::string& op, const Names& inputs, const Attributes& attributes = {}) {
    return add(op, inputs, attributes, 1).front();
  }
  /// Of the layer at work, a parameter or buffer by local name: float32 (a Cast where it is kept in another precision).
  /// ModelError when describe() did not ask for it.
  std::string parameter(const std::string& local_name);
  /// The same tensor, to be made another one of; what comes of it goes to stored().
  at::Tensor value(const std::string& local_name) const;
  /// Of the linear part of this name; null: it has none.
  const LowRank* adapter(const std::string& part) const;
  void lend_adapter(const LowRank& adapter) { adapter_ = &adapter; }
  /// A tensor that the checkpoint does not have so: in the second file. `hint`: a part of its name.
  std::string stored(const std::string& hint, const at::Tensor& tensor);
  /// In the model file; the same content is there once.
  std::string constant(const at::Tensor& tensor);
  std::string number(double value);           ///< float32 []
  std::string integer(std::int64_t value);    ///< int64 []
  std::string integers(const Sizes& values);  ///< int64 [n]

  std::string size_of(const std::string& x, std::int64_t dimension);  ///< int64 []
  std::string range(const std::string& size);                         ///< 0, 1, ... size - 1: int64 [size]
  std::string cast(const std::string& x, at::ScalarType dtype);
  /// 0: the size that it has; -1: what is left.
  std::string reshape(const std::string& x, const Sizes& sizes) { return add("Reshape", {x, integers(sizes)}); }
  std::string unsqueeze(const std::string& x, const Sizes& axes) { return add("Unsqueeze", {x, integers(axes)}); }
  std::string permute(const std::string& x, const Sizes& order) { return add("Transpose", {x}, {{"perm", order}}); }
  /// Parts of these sizes.
  Names split(const std::string& x, const Sizes& sizes, std::int64_t axis);

  // ---- for who exports a model ----

  /// Before the first node: inputs keep their names.
  void input(const OnnxEntry& entry);
  /// `value`: what it is called in the graph. Gives the name that it has: the entry's, unless that is taken.
  std::string output(OnnxEntry entry, const std::string& value);
  /// From here on local names of parameters and buffers are those of this layer.
  void enter(const std::string& layer, std::map<std::string, std::string> full_names);
  /// The bytes of the model file, and of kSecondFile (empty: there is none).
  std::string model(const std::string& name) const;
  const std::string& second_file() const { return second_; }
  static constexpr const char* kSecondFile = "model.onnx.data";

 private:
  const std::string& full_name(const std::string& local_name) const;
  std::string fresh(const std::string& hint);
  std::string free_name(const std::string& wanted);
  void initialize(const std::string& name, const OnnxWeight& weight);

  std::function<OnnxWeight(const std::string&)> weight_;
  std::function<at::Tensor(const std::string&)> read_;
  std::map<std::string, std::string> full_names_;
  const LowRank* adapter_ = nullptr;
  std::string layer_;
  std::string nodes_, initializers_, inputs_, outputs_;  // fields of the graph
  std::map<std::string, std::string> made_;              // by full name or content: values
  std::set<std::string> taken_;                          // names of values
  std::string second_;
  std::int64_t count_ = 0;
};

// Functions that this opset has no operator for, as at::gelu, at::gelu(x, "tanh") and at::silu compute them.
std::string onnx_gelu(OnnxGraph& graph, const std::string& x);
std::string onnx_gelu_tanh(OnnxGraph& graph, const std::string& x);
std::string onnx_silu(OnnxGraph& graph, const std::string& x);

}  // namespace lockstep
