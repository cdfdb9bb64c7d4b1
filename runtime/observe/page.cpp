// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/page.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/base/check.hpp"
#include "runtime/base/median.hpp"
#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/observe/page_drawing.hpp"

namespace lockstep {

extern const char* const kPageFrame;  // page_frame.cpp.in

namespace {

/// The first step of a run pays for warming up.
std::vector<double> without_first(std::vector<double> values) {
  if (values.size() > 1) values.erase(values.begin());
  return values;
}

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
    const bool simulates = all.servers() == 0;
    result += fact("Step", time_text(measured.step_us),
                   simulates ? concat("simulated ", time_text(simulated.step_us), ", measured is ",
                                      percent_text(std::abs(longer)), longer < 0 ? " shorter" : " longer")
                             : std::string("of those that are drawn"));
    result += fact("Bubble", percent_text(measured.bubble),
                   simulates ? "simulated " + percent_text(simulated.bubble) : "idle share, of servers too");
  } else {
    result += fact("Step", time_text(simulated.step_us), "simulated");
    result += fact("Bubble", percent_text(simulated.bubble), "idle share, simulated");
  }
  const double step_ms = median(without_first(metrics.step_ms)), bubble = median(without_first(metrics.bubbles));
  if (!std::isnan(step_ms)) {
    result += fact("Whole run", time_text(step_ms * 1000),
                   concat("median step without the first of ", metrics.step_ms.size(),
                          all.servers() > 0 ? "" : ", bubble " + percent_text(std::isnan(bubble) ? 0 : bubble)));
  }
  if (const double tflop = median(without_first(metrics.tflop_per_s)); !std::isnan(tflop)) {
    const double share = median(without_first(metrics.product_shares));
    result += fact("Operations", work_text({.operations = tflop * 1e12, .us = 1e6}),
                   std::isnan(share) ? "median step" : percent_text(share) + " of what matrix products reach there");
  }
  if (const double data_ms = median(without_first(metrics.data_ms)); step_ms > 0 && !std::isnan(data_ms))
    result +=
        fact("Waited for data", percent_text(data_ms / step_ms), "of the median step, the worker that waited most");
  if (const std::vector<double>& peaks = peaks_of(all, metrics); !peaks.empty()) {
    const auto fullest = std::max_element(peaks.begin(), peaks.end());
    const auto worker = static_cast<std::size_t>(fullest - peaks.begin());
    result += fact("Fullest worker", size_text(*fullest),
                   concat(name_of_row(all, static_cast<int>(worker)),
                          peaks_are_planned(metrics) ? ", planned" : ", peak tensor bytes",
                          limit_of(all, worker) > 0 ? ", limit " + size_text(limit_of(all, worker)) : ""));
  }
  if (!metrics.staleness.empty())
    result += fact("Staleness", fixed_text(mean_of_counts(metrics.staleness), 2),
                   concat("updates of others in the mean, ", metrics.staleness.size() - 1, " at most"));
  if (!metrics.losses.empty())
    result += fact("Loss", fixed_text(metrics.losses.back().second, 4), concat("step ", metrics.losses.back().first));
  long sent = 0;
  for (const long messages : all.sent) sent += messages;
  if (all.servers() == 0) result += fact("Messages", concat(sent), "values and gradients per step");
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
    rows +=
        concat("<tr><th scope=\"row\">", name_of_row(all, static_cast<int>(w)), "<small>",
               all.ran() || !all.device_of_worker.empty() ? escaped(place_of_worker(all, static_cast<int>(w))) + ", "
                                                          : std::string(),
               escaped(stages_of_worker(all, static_cast<int>(w))), "</small></th><td>");
    if (all.ran()) rows += share_bar("measured", measured.workers[w], longest_us);
    if (all.servers() == 0) {
      rows += share_bar("simulated", simulated.workers[w], longest_us);
      rows += concat("</td><td data-name=\"messages sent\" class=\"number\">", all.sent[w]);
    }
    rows += "</td>";
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
      concat("<table><thead><tr><th scope=\"col\">Worker</th><th scope=\"col\">Time of a step</th>",
             all.servers() == 0 ? "<th scope=\"col\" class=\"number\">Messages sent</th>" : "",
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
                "</span><span class=\"numbers\">", numbers, "</span></div>");
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
    rows += concat("<tr><th scope=\"row\">stage ", s, "<small>worker ", all.program.wiring.row_of_stage[s].value(),
                   all.layers.empty() ? std::string() : ", " + escaped(all.layers[s]), "</small></th><td>");
    if (all.ran()) rows += stage_bar("measured", measured.stages[s], trains, longest_us);
    if (all.servers() == 0) rows += stage_bar("simulated", simulated.stages[s], trains, longest_us);
    rows += "</td></tr>\n";
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

using Points = std::vector<std::pair<double, double>>;

/// A small picture of lines in the square of `least` to `most`, with what stands at its ends.
std::string curve(const std::string& title, const Points& points, const char* x, double least, double most) {
  double left = points.front().first, right = left;
  for (const auto& [at, value] : points) left = std::min(left, at), right = std::max(right, at);
  std::string d;
  for (const auto& [at, value] : points)
    d += concat(d.empty() ? "M" : "L", fixed_text(right > left ? 300 * (at - left) / (right - left) : 150, 1), " ",
                fixed_text(most > least ? 120 * (most - value) / (most - least) : 60, 1));
  if (points.size() == 1) d += "h1";
  return concat("<figure class=\"metric\"><figcaption>", escaped(title),
                "</figcaption><div class=\"loss\"><span class=\"top\">", fixed_text(most, 3),
                "</span><span class=\"bottom\">", fixed_text(least, 3), "</span><svg role=\"img\" aria-label=\"",
                escaped(title), "\" viewBox=\"0 -4 300 128\" preserveAspectRatio=\"none\"><path class=\"train\" d=\"",
                d, "\"/></svg><span class=\"left\">", x, " ", fixed_text(left, left == std::floor(left) ? 0 : 2),
                "</span><span class=\"right\">", fixed_text(right, right == std::floor(right) ? 0 : 2),
                "</span></div></figure>");
}

/// Of an evaluation: rows are targets, columns what was said; the darker, the larger the share of the row.
std::string matrix(const std::string& title, const std::vector<double>& counts) {
  const auto classes = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(counts.size()))));
  constexpr std::size_t most = 40;
  if (classes == 0 || classes > most) return "";
  std::string rows = "<tr><th></th>";
  for (std::size_t column = 0; column < classes; ++column) rows += concat("<th scope=\"col\">", column, "</th>");
  rows += "</tr>\n";
  for (std::size_t row = 0; row < classes; ++row) {
    double all = 0;
    for (std::size_t column = 0; column < classes; ++column) all += counts[row * classes + column];
    rows += concat("<tr><th scope=\"row\">", row, "</th>");
    for (std::size_t column = 0; column < classes; ++column) {
      const double count = counts[row * classes + column], share = all > 0 ? count / all : 0;
      rows += concat("<td style=\"--share:", fixed_text(100 * share, 0), "%\"", share > 0.5 ? " class=\"dark\"" : "",
                     ">", fixed_text(count, 0), "</td>");
    }
    rows += "</tr>\n";
  }
  return concat("<figure class=\"metric\"><figcaption>", escaped(title),
                " (rows: targets, columns: predictions)</figcaption><div class=\"matrix\"><table>", rows,
                "</table></div></figure>");
}

