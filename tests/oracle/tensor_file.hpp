// SPDX-License-Identifier: Apache-2.0
//
// What Python hands over to the programs of this folder: tensors by name.
#pragma once

#include <ATen/ATen.h>

#include "runtime/checkpoint/safetensors.hpp"

namespace lockstep {

inline at::Tensor read(const SafetensorsFile& file, const std::string& name) {
  const TensorEntry* entry = file.find(name);
  if (!entry) throw UserError(concat(file.path(), ": there is no '", name, "'"));
  at::Tensor tensor = at::empty(entry->sizes, entry->dtype);
  file.read(*entry, tensor);
  return tensor;
}

}  // namespace lockstep
