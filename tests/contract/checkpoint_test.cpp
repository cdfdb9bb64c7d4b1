// SPDX-License-Identifier: Apache-2.0
//
// safetensors files and the store on top of them: what is written is read back, and whatever else comes is refused by
// name, never a crash.
#include <ATen/ATen.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <set>

#include "runtime/checkpoint/store.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

namespace fs = std::filesystem;

void put(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string with_header(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

std::vector<NamedTensor> some_tensors() {
  return {{"a.weight", at::arange(6, at::kFloat).reshape({2, 3})},
          {"flag", at::ones({3}, at::kBool)},
          {"count", at::full({}, 7, at::kLong)},
          {"half", at::ones({5}, at::kBFloat16)},
          {"empty", at::empty({0, 4}, at::kFloat)}};
}

std::string error_of(const std::string& path) {
  try {
    const SafetensorsFile file(path);
  } catch (const CheckpointError& error) {
    CHECK(error.file() == path);
    CHECK(error.exit_code() == ExitCode::user_input);
    return error.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("safetensors are read back as they were written, aligned", "[contract]") {
  const TemporaryFolder folder;
  const WrittenFile written = write_safetensors(folder.path(), "x.safetensors", some_tensors());
  const SafetensorsFile file(folder.path() + "/x.safetensors");
  CHECK(file.entries().size() == some_tensors().size());
  CHECK(file.size() == written.bytes);
  CHECK(hash_of(file.header()) == written.header_hash);
  for (const NamedTensor& expected : some_tensors()) {
    INFO(expected.name);
    const TensorEntry* entry = file.find(expected.name);
    REQUIRE(entry != nullptr);
    CHECK(entry->begin % static_cast<std::int64_t>(expected.tensor.element_size()) == 0);
    at::Tensor got = at::empty_like(expected.tensor);
    file.read(*entry, got);
    CHECK(at::equal(got, expected.tensor));
    CHECK(written.tensors.at(expected.name) == hash_of(got));
  }
  CHECK(file.find("b") == nullptr);
}

TEST_CASE("the pass that hashes a tensor sees every element that is not finite", "[contract]") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const double most[] = {std::numeric_limits<float>::max(), std::numeric_limits<double>::max(), 65504, 3.38e38};
  const at::ScalarType dtypes[] = {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16};
  for (std::size_t d = 0; d < std::size(dtypes); ++d)
    for (const std::int64_t size : {1, 2, 3, 4, 5, 8, 13}) {
      at::Tensor tensor = at::full({size}, most[d], dtypes[d]);
      tensor[0] = -most[d];
      INFO(c10::toString(dtypes[d]) << " x " << size);
      CHECK(scan_of(tensor).finite);
      CHECK(scan_of(at::zeros({size}, dtypes[d])).finite);
      CHECK(not_finite_element(tensor).empty());
      for (std::int64_t at = 0; at < size; ++at)
        for (const double bad : {inf, -inf, nan}) {
          at::Tensor broken = tensor.clone();
          broken[at] = bad;
          CHECK_FALSE(scan_of(broken).finite);
          CHECK(scan_of(broken).hash == hash_of(broken));
          CHECK_THAT(not_finite_element(broken), Catch::StartsWith(concat("[", at, "] is ")));
        }
    }
  CHECK(scan_of(at::full({9}, -1, at::kLong)).finite);  // all bits set
  const at::Tensor mask = at::full({2, 3}, -inf);
  CHECK(not_finite_element(mask) == "[0, 0] is -inf");
  CHECK(not_finite_element(mask, /*infinities=*/true).empty());
  mask[1][2] = nan;
  CHECK(not_finite_element(mask, /*infinities=*/true) == "[1, 2] is nan");
}

TEST_CASE("writing names the first element that is not finite; a buffer may hold infinities", "[contract]") {
  const TemporaryFolder folder;
  const at::Tensor infinite = at::full({2}, -std::numeric_limits<float>::infinity());
  CHECK(write_safetensors(folder.path(), "x", some_tensors()).not_finite.empty());
  CHECK(write_safetensors(folder.path(), "x", {{"mask", infinite, /*may_be_infinite=*/true}}).not_finite.empty());
  CHECK(write_safetensors(folder.path(), "x", {{"a", at::zeros({3})}, {"w", infinite}}).not_finite == "w[0] is -inf");
  at::Tensor nan = at::zeros({2, 2});
  nan[1][0] = std::nan("");
  CHECK(write_safetensors(folder.path(), "x", {{"mask", nan, true}}).not_finite == "mask[1, 0] is nan");
  CHECK(damage_of(infinite, hash_of(infinite)).empty());
  CHECK(damage_of(nan, hash_of(nan)) == "its element [1, 0] is nan");
}

TEST_CASE("a future that will not be takes the place of the one before", "[contract]") {
  const TemporaryFolder folder;
  const auto names = [&] {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder.path())) found.insert(entry.path().filename().string());
    return found;
  };
  for (const char* name : {"step-00000002", "step-00000004", "step-00000005.part"})
    fs::create_directory(folder.path() + "/" + name);
  clear_after(folder.path(), 0);
  CHECK(names() == std::set<std::string>{"superseded-step-00000002", "superseded-step-00000004"});
  fs::create_directory(folder.path() + "/step-00000003");
  clear_after(folder.path(), 3);  // nothing is superseded: what is there stays
  CHECK(names().size() == 3);
  clear_after(folder.path(), 2);
  CHECK(names() == std::set<std::string>{"superseded-step-00000003"});
  fs::create_directory(folder.path() + "/step-00000004");
  clear_after(folder.path(), 3, folder.path() + "/./superseded-step-00000003");  // a job is about to go on from it
  CHECK(names() == std::set<std::string>{"superseded-step-00000003", "superseded-step-00000004"});
}

TEST_CASE("reading into another shape or dtype names both", "[contract]") {
  const TemporaryFolder folder;
  write_safetensors(folder.path(), "x.safetensors", some_tensors());
  const SafetensorsFile file(folder.path() + "/x.safetensors");
  const TensorEntry& entry = *file.find("a.weight");
  CHECK_THROWS_WITH(file.read(entry, at::empty({3, 2})), Catch::Contains("tensor 'a.weight' at byte") &&
                                                             Catch::Contains("is F32 [2, 3], expected F32 [3, 2]"));
  CHECK_THROWS_WITH(file.read(entry, at::empty({2, 3}, at::kDouble)), Catch::Contains("expected F64 [2, 3]"));
}

TEST_CASE("every way to break a safetensors file is named", "[contract]") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/x.safetensors", data(16, 'x');
  const auto says = [&](const std::string& bytes, const std::string& message) {
    put(path, bytes);
    INFO(bytes.substr(0, 200));
    CHECK_THAT(error_of(path), Catch::Contains(message));
  };
  const auto header = [&](const std::string& fields, const std::string& message) {
    says(with_header("{\"a\":" + fields + "}", data), message);
  };
  CHECK(error_of(path).find("cannot be read: No such file") != std::string::npos);
  says("", "is no safetensors file: it has 0 bytes");
  says("1234567", "it has 7 bytes");
  says(std::string(8, '\xff'), "its header is said to have 18446744073709551615 bytes");
  says(with_header("{}", "").substr(0, 9), "its header is said to have 2 bytes, the file has 9");
  says(with_header("{", ""), "is no JSON");
  says(with_header("[]", ""), "no JSON object");
  says(with_header(std::string(100000, '['), ""), "nested too deeply");
  says(with_header("{}", "x"), "has 1 bytes behind its last tensor");
  header("3", "tensor 'a': has no description");
  header("{}", "has no dtype");
  header(R"({"dtype":"F8_E4M3","shape":[16],"data_offsets":[0,16]})", "has dtype F8_E4M3");
  header(R"({"dtype":"F32","data_offsets":[0,16]})", "has no list 'shape'");
  header(R"({"dtype":"F32","shape":[-4],"data_offsets":[0,16]})", "shape: got -4, expected an integer >= 0");
  header(R"({"dtype":"F32","shape":[4.0],"data_offsets":[0,16]})", "shape: got 4.0");
  header(R"({"dtype":"F32","shape":[4],"data_offsets":[16,0]})", "data_offsets: got [16, 0]");
  header(R"({"dtype":"F32","shape":[4],"data_offsets":[0]})", "data_offsets: got [0]");
  header(R"({"dtype":"F32","shape":[8],"data_offsets":[0,32]})", "ends at byte 32 of the data, which has 16");
  header(R"({"dtype":"F64","shape":[4],"data_offsets":[0,16]})", "has 16 bytes, but F64 [4] needs 32");
  header(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]})", "needs far more");
  header(R"({"dtype":"F32","shape":[3],"data_offsets":[4,16]})", "leaves a hole before it");
  says(
      with_header(
          R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},"b":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})",
          data),
      "tensor 'b' at byte");
  says(
      with_header(
          R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})",
          data),
      "tensor 'a': is in the header twice");
}

