// SPDX-License-Identifier: Apache-2.0
//
// The weights that a training starts with, where they are not drawn: train.init_from. Of an adapted model this is the
// base, or an adapter and the base that it names; adapters that the files lack start as adapters do.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/training/assembly.hpp"

namespace lockstep {

struct InitialWeights {
  std::string path;
  std::string base;                         ///< path, or what the adapter there names
  std::map<std::string, std::string> from;  ///< a parameter's or buffer's name -> the tensor of the files
  std::vector<std::string> fresh;           ///< parameters that start with values of their own, in model order
  std::vector<std::string> unused;          ///< tensors of the files that start nothing
  std::string summary() const;              ///< a line for the log
};

/// Looks at the headers alone. A parameter is started by the tensor that train.init.rename says, or else that of its
/// name, of any name that a layer holds it under (a tied head), or of these without the family's prefix
/// (Model::hub_prefix). Throws ConfigError that names all that does not match: what is missing, unknown or of another
/// shape; CheckpointError when the files are damaged.
InitialWeights initial_weights(const Assembly& assembly);
/// Of an adapted model, where its checkpoint has the rest: what the base is read from.
InitialWeights base_weights(const Assembly& assembly);

}  // namespace lockstep
