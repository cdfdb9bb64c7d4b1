// SPDX-License-Identifier: Apache-2.0
//
// Families and kinds of layers may be anybody's, from plug-ins: whatever they throw is the user's mistake, with its
// place in the config. Private to this folder.
#pragma once

#include <c10/util/Exception.h>

#include <string>

#include "runtime/config/section.hpp"
#include "runtime/layer/layer.hpp"

namespace lockstep {

/// `make()`. What does not fit together in it (ModelError) is a ConfigError of the section; what is no Error, one of
/// its key `type`. `what`: "the family wave failed to make a model".
template <typename Make>
auto made_by(const std::string& what, const Section& section, const Make& make) {
  try {
    return make();
  } catch (const ModelError& error) {
    throw ConfigError(section.location(), section.path(), error.what());
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {
    throw section.error("type", concat(what, ": ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw section.error("type", concat(what, ": ", error.what()));
  }
}

}  // namespace lockstep