TEST_CASE("random damage to a safetensors file is refused or harmless", "[contract]") {
  const TemporaryFolder folder;
  write_safetensors(folder.path(), "x.safetensors", some_tensors());
  const std::string path = folder.path() + "/x.safetensors", whole = text_of_file(path);
  std::mt19937 random(1);
  const auto below = [&](std::size_t count) {
    return std::uniform_int_distribution<std::size_t>(0, count - 1)(random);
  };
  const std::string tokens[] = {"[",       "]",   "{", "}", "\"", ":", ",", "-1", "1e999", "99999999999999999999",
                                "\\u0000", "null"};
  const char* many = std::getenv("LOCKSTEP_FUZZ");  // a long run on demand
  int refused = 0;
  const int rounds = many ? std::atoi(many) : 3000;
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = whole;
    for (std::size_t change = 0; change <= below(3); ++change) {
      const std::size_t at = below(bytes.size());
      switch (below(5)) {
        case 0: bytes[at] = static_cast<char>(below(256)); break;
        case 1: bytes.resize(at + 1); break;
        case 2: bytes.insert(at, tokens[below(std::size(tokens))]); break;
        case 3: bytes.erase(at, 1 + below(8)); break;
        case 4: bytes[below(std::min<std::size_t>(8, bytes.size()))] = static_cast<char>(below(256)); break;
      }
      if (bytes.empty()) bytes = "x";
    }
    put(path, bytes);
    try {
      const SafetensorsFile file(path);
      for (const TensorEntry& entry : file.entries()) file.read(entry, at::empty(entry.sizes, entry.dtype));
    } catch (const CheckpointError&) {
      ++refused;
    }
  }
  CHECK(refused > rounds / 4);
  CHECK(refused < rounds);
}

