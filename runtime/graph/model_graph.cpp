// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/model_graph.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "runtime/base/nearest.hpp"
#include "runtime/base/pattern.hpp"

namespace lockstep {
namespace {

std::int64_t product(const std::vector<std::int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
}

class Describer {
 public:
  Describer(const Model& model, const GraphOptions& options) : model_(model), options_(options) {
    graph_.layers = model.layers;
  }

  ModelGraph run(const std::vector<EntrySpec>& data, const Losses& losses) {
    if (model_.heads.empty()) throw ModelError(concat("model ", model_.name, " has no heads: no loss reads it"));
    add_layers(data);
    for (std::size_t head = 0; head < model_.heads.size(); ++head) add_head(static_cast<int>(head), *losses[head]);
    check_adapter();
    find_backward();
    check_trained();
    return std::move(graph_);
  }

  ModelGraph run(const std::vector<EntrySpec>& data) {
    add_layers(data);
    check_adapter();
    return std::move(graph_);
  }

 private:
  void add_layers(const std::vector<EntrySpec>& data) {
    if (model_.layers.empty()) throw ModelError(concat("model ", model_.name, " has no layers"));
    if (options_.batch == 0 && !data.empty()) options_.batch = data.front().sizes.at(0);
    for (const EntrySpec& entry : data) graph_.sources.push_back(add_value(entry, -1));
    for (int layer = 0; layer < graph_.layer_count(); ++layer) add_layer(layer);
  }

  int add_value(const EntrySpec& spec, int producer) {
    const int id = static_cast<int>(graph_.values.size());
    graph_.values.push_back({spec, producer, false, {}});
    alive_[spec.name] = id;
    return id;
  }

  int read(const std::string& entry, const std::string& reader, Use use) {
    const auto found = alive_.find(entry);
    if (found == alive_.end()) {
      std::vector<std::string> names;
      for (const auto& [name, id] : alive_) names.push_back(name);
      throw ModelError(concat(reader, " reads the entry '", entry, "', which nothing before it writes; there are: ",
                              join(names), did_you_mean(entry, names)));
    }
    graph_.values[found->second].uses.push_back(use);
    return found->second;
  }

  void add_layer(int layer) {
    const LayerSpec& spec = model_.layers[layer];
    const std::string where = layer_text(spec);
    if (!spec.layer) throw ModelError(concat(where, " has no Layer"));
    if (!names_.insert(spec.name).second) throw ModelError(concat(where, ": another layer has this name"));
    std::vector<EntrySpec> inputs;
    graph_.inputs.emplace_back();
    for (const std::string& entry : spec.inputs) {
      const int id = read(entry, where, {layer, static_cast<int>(inputs.size())});
      graph_.inputs.back().push_back(id);
      inputs.push_back(graph_.values[id].spec);
    }
    LayerDescription description;
    try {
      description = spec.layer->describe(inputs);
    } catch (const c10::Error& error) {
      throw ModelError(concat(where, ": its describe() failed: ", error.what_without_backtrace()));
    } catch (const ModelError& error) {
      throw ModelError(concat(where, ": ", error.what()));
    } catch (const std::exception& error) {
      throw ModelError(concat(where, ": its describe() failed: ", error.what()));
    }
    if (description.outputs.size() != spec.outputs.size())
      throw ModelError(concat(where, " describes ", description.outputs.size(), " outputs, but ", spec.outputs.size(),
                              " names are given: ", join(spec.outputs)));
    add_parameters(layer, where, description);
    add_buffers(layer, where, description);
    if (description.least_rows > graph_.least_rows) {
      graph_.least_rows = description.least_rows;
      graph_.least_rows_layer = layer;
    }
    graph_.outputs.emplace_back();
    for (std::size_t i = 0; i < spec.outputs.size(); ++i) {
      EntrySpec output = description.outputs[i];
      output.name = spec.outputs[i];
      output.differentiable = at::isFloatingType(output.dtype);
      check_size(where, output);
      graph_.outputs.back().push_back(add_value(output, layer));
    }
  }

  /// Sizes of the layers below are products of these and of at most 2^24 (kMostSize): they must stay exact too.
  static void check_size(const std::string& where, const EntrySpec& output) {
    constexpr std::int64_t most = std::int64_t{1} << 38;
    std::int64_t count = 1;
    for (const std::int64_t size : output.sizes)
      if (__builtin_mul_overflow(count, size, &count)) count = most + 1;  // stays too large
    if (count > most)
      throw ModelError(concat(where, ": its output ", to_string(output),
                              " has more than 2^38 elements for a micro-batch; make it smaller"));
  }

