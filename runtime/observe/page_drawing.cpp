// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/page_drawing.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <sstream>

#include "runtime/base/error.hpp"
#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      default: result += c;
    }
  }
  return result;
}

double end_of(const Timeline& timeline) {
  double end_us = 0;
  for (const Span& span : timeline.spans) end_us = std::max(end_us, span.end_us);
  return end_us;
}

namespace {

constexpr double kUnits = 1e6;  // a timeline is so many units wide, whatever it lasts

/// What a span looks like: the class of page.html, computes in two shades by micro-batch.
const std::array kLooks = {"F0", "F1", "B0", "B1", "I0", "I1", "W0", "W1", "U", "O", "R"};

std::string look_of(const Instruction& what) {
  if (what.kind == InstructionKind::compute) return concat(letter(what.action.op), what.action.micro_batch % 2);
  if (what.kind == InstructionKind::update) return "U";
  return is_work(what) ? "O" : "R";
}

int row_height(int workers) {
  return workers <= 8 ? 28 : workers <= 16 ? 22 : workers <= 32 ? 15 : 10;
}

/// Computes fill the row, other work most of it, waits are a line: told apart without colours, too.
std::string box(const Span& span, double end_us, int height) {
  const auto unit = [&](double us) { return std::lround(us / end_us * kUnits); };
  const long x = unit(span.start_us), width = std::max(1L, unit(span.end_us) - x);
  const bool wait = !is_work(span.what);
  const int inset = wait ? height / 2 - 1 : span.what.kind == InstructionKind::compute ? 1 : height / 6 + 1;
  const int tall = wait ? 2 : height - 2 * inset;
  return concat("M", x, " ", span.worker.value() * height + inset, "h", width, "v", tall, "h-", width, "z");
}

std::string svg_begin(int workers, const std::string& label) {
  const int height = workers * row_height(workers);
  return concat("<svg class=\"tl\" role=\"img\" aria-label=\"", escaped(label), "\" viewBox=\"0 0 ",
                static_cast<long>(kUnits), " ", height, "\" preserveAspectRatio=\"none\" style=\"height:", height,
                "px\">");
}

std::string drawing(const Timeline& timeline, double end_us, const std::string& label) {
  const int height = row_height(timeline.workers);
  std::map<std::string, std::string> paths;
  for (const Span& span : timeline.spans) paths[look_of(span.what)] += box(span, end_us, height);
  std::string svg = svg_begin(timeline.workers, label);
  std::string lines;
  for (int worker = 0; worker < timeline.workers; ++worker)
    lines += concat("M0 ", worker * height, "h", static_cast<long>(kUnits));
  svg += concat("<path class=\"row\" d=\"", lines, "\"/>");
  for (const char* look : kLooks)
    if (const auto found = paths.find(look); found != paths.end())
      svg += concat("<path class=\"", look, "\" d=\"", found->second, "\"/>");
  return svg + "</svg>";
}

/// Where the steps begin: the first span of worker 0.
std::string step_marks(const Timeline& timeline, const RunTimeline& all, double end_us) {
  std::string marks;
  int known = -1;
  for (const Span& span : timeline.spans) {
    if (span.worker.value() != 0 || span.step <= known) continue;
    known = span.step;
    const std::string name = all.ran()       ? concat("step ", all.first_step + span.step)
                             : all.steps > 1 ? concat("step ", span.step + 1)
                                             : std::string("one step");
    marks += concat("<span data-at=\"", fixed_text(span.start_us / end_us * kUnits, 0),
                    "\" style=\"left:", fixed_text(100 * span.start_us / end_us, 2), "%\">", name, "</span>");
  }
  return marks;
}

/// 1, 2 or 5 times a power of ten, three to six of them; with JavaScript as many as there is room for.
std::string ticks(double end_us) {
  const double rough = end_us / 3;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double step = rough / power >= 5 ? 5 * power : rough / power >= 2 ? 2 * power : power;
  std::string result;
  for (int i = 0; i * step <= end_us * 0.88; ++i) {
    std::ostringstream text;
    text << i * step / 1000;
    result += concat("<span style=\"left:", fixed_text(100 * i * step / end_us, 2), "%\">", text.str(), " ms</span>");
  }
  return result;
}

/// The left column of a figure: numbers of workers, and of replicas where these begin.
std::string row_names(const RunTimeline& all) {
  const int height = row_height(all.workers()), of_replica = all.workers_of_replica();
  const bool roomy = height >= 15, replicas = of_replica < all.workers() - all.servers();
  std::string names;
  for (int worker = 0; worker < all.workers(); ++worker) {
    const bool is_server = all.server_of(worker) >= 0;
    const std::string replica = replicas && roomy && worker % of_replica == 0 && !is_server
                                    ? concat("r", worker / of_replica, " ")
                                    : std::string();
    const std::string number = is_server ? concat("server ", all.server_of(worker)) : concat(worker);
    names += concat("<span style=\"height:", height, "px;line-height:", height, "px\">", replica,
                    roomy || worker % 4 == 0 ? number : std::string(), "</span>");
  }
  return names;
}

std::string figure(const std::string& kind, const std::string& caption, const std::string& marks,
                   const RunTimeline& all, const std::string& svg, double end_us) {
  return concat("<figure class=\"timeline\" data-kind=\"", kind, "\"><figcaption>", caption,
                "</figcaption><div class=\"frame\"><div class=\"corner\">worker</div><div class=\"marks\">", marks,
                "</div><div class=\"names\">", row_names(all), "</div><div class=\"plot\">", svg,
                "<div class=\"labels\" aria-hidden=\"true\"></div><div class=\"cursor\"></div></div><div></div>",
                "<div class=\"axis\">", ticks(end_us), "</div></div></figure>\n");
}

}  // namespace

