// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/onnx_graph.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "runtime/base/nearest.hpp"
#include "runtime/layer/layer.hpp"
#include "runtime/layer/low_rank.hpp"

namespace lockstep {
namespace {

// ---- protobuf: a message is its fields, one behind the other ----

constexpr std::int64_t kIrVersion = 8, kOpset = 17;

/// Numbers of fields, of onnx.proto.
namespace model {
constexpr int ir_version = 1, producer = 2, graph = 7, opset = 8;
}
namespace opset {
constexpr int version = 2;
}
namespace graph {
constexpr int node = 1, name = 2, initializer = 5, input = 11, output = 12;
}
namespace node {
constexpr int input = 1, output = 2, name = 3, op = 4, attribute = 5;
}
namespace attribute {
constexpr int name = 1, number = 2, integer = 3, text = 4, integers = 8, type = 20;
constexpr std::int64_t is_number = 1, is_integer = 2, is_text = 3, is_integers = 7;
}  // namespace attribute
namespace tensor {
constexpr int dims = 1, type = 2, name = 8, bytes = 9, external = 13, location = 14;
}
namespace pair {
constexpr int key = 1, value = 2;
}
namespace value {
constexpr int name = 1, type = 2, tensor_type = 1, element = 1, shape = 2, dim = 1, size = 1, size_name = 2;
}

void put_varint(std::string& out, std::uint64_t number) {
  for (; number >= 0x80; number >>= 7) out.push_back(static_cast<char>(number | 0x80));
  out.push_back(static_cast<char>(number));
}

void put(std::string& out, int field, std::int64_t number) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | 0);
  put_varint(out, static_cast<std::uint64_t>(number));
}

void put(std::string& out, int field, const std::string& bytes) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

void put(std::string& out, int field, float number) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | 5);
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  out.append(bytes, sizeof number);
}

/// TensorProto.DataType.
std::int64_t type_of(at::ScalarType dtype) {
  constexpr std::pair<at::ScalarType, std::int64_t> types[] = {
      {at::kFloat, 1}, {at::kByte, 2}, {at::kChar, 3},  {at::kShort, 5},   {at::kInt, 6},
      {at::kLong, 7},  {at::kBool, 9}, {at::kHalf, 10}, {at::kDouble, 11}, {at::kBFloat16, 16}};
  for (const auto& [known, number] : types)
    if (known == dtype) return number;
  throw ModelError(concat("ONNX: tensors of type ", c10::toString(dtype), " are not exported"));
}

std::string attribute_of(const std::string& name, const OnnxAttribute& given) {
  std::string out;
  put(out, attribute::name, name);
  std::visit(
      [&out](const auto& what) {
        using What = std::decay_t<decltype(what)>;
        if constexpr (std::is_same_v<What, std::int64_t>) {
          put(out, attribute::integer, what);
          put(out, attribute::type, attribute::is_integer);
        } else if constexpr (std::is_same_v<What, double>) {
          put(out, attribute::number, static_cast<float>(what));
          put(out, attribute::type, attribute::is_number);
        } else if constexpr (std::is_same_v<What, std::string>) {
          put(out, attribute::text, what);
          put(out, attribute::type, attribute::is_text);
        } else {
          for (const std::int64_t each : what) put(out, attribute::integers, each);
          put(out, attribute::type, attribute::is_integers);
        }
      },
      given);
  return out;
}

std::string header_of(const std::string& name, at::ScalarType dtype, at::IntArrayRef sizes) {
  std::string out;
  for (const std::int64_t size : sizes) put(out, tensor::dims, size);
  put(out, tensor::type, type_of(dtype));
  put(out, tensor::name, name);
  return out;
}

std::string bytes_of(const at::Tensor& made) {
  const at::Tensor flat = made.contiguous();
  return {static_cast<const char*>(flat.const_data_ptr()), flat.nbytes()};
}

std::string entry_of(const OnnxEntry& entry) {
  std::string shape, kind, type, out;
  for (const auto& size : entry.sizes) {
    std::string dim;
    if (const auto* number = std::get_if<std::int64_t>(&size))
      put(dim, value::size, *number);
    else
      put(dim, value::size_name, std::get<std::string>(size));
    put(shape, value::dim, dim);
  }
  put(kind, value::element, type_of(entry.dtype));
  put(kind, value::shape, shape);
  put(type, value::tensor_type, kind);
  put(out, value::name, entry.name);
  put(out, value::type, type);
  return out;
}

}  // namespace

/// `wanted`, or the same with a number behind it.
std::string OnnxGraph::free_name(const std::string& wanted) {
  std::string name = wanted;
  for (int number = 1; !taken_.insert(name).second; ++number) name = concat(wanted, "_", number);
  return name;
}

std::string OnnxGraph::fresh(const std::string& hint) {
  return free_name(concat(layer_, layer_.empty() ? "" : "/", hint, "_", count_++));
}

const std::string& OnnxGraph::full_name(const std::string& local_name) const {
  const auto found = full_names_.find(local_name);
  if (found != full_names_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [local, full] : full_names_) names.push_back(local);
  throw ModelError(concat("onnx() asks for '", local_name, "', which describe() does not; it has ", join(names),
                          did_you_mean(local_name, names)));
}

OnnxGraph::Names OnnxGraph::add(const std::string& op, const Names& inputs, const Attributes& attributes, int outputs) {
  std::string made;
  Names names;
  for (const std::string& input : inputs) put(made, node::input, input);
  const std::string name = fresh(op);
  for (int i = 0; i < outputs; ++i) {
    names.push_back(outputs == 1 ? name : concat(name, "_", i));
    put(made, node::output, names.back());
  }
  put(made, node::name, name);
  put(made, node::op, op);
  for (const auto& [key, given] : attributes) put(made, node::attribute, attribute_of(key, given));
  put(nodes_, graph::node, made);
  return names;
}

