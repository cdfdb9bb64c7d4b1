// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/layer.hpp"

#include <c10/core/ScalarType.h>

namespace lockstep {

std::string to_string(const EntrySpec& entry) {
  return concat(entry.name, " ", c10::toString(entry.dtype), " [", join(entry.sizes), "]");
}

std::vector<std::string> Layer::onnx(OnnxGraph&, const std::vector<std::string>&) const {
  throw ModelError(concat("a ", type(), " layer has no ONNX form"));
}

std::string layer_text(const LayerSpec& spec) {
  const std::string type = spec.layer ? concat(" (", spec.layer->type(), ")") : "";
  return concat(prefix_of(spec.origin), "layer '", spec.name, "'", type);
}

}  // namespace lockstep