  void add_parameters(int layer, const std::string& where, const LayerDescription& description) {
    std::int64_t indices = 0;  // that the layer reads of a mini-batch
    for (const int id : graph_.inputs[layer])
      if (const EntrySpec& spec = graph_.values[id].spec; spec.dtype == at::kLong && !spec.sizes.empty())
        indices += product(spec.sizes) / std::max<std::int64_t>(spec.sizes[0], 1) * options_.batch;
    graph_.held.emplace_back();
    for (const ParameterSpec& parameter : description.parameters) {
      const std::string name = graph_.layers[layer].full_name(parameter.name);
      if (index_.count(name) || buffers_.count(name))
        throw ModelError(concat(where, ": another parameter, buffer or state has the name ", name));
      const int index = parameter.tied_to.empty() ? add_parameter(name, parameter) : find_tied(where, name, parameter);
      index_[name] = index;
      ParameterInfo& info = graph_.parameters[index];
      info.holders.push_back(layer);
      if (info.is_sparse) info.used_rows = std::min(info.sizes.at(0), indices);
      graph_.held.back().push_back({parameter.name, index});
    }
  }

  void add_buffers(int layer, const std::string& where, const LayerDescription& description) {
    graph_.held_buffers.emplace_back();
    for (const BufferSpec& buffer : description.buffers)
      add_buffer(where, {"", buffer.name, layer, buffer.sizes, buffer.dtype, buffer.value});
    for (const StateSpec& state : description.states) {
      std::vector<std::int64_t> sizes = {options_.batch};
      sizes.insert(sizes.end(), state.sizes.begin(), state.sizes.end());
      add_buffer(where, {"", state.name, layer, sizes, state.dtype, 0.0, /*is_state=*/true});
    }
  }

  void add_buffer(const std::string& where, BufferInfo buffer) {
    buffer.name = graph_.layers[buffer.layer].full_name(buffer.local_name);
    if (index_.count(buffer.name) || !buffers_.insert(buffer.name).second)
      throw ModelError(concat(where, ": another parameter, buffer or state has the name ", buffer.name));
    if (at::isFloatingType(buffer.dtype)) buffer.dtype = options_.masters;
    graph_.held_buffers.back().push_back(static_cast<int>(graph_.buffers.size()));
    graph_.buffers.push_back(std::move(buffer));
  }

  int add_parameter(const std::string& name, const ParameterSpec& parameter) {
    if (std::any_of(parameter.sizes.begin(), parameter.sizes.end(), [](std::int64_t size) { return size < 0; }))
      throw ModelError(
          concat("the parameter ", name, " has the sizes [", join(parameter.sizes), "]; none may be negative"));
    count_elements(parameter);
    const bool trainable = !parameter.is_base && !matches(options_.frozen, name);
    const at::ScalarType dtype = parameter.is_base && parameter.is_cast ? options_.bases : options_.masters;
    graph_.parameters.push_back({name,
                                 parameter.sizes,
                                 parameter.init,
                                 dtype,
                                 trainable,
                                 {},
                                 parameter.linear,
                                 parameter.is_base,
                                 parameter.is_sparse});
    return static_cast<int>(graph_.parameters.size()) - 1;
  }

  /// Sums of elements must stay exact, as int64 and as double.
  void count_elements(const ParameterSpec& parameter) {
    constexpr std::int64_t most = std::int64_t{1} << 50;
    std::int64_t count = 1;
    for (const std::int64_t size : parameter.sizes)
      if (__builtin_mul_overflow(count, size, &count)) count = most + 1;  // stays too large
    elements_ += std::min(count, most);
    if (count > most || elements_ > most)
      throw ModelError(concat("with the parameter ", parameter.name, " [", join(parameter.sizes),
                              "] the model has more than 2^50 elements; make it smaller"));
  }

