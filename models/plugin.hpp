// SPDX-License-Identifier: Apache-2.0
//
// Models from a shared library, for the command: `model: {type: mine, library: ./libmine.so, ...}`.
//
//   #include "models/plugin.hpp"
//   Model make_mine(const Section& section) { ... }
//   LOCKSTEP_MODELS({"mine", "what it is, in one line", make_mine})
//
// The library is C++ on our headers and LibTorch's, so it must have been built with the same ones: it carries a stamp,
// which is compared before anything of it is called. It stays loaded until the process ends, for its layers are in use.
#pragma once

#include <torch/version.h>

#include <string>
#include <vector>

#include "models/registry.hpp"

/// Grows whenever something that a plug-in was compiled with changes: the layer contract, Model, Section.
#define LOCKSTEP_CONTRACT 4

#define LOCKSTEP_TEXT_OF(x) #x
#define LOCKSTEP_TEXT(x) LOCKSTEP_TEXT_OF(x)
#define LOCKSTEP_STAMP                                                           \
  "lockstep contract " LOCKSTEP_TEXT(LOCKSTEP_CONTRACT) ", torch " TORCH_VERSION \
                                                        ", "                     \
                                                        "C++ ABI " LOCKSTEP_TEXT(__GXX_ABI_VERSION)

/// Once per library, outside every namespace; the arguments are ModelFamily values.
#define LOCKSTEP_MODELS(...)                                                               \
  extern "C" const char* lockstep_plugin_stamp() {                                         \
    return LOCKSTEP_STAMP;                                                                 \
  }                                                                                        \
  extern "C" void lockstep_plugin_models(std::vector<::lockstep::ModelFamily>& families) { \
    families = {__VA_ARGS__};                                                              \
  }

namespace lockstep {

/// The families of the library that `section`'s key `library` names, a path (relative: from the working folder).
/// ConfigError when it cannot be loaded, is no plug-in, or has another stamp.
std::vector<ModelFamily> load_models(const Section& section);

}  // namespace lockstep
