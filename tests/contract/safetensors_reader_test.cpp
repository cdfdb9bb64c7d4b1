// SPDX-License-Identifier: Apache-2.0
//
// The safetensors reader: exact values, and the whole text of every error.
#include "runtime/checkpoint/safetensors.hpp"
#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

void write_tensors(const std::string& name, const std::vector<NamedTensor>& tensors) {
  write_safetensors(".", name, tensors);
}

at::Tensor counted(std::vector<std::int64_t> sizes, at::ScalarType dtype, int first = 0) {
  std::int64_t elements = 1;
  for (const std::int64_t size : sizes) elements *= size;
  return at::arange(first, first + elements, at::kLong).view(sizes).to(dtype);
}

void write_train() {
  write_tensors("t.safetensors", {{"x", counted({3, 2}, at::kFloat)}, {"targets", counted({3}, at::kLong)}});
}

}  // namespace

TEST_CASE("safetensors: rows of the tensors x and targets", "[contract]") {
  const Folder folder;
  write_train();
  const DataSplits splits = open("type: safetensors, train: t.safetensors");
  const Dataset& data = *splits.train;
  CHECK(data.size() == 3);
  CHECK(entry_texts(data, 2) == std::vector<std::string>{"x Float [2, 2]", "targets Long [2]"});
  CHECK(data.entries(1)[1].below == 3);
  check_keeps_its_word(data, {0, 1, 1, 2});
  const Tensors read = data.read({2, 0});
  CHECK(values<float>(read[0]) == std::vector<float>{4, 5, 0, 1});
  CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{2, 0});
  CHECK(data.classes() == std::vector<std::int64_t>{0, 1, 2});
  CHECK(data.place_of(1) == "t.safetensors: row 1");
  CHECK(data.reads_in_parallel());
  REQUIRE(splits.record->train.size() == 1);
  CHECK(splits.record->train[0].path == "t.safetensors");
}

TEST_CASE("safetensors: names, further tensors, and files joined along the samples", "[contract]") {
  const Folder folder;
  for (int i = 0; i < 2; ++i)
    write_tensors(concat("part", i, ".safetensors"), {{"images", counted({2, 1, 2}, at::kFloat, 10 * i)},
                                                      {"mask", counted({2, 3}, at::kLong, -100 * i)},
                                                      {"labels", counted({2, 1}, at::kDouble, i)}});
  const auto data = open("type: safetensors, train: part*.safetensors, x: images, targets: labels, more: [mask]").train;
  CHECK(entry_texts(*data, 4) ==
        std::vector<std::string>{"x Float [4, 1, 2]", "mask Long [4, 3]", "targets Float [4, 1]"});
  const Tensors read = data->read({3, 0});
  CHECK(values<float>(read[0]) == std::vector<float>{12, 13, 0, 1});
  CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{-97, -96, -95, 0, 1, 2});
  CHECK(values<float>(read[2]) == std::vector<float>{2, 0});
  CHECK(data->entries(1)[1].below == 6);
  CHECK(data->classes().empty());
  CHECK(data->place_of(3) == "part1.safetensors: row 1");
}

TEST_CASE("safetensors: floating-point numbers become float32, integers int64 or what dtypes says", "[contract]") {
  const Folder folder;
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                                     at::kChar, at::kByte, at::kBool, at::ScalarType::UInt16, at::ScalarType::UInt32}) {
    const bool floating = at::isFloatingType(dtype);
    const at::Tensor x = at::tensor({1, 0, 1, 1}, at::kLong).view({2, 2}).to(dtype);
    write_tensors("d.safetensors", {{"x", x}, {"targets", counted({2}, at::kLong)}});
    INFO(c10::toString(dtype));
    const auto data = open("type: safetensors, train: d.safetensors").train;
    CHECK(data->entries(1)[0].dtype == (floating ? at::kFloat : at::kLong));
    CHECK(data->read({0, 1})[0].to(at::kLong).equal(x.to(at::kLong)));
    CHECK(data->entries(1)[0].below == (floating ? 0 : 2));
    const auto wide = open("type: safetensors, train: d.safetensors, dtypes: {x: float32}").train;
    CHECK(values<float>(wide->read({0, 1})[0]) == std::vector<float>{1, 0, 1, 1});
  }
}