void OnnxGraph::initialize(const std::string& name, const OnnxWeight& weight) {
  std::string made = header_of(name, weight.dtype, weight.sizes);
  for (const auto& [key, text] : {std::pair<const char*, std::string>("location", weight.file),
                                  {"offset", std::to_string(weight.offset)},
                                  {"length", std::to_string(weight.bytes)}}) {
    std::string entry;
    put(entry, pair::key, std::string(key));
    put(entry, pair::value, text);
    put(made, tensor::external, entry);
  }
  put(made, tensor::location, std::int64_t{1});
  put(initializers_, graph::initializer, made);
}

std::string OnnxGraph::parameter(const std::string& local_name) {
  const std::string& full = full_name(local_name);
  std::string& name = made_["weight " + full];
  if (!name.empty()) return name;
  const OnnxWeight weight = weight_(full);
  name = free_name(full);
  initialize(name, weight);
  if (weight.dtype != at::kFloat) name = cast(name, at::kFloat);
  return name;
}

at::Tensor OnnxGraph::value(const std::string& local_name) const {
  return read_(full_name(local_name)).to(at::kFloat);
}

std::string OnnxGraph::stored(const std::string& hint, const at::Tensor& tensor) {
  const std::string name = fresh(hint), bytes = bytes_of(tensor);
  initialize(name, {kSecondFile, tensor.scalar_type(), tensor.sizes().vec(), static_cast<std::int64_t>(second_.size()),
                    static_cast<std::int64_t>(bytes.size())});
  second_ += bytes;
  return name;
}

std::string OnnxGraph::constant(const at::Tensor& tensor) {
  const std::string bytes = bytes_of(tensor);
  std::string& name =
      made_[concat("constant ", c10::toString(tensor.scalar_type()), " [", join(tensor.sizes()), "] ", bytes)];
  if (!name.empty()) return name;
  name = free_name(concat("constant_", count_++));
  std::string made = header_of(name, tensor.scalar_type(), tensor.sizes());
  put(made, tensor::bytes, bytes);
  put(initializers_, graph::initializer, made);
  return name;
}

std::string OnnxGraph::number(double number) {
  return constant(at::full({}, number, at::kFloat));
}

std::string OnnxGraph::integer(std::int64_t number) {
  return constant(at::full({}, number, at::kLong));
}

std::string OnnxGraph::integers(const Sizes& numbers) {
  return constant(at::tensor(numbers, at::kLong));
}

std::string OnnxGraph::size_of(const std::string& x, std::int64_t dimension) {
  return add("Gather", {add("Shape", {x}), integer(dimension)});
}

std::string OnnxGraph::range(const std::string& size) {
  return add("Range", {integer(0), size, integer(1)});
}

std::string OnnxGraph::cast(const std::string& x, at::ScalarType dtype) {
  return add("Cast", {x}, {{"to", type_of(dtype)}});
}

OnnxGraph::Names OnnxGraph::split(const std::string& x, const Sizes& sizes, std::int64_t axis) {
  return add("Split", {x, integers(sizes)}, {{"axis", axis}}, static_cast<int>(sizes.size()));
}

const LowRank* OnnxGraph::adapter(const std::string& part) const {
  return adapter_ && full_names_.contains(LowRank::first_of(part)) ? adapter_ : nullptr;
}

void OnnxGraph::input(const OnnxEntry& entry) {
  taken_.insert(entry.name);
  put(inputs_, graph::input, entry_of(entry));
}

std::string OnnxGraph::output(OnnxEntry entry, const std::string& value) {
  entry.name = free_name(entry.name);
  std::string made;
  put(made, node::input, value);
  put(made, node::output, entry.name);
  put(made, node::op, std::string("Identity"));
  put(nodes_, graph::node, made);
  put(outputs_, graph::output, entry_of(entry));
  return entry.name;
}

void OnnxGraph::enter(const std::string& layer, std::map<std::string, std::string> full_names) {
  layer_ = layer;
  full_names_ = std::move(full_names);
  adapter_ = nullptr;
}

std::string OnnxGraph::model(const std::string& name) const {
  std::string graph = nodes_, version, out;
  put(graph, graph::name, name);
  graph += initializers_ + inputs_ + outputs_;
  put(version, opset::version, kOpset);
  put(out, model::ir_version, kIrVersion);
  put(out, model::producer, std::string("lockstep"));
  put(out, model::graph, graph);
  put(out, model::opset, version);
  return out;
}

std::string onnx_gelu(OnnxGraph& graph, const std::string& x) {
  const std::string of = graph.add("Erf", {graph.add("Mul", {x, graph.number(1 / std::numbers::sqrt2)})});
  return graph.add("Mul", {graph.add("Mul", {x, graph.number(0.5)}), graph.add("Add", {of, graph.number(1)})});
}

std::string onnx_gelu_tanh(OnnxGraph& graph, const std::string& x) {
  const std::string cube = graph.add("Mul", {graph.add("Mul", {x, x}), x});
  const std::string inner = graph.add("Add", {x, graph.add("Mul", {cube, graph.number(0.044715)})});
  const std::string of =
      graph.add("Tanh", {graph.add("Mul", {inner, graph.number(std::sqrt(2 * std::numbers::inv_pi))})});
  return graph.add("Mul", {graph.add("Mul", {x, graph.number(0.5)}), graph.add("Add", {of, graph.number(1)})});
}

std::string onnx_silu(OnnxGraph& graph, const std::string& x) {
  return graph.add("Mul", {x, graph.add("Sigmoid", {x})});
}

}  // namespace lockstep
