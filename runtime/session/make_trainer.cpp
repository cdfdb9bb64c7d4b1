// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/make_trainer.hpp"

#include <unistd.h>

#include <algorithm>

#include "runtime/base/text.hpp"
#include "runtime/base/text_table.hpp"
#include "runtime/session/model_sizes.hpp"
#include "runtime/training/run_record.hpp"

namespace lockstep {

std::unique_ptr<Trainer> make_trainer(const ConfigSource& source, const Config& config, const Ranks& ranks,
                                      const std::optional<TrainedOn>& trained) {
  const Registry known = source.registry(config);
  check_activation(config, known.activations);
  Config sized = config;
  // What is wrong with the model is said before the data is read, unless the data has to say its sizes.
  std::optional<Model> model;
  if (!leaves_sizes(config.model)) model = source.make_model(config, known);
  DataSplits data = source.open_data(config, trained, known);
  if (!model) {
    if (trained && data.inputs) sized.model = with_sizes(sized.model, *trained);
    sized.model = with_sizes(sized.model, data);
    model = source.make_model(sized, known);
  }
  return std::make_unique<Trainer>(assemble(std::move(*model), std::move(data), std::move(sized), ranks, known));
}

std::unique_ptr<Trainer> make_whole(const ConfigSource& source, const Config& config,
                                    const std::optional<TrainedOn>& trained) {
  Config whole = one_worker(config);
  whole.workers.devices = {kHostDevice};  // nothing computes: what is planned for need not be here
  return make_trainer(source, whole, {}, trained);
}

std::string stage_table(const Trainer& trainer) {
  const ModelGraph& graph = trainer.graph();
  const Partition& partition = trainer.partition();
  const std::vector<WorkerId>& row_of_stage = trainer.programs().wiring().row_of_stage;
  const auto number = [](int value) { return Cell{std::to_string(value), static_cast<double>(value)}; };
  std::vector<std::vector<Cell>> rows;
  for (int stage = 0; stage < partition.stages(); ++stage) {
    const int first = partition.layers_of(StageId(stage)).first, last = partition.layers_of(StageId(stage)).end - 1;
    const int row = row_of_stage[stage].value();
    const std::string& name = graph.layers[first].name;
    rows.push_back({number(stage),
                    number(partition.topology.replica_of(StageId(stage))),
                    number(row),
                    number(trainer.layout().rank_of_row[row].value()),
                    {trainer.assembly().devices[static_cast<std::size_t>(row)].str()},
                    number(last - first + 1),
                    {count_text(graph.elements_of_layers(first, last + 1))},
                    {last > first ? name + " .. " + graph.layers[last].name : name}});
  }
  using Kind = Column::Kind;
  std::vector<Column> columns = {{"stage", Kind::list},   {"replica", Kind::list},
                                 {"worker", Kind::list},  {"rank", Kind::list, true},
                                 {"device", Kind::names}, {"layers"},
                                 {"parameters"},          {"first .. last layer", Kind::names, true}};
  const auto leave_out = [&](std::ptrdiff_t column) {
    columns.erase(columns.begin() + column);
    for (std::vector<Cell>& row : rows) row.erase(row.begin() + column);
  };
  constexpr std::ptrdiff_t replica = 1, device = 4;
  const std::vector<at::Device>& devices = trainer.assembly().devices;
  if (std::all_of(devices.begin(), devices.end(), [](const at::Device& each) { return each.is_cpu(); }))
    leave_out(device);
  if (partition.topology.replicas.count == 1) leave_out(replica);
  std::int64_t trained = 0;
  for (const ParameterInfo& parameter : graph.parameters)
    if (parameter.trainable) trained += parameter.elements();
  const std::int64_t all = graph.parameter_count();
  return concat(table(columns, rows, columns_of_terminal(STDERR_FILENO)), "model: ", graph.layer_count(), " layers, ",
                count_text(all), " parameters",
                trained < all ? concat(", of which ", count_text(trained), " are trained") : "");
}

}  // namespace lockstep
