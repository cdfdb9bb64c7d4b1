// SPDX-License-Identifier: Apache-2.0
//
// Every key of the config, once: its name, its member, what a value has to be, what it is to a checkpoint, and its
// manual. Whoever reads, writes, checks, compares or explains a config visits these lists:
//
//   void fields(FieldVisitor& visit, CommConfig& comm) {
//     visit("save_s", value(comm.save_s, at_least(1)), kFree, "The same for a worker that saves ...");
//   }
//
// Private to this folder and its tests.
#pragma once

#include "runtime/config/config.hpp"
#include "runtime/config/field.hpp"

namespace lockstep {

/// Begins with a letter, as all names of types do.
bool can_be_a_name(const std::string& text);
/// The type of something that plug-ins may add to: a name that is none of ours goes into `plugin`, with all keys of the
/// mapping but `common`, which every type has.
template <Named E>
Field type_or_plugin(E& member, PluginKind& plugin, const std::vector<std::string>& common) {
  const Rule<std::string> ours = one_of(names<E>());
  const Rule<std::string> rule = {ours.text, can_be_a_name, ours.advice};
  return {rule.text,
          [&member, &plugin, rule, common](const Section& section, const std::string& key) {
            const std::string name = section.get(key, rule);
            const std::optional<E> found = find_enum<E>(name);
            member = found.value_or(member);
            plugin = found ? PluginKind{} : PluginKind{name, section.without(common)};
          },
          [&member, &plugin] { return scalar_value(plugin.name.empty() ? name_of(member) : plugin.name); }};
}
/// The keys of a plug-in's own, as they were given.
void plugin_fields(FieldVisitor& visit, const PluginKind& plugin);

void fields(FieldVisitor& visit, Config& config);
void fields(FieldVisitor& visit, TrainConfig& train);
void fields(FieldVisitor& visit, OptimizerConfig& optimizer);
void fields(FieldVisitor& visit, LrScheduleConfig& schedule);
void fields(FieldVisitor& visit, EmaConfig& ema);
void fields(FieldVisitor& visit, EarlyStoppingConfig& stopping);
void fields(FieldVisitor& visit, InitConfig& init);
void fields(FieldVisitor& visit, PipelineConfig& pipeline);
void fields(FieldVisitor& visit, CostsConfig& costs);
void fields(FieldVisitor& visit, WorkersConfig& workers);
void fields(FieldVisitor& visit, ReplicasConfig& replicas);
void fields(FieldVisitor& visit, KernelsConfig& kernels);
void fields(FieldVisitor& visit, CommConfig& comm);

}  // namespace lockstep