/// A row per worker, filled as high as its tensors were then; a full row is the most that any worker had.
std::string memory_section(const RunTimeline& all, double end_us) {
  if (all.memory.empty()) return "";
  std::int64_t most = 1;
  for (const MemorySample& sample : all.memory) most = std::max(most, sample.bytes);
  const int height = row_height(all.workers());
  std::vector<std::string> areas(static_cast<std::size_t>(all.workers()));
  for (const MemorySample& sample : all.memory) {
    const auto worker = static_cast<std::size_t>(sample.worker.value());
    const int bottom = (sample.worker.value() + 1) * height;
    const double top = bottom - (height - 2) * static_cast<double>(sample.bytes) / static_cast<double>(most);
    const long x = std::clamp(std::lround(sample.at_us / end_us * kUnits), 0L, static_cast<long>(kUnits));
    if (areas[worker].empty()) areas[worker] = concat("M", x, " ", bottom);
    areas[worker] += concat("H", x, "V", fixed_text(top, 1));
  }
  std::string d;
  for (std::size_t worker = 0; worker < areas.size(); ++worker)
    if (!areas[worker].empty()) d += concat(areas[worker], "V", (worker + 1) * static_cast<std::size_t>(height), "z");
  const std::string caption =
      concat("tensor bytes after each compute; a full row is ", size_text(static_cast<double>(most)));
  return figure("memory", "<b>Memory</b> " + caption, step_marks(all.measured, all, end_us), all,
                concat(svg_begin(all.workers(), caption), "<path class=\"M\" d=\"", d, "\"/></svg>"), end_us);
}

std::string timeline_section(const std::string& kind, const Timeline& timeline, const RunTimeline& all, double end_us) {
  const Shares shares = shares_of(timeline, all.steps);
  const std::string numbers = concat(time_text(shares.step_us), " per step, bubble ", percent_text(shares.bubble));
  return figure(kind, concat(kind == "measured" ? "<b>Measured</b> " : "<b>Simulated</b> ", numbers),
                step_marks(timeline, all, end_us), all, drawing(timeline, end_us, concat(kind, ": ", numbers)), end_us);
}

std::string legend(const RunTimeline& all) {
  struct Entry {
    const char* look;
    const char* text;
  };
  std::map<std::string, bool> seen;
  for (const Timeline* timeline : {&all.measured, &all.simulated})
    for (const Span& span : timeline->spans) seen[look_of(span.what).substr(0, 1)] = true;
  std::string result;
  for (const Entry& entry :
       {Entry{"F", "F forward"}, Entry{"B", "B full backward"}, Entry{"I", "I input gradient"},
        Entry{"W", "W weight gradient"}, Entry{"U", "optimizer update"},
        Entry{"O", all.program.topology.replicas.count > 1 ? "other work (header, norm, sums of gradients)"
                                                           : "other work (header, norm, ties)"},
        Entry{"R", "waiting for a message"}})
    if (seen[entry.look]) result += concat("<li><i class=\"", entry.look, "\"></i>", entry.text, "</li>");
  return result;
}

}  // namespace lockstep
