// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>

#include "runtime/engine/layer_contract.hpp"
#include "runtime/observe/waiting.hpp"

namespace lockstep {

/// What goes wrong in `work` gets the place in front.
template <typename Work, typename Where>
void say_where(const Work& work, const Where& where) {
  try {
    work();
  } catch (const JobStopped&) {
    throw;
  } catch (Error& error) {
    error.add_place(where());
    throw;
  } catch (const std::exception& error) {
    throw Error(concat(where(), ": ", short_message(error)));
  }
}

}  // namespace lockstep