  int find_tied(const std::string& where, const std::string& name, const ParameterSpec& parameter) const {
    const auto found = index_.find(parameter.tied_to);
    if (found == index_.end())
      throw ModelError(concat(where, ": ", name, " is tied to ", parameter.tied_to, ", which no earlier layer has"));
    const ParameterInfo& first = graph_.parameters[found->second];
    if (first.is_sparse || parameter.is_sparse)
      throw ModelError(concat(where, ": ", name, " is tied to ", parameter.tied_to,
                              ", and one of them is sparse; a product with all of a table leaves no row unused: leave "
                              "`sparse` out, or untie them"));
    if (first.sizes != parameter.sizes)
      throw ModelError(concat(where, ": ", name, " [", join(parameter.sizes), "] is tied to ", parameter.tied_to, " [",
                              join(first.sizes), "]; shapes must agree"));
    return found->second;
  }

  void add_head(int head, const Loss& loss) {
    const Head& wanted = model_.heads[head];
    const int layer = graph_.layer_count() + head;
    const std::string where =
        model_.heads.size() == 1 ? "the loss " + loss.name() : concat("the loss ", loss.name(), " of head ", head);
    const int output = read(wanted.output, where, {layer, 0});
    const int targets = read(wanted.targets, where, {layer, 1});
    graph_.inputs.push_back({output, targets});
    const auto source = std::find(graph_.sources.begin(), graph_.sources.end(), targets);
    if (source == graph_.sources.end())
      throw ModelError(concat(layer_text(graph_.layers[graph_.values[targets].producer]), " writes '", wanted.targets,
                              "', with which ", where, " compares; targets must be an entry of the data"));
    if (!(wanted.weight > 0)) throw ModelError(concat(where, " has the weight ", wanted.weight, ", expected > 0"));
    graph_.heads.push_back({output, targets, static_cast<int>(source - graph_.sources.begin()),
                            std::max(graph_.values[output].producer, 0), wanted.weight});
    for (std::size_t i = 0; i < graph_.sources.size(); ++i)
      if (graph_.values[graph_.sources[i]].spec.name == kSampleWeights)
        add_weights(head, loss, where, static_cast<int>(i));
    try {
      loss.check(graph_.values[output].spec, graph_.values[targets].spec);
    } catch (const ModelError& error) {
      const int producer = graph_.values[output].producer;
      const std::string made_at = producer < 0 ? "" : prefix_of(graph_.layers[producer].origin);
      throw ModelError(concat(made_at, where, " does not fit the model and its data: ", error.what()));
    }
  }

  /// `source`: of the data's entries, the weights of samples.
  void add_weights(int head, const Loss& loss, const std::string& where, int source) {
    const EntrySpec& spec = graph_.values[graph_.sources[source]].spec;
    if (spec.dtype != at::kFloat || spec.sizes.size() != 1)
      throw ModelError(concat("the data's weights of samples are ", to_string(spec), ", expected float32 [rows]"));
    if (!loss.takes_weights())
      throw ModelError(concat(where, " knows no weights of samples, and the data has some (", kSampleWeights,
                              "); leave them out, or take another loss"));
    GraphHead& here = graph_.heads.back();
    here.weights_source = source;
    here.weights = read(kSampleWeights, where, {graph_.layer_count() + head, 2});
    if (here.weights != graph_.sources[source])
      throw ModelError(concat(layer_text(graph_.layers[graph_.values[here.weights].producer]), " writes '",
                              kSampleWeights, "', which is the name of the data's weights of samples"));
    graph_.inputs.back().push_back(here.weights);
  }

  void find_backward() {
    for (int layer = 0; layer < graph_.layer_count(); ++layer) {
      bool trainable = false;
      for (const HeldParameter& held : graph_.held[layer]) trainable |= graph_.parameters[held.index].trainable;
      bool learns = trainable;
      for (const int id : graph_.inputs[layer]) learns |= graph_.values[id].requires_grad;
      bool any = false;
      for (const int id : graph_.outputs[layer]) {
        graph_.values[id].requires_grad = learns && graph_.values[id].spec.differentiable;
        any |= graph_.values[id].requires_grad;
      }
      graph_.trainable.push_back(trainable);
      graph_.has_backward.push_back(any);
    }
    const bool learns = std::any_of(graph_.heads.begin(), graph_.heads.end(),
                                    [&](const GraphHead& head) { return graph_.values[head.output].requires_grad; });
    if (!learns) throw ModelError("nothing to train: every parameter that the loss depends on is frozen");
  }

