// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/recorded_model.hpp"

#include "models/registry.hpp"
#include "runtime/session/plugins.hpp"

namespace lockstep {

Model recorded_model(const ModelRecord& record, const std::vector<std::string>& plugins) {
  if (!record.root.has("model"))
    throw UserError(concat(record.root.location().file,
                           ": has no `model`: it is one that a program has made; export it from that program "
                           "(export_onnx() of runtime/training/onnx_export.hpp)"));
  Registry registry;
  load_plugins(plugins.empty() ? record.plugins : plugins, record.root, registry);
  return make_model(record.root.section("model"), registry.models, registry);
}

}  // namespace lockstep
