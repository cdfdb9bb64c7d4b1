// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/page.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "runtime/base/check.hpp"
#include "runtime/base/median.hpp"
#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {

extern const char* const kPageFrame;  // page_frame.cpp.in

namespace {

constexpr double kUnits = 1e6;  // a timeline is so many units wide, whatever it lasts

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

/// The first step of a run pays for warming up.
std::vector<double> without_first(std::vector<double> values) {
  if (values.size() > 1) values.erase(values.begin());
  return values;
}

double end_of(const Timeline& timeline) {
  double end_us = 0;
  for (const Span& span : timeline.spans) end_us = std::max(end_us, span.end_us);
  return end_us;
}

// ---- a timeline ----

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

/// The left column of a figure.
std::string row_names(int workers) {
  const int height = row_height(workers);
  std::string names;
  for (int worker = 0; worker < workers; ++worker)
    names += concat("<span style=\"height:", height, "px;line-height:", height, "px\">",
                    height >= 15 || worker % 4 == 0 ? concat(worker) : std::string(), "</span>");
  return names;
}

std::string figure(const std::string& kind, const std::string& caption, const std::string& marks, int workers,
                   const std::string& svg, double end_us) {
  return concat("<figure class=\"timeline\" data-kind=\"", kind, "\"><figcaption>", caption,
                "</figcaption><div class=\"frame\"><div class=\"corner\">worker</div><div class=\"marks\">", marks,
                "</div><div class=\"names\">", row_names(workers), "</div><div class=\"plot\">", svg,
                "<div class=\"labels\" aria-hidden=\"true\"></div><div class=\"cursor\"></div></div><div></div>",
                "<div class=\"axis\">", ticks(end_us), "</div></div></figure>\n");
}

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
  return figure("memory", "<b>Memory</b> " + caption, step_marks(all.measured, all, end_us), all.workers(),
                concat(svg_begin(all.workers(), caption), "<path class=\"M\" d=\"", d, "\"/></svg>"), end_us);
}

std::string timeline_section(const std::string& kind, const Timeline& timeline, const RunTimeline& all, double end_us) {
  const Shares shares = shares_of(timeline, all.steps);
  const std::string numbers = concat(time_text(shares.step_us), " per step, bubble ", percent_text(shares.bubble));
  return figure(kind, concat(kind == "measured" ? "<b>Measured</b> " : "<b>Simulated</b> ", numbers),
                step_marks(timeline, all, end_us), timeline.workers,
                drawing(timeline, end_us, concat(kind, ": ", numbers)), end_us);
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
  for (const Entry& entry : {Entry{"F", "F forward"}, Entry{"B", "B full backward"}, Entry{"I", "I input gradient"},
                             Entry{"W", "W weight gradient"}, Entry{"U", "optimizer update"},
                             Entry{"O", "other work (header, norm, ties)"}, Entry{"R", "waiting for a message"}})
    if (seen[entry.look]) result += concat("<li><i class=\"", entry.look, "\"></i>", entry.text, "</li>");
  return result;
}

// ---- what is known, as numbers ----

std::string fact(const std::string& name, const std::string& value, const std::string& note) {
  return concat("<div><dt>", name, "</dt><dd>", value, "</dd><dd class=\"note\">", escaped(note), "</dd></div>\n");
}

bool peaks_are_planned(const RunMetrics& metrics) {
  return std::none_of(metrics.peak_bytes.begin(), metrics.peak_bytes.end(), [](double bytes) { return bytes > 0; });
}

/// By worker: as measured, else as planned; empty: not known.
const std::vector<double>& peaks_of(const RunTimeline& all, const RunMetrics& metrics) {
  return peaks_are_planned(metrics) ? all.planned_bytes : metrics.peak_bytes;
}

/// 0: none.
double limit_of(const RunTimeline& all, std::size_t worker) {
  return worker < all.limit_bytes.size() ? all.limit_bytes[worker] : 0.0;
}

/// A long table is closed until somebody wants to see it.
std::string closed_if_long(std::size_t rows, const std::string& summary, const std::string& table) {
  constexpr std::size_t kMostOpen = 16;
  if (rows <= kMostOpen) return table;
  return concat("<details class=\"table\"><summary>", escaped(summary), "</summary>", table, "</details>");
}

