// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/plugin_kind.hpp"

namespace lockstep {

ConfigError unknown_type(const PluginKind& plugin, const std::string& key, const std::vector<std::string>& names) {
  const std::string expected = one_of(names).text, advice = did_you_mean(plugin.name, names);
  if (plugin.keys.has("type")) return plugin.keys.unexpected("type", expected, advice);
  return ConfigError({"Config", 0, 0}, key, concat("got ", plugin.name, ", expected ", expected, advice));
}

ConfigError failed_to_be_made(const PluginKind& plugin, const std::string& key, const std::string& why) {
  const std::string message = concat("the plug-in's ", plugin.name, " failed to be made: ", why);
  if (plugin.keys.has("type")) return plugin.keys.error("type", message);
  return ConfigError({"Config", 0, 0}, key, message);
}

}  // namespace lockstep
