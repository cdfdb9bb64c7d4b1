// SPDX-License-Identifier: Apache-2.0
//
// read_data CONFIG FOLDER: what a reader makes of files, for comparison with what Python makes of them. The entries of
// all samples of `data`, read in order, go to FOLDER/train.safetensors, and eval.safetensors where there are any;
// `first_drawn: N` beside `data` draws the former.
#include <cstdio>
#include <numeric>

#include "runtime/checkpoint/safetensors.hpp"
#include "runtime/data/dataset.hpp"

using namespace lockstep;

namespace {

void write_all(const Dataset& data, std::optional<std::int64_t> first, const std::string& folder, const char* file) {
  std::vector<std::int64_t> samples(static_cast<std::size_t>(data.size()));
  std::iota(samples.begin(), samples.end(), 0);
  const Tensors read = read_samples(data, samples, first);
  const std::vector<EntrySpec> entries = data.entries(data.size());
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < entries.size(); ++i) tensors.push_back({entries[i].name, read[i]});
  write_safetensors(folder, file, tensors);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count != 3) throw UserError("expected: read_data CONFIG FOLDER");
    const Section config = load_config_file(arguments[1]);
    std::optional<std::int64_t> first;
    if (config.has("first_drawn")) first = config.get<std::int64_t>("first_drawn");
    const DataSplits splits = open_data(config.section("data"), {});
    write_all(*splits.train, first, arguments[2], "train.safetensors");
    if (splits.eval) write_all(*splits.eval, {}, arguments[2], "eval.safetensors");
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
