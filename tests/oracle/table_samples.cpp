// SPDX-License-Identifier: Apache-2.0
//
// table_samples CONFIG OUT: all samples of the section `data` of CONFIG, for tables_test.py. OUT, safetensors, gets
// "train.x", "train.targets", and those of "eval".
#include <exception>
#include <filesystem>
#include <iostream>
#include <numeric>

#include "runtime/checkpoint/safetensors.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {
namespace {

void add(const std::string& set, const Dataset& data, std::vector<NamedTensor>& results) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(data.size()));
  std::iota(all.begin(), all.end(), 0);
  const Tensors read = read_samples(data, all);
  results.push_back({set + ".x", read[0]});
  results.push_back({set + ".targets", read[1]});
}

void run(const std::string& config, const std::filesystem::path& out) {
  const DataSplits splits = open_data(load_config_file(config).required_section("data"), {});
  std::vector<NamedTensor> results;
  add("train", *splits.train, results);
  if (splits.eval) add("eval", *splits.eval, results);
  write_safetensors(out.parent_path(), out.filename(), results);
}

}  // namespace
}  // namespace lockstep

int main(int count, char** arguments) {
  try {
    if (count != 3) throw lockstep::UserError("table_samples CONFIG OUT");
    lockstep::run(arguments[1], arguments[2]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
