// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/watchdog.hpp"

#include <algorithm>
#include <iomanip>
#include <sstream>

namespace lockstep {
namespace {

using std::chrono::milliseconds;

std::string seconds(milliseconds time) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << static_cast<double>(time.count()) / 1e3 << " s";
  return out.str();
}

}  // namespace

Watchdog::Watchdog(PulseBoard& board, WatchdogOptions options)
    : board_(board), options_(std::move(options)), seen_(static_cast<std::size_t>(board.rows())) {}

milliseconds Watchdog::scan_every(milliseconds limit) {
  return std::clamp(limit / 16, milliseconds(5), milliseconds(1000));
}

void Watchdog::look(milliseconds waited) {
  for (int row = 0; row < board_.rows(); ++row) {
    Seen& seen = seen_[static_cast<std::size_t>(row)];
    const std::uint64_t beats = board_.read(row).beats;
    if (fresh_)
      seen = {beats, milliseconds(0)};
    else if (beats != seen.beats)
      seen = {beats, waited};
  }
}

/// Who waits for whom, from our peer on. A circle ends where it closes.
std::vector<int> Watchdog::chain() const {
  std::vector<int> rows;
  int row = board_.read(options_.row).waits_for;
  while (row >= 0 && row < board_.rows() && row != options_.row &&
         std::find(rows.begin(), rows.end(), row) == rows.end()) {
    rows.push_back(row);
    row = board_.read(row).waits_for;
  }
  return rows;
}

std::string Watchdog::story(const std::vector<int>& rows) const {
  std::string text;
  for (const int row : rows) text += concat(text.empty() ? "" : ", which waits for ", options_.who(row));
  return text;
}

milliseconds Watchdog::overdue(milliseconds waited, const std::string&) {
  look(waited);
  if (fresh_) fresh_ = warned_ = false;
  const milliseconds next = waited + scan_every(options_.limit);
  if (waited < options_.limit) return next;
  const std::vector<int> rows = chain();
  if (rows.empty()) return next;  // the wait has just ended, or nobody says what it is about
  milliseconds last{0};
  for (const int row : rows) last = std::max(last, seen_[static_cast<std::size_t>(row)].changed);
  const bool loads = board_.read(rows.back()).beats == 0;
  const milliseconds allowed = loads ? std::max(options_.startup, options_.limit) : options_.limit;
  if (waited - last >= allowed) give_up(rows, waited, waited - last);
  if (!warned_ && !loads) {
    warned_ = true;
    options_.log.warn(concat("has waited ", seconds(waited), " for ", story(rows),
                             "; slow, but moving: waiting on (comm.watchdog_s only ends waits for who stands still)"));
  }
  return next;
}

void Watchdog::give_up(const std::vector<int>& rows, milliseconds waited, milliseconds quiet) const {
  const PulseBoard::Reading root = board_.read(rows.back());
  std::string text = concat("waited ", seconds(waited), " for ", story(rows));
  if (root.beats == 0)
    throw WaitTimeout(concat(text, ", which still starts (loads its part of the model); the limit is comm.startup_s: ",
                             options_.startup.count() / 1000, "; raise it if loading takes that long"));
  text += concat(", which has made no progress for ", seconds(quiet));
  if (root.layer >= 0) text += concat(", in layer '", options_.layer(root.layer), "'");
  throw WaitTimeout(concat(text, ": it is dead, stopped or stuck; the limit is comm.watchdog_s: ",
                           options_.limit.count() / 1000, "; raise it if one layer can take that long"));
}

}  // namespace lockstep