/// What evaluations measured beside the loss.
std::string metrics_section(const RunMetrics& metrics) {
  std::string figures;
  for (const auto& [name, values] : metrics.metrics) {
    if (name.ends_with("confusion_matrix")) continue;  // the accuracy
    Points points;
    for (const auto& [step, value] : values)
      if (std::isfinite(value)) points.emplace_back(static_cast<double>(step), value);
    if (points.empty()) continue;
    const auto [least, most] = std::minmax_element(points.begin(), points.end(),
                                                   [](const auto& a, const auto& b) { return a.second < b.second; });
    figures +=
        curve(concat(name, " ", fixed_text(points.back().second, 4)), points, "step", least->second, most->second);
  }
  for (const auto& [name, numbers] : metrics.pictures) {
    if (name.ends_with("confusion_matrix")) {
      figures += matrix(name, numbers);
      continue;
    }
    Points points;
    for (std::size_t i = 0; i + 1 < numbers.size(); i += 2) points.emplace_back(numbers[i], numbers[i + 1]);
    if (points.empty()) continue;
    const bool roc = name.ends_with("roc_auc");
    figures +=
        curve(roc ? "ROC: hits by false alarms" : "precision by recall", points, roc ? "false alarms" : "recall", 0, 1);
  }
  return figures.empty() ? ""
                         : concat("<section><h2>Evaluation</h2><div class=\"metrics\">", figures, "</div></section>");
}

std::string subtitle(const RunTimeline& all) {
  const int count = all.program.topology.replicas.count, stages = all.program.topology.stages / count;
  const std::string replicas = count == 1 ? "" : concat(count, " replicas of ");
  std::string text = concat(all.program.name, ": ", replicas, all.workers_of_replica(),
                            all.workers_of_replica() == 1 ? " worker, " : " workers, ",
                            all.servers() == 0 ? "" : concat(all.servers(), " servers, "), stages,
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

std::string html_page(const RunTimeline& timeline, const RunMetrics& metrics) {
  const double end_us = std::max({end_of(timeline.measured), end_of(timeline.simulated), 1e-3});
  std::string timelines;
  if (timeline.ran()) timelines += timeline_section("measured", timeline.measured, timeline, end_us);
  if (timeline.servers() == 0) timelines += timeline_section("simulated", timeline.simulated, timeline, end_us);
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
  fill(page, "loss", loss_section(metrics) + metrics_section(metrics));
  fill(page, "end", fixed_text(end_us, 3));
  fill(page, "data", for_script(to_json(timeline)));
  return page;
}

}  // namespace lockstep
