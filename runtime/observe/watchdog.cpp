// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/watchdog.hpp"

#include <algorithm>
#include <sstream>

#include "runtime/base/text.hpp"

namespace lockstep {
namespace {

using std::chrono::milliseconds;

std::string seconds(milliseconds time) {
  return fixed_text(static_cast<double>(time.count()) / 1e3, 1) + " s";
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

/// Who waits for whom, from our peer on. A circle ends where it closes. Who waits for its own files has no peer.
std::vector<int> Watchdog::chain() const {
  if (board_.read(options_.row).activity != Activity::none) return {options_.row};
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
  for (const int row : rows)
    if (row != options_.row) text += concat(text.empty() ? "" : ", which waits for ", options_.who(row));
  if (text.empty()) return "its own save of a checkpoint";
  switch (board_.read(rows.back()).activity) {
    case Activity::none: return text;
    case Activity::restoring: return text + ", which reads its part of a checkpoint";
    case Activity::saving: return text + ", which saves a checkpoint";
    case Activity::idle: return text + ", which had nothing to do";
  }
  return text;
}

milliseconds Watchdog::overdue(milliseconds waited, const std::string&) {
  look(waited);
  if (fresh_) {
    fresh_ = warned_ = false;
    idled_ = milliseconds(0);
  }
  const milliseconds next = waited + scan_every(options_.limit);
  const std::vector<int> rows = chain();
  if (rows.empty()) return next;  // the wait has just ended, or nobody says what it is about
  milliseconds last{0};
  for (const int row : rows) last = std::max(last, seen_[static_cast<std::size_t>(row)].changed);
  const PulseBoard::Reading root = board_.read(rows.back());
  if (root.activity == Activity::idle && waited - last < options_.limit) {  // it is alive: nobody's fault
    idled_ = last;
    return next;
  }
  if (waited - idled_ < std::min(options_.limit, options_.save)) return next;
  if (waited - last >= allowed(root)) give_up(rows, waited, waited - last);
  if (!warned_ && root.beats > 0 && waited - idled_ >= options_.limit) {
    warned_ = true;
    options_.log.warn(
        concat("has waited ", seconds(waited), " for ", story(rows),
               root.activity == Activity::none
                   ? "; slow, but moving: waiting on (comm.watchdog_s only ends waits for who stands still)"
                   : "; waiting on (comm.save_s and comm.startup_s only end waits for files that stand still)"));
  }
  return next;
}

milliseconds Watchdog::allowed(const PulseBoard::Reading& root) const {
  if (root.activity == Activity::saving) return options_.save;
  const bool loads = root.beats == 0 || root.activity == Activity::restoring;
  return loads ? std::max(options_.startup, options_.limit) : options_.limit;
}

void Watchdog::give_up(const std::vector<int>& rows, milliseconds waited, milliseconds quiet) const {
  const PulseBoard::Reading root = board_.read(rows.back());
  std::string text = concat("waited ", seconds(waited), " for ", story(rows));
  if (root.beats == 0)
    throw WaitTimeout(concat(text, ", which still starts (loads its part of the model); the limit is comm.startup_s: ",
                             options_.startup.count() / 1000, "; raise it if loading takes that long"));
  if (root.activity == Activity::saving || root.activity == Activity::restoring) {
    const bool saves = root.activity == Activity::saving;
    throw WaitTimeout(concat(text, ": for ", seconds(quiet),
                             saves ? " no byte was written and no file synced" : " no byte was read",
                             "; the limit is comm.", saves ? "save_s: " : "startup_s: ", allowed(root).count() / 1000,
                             "; look at the disk or file system of the run folder, or raise it"));
  }
  text += concat(", which has made no progress for ", seconds(quiet));
  if (root.layer >= 0) text += concat(", in layer '", options_.layer(root.layer), "'");
  throw WaitTimeout(concat(text, ": it is dead, stopped or stuck; the limit is comm.watchdog_s: ",
                           options_.limit.count() / 1000, "; raise it if one layer can take that long"));
}

}  // namespace lockstep
