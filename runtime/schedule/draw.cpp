// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <sstream>

#include "runtime/schedule/lower.hpp"
#include "runtime/schedule/schedule_error.hpp"
#include "runtime/schedule/schedule_text.hpp"
#include "runtime/schedule/simulation.hpp"

namespace lockstep {

namespace {

struct Cell {
  Action action;
  double start = 0, end = 0;
};
/// Cells of each worker, ascending.
using Grid = std::vector<std::vector<Cell>>;

bool one_stage_per_worker(const Grid& grid) {
  return std::all_of(grid.begin(), grid.end(), [](const std::vector<Cell>& row) {
    return std::all_of(row.begin(), row.end(),
                       [&](const Cell& cell) { return cell.action.stage == row.front().action.stage; });
  });
}

class Drawing {
 public:
  Drawing(const Grid& grid, const DrawOptions& options) : grid_(grid), options_(options) {
    const bool short_names = one_stage_per_worker(grid);
    double shortest = std::numeric_limits<double>::infinity();
    double longest = 0;
    std::size_t widest_text = 2;
    for (const std::vector<Cell>& row : grid) {
      std::vector<std::string>& names = texts_.emplace_back();
      for (const Cell& cell : row) {
        const std::string text = to_text(cell.action);
        names.push_back(short_names ? text.substr(text.find(letter(cell.action.op))) : text);
        widest_text = std::max(widest_text, names.back().size());
        if (cell.end > cell.start) shortest = std::min(shortest, cell.end - cell.start);
        longest = std::max(longest, cell.end - cell.start);
        end_ = std::max(end_, cell.end);
      }
    }
    constexpr double kWidest = 8;  // times the shortest: beyond, one long compute would push all others off the screen
    const double unit = std::max(shortest, longest / kWidest);
    columns_per_time_ = longest > 0 ? static_cast<double>(widest_text + 1) / unit : 0.0;
    label_width_ = concat("worker ", grid.size() - 1, " | ").size();
  }

  std::string run() {
    std::ostringstream out;
    const std::set<std::size_t> shown = shown_workers();
    std::size_t next = 0;
    for (const std::size_t worker : shown) {
      if (worker > next) out << "...\n";
      next = worker + 1;
      std::string label = concat("worker ", worker);
      label.resize(label_width_ - 3, ' ');
      line(out, label + " | " + row(worker));
      for (const Mark& mark : options_.marks) {
        if (index(mark.worker) == worker) line(out, marker(mark));
      }
    }
    if (next < grid_.size()) out << "...\n";
    if (shown.size() < grid_.size()) out << "(" << shown.size() << " of " << grid_.size() << " workers are shown)\n";
    if (cut_) out << "(cut at " << options_.width << " columns: " << percent_shown() << " % of the time is shown)\n";
    return out.str();
  }

 private:
  std::set<std::size_t> shown_workers() const {
    const std::size_t all = grid_.size();
    const std::size_t most = std::min(all, static_cast<std::size_t>(std::max(options_.most_workers, 1)));
    std::set<std::size_t> shown;
    for (std::size_t i = 0; i < most; ++i) shown.insert(i < most - most / 2 ? i : all - most + i);
    for (const Mark& mark : options_.marks)
      if (index(mark.worker) < all) shown.insert(index(mark.worker));
    return shown;
  }

  std::size_t column(double time) const { return static_cast<std::size_t>(std::lround(time * columns_per_time_)); }

  std::string row(std::size_t worker) const {
    std::string text;
    const auto room = static_cast<std::size_t>(std::max(options_.width, 1)) + 1;  // no need to draw what will be cut
    for (std::size_t i = 0; i < grid_[worker].size() && text.size() < room; ++i) {
      const Cell& cell = grid_[worker][i];
      const std::size_t start = std::min(column(cell.start), room);
      const std::size_t end = std::min(column(cell.end), room);
      if (start > text.size()) {
        text.append(start - text.size() - 1, '.');
        text += ' ';
      }
      if (end <= start) continue;
      std::string box = texts_[worker][i].substr(0, end - start);
      if (box.size() < end - start) box.append(end - start - box.size() - 1, '-').append(1, ' ');
      text += box;
    }
    return text;
  }

  std::string marker(const Mark& mark) const {
    const std::vector<Cell>& cells = grid_[index(mark.worker)];
    std::size_t at = 0;
    if (!cells.empty()) {
      const auto last = static_cast<int>(cells.size()) - 1;
      at = column(cells[static_cast<std::size_t>(std::clamp(mark.position, 0, last))].start);
    }
    const std::string arrow = std::string(label_width_ + at, ' ') + "^ " + mark.text;
    const auto width = static_cast<std::size_t>(std::max(options_.width, 1));
    return arrow.size() <= width ? arrow : std::string(label_width_, ' ') + "^ " + mark.text;
  }

  void line(std::ostream& out, std::string text) {
    while (!text.empty() && text.back() == ' ') text.pop_back();
    const auto width = static_cast<std::size_t>(std::max(options_.width, 1));
    if (text.size() > width) {
      text.resize(width - 1);
      text += '>';
      cut_ = true;
    }
    out << text << '\n';
  }

  long percent_shown() const {
    const double shown = std::max(0.0, static_cast<double>(options_.width) - static_cast<double>(label_width_) - 1);
    return std::lround(std::min(100.0, 100.0 * shown / (end_ * columns_per_time_)));
  }

  const Grid& grid_;
  const DrawOptions& options_;
  std::vector<std::vector<std::string>> texts_;
  double end_ = 0;
  double columns_per_time_ = 0;
  std::size_t label_width_ = 0;
  bool cut_ = false;
};

Grid in_order(const Schedule& schedule) {
  Grid grid;
  for (const std::vector<Action>& row : schedule.rows) {
    std::vector<Cell>& cells = grid.emplace_back();
    for (const Action& action : row)
      cells.push_back({action, static_cast<double>(cells.size()), static_cast<double>(cells.size() + 1)});
  }
  return grid;
}

}  // namespace

std::string draw(const Timeline& timeline, const DrawOptions& options) {
  Grid grid(static_cast<std::size_t>(timeline.workers));
  for (const Span& span : timeline.spans) {
    if (span.what.kind != InstructionKind::compute) continue;
    grid[index(span.worker)].push_back({span.what.action, span.start_us, span.end_us});
  }
  return Drawing(grid, options).run();
}

std::string draw(const Schedule& schedule, const DrawOptions& options) {
  try {
    const Program program = lower(schedule, chain_topology(schedule.stages), {});
    return draw(simulate(program, equal_costs(schedule.stages, 1, 1, 1)).timeline, options);
  } catch (const ScheduleError&) {
    return Drawing(in_order(schedule), options).run() + "(it cannot run: drawn in order, not in time)\n";
  }
}

std::string program_text(const Program& program) {
  std::ostringstream out;
  out << program.name << ": " << program.workers() << (program.workers() == 1 ? " row, " : " rows, ")
      << program.edges.size() << " edges\n";
  for (std::size_t row = 0; row < program.rows.size(); ++row) {
    out << "row " << row << '\n';
    for (const Instruction& instruction : program.rows[row]) out << "  " << describe(program, instruction) << '\n';
  }
  return out.str();
}

}  // namespace lockstep
