// SPDX-License-Identifier: Apache-2.0
//
// optimizer_steps CONFIG IN OUT: optimizer steps with given gradients, for optimizers_test.py. IN, safetensors, has the
// initial "NAME" of each parameter and the "NAME.gradient.S" of every step S of train.steps, of a sparse one with
// "NAME.rows.S"; OUT gets "NAME.S", the
// value after each step, and "NAME.STATE", what the optimizer of CONFIG keeps in the end.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <exception>
#include <filesystem>
#include <iostream>

#include "runtime/config/config.hpp"
#include "runtime/training/optimizer.hpp"
#include "tests/oracle/tensor_file.hpp"

namespace lockstep {
namespace {

std::vector<Parameter> parameters_of(const SafetensorsFile& file) {
  std::vector<Parameter> parameters;
  for (const TensorEntry& entry : file.entries()) {
    if (entry.name.find(".gradient.") != std::string::npos || entry.name.find(".rows.") != std::string::npos) continue;
    Parameter& parameter = parameters.emplace_back();
    parameter.name = entry.name;
    parameter.value = read(file, entry.name);
  }
  return parameters;
}

void run(const std::string& config_file, const std::string& in, const std::filesystem::path& out) {
  at::set_num_threads(1);
  const TrainConfig train = read_config(load_config_file(config_file)).train;
  const SafetensorsFile file(in);
  std::vector<Parameter> parameters = parameters_of(file);
  std::vector<Parameter*> pointers;
  for (Parameter& parameter : parameters) pointers.push_back(&parameter);
  const std::unique_ptr<ParameterUpdater> optimizer = choose_optimizer(train).maker()(pointers);
  std::vector<NamedTensor> results;
  for (std::int64_t step = 1; step <= train.steps; ++step) {
    for (Parameter& parameter : parameters) {
      parameter.gradient = read(file, concat(parameter.name, ".gradient.", step));
      if (const std::string rows = concat(parameter.name, ".rows.", step); file.find(rows))
        parameter.rows = read(file, rows);
    }
    std::vector<UpdatePart> parts;
    for (std::size_t i = 0; i < parameters.size(); ++i)
      parts.push_back({i, 0, parameters[i].value.numel(), parameters[i].gradient, parameters[i].rows});
    optimizer->update(train.optimizer.lr, step, parts);
    for (const Parameter& parameter : parameters)
      results.push_back({concat(parameter.name, ".", step), parameter.value.clone()});
  }
  for (const UpdaterState& kept : optimizer->state())
    results.push_back({concat(kept.parameter->name, ".", kept.name), kept.tensor});
  write_safetensors(out.parent_path(), out.filename(), results);
}

}  // namespace
}  // namespace lockstep

int main(int count, char** arguments) {
  try {
    if (count != 4) throw lockstep::UserError("optimizer_steps CONFIG IN OUT");
    lockstep::run(arguments[1], arguments[2], arguments[3]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
