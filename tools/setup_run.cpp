// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iomanip>

#include "models/registry.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

std::string in_millions(std::int64_t count) {
  std::ostringstream out;
  if (count < 100'000)
    out << count;
  else
    out << std::fixed << std::setprecision(count < 10'000'000 ? 2 : 1) << static_cast<double>(count) * 1e-6 << " M";
  return out.str();
}

}  // namespace

std::unique_ptr<Trainer> make_trainer(const Config& config, const Ranks& ranks) {
  const Model model = make_model(config.model);
  DataContext context;
  context.seed = config.seed;
  if (config.model.has("context")) context.context = config.model.get<std::int64_t>("context");
  return std::make_unique<Trainer>(model, open_data(config.data, context), config, ranks);
}

std::string stage_table(const Trainer& trainer) {
  const ModelGraph& graph = trainer.graph();
  const Partition& partition = trainer.partition();
  std::ostringstream out;
  const std::vector<WorkerId>& row_of_stage = trainer.programs().get(Mode::stop, 0).row_of_stage;
  out << "stage  worker  rank  layers  parameters  first .. last layer\n";
  for (int stage = 0; stage < partition.stages(); ++stage) {
    const int first = partition.first_layer[stage], last = partition.first_layer[stage + 1] - 1;
    std::int64_t parameters = 0;
    for (int layer = first; layer <= last; ++layer) parameters += graph.elements_of_layer(layer);
    const int row = row_of_stage[stage].value();
    const RankId rank = trainer.layout().rank_of_row[row];
    out << std::setw(5) << stage << std::setw(8) << row << std::setw(6) << rank << std::setw(8) << last - first + 1
        << std::setw(12) << in_millions(parameters) << "  " << graph.layers[first].name;
    if (last > first) out << " .. " << graph.layers[last].name;
    out << "\n";
  }
  out << "model: " << graph.layer_count() << " layers, " << in_millions(graph.parameter_count()) << " parameters";
  return out.str();
}

}  // namespace lockstep
