// SPDX-License-Identifier: Apache-2.0
//
// A run's result as bits: a 64-bit hash per parameter and of every loss, beside what the bits depend on.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/session/process.hpp"

namespace lockstep {

/// Hashes of all ranks, by parameter name. Tied copies must agree (else InternalError). Collective.
std::map<std::string, std::uint64_t> gather_fingerprint(Process& process, const ModelGraph& graph,
                                                        const JobOutcome& outcome);

/// JSON: {"environment": {...}, "steps": n, "loss": last, "losses": hash over all, "parameters": {name: hash}}. The
/// first four stand in `state`.
std::string fingerprint_json(const TrainerState& state, const std::map<std::string, std::uint64_t>& parameters);

}  // namespace lockstep
