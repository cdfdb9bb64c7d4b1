// SPDX-License-Identifier: Apache-2.0
//
// Schedules as text: the CSV file that people edit and exchange, the grid that they look at, a program's listing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/schedule/timeline.hpp"

namespace lockstep {

/// CSV as torch.distributed.pipelining writes and reads its compute-only files: a row per worker, a cell per action
/// ("0F0"). Idle (empty) cells and "0REDUCE_GRAD" are accepted and dropped. "(0F3;3B1)OVERLAP_F_B" is read as 0F3 then
/// 3B1 and kept as a pair, so that it is written as it was read. The numbers of stages and micro-batches are the
/// largest ones in the file plus 1; whether the schedule makes sense is for validate() to say. Throws UserError
/// "file:line:cell: ..." (cells count from 1).
Schedule parse_csv(std::string_view text, const std::string& name);
Schedule read_csv(const std::string& path);
std::string to_csv(const Schedule& schedule);
/// write_whole_file().
void write_csv(const Schedule& schedule, const std::string& path);

/// A note under one action of the grid.
struct Mark {
  WorkerId worker;
  int position = 0;  ///< counts the actions of the row from 0
  std::string text;
};

struct DrawOptions {
  int width = 120;        ///< columns of the terminal; what does not fit is cut, and a last line says so
  int most_workers = 24;  ///< of more, those in the middle without a mark are left out, and a last line says so
  std::vector<Mark> marks;
};

/// One row per worker, time from left to right, computes only:
///
///   worker 0 | F0 F1 .. .. B0--- .. B1---
///   worker 1 | .. F0 B0--- F1 B1---
///
/// Dots are idle. The stage is written when any worker has several ("0F1"). The shortest computes are as wide as their
/// text, but never more than 4 times drawn wider than the longest ones allow: below that, texts are cut.
std::string draw(const Timeline& timeline, const DrawOptions& options = {});
/// The same with F, I and W of length 1 and B of length 2 and free messages. A schedule that cannot run is drawn in
/// order instead of in time, and says so.
std::string draw(const Schedule& schedule, const DrawOptions& options = {});

/// A program in full: every row, an instruction per line, as describe() names it.
std::string program_text(const Program& program);

}  // namespace lockstep