TEST_CASE("safetensors: what is wrong is named", "[contract]") {
  const Folder folder;
  write_train();
  write_tensors("scalar.safetensors", {{"x", at::scalar_tensor(1.0f)}, {"targets", counted({3}, at::kLong)}});
  write_tensors("empty.safetensors", {{"x", at::empty({3, 0})}, {"targets", counted({3}, at::kLong)}});
  write_tensors("rows.safetensors", {{"x", counted({3, 2}, at::kFloat)}, {"targets", counted({2}, at::kLong)}});
  write_tensors("wide.safetensors", {{"x", counted({3, 4}, at::kFloat)}, {"targets", counted({3}, at::kLong)}});
  write_file("cut.safetensors", text_of_file("t.safetensors").substr(0, 120));
  write_file("text.safetensors", "label,pixel\n1,2\n");
  write_file("short.safetensors", "abc");
  const std::string here = folder.path();
  const std::vector<Bad> cases = {
      {"type: safetensors, train: no.safetensors",
       "job.yaml:1:34: data.train: no file matches 'no.safetensors' (working folder: " + here + ")"},
      {"type: safetensors, train: t.safetensors, x: images", "t.safetensors: has no tensor 'images', only targets, x"},
      {"type: safetensors, train: t.safetensors, targets: target",
       "t.safetensors: has no tensor 'target', only targets, x; did you mean 'targets'?"},
      {"type: safetensors, train: scalar.safetensors",
       "scalar.safetensors: tensor 'x' is F32 [], expected one sample or more along its first dimension"},
      {"type: safetensors, train: empty.safetensors",
       "empty.safetensors: tensor 'x' is F32 [3, 0], expected one sample or more along its first dimension"},
      {"type: safetensors, train: rows.safetensors",
       "rows.safetensors: tensor 'targets' is I64 [2], expected 3 samples along its first dimension, as 'x' has"},
      {"type: safetensors, train: [t.safetensors, wide.safetensors]",
       "wide.safetensors: tensor 'x' is F32 [3, 4], expected F32 [2] for each sample, as in t.safetensors"},
      {"type: safetensors, train: t.safetensors, eval: wide.safetensors",
       "wide.safetensors: tensor 'x' is F32 [4] for each sample, expected F32 [2] as in t.safetensors"},
      {"type: safetensors, train: cut.safetensors",
       "cut.safetensors: its header is said to have 152 bytes, the file has 120; it was cut short, or is no "
       "safetensors "
       "file"},
      {"type: safetensors, train: text.safetensors",
       "text.safetensors: its header is said to have 7597621415443063148 bytes, the file has 16; it was cut short, or "
       "is "
       "no safetensors file"},
      {"type: safetensors, train: short.safetensors", "short.safetensors: is no safetensors file: it has 3 bytes"},
      {"type: safetensors, train: t.safetensors, dtypes: {x: int64}",
       "t.safetensors: tensor 'x' is F32 [3, 2], which data.dtypes wants as int64; convert it where it is written"},
      {"type: safetensors, train: t.safetensors, dtypes: {x: float}",
       "job.yaml:1:61: data.dtypes.x: got float, expected one of float32, int64; did you mean 'float32'?"},
      {"type: safetensors, train: t.safetensors, dtypes: {y: int64}",
       "job.yaml:1:58: data.dtypes.y: got an unknown key, expected one of x, targets"},
      {"type: safetensors, train: t.safetensors, more: [x]",
       "job.yaml:1:55: data.more: got 'x', which is an entry already"},
      {"type: safetensors, train: t.safetensors, target: y",
       "job.yaml:1:49: data.target: got an unknown key, expected one of type, train, eval, x, more, targets, dtypes; "
       "did "
       "you mean 'targets'?"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
}

TEST_CASE("safetensors: who only evaluates does not open the training file", "[contract]") {
  const Folder folder;
  write_train();
  DataContext context;
  context.trained = TrainedOn{17, {}};
  CHECK(open("type: safetensors, train: no.safetensors, eval: t.safetensors", context).train->size() == 17);
}
