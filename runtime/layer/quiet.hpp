// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

namespace lockstep {

/// While alive, LibTorch's warnings on this thread go nowhere: for calls that warn of what we are there for.
class Quiet {
 public:
  Quiet() : guard_(&nobody_) {}
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  struct Nobody : c10::WarningHandler {
    void process(const c10::Warning&) override {}
  };
  Nobody nobody_;
  c10::WarningUtils::WarningHandlerGuard guard_;
};

}  // namespace lockstep
