// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/plugin_kind.hpp"

namespace lockstep {

ConfigError unknown_type(const PluginKind& plugin, const std::string& key, const std::vector<std::string>& names) {
  const std::string expected = one_of(names).text, advice = did_you_mean(plugin.name, names);
  if (plugin.keys.has("type")) return plugin.keys.unexpected("type", expected, advice);
  return ConfigError({"Config", 0, 0}, key, concat("got ", plugin.name, ", expected ", expected, advice));
}

}  // namespace lockstep
