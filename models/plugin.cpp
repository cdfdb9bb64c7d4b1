// SPDX-License-Identifier: Apache-2.0
#include "models/plugin.hpp"

#include <dlfcn.h>

#include <filesystem>

namespace lockstep {

std::vector<ModelFamily> load_models(const Section& section) {
  const std::string path = section.get<std::string>("library", not_empty());
  // A name without a slash would be looked for in the system's folders.
  void* const library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw section.error("library", concat("cannot load ", path, ": ", dlerror()));
  const auto stamp = reinterpret_cast<const char* (*)()>(dlsym(library, "lockstep_plugin_stamp"));
  const auto models = reinterpret_cast<void (*)(std::vector<ModelFamily>&)>(dlsym(library, "lockstep_plugin_models"));
  if (!stamp || !models)
    throw section.error("library", concat(path,
                                          " has no models for Lockstep; it needs LOCKSTEP_MODELS(...) of "
                                          "models/plugin.hpp"));
  if (const std::string theirs = stamp(); theirs != LOCKSTEP_STAMP)
    throw section.error("library", concat(path, " was built for ", theirs, "; this is ", LOCKSTEP_STAMP,
                                          ": build it again with the headers of this Lockstep"));
  std::vector<ModelFamily> families;
  models(families);
  return families;
}

}  // namespace lockstep
