// SPDX-License-Identifier: Apache-2.0
//
// From the type that a config names to what a table makes of it: ours, and those of plug-ins.
#pragma once

#include <string>

#include "runtime/base/table.hpp"
#include "runtime/config/config.hpp"

namespace lockstep {

/// The error of a type that is in no table.
ConfigError unknown_type(const PluginKind& plugin, const std::string& key, const std::vector<std::string>& names);

/// The error of a type that cannot be made.
ConfigError failed_to_be_made(const PluginKind& plugin, const std::string& key, const std::string& why);

/// `make()`, which may be anybody's: what it throws that is none of ours, or nothing at all, is an error of the type.
template <typename Make>
auto made_by_plugin(const PluginKind& plugin, const std::string& key, const Make& make) {
  try {
    auto made = make();
    if (!made) throw failed_to_be_made(plugin, key, "it gave nothing");
    return made;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw failed_to_be_made(plugin, key, error.what());
  }
}

/// What `kinds` makes of `config`, which has a type or a plug-in's; keys that a plug-in's has not asked for are
/// refused. `key`: "train.optimizer.type".
template <typename Kind, typename Config>
auto made_of(const Table<Kind>& kinds, const Config& config, const std::string& key) {
  const Kind* kind = kinds.find(config.type_name());
  if (kind == nullptr) throw unknown_type(config.plugin, key, kinds.names());
  Config asked = config;
  asked.plugin.keys = config.plugin.keys.without({"type"});
  auto made = made_by_plugin(config.plugin, key, [&] { return kind->make(asked); });
  asked.plugin.keys.finish();
  return made;
}

}  // namespace lockstep