std::string facts(const RunTimeline& all, const RunMetrics& metrics) {
  const Shares simulated = shares_of(all.simulated, all.steps);
  std::string result;
  if (all.ran()) {
    const Shares measured = shares_of(all.measured, all.steps);
    const double longer = measured.step_us / simulated.step_us - 1;
    result += fact("Step", time_text(measured.step_us),
                   concat("simulated ", time_text(simulated.step_us), ", measured is ", percent_text(std::abs(longer)),
                          longer < 0 ? " shorter" : " longer"));
    result += fact("Bubble", percent_text(measured.bubble), "simulated " + percent_text(simulated.bubble));
  } else {
    result += fact("Step", time_text(simulated.step_us), "simulated");
    result += fact("Bubble", percent_text(simulated.bubble), "idle share, simulated");
  }
  if (!metrics.step_ms.empty()) {
    const double step_ms = median(without_first(metrics.step_ms)), bubble = median(without_first(metrics.bubbles));
    result += fact("Whole run", time_text(step_ms * 1000),
                   concat("median step without the first of ", metrics.step_ms.size(), ", bubble ",
                          percent_text(std::isnan(bubble) ? 0 : bubble)));
  }
  if (const std::vector<double>& peaks = peaks_of(all, metrics); !peaks.empty()) {
    const auto fullest = std::max_element(peaks.begin(), peaks.end());
    const auto worker = static_cast<std::size_t>(fullest - peaks.begin());
    result += fact("Fullest worker", size_text(*fullest),
                   concat("worker ", worker, peaks_are_planned(metrics) ? ", planned" : ", peak tensor bytes",
                          limit_of(all, worker) > 0 ? ", limit " + size_text(limit_of(all, worker)) : ""));
  }
  if (!metrics.losses.empty())
    result += fact("Loss", fixed_text(metrics.losses.back().second, 4), concat("step ", metrics.losses.back().first));
  long sent = 0;
  for (const long messages : all.sent) sent += messages;
  result += fact("Messages", concat(sent), "values and gradients per step");
  return result;
}

std::string share_bar(const char* kind, const WorkerShare& share, double longest_us) {
  const auto part = [&](const char* look, double us) {
    return us > 0 ? concat("<i class=\"", look, "\" style=\"width:", fixed_text(100 * us / longest_us, 2), "%\"></i>")
                  : std::string();
  };
  return concat("<div class=\"share\"><span class=\"kind\">", kind, "</span><span class=\"bar\">",
                part("C", share.compute_us), part("U", share.other_us), part("R", share.wait_us),
                "</span><span class=\"numbers\">compute ", time_text(share.compute_us), " &middot; other ",
                time_text(share.other_us), " &middot; wait ", time_text(share.wait_us), " &middot; rest ",
                time_text(share.rest_us), "</span></div>");
}

/// What the worker's tensors took at most; behind it what the plan said and what the limit is.
std::string memory_cell(const RunTimeline& all, const RunMetrics& metrics, std::size_t worker, double most_bytes) {
  const auto of = [&](const std::vector<double>& list) { return worker < list.size() ? list[worker] : 0.0; };
  const double measured = of(metrics.peak_bytes), planned = of(all.planned_bytes), limit = of(all.limit_bytes);
  const double shown = measured > 0 ? measured : planned;
  std::string notes;
  if (measured > 0 && planned > 0) notes += concat("planned ", size_text(planned));
  if (limit > 0) notes += concat(notes.empty() ? "" : ", ", "limit ", size_text(limit));
  return concat("<td data-name=\"peak memory\" class=\"number\">", size_text(shown),
                "<span class=\"bar\"><i class=\"M\" style=\"width:", fixed_text(100 * shown / most_bytes, 1),
                "%\"></i></span>", notes.empty() ? "" : concat("<small>", notes, "</small>"), "</td>");
}

std::string workers_table(const RunTimeline& all, const RunMetrics& metrics) {
  const Shares measured = shares_of(all.measured, all.steps), simulated = shares_of(all.simulated, all.steps);
  const double longest_us = std::max({measured.step_us, simulated.step_us, 1e-9});
  double most_bytes = 0;
  for (const auto* list : {&metrics.peak_bytes, &all.planned_bytes, &all.limit_bytes})
    for (const double bytes : *list) most_bytes = std::max(most_bytes, bytes);
  std::string rows;
  for (std::size_t w = 0; w < static_cast<std::size_t>(all.workers()); ++w) {
    rows += concat("<tr><th scope=\"row\">worker ", w, "<small>",
                   all.ran() ? concat("rank ", all.rank_of_worker[w], ", ") : std::string(),
                   escaped(stages_of_worker(all, static_cast<int>(w))), "</small></th><td>");
    if (all.ran()) rows += share_bar("measured", measured.workers[w], longest_us);
    rows += share_bar("simulated", simulated.workers[w], longest_us);
    rows += concat("</td><td data-name=\"messages sent\" class=\"number\">", all.sent[w], "</td>");
    if (most_bytes > 0) rows += memory_cell(all, metrics, w, most_bytes);
    rows += "</tr>\n";
  }
  std::string summary = concat(all.workers(), " workers");
  if (const std::vector<double>& peaks = peaks_of(all, metrics); !peaks.empty()) {
    const auto [least, most] = std::minmax_element(peaks.begin(), peaks.end());
    summary += concat(", peak tensor bytes ", size_text(*least), " to ", size_text(*most));
  }
  return closed_if_long(
      static_cast<std::size_t>(all.workers()), summary,
      concat("<table><thead><tr><th scope=\"col\">Worker</th><th scope=\"col\">Time of a step</th>"
             "<th scope=\"col\" class=\"number\">Messages sent</th>",
             most_bytes > 0 ? concat("<th scope=\"col\" class=\"number\">",
                                     peaks_are_planned(metrics) ? "Planned peak" : "Peak", " tensor bytes</th>")
                            : std::string(),
             "</tr></thead><tbody>\n", rows, "</tbody></table>"));
}

