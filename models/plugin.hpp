// SPDX-License-Identifier: Apache-2.0
//
// Models from a shared library, for the command: `model: {type: mine, library: ./libmine.so, ...}`. (Everything else
// that a config names, and models too: runtime/session/plugins.hpp.)
//
//   #include "models/plugin.hpp"
//   Model make_mine(const Section& section) { ... }
//   LOCKSTEP_MODELS({"mine", "what it is, in one line", make_mine})
//
// The library stays loaded until the process ends, for its layers are in use.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/registry.hpp"
#include "runtime/layer/stamp.hpp"

/// Once per library, outside every namespace; the arguments are ModelFamily values.
#define LOCKSTEP_MODELS(...)                                                               \
  LOCKSTEP_EXPORT_STAMP                                                                    \
  extern "C" void lockstep_plugin_models(std::vector<::lockstep::ModelFamily>& families) { \
    families = {__VA_ARGS__};                                                              \
  }

namespace lockstep {

/// Loads the library and compares its stamp; it stays loaded until the process ends. A path without a slash is one in
/// the working folder. `refused`: makes the error of what is wrong with it.
void* open_plugin(const std::string& path, const std::function<ConfigError(const std::string&)>& refused);

/// The families of the library that `section`'s key `library` names, a path (relative: from the working folder).
/// ConfigError when it cannot be loaded, is no plug-in, or has another stamp.
std::vector<ModelFamily> load_models(const Section& section);

}  // namespace lockstep
