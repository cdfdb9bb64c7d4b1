// SPDX-License-Identifier: Apache-2.0
//
// What every worker did, when: simulated or measured, the same type, so that drawing, comparing and reporting work on
// both. Idleness is what lies between the spans; it is never stored.
#pragma once

#include <string>
#include <vector>

#include "runtime/schedule/program.hpp"

namespace lockstep {

/// One instruction of one worker. A compute, an update or a sum lasts as long as its work; a receive, a send or
/// wait_sends lasts as long as it waited. Instructions that took no time may be left out.
struct Span {
  WorkerId worker;
  Instruction what;
  int step = 0;         ///< which program of the sequence, from 0
  double start_us = 0;  ///< since the start of the first step (simulated) or of the recording (measured)
  double end_us = 0;
};

/// Whether the worker did work in this span, or only waited.
inline bool is_work(const Instruction& instruction) {
  return !is_message(instruction.kind) && instruction.kind != InstructionKind::wait_sends;
}

struct Timeline {
  std::string name;  ///< of the program
  int workers = 0;
  std::vector<Span> spans;  ///< of one worker: ascending and without overlap; between workers: any order
};

}  // namespace lockstep