std::string stage_bar(const char* kind, const StageCost& cost, bool trains, double longest_us) {
  // Costs of a timeline with full backwards have all of B as the input gradient.
  const char* backward = trains && cost.weight_grad_us <= 0 ? "B" : "I";
  std::string bar, numbers;
  for (const auto& [letter, us] :
       {std::pair("F", cost.forward_us), {backward, cost.input_grad_us}, {"W", cost.weight_grad_us}}) {
    if (us <= 0) continue;
    bar += concat("<i class=\"", letter, "\" style=\"width:", fixed_text(100 * us / longest_us, 2), "%\"></i>");
    numbers += concat(numbers.empty() ? "" : " &middot; ", letter, " ", time_text(us));
  }
  return concat("<div class=\"share\"><span class=\"kind\">", kind, "</span><span class=\"bar\">", bar,
                "</span><span class=\"numbers\">", numbers, " ms</span></div>");
}

/// What one micro-batch costs each stage.
std::string stages_table(const RunTimeline& all) {
  const Costs measured = costs_of(all.measured, all.program), simulated = costs_of(all.simulated, all.program);
  const auto sum = [](const StageCost& cost) { return cost.forward_us + cost.input_grad_us + cost.weight_grad_us; };
  double longest_us = 1e-9;
  for (const Costs* costs : {&measured, &simulated})
    for (const StageCost& cost : costs->stages) longest_us = std::max(longest_us, sum(cost));
  std::string rows;
  for (std::size_t s = 0; s < simulated.stages.size(); ++s) {
    const bool trains = all.program.topology.has_weight_grad[s];
    rows += concat("<tr><th scope=\"row\">stage ", s, "<small>worker ", all.program.row_of_stage[s].value(),
                   all.layers.empty() ? std::string() : ", " + escaped(all.layers[s]), "</small></th><td>");
    if (all.ran()) rows += stage_bar("measured", measured.stages[s], trains, longest_us);
    rows += stage_bar("simulated", simulated.stages[s], trains, longest_us) + "</td></tr>\n";
  }
  return closed_if_long(simulated.stages.size(), concat(simulated.stages.size(), " stages"),
                        concat("<table><thead><tr><th scope=\"col\">Stage</th><th scope=\"col\">Time of a "
                               "micro-batch</th></tr></thead><tbody>\n",
                               rows, "</tbody></table>"));
}

std::string loss_section(const RunMetrics& metrics) {
  std::vector<std::pair<std::int64_t, double>> losses = metrics.losses, evaluations = metrics.eval_losses;
  for (auto* list : {&losses, &evaluations})
    std::erase_if(*list, [](const auto& point) { return !std::isfinite(point.second); });
  if (losses.size() < 2) return "";
  double least = losses.front().second, most = least;
  for (const auto* list : {&losses, &evaluations})
    for (const auto& [step, loss] : *list) least = std::min(least, loss), most = std::max(most, loss);
  const auto first = static_cast<double>(losses.front().first), last = static_cast<double>(losses.back().first);
  const auto point = [&](const std::pair<std::int64_t, double>& at) {
    const double x = (static_cast<double>(at.first) - first) / (last - first);
    return concat(fixed_text(1000 * x, 1), " ",
                  fixed_text(most > least ? 150 * (most - at.second) / (most - least) : 75, 1));
  };
  const auto line = [&](const auto& list) {
    std::string d;
    for (std::size_t i = 0; i < list.size(); ++i) d += concat(i == 0 ? "M" : "L", point(list[i]));
    return d;
  };
  return concat("<section><h2>Loss</h2><div class=\"loss\"><span class=\"top\">", fixed_text(most, 3),
                "</span><span class=\"bottom\">", fixed_text(least, 3),
                "</span><svg role=\"img\" aria-label=\"loss from ", fixed_text(losses.front().second, 3), " to ",
                fixed_text(losses.back().second, 3),
                "\" viewBox=\"0 -4 1000 158\" preserveAspectRatio=\"none\"><path class=\"train\" d=\"", line(losses),
                "\"/>", evaluations.empty() ? "" : concat("<path class=\"eval\" d=\"", line(evaluations), "\"/>"),
                "</svg><span class=\"left\">step ", losses.front().first, "</span><span class=\"right\">step ",
                losses.back().first, "</span></div><ul class=\"legend\"><li><i class=\"train\"></i>training</li>",
                evaluations.empty() ? "" : "<li><i class=\"eval\"></i>evaluation (dashed)</li>", "</ul></section>");
}

