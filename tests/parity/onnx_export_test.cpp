// SPDX-License-Identifier: Apache-2.0
//
// A program's own model as ONNX: what is refused, what is open, what lies in the folder. That the numbers are right,
// and the files what others read: tests/oracle/onnx_test.py.
#include <ATen/ATen.h>

#include <filesystem>

#include "runtime/checkpoint/manifest.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/session/recorded_model.hpp"
#include "runtime/training/onnx_export.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace fs = std::filesystem;

namespace {

/// x * 2.
class Twice : public Layer {
 public:
  explicit Twice(bool has_form) : has_form_(has_form) {}
  std::string type() const override { return "twice"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override { return described({inputs[0]}); }
  Tensors forward(const Tensors& inputs, LayerContext&) const override { return {inputs[0] * 2}; }
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    if (!has_form_) return Layer::onnx(graph, inputs);
    return {graph.add("Mul", {inputs[0], graph.number(2)})};
  }

 private:
  bool has_form_;
};

Model own_model(bool has_form) {
  Model model{"own", {}};
  model.layers.push_back({"in", std::make_shared<Linear>(6, 5)});
  model.layers.push_back({"twice", std::make_shared<Twice>(has_form)});
  model.layers.push_back({"out", std::make_shared<Linear>(5, 3)});
  return model;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t times = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++times;
  return times;
}

}  // namespace

TEST_CASE("a program exports its own model", "[parity]") {
  TemporaryFolder folder;
  Config config = small_config("mean_squared_error", 6, 3);
  config.train.steps = 2;
  config.checkpoint.every = "end";
  next_leg(own_model(false), regression_data(19, 6, 3), config, folder.path());
  OnnxRequest request{checkpoint_path(folder.path(), 2), folder.path() + "/onnx"};
  request.model = [](const ModelRecord& record) { return recorded_model(record); };
  CHECK_THROWS_WITH(export_onnx(request), Catch::Contains("has no `model`: it is one that a program has made"));
  const auto entries = std::distance(fs::directory_iterator(folder.path()), {});
  request.model = [](const ModelRecord&) { return own_model(false); };
  CHECK_THROWS_WITH(export_onnx(request), Catch::Contains("layer 'twice' (twice): a twice layer has no ONNX form"));
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == entries);

  request.model = [](const ModelRecord&) { return own_model(true); };
  const OnnxModel made = export_onnx(request);
  CHECK(made.inputs == std::vector<std::string>{"x float32 [batch, 6]"});
  CHECK(made.outputs == std::vector<std::string>{"output float32 [batch, 3]"});
  CHECK(made.copied.empty());
  REQUIRE(made.linked.size() == 1);
  CHECK(fs::equivalent(request.checkpoint + "/" + made.linked[0], request.output + "/" + made.linked[0]));
  CHECK(made.own_bytes == 0);
  CHECK(fs::file_size(made.path) == static_cast<std::uintmax_t>(made.bytes));
  CHECK_THROWS_WITH(export_onnx(request), Catch::Contains("is there already"));

  OnnxRequest copying = request;
  copying.output += "-copied";
  copying.copies = true;
  const OnnxModel copied = export_onnx(copying);
  CHECK(copied.linked.empty());
  CHECK(copied.copied == made.linked);
  CHECK_FALSE(fs::equivalent(copying.output + "/" + made.linked[0], request.output + "/" + made.linked[0]));

  request.output += "-other";
  request.model = [](const ModelRecord&) {
    Model other = own_model(true);
    other.layers.back().layer = std::make_shared<Linear>(5, 4);
    return other;
  };
  CHECK_THROWS_WITH(export_onnx(request), Catch::Contains("'out.") && Catch::Contains("the model has [4"));
}

TEST_CASE("an ONNX graph has each constant and each weight once", "[parity]") {
  int asked = 0;
  OnnxGraph graph(
      [&](const std::string& name) {
        ++asked;
        CHECK(name == "in.weight");
        return OnnxWeight{"weights.safetensors", at::kBFloat16, {2, 3}, 4096, 12};
      },
      [](const std::string&) {
        return at::zeros({2, 3});
      });
  CHECK(graph.number(0.5) == graph.number(0.5));
  CHECK(graph.number(0.5) != graph.number(0.25));
  CHECK(graph.number(1) != graph.integer(1));
  CHECK(graph.integers({1}) != graph.integer(1));
  graph.enter("in", {{"weight", "in.weight"}});
  const std::string weight = graph.parameter("weight");
  graph.enter("again", {{"weight", "in.weight"}});  // a tie
  CHECK(graph.parameter("weight") == weight);
  CHECK(asked == 1);
  CHECK(graph.stored("W", at::ones({4})) != graph.stored("W", at::ones({4})));
  CHECK(graph.second_file().size() == 32);
  const std::string bytes = graph.model("own");
  CHECK(count(bytes, "Cast") > 0);  // it is float32 to whoever reads it
  CHECK(count(bytes, "weights.safetensors") == 1);
  CHECK(count(bytes, "4096") == 1);
  CHECK(count(bytes, OnnxGraph::kSecondFile) == 2);
}
