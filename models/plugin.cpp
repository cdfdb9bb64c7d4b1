// SPDX-License-Identifier: Apache-2.0
#include "models/plugin.hpp"

#include <dlfcn.h>

#include <filesystem>

namespace lockstep {

void* open_plugin(const std::string& path, const std::function<ConfigError(const std::string&)>& refused) {
  // A name without a slash would be looked for in the system's folders.
  void* const library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw refused(concat("cannot load ", path, ": ", dlerror()));
  const auto stamp = reinterpret_cast<const char* (*)()>(dlsym(library, "lockstep_plugin_stamp"));
  if (!stamp)
    throw refused(concat(path,
                         " is no plug-in for Lockstep; it needs LOCKSTEP_PLUGIN(...) of runtime/session/plugins.hpp, ",
                         "or LOCKSTEP_MODELS(...) of models/plugin.hpp"));
  if (const std::string theirs = stamp(); theirs != LOCKSTEP_STAMP)
    throw refused(concat(path, " was built for ", theirs, "; this is ", LOCKSTEP_STAMP,
                         ": build it again with the headers of this Lockstep"));
  return library;
}

std::vector<ModelFamily> load_models(const Section& section) {
  const auto path = section.get<std::string>("library", not_empty());
  void* const library =
      open_plugin(path, [&](const std::string& problem) { return section.error("library", problem); });
  const auto models = reinterpret_cast<void (*)(std::vector<ModelFamily>&)>(dlsym(library, "lockstep_plugin_models"));
  if (!models) throw section.error("library", concat(path, " has no models of its own; name it in `plugins` instead"));
  std::vector<ModelFamily> families;
  models(families);
  return families;
}

}  // namespace lockstep