std::string subtitle(const RunTimeline& all) {
  const int stages = all.program.topology.stages;
  std::string text =
      concat(all.program.name, ": ", all.workers(), all.workers() == 1 ? " worker, " : " workers, ", stages,
             stages == 1 ? " stage, " : " stages, ", all.program.micro_batches, " micro-batches");
  if (!all.ran()) return text + "; simulated, nothing was run";
  text += all.steps == 1 ? concat("; step ", all.first_step)
                         : concat("; steps ", all.first_step, " to ", all.first_step + all.steps - 1);
  if (all.cut) text += " (the recording reached its limit)";
  if (all.clock_error_us > 0)
    text += concat("; clocks of the ranks agree within ", fixed_text(all.clock_error_us, 0), " us");
  return text;
}

/// What stands in a script element must not end it.
std::string for_script(std::string json) {
  for (std::size_t at = json.find('<'); at != std::string::npos; at = json.find('<', at))
    json.replace(at, 1, "\\u003c");
  return json;
}

void fill(std::string& page, const std::string& name, const std::string& text) {
  const std::string place = concat("<!--", name, "-->");
  const std::size_t at = page.find(place);
  LOCKSTEP_CHECK(at != std::string::npos, "page.html has no ", place);
  page.replace(at, place.size(), text);
}

}  // namespace

RunMetrics metrics_from_lines(const std::string& text, const std::string& file) {
  using Json = nlohmann::json;
  RunMetrics metrics;
  const auto number = [](const Json& json, const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number() ? found->get<double>() : std::nan("");
  };
  std::size_t start = 0, count = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    const std::string line = text.substr(start, end - start);
    start = end + 1;
    ++count;
    try {
      const Json json = Json::parse(line);
      if (json.contains("eval")) {
        metrics.eval_losses.emplace_back(json.at("eval").at("step"), number(json.at("eval"), "eval_loss"));
      } else if (json.contains("step")) {
        metrics.losses.emplace_back(json.at("step"), number(json, "loss"));
        metrics.step_ms.push_back(number(json, "step_ms"));
        metrics.bubbles.push_back(number(json, "bubble"));
        const Json& workers = json.at("workers");
        metrics.peak_bytes.resize(workers.size());
        for (std::size_t w = 0; w < workers.size(); ++w)
          metrics.peak_bytes[w] = std::max(metrics.peak_bytes[w], number(workers[w], "peak_bytes"));
      }
    } catch (const Json::exception& error) {
      throw UserError(concat(file, ":", count, ": not a line that lockstep train wrote: ", one_line(reason_of(error))));
    }
  }
  return metrics;
}

std::string html_page(const RunTimeline& timeline, const RunMetrics& metrics) {
  const double end_us = std::max({end_of(timeline.measured), end_of(timeline.simulated), 1e-3});
  std::string timelines;
  if (timeline.ran()) timelines += timeline_section("measured", timeline.measured, timeline, end_us);
  timelines += timeline_section("simulated", timeline.simulated, timeline, end_us);
  timelines += memory_section(timeline, end_us);
  std::string page = kPageFrame;
  fill(page, "title", escaped(timeline.name));
  fill(page, "heading", escaped(timeline.name));
  fill(page, "subtitle", escaped(subtitle(timeline)));
  fill(page, "facts", facts(timeline, metrics));
  fill(page, "legend", legend(timeline));
  fill(page, "timelines", timelines);
  fill(page, "workers", workers_table(timeline, metrics));
  fill(page, "stages", stages_table(timeline));
  fill(page, "loss", loss_section(metrics));
  fill(page, "end", fixed_text(end_us, 3));
  fill(page, "data", for_script(to_json(timeline)));
  return page;
}

}  // namespace lockstep