TEST_CASE("a damaged manifest is refused, whatever the damage", "[contract]") {
  const TemporaryFolder folder;
  const std::string part = folder.path() + "/step-00000001.part", path = folder.path() + "/step-00000001";
  fs::create_directory(part);
  Manifest manifest;
  manifest.step = 1;
  const WrittenFile file = write_safetensors(part, "model-00001-of-00001.safetensors", some_tensors());
  manifest.shards[file.name] = file;
  publish_checkpoint(part, path, manifest, {{kTrainerFile, "{}"}});
  CHECK_FALSE(fs::exists(part));
  REQUIRE(find_damage(path).empty());
  CHECK_THAT(text_of_file(path + "/model.safetensors.index.json"),
             Catch::Contains("\"a.weight\": \"model-00001-of-00001"));
  std::size_t bytes_of_tensors = 0;  // as Hugging Face counts them: no headers
  for (const NamedTensor& each : some_tensors()) bytes_of_tensors += each.tensor.nbytes();
  CHECK_THAT(text_of_file(path + "/model.safetensors.index.json"),
             Catch::Contains(concat("\"total_size\": ", bytes_of_tensors, "\n")));
  const std::string whole = text_of_file(path + "/manifest.json");
  std::mt19937 random(2);
  for (int round = 0; round < 500; ++round) {
    std::string bytes = whole;
    bytes[std::uniform_int_distribution<std::size_t>(0, bytes.size() - 1)(random)] ^=
        static_cast<char>(1 + round % 127);
    put(path + "/manifest.json", bytes);
    try {
      CheckpointStore store(path);
      find_damage(path);
    } catch (const CheckpointError& error) {
      CHECK_THAT(error.what(), Catch::Contains(path));
    }
  }
}

