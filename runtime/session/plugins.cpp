// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/plugins.hpp"

#include <dlfcn.h>

#include "models/plugin.hpp"

namespace lockstep {
namespace {

void add_all(void* library, Registry& registry) {
  if (const auto add = reinterpret_cast<void (*)(Registry&)>(dlsym(library, "lockstep_plugin"))) add(registry);
  std::vector<ModelFamily> families;
  if (const auto models =
          reinterpret_cast<void (*)(std::vector<ModelFamily>&)>(dlsym(library, "lockstep_plugin_models")))
    models(families);
  for (ModelFamily& family : families) registry.models.add(std::move(family));
}

}  // namespace

void load_plugins(const std::vector<std::string>& paths, const Section& section, Registry& registry) {
  for (const std::string& path : paths) {
    const auto refused = [&](const std::string& problem) { return section.error("plugins", problem); };
    void* const library = open_plugin(path, refused);
    try {
      add_all(library, registry);
    } catch (const std::exception& error) {
      throw refused(concat(path, ": ", error.what()));
    }
  }
}

}  // namespace lockstep
