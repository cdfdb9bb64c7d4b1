// SPDX-License-Identifier: Apache-2.0
//
// Weights of other people's files: whatever holds them is found, whatever does not is refused by name.
#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>

#include "runtime/checkpoint/weight_files.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

namespace fs = std::filesystem;

std::vector<NamedTensor> weights() {
  return {{"a", at::arange(6, at::kFloat).reshape({2, 3})}, {"b", at::arange(4, at::kFloat) / 3}};
}

void put(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

std::string refusal(const std::string& path) {
  try {
    const WeightFiles files(path);
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "none";
}

at::Tensor read(WeightFiles& files, const std::string& name, at::ScalarType dtype) {
  at::Tensor to = at::empty(files.find(name)->sizes, dtype);
  files.read(name, to);
  return to;
}

}  // namespace

TEST_CASE("weights are found in one file, in a folder with one, and in several with an index", "[contract]") {
  const TemporaryFolder folder;
  const std::string here = folder.path();
  write_safetensors(here, "model.safetensors", weights());
  fs::create_directory(here + "/many");
  write_safetensors(here + "/many", "model-00001-of-00002.safetensors", {weights()[0]});
  write_safetensors(here + "/many", "model-00002-of-00002.safetensors", {weights()[1]});
  put(here + "/many/model.safetensors.index.json",
      R"({"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})");
  for (const std::string& path : {here + "/model.safetensors", here, here + "/many"}) {
    CAPTURE(path);
    WeightFiles files(path);
    CHECK(files.names() == std::vector<std::string>{"a", "b"});
    CHECK(files.find("c") == nullptr);
    for (const NamedTensor& weight : weights()) CHECK(at::equal(read(files, weight.name, at::kFloat), weight.tensor));
  }
}

TEST_CASE("every float is cast to every other, piece by piece, as LibTorch casts it", "[contract]") {
  const TemporaryFolder folder;
  constexpr std::int64_t count = (std::int64_t{5} << 20) + 3;  // some pieces, and part of one
  const at::Tensor values = at::randn({count});
  for (const at::ScalarType stored : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
    write_safetensors(folder.path(), "model.safetensors", {{"w", values.to(stored)}, {"n", at::ones({3}, at::kLong)}});
    WeightFiles files(folder.path());
    for (const at::ScalarType wanted : {at::kFloat, at::kDouble})
      CHECK(at::equal(read(files, "w", wanted), values.to(stored).to(wanted)));
    at::Tensor counts = at::empty({3});
    CHECK_THROWS_WITH(files.read("n", counts), Catch::Contains("is I64 [3], expected F32 [3]"));
    at::Tensor other = at::empty({count + 1});
    CHECK_THROWS_WITH(files.read("w", other), Catch::Contains(concat("expected F32 [", count + 1, "]")));
  }
}

TEST_CASE("what is no folder of weights is told what to do", "[contract]") {
  const TemporaryFolder folder;
  const std::string here = folder.path();
  CHECK_THAT(refusal(here + "/no"), Catch::StartsWith(here + "/no: is not there (working folder: "));
  CHECK(refusal(here) == here +
                             ": has no manifest.json, model.safetensors.index.json or model.safetensors: expected a "
                             "checkpoint, a folder of safetensors files or one such file");
  put(here + "/pytorch_model.bin", "x");
  CHECK_THAT(refusal(here),
             Catch::EndsWith("it has pytorch_model.bin, which is not read: save it as safetensors, in "
                             "Python: from_pretrained(DIR).save_pretrained(DIR2, safe_serialization=True)"));
  const std::string index = here + "/model.safetensors.index.json";
  put(index, "{}");
  CHECK_THAT(refusal(here), Catch::StartsWith(index + ": is no index of safetensors files: "));
  put(index, R"({"weight_map": {"a": "../x.safetensors"}})");
  CHECK(refusal(here) == index + ": names the file '../x.safetensors', expected one of its own folder");
  put(index, R"({"weight_map": {"a": "x.safetensors"}})");
  CHECK(refusal(here) == index + ": names the file x.safetensors, which is not there; the folder is incomplete");
  write_safetensors(here, "x.safetensors", weights());
  write_safetensors(here, "y.safetensors", weights());
  put(index, R"({"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}})");
  CHECK_THAT(refusal(here),
             Catch::Contains("tensor 'a' at byte") && Catch::Contains("is in another file of the folder too"));
  fs::resize_file(here + "/x.safetensors", fs::file_size(here + "/x.safetensors") - 4);
  CHECK_THAT(refusal(here), Catch::Contains("it was cut short") || Catch::Contains("the file was cut short"));
}

TEST_CASE("tensors of a file are compared byte by byte", "[contract]") {
  const TemporaryFolder folder;
  at::Tensor other = weights()[0].tensor.clone();
  other[1][2] = 5.5;
  write_safetensors(folder.path(), "model.safetensors",
                    {{"a", weights()[0].tensor},
                     {"same", weights()[0].tensor},
                     {"other", other},
                     {"flat", weights()[0].tensor.reshape({6})}});
  const WeightFiles files(folder.path());
  CHECK(files.are_equal("a", "same"));
  CHECK_FALSE(files.are_equal("a", "other"));
  CHECK_FALSE(files.are_equal("a", "flat"));
}