TEST_CASE("state in parts is read whole, in other parts, and refused where one is missing, altered or twice",
          "[contract]") {
  const at::Tensor state = at::arange(24, at::kFloat).view({4, 6});
  const auto part_of = [&](std::int64_t begin, std::int64_t end) {
    return NamedTensor{name_of_part("a.weight.exp_avg", {begin, end}),
                       state.view({-1}).narrow(0, begin, end - begin).clone()};
  };
  int number = 0;
  const TemporaryFolder folder;
  const auto written = [&](const std::vector<NamedTensor>& parts) {
    const std::string path = checkpoint_path(folder.path(), ++number), unfinished = path + ".part";
    fs::create_directory(unfinished);
    Manifest manifest;
    manifest.step = number;
    const auto put_file = [&](const std::string& name, const std::vector<NamedTensor>& tensors) {
      manifest.shards[name] = write_safetensors(unfinished, name, tensors);
    };
    put_file("model-00001-of-00001.safetensors", {{"a.weight", at::zeros({4, 6})}});
    for (std::size_t row = 0; row < parts.size(); ++row)
      put_file(concat("optimizer-0000", row, "-of-00009.safetensors"), {parts[row]});
    publish_checkpoint(unfinished, path, manifest, {{kTrainerFile, "{}"}});
    return path;
  };
  const auto refusal = [](const std::string& path) {
    try {
      CheckpointStore store(path);
      store.read(TensorKind::optimizer, "a.weight.exp_avg", at::empty({4, 6}));
    } catch (const CheckpointError& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  const std::string path = written({part_of(16, 24), part_of(0, 7), part_of(7, 16)});
  CheckpointStore store(path);
  CHECK(store.has(TensorKind::optimizer, "a.weight.exp_avg"));
  CHECK(store.names(TensorKind::optimizer) == std::vector<std::string>{"a.weight.exp_avg"});
  CHECK(store.entry(TensorKind::optimizer, "a.weight.exp_avg").sizes == std::vector<std::int64_t>{4, 6});
  at::Tensor whole = at::empty({4, 6});
  store.read(TensorKind::optimizer, "a.weight.exp_avg", whole);
  CHECK(at::equal(whole, state));
  at::Tensor some = at::empty({9});
  store.read(TensorKind::optimizer, "a.weight.exp_avg", some, ElementRange{5, 14});
  CHECK(at::equal(some, at::arange(5, 14, at::kFloat)));
  CHECK_THROWS_WITH(store.read(TensorKind::optimizer, "a.weight.exp_avg", some, ElementRange{16, 25}),
                    Catch::Contains("F32 [4, 6], expected elements 16 to 25"));
  // A part of what is whole.
  CheckpointStore of_whole(written({{"a.weight.exp_avg", state}}));
  of_whole.read(TensorKind::optimizer, "a.weight.exp_avg", some, ElementRange{15, 24});
  CHECK(at::equal(some, at::arange(15, 24, at::kFloat)));
  CHECK_THAT(refusal(written({part_of(0, 7), part_of(9, 24)})),
             Catch::Contains("'a.weight.exp_avg': is in parts, of which the one that begins at element 7 is missing"));
  CHECK_THAT(refusal(written({part_of(0, 16)})), Catch::Contains("element 16 is missing"));
  CHECK_THAT(refusal(written({part_of(0, 9), part_of(7, 24)})), Catch::Contains("'a.weight.exp_avg': is in two files"));
  const std::string altered = written({part_of(0, 7), part_of(7, 24)});
  std::string bytes = text_of_file(altered + "/optimizer-00001-of-00009.safetensors");
  bytes[bytes.size() - 2] ^= 1;
  put(altered + "/optimizer-00001-of-00009.safetensors", bytes);
  CHECK_THAT(refusal(altered), Catch::Contains("a.weight.exp_avg[7:24]") && Catch::Contains("was altered"));
}

TEST_CASE("only whole checkpoints are listed, oldest first", "[contract]") {
  const TemporaryFolder folder;
  for (const char* name : {"step-00000010", "step-00000002", "step-00000003.part", "step-x", "best", "step-123456789"})
    fs::create_directory(folder.path() + "/" + name);
  std::vector<std::int64_t> steps;
  for (const CheckpointPlace& place : list_checkpoints(folder.path())) steps.push_back(place.step);
  CHECK(steps == std::vector<std::int64_t>{2, 10, 123456789});
  prune_checkpoints(folder.path(), 1, 2);
  steps.clear();
  for (const CheckpointPlace& place : list_checkpoints(folder.path())) steps.push_back(place.step);
  CHECK(steps == std::vector<std::int64_t>{2, 123456789});
  CHECK(list_checkpoints(folder.path() + "/none").empty());
}
