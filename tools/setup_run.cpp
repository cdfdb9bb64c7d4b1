// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <iomanip>

#include "models/registry.hpp"
#include "tools/command.hpp"
#include "tools/table.hpp"

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

std::unique_ptr<Trainer> make_trainer(const Config& config, const Ranks& ranks,
                                      const std::optional<TrainedOn>& trained) {
  const Model model = make_model(config.model);
  DataContext context;
  context.seed = config.seed;
  context.trained = trained;
  if (config.model.has("context")) context.context = config.model.get<std::int64_t>("context");
  return std::make_unique<Trainer>(model, open_data(config.data, context), config, ranks);
}

std::string stage_table(const Trainer& trainer) {
  const ModelGraph& graph = trainer.graph();
  const Partition& partition = trainer.partition();
  const std::vector<WorkerId>& row_of_stage = trainer.programs().get(Mode::stop, 0).row_of_stage;
  const auto number = [](int value) { return Cell{std::to_string(value), static_cast<double>(value)}; };
  std::vector<std::vector<Cell>> rows;
  for (int stage = 0; stage < partition.stages(); ++stage) {
    const int first = partition.first_layer[stage], last = partition.first_layer[stage + 1] - 1;
    std::int64_t parameters = 0;
    for (int layer = first; layer <= last; ++layer) parameters += graph.elements_of_layer(layer);
    const int row = row_of_stage[stage].value();
    const std::string& name = graph.layers[first].name;
    rows.push_back({number(stage),
                    number(row),
                    number(trainer.layout().rank_of_row[row].value()),
                    number(last - first + 1),
                    {in_millions(parameters)},
                    {last > first ? name + " .. " + graph.layers[last].name : name}});
  }
  using Kind = Column::Kind;
  return concat(table({{"stage", Kind::list},
                       {"worker", Kind::list},
                       {"rank", Kind::list, true},
                       {"layers"},
                       {"parameters"},
                       {"first .. last layer", Kind::names, true}},
                      rows, columns_of_terminal(STDERR_FILENO)),
                "model: ", graph.layer_count(), " layers, ", in_millions(graph.parameter_count()), " parameters");
}

}  // namespace lockstep