  /// What of model.lora means no module.
  void check_adapter() const {
    if (!model_.adapter) return;
    std::set<std::string> modules, linear;
    for (const ParameterInfo& parameter : graph_.parameters) {
      if (parameter.name.ends_with(LowRank::first_of("")) || parameter.name.ends_with(LowRank::second_of(""))) continue;
      modules.insert(module_of(parameter.name));
      if (parameter.linear) linear.insert(module_of(parameter.name));
    }
    const auto check = [](const char* key, const std::string& name, const std::set<std::string>& among,
                          const char* what) {
      if (name == kAllLinear ||
          std::any_of(among.begin(), among.end(), [&](const std::string& module) { return is_named(module, {name}); }))
        return;
      std::set<std::string> ends;
      for (const std::string& module : among) ends.insert(module.substr(module.rfind('.') + 1));
      throw ModelError(concat("model.lora.", key, ": got '", name, "', which no ", what, " is called; there are ",
                              join(ends), did_you_mean(name, {ends.begin(), ends.end()})));
    };
    for (const std::string& target : model_.adapter->targets) check("targets", target, linear, "linear part");
    for (const std::string& saved : model_.adapter->modules_to_save) check("modules_to_save", saved, modules, "module");
  }

  void check_trained() const {
    const int lost = first_untrained(graph_);
    if (lost < 0) return;
    const int layer = graph_.parameters[lost].holders.front();
    throw ModelError(concat(layer_text(graph_.layers[layer]), ": no loss depends on its output '",
                            join(graph_.layers[layer].outputs, "', '"), "', so ", graph_.parameters[lost].name,
                            " would not be trained; let a layer or a head read it, or freeze it (train.freeze)"));
  }

  const Model& model_;
  GraphOptions options_;
  ModelGraph graph_;
  std::map<std::string, int> alive_;  // entry name -> the value that it means now
  std::map<std::string, int> index_;  // full parameter name, tied ones too -> stored parameter
  std::set<std::string> names_, buffers_;
  std::int64_t elements_ = 0;  // of all parameters so far
};

}  // namespace

std::int64_t ParameterInfo::elements() const {
  return product(sizes);
}

std::int64_t ParameterInfo::gradient_elements() const {
  return is_sparse ? used_rows * (elements() / sizes[0] + 2) : elements();
}

std::int64_t ModelGraph::tokens_per_sample() const {
  const EntrySpec& first = values[sources.front()].spec;
  return first.dtype == at::kLong && first.sizes.size() == 2 ? first.sizes[1] : 0;
}

std::int64_t ModelGraph::parameter_count() const {
  std::int64_t count = 0;
  for (const ParameterInfo& parameter : parameters) count += parameter.elements();
  return count;
}

std::int64_t ModelGraph::elements_of_layer(int layer) const {
  std::int64_t count = 0;
  for (const HeldParameter& parameter : held[layer]) count += parameters[parameter.index].elements();
  return count;
}

std::int64_t ModelGraph::elements_of_layers(int first, int last) const {
  std::set<int> stored;
  for (int layer = first; layer < last; ++layer)
    for (const HeldParameter& parameter : held[layer]) stored.insert(parameter.index);
  std::int64_t count = 0;
  for (const int index : stored) count += parameters[index].elements();
  return count;
}

int first_untrained(const ModelGraph& graph, int without) {
  std::vector<bool> reaches(graph.layers.size());  // a loss, by layer
  for (int layer = graph.layer_count() - 1; layer >= 0; --layer)
    for (const int id : graph.outputs[layer]) {
      const Value& value = graph.values[id];
      if (id == without || !value.requires_grad) continue;
      for (const Use& use : value.uses)
        if (use.layer >= graph.layer_count() || reaches[use.layer]) reaches[layer] = true;
    }
  for (std::size_t i = 0; i < graph.parameters.size(); ++i) {
    const ParameterInfo& parameter = graph.parameters[i];
    const auto counts = [&](int layer) { return static_cast<bool>(reaches[layer]); };
    if (parameter.trainable && std::none_of(parameter.holders.begin(), parameter.holders.end(), counts))
      return static_cast<int>(i);
  }
  return -1;
}

ModelGraph describe_model(const Model& model, const std::vector<EntrySpec>& data, const Losses& losses,
                          const GraphOptions& options) {
  return Describer(model, options).run(data, losses);
}

ModelGraph describe_layers(const Model& model, const std::vector<EntrySpec>& data) {
  return Describer(model, {}).run(data);
}

bool ModelGraph::is_for_losses(int value) const {
  return std::any_of(heads.begin(), heads.end(),
                     [&](const GraphHead& head) { return head.targets == value || head.weights == value; });
}

}  // namespace lockstep
