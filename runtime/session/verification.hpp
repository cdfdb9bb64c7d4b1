// SPDX-License-Identifier: Apache-2.0
//
// Whether a job trains the same bits as one worker would.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

struct Verdict {
  bool identical = false;
  std::string text;        ///< one line: what was compared, and the first tensor that differs
  std::string not_finite;  ///< the first step that was not, though the same on both sides; empty: all were
};

/// Trains `steps` steps as configured and on one worker, and compares every bit. Collective; the same on every rank.
/// Throws AlreadyReported for what is found before it starts.
Verdict verify(Process& process, const ConfigSource& source, std::int64_t steps);

}  // namespace lockstep
