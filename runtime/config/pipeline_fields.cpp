// SPDX-License-Identifier: Apache-2.0
//
// Pipeline: the keys with several forms.
#include <algorithm>
#include <numeric>
#include <string_view>

#include "runtime/config/fields.hpp"

namespace lockstep {
namespace {

constexpr std::string_view kFile = "file:";
constexpr int kMostStages = 4096;  // a slip of the finger must not become gigabytes

std::vector<std::string> read_cuts(const Section& section) {
  std::vector<std::string> cuts = section.list<std::string>("cut_before", {}, not_empty());
  for (auto cut = cuts.begin(); cut != cuts.end(); ++cut) {
    if (std::find(cuts.begin(), cut, *cut) == cut) continue;
    throw section.unexpected("cut_before", "each layer once", concat("; '", *cut, "' is there twice"));
  }
  return cuts;
}

PartitionConfig read_partition(const Section& pipeline, const std::string& key) {
  PartitionConfig partition;
  const auto by = [&](const Section& section, const char* name) { value(partition.by).read(section, name); };
  if (pipeline.is_sequence(key)) {
    list(partition.counts, at_least(1), "the number of layers of each stage").read(pipeline, key);
  } else if (pipeline.is_scalar(key)) {
    by(pipeline, "partition");
  } else if (pipeline.is_mapping(key)) {
    const Section section = pipeline.section(key);
    if (section.has("by") && section.has("cut_before"))
      throw section.unexpected("cut_before", "either by or cut_before", "; remove one of them");
    if (section.has("by")) by(section, "by");
    partition.cut_before = read_cuts(section);
    section.finish();
  } else {
    throw pipeline.unexpected(key,
                              "auto, layers, params, time, memory, block, a list of layers per stage, or {cut_before: "
                              "[layer names]}");
  }
  return partition;
}

yaml::Value partition_value(const PartitionConfig& partition) {
  if (!partition.counts.empty()) return list_value(partition.counts);
  if (!partition.cut_before.empty()) return mapping_value("cut_before", list_value(partition.cut_before));
  return mapping_value("by", scalar_value(name_of(partition.by)));
}

/// Fills in the number of stages, where only the partition says it.
void check_partition(const Section& section, PipelineConfig& pipeline) {
  const auto counts = pipeline.partition.counts.size(), cuts = pipeline.partition.cut_before.size();
  const int stages = static_cast<int>(counts > 0 ? counts : cuts > 0 ? cuts + 1 : 0);  // 0: it leaves that open
  if (pipeline.stages == 0) pipeline.stages = std::max(stages, 1);
  if (stages != 0 && pipeline.stages != stages)
    throw section.error("partition", concat("got ", stages, stages == 1 ? " stage" : " stages", ", expected ",
                                            pipeline.stages, " as pipeline.stages says; change one of the two"));
  const int number = std::max(pipeline.virtual_stages, 1);
  if (pipeline.stages % number == 0) return;
  const int fewer = pipeline.stages / number * number;
  throw section.error("stages",
                      concat("got ", pipeline.stages, ", expected a multiple of pipeline.virtual_stages, ", "which is ",
                             number, ": ", fewer > 0 ? concat(fewer, " or ") : std::string(), fewer + number));
}

/// A name, file:PATH, "file: PATH" or {file: PATH}.
std::string read_schedule(const Section& section, const std::string& key) {
  if (section.is_mapping(key)) {
    const Section from = section.section(key);
    const std::string path = from.get("file", not_empty());
    from.finish();
    return concat(kFile, path);
  }
  std::string text = section.get(key, not_empty());
  if (!text.starts_with(kFile)) return text;
  text.erase(0, std::min(text.find_first_not_of(' ', kFile.size()), text.size()));
  if (text.empty()) throw section.unexpected(key, "file:PATH, such as file:my.csv");
  return concat(kFile, text);
}

void check_schedule(const Section& section, PipelineConfig& pipeline) {
  if (pipeline.schedule_file().empty()) return;
  if (section.has("virtual_stages"))
    throw section.unexpected("virtual_stages", "no virtual_stages with a schedule from a file",
                             concat("; ", pipeline.schedule_file(), " says which stages a worker has: remove it"));
  pipeline.virtual_stages = 0;
}

Field recompute(PipelineConfig& pipeline) {
  return {"",
          [&pipeline](const Section& section, const std::string& key) {
            if (!section.is_sequence(key)) return value(pipeline.recompute).read(section, key);
            pipeline.recompute = Recompute::always;
            list(pipeline.recompute_layers, not_empty(), "at least one pattern of layer names").read(section, key);
          },
          [&pipeline] {
            const bool some = pipeline.recompute == Recompute::always && !pipeline.recompute_layers.empty();
            return some ? list_value(pipeline.recompute_layers) : scalar_value(name_of(pipeline.recompute));
          }};
}

/// Of a number that a program has set and nobody has looked at yet, no more than there can be.
std::vector<int> in_order(int workers) {
  std::vector<int> rows(static_cast<std::size_t>(std::clamp(workers, 0, kMostStages)));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

Field placement(PipelineConfig& pipeline) {
  Field field;
  field.read = [&pipeline](const Section& section, const std::string& key) {
    // Of a schedule file it is checked with the file.
    pipeline.placement =
        pipeline.workers() == 0 ? section.list<int>(key, at_least(0)) : section.get<std::vector<int>>(key);
  };
  field.write = [&pipeline] {
    return list_value(pipeline.placement.empty() ? in_order(pipeline.workers()) : pipeline.placement);
  };
  field.check = [&pipeline](const Section& section) {
    const int workers = pipeline.workers();
    if (pipeline.placement.empty()) pipeline.placement = in_order(workers);
    std::vector<int> sorted = pipeline.placement;
    std::sort(sorted.begin(), sorted.end());
    if (workers == 0 || sorted == in_order(workers)) return;
    const std::string numbers = workers == 1 ? "[0]" : concat("each of 0 to ", workers - 1, " once");
    throw section.unexpected("placement", concat(numbers, ": a worker for each of the ", workers, " rows"));
  };
  field.shown = "[]";
  return field;
}

/// A number for every stage, or a list.
Field cost(std::vector<double>& numbers, const char* example) {
  return Field{"",
               [&numbers](const Section& section, const std::string& key) {
                 if (section.is_scalar(key))
                   numbers = {section.get(key, at_least(0.0))};
                 else
                   list(numbers, at_least(0.0), "a number, or one per stage or per layer").read(section, key);
               },
               [&numbers] {
                 if (numbers.empty()) return yaml::Value();
                 return numbers.size() == 1 ? scalar_value(text_of(numbers[0])) : list_value(numbers);
               }}
      .with_example(example);
}

}  // namespace

std::string PipelineConfig::schedule_file() const {
  return schedule.starts_with(kFile) ? schedule.substr(kFile.size()) : "";
}

bool PartitionConfig::needs_profile() const {
  return counts.empty() && cut_before.empty() && by != CutBy::layers && by != CutBy::params;
}

void fields(FieldVisitor& visit, CostsConfig& costs) {
  visit("forward_ms", cost(costs.forward_ms, "[10, 12, 9, 11]"), kFree, "F of one micro-batch");
  visit("input_grad_ms", cost(costs.input_grad_ms, "10"), kFree, "I; left out: as F");
  visit("weight_grad_ms", cost(costs.weight_grad_ms, "10"), kFree, "W; left out: as F. B takes I + W");
  visit("activation_bytes", cost(costs.activation_bytes, "1.0e+6"), kFree,
        "kept of one micro-batch from F to I or B (as `recompute` leaves it); left out: 1");
  visit("weight_grad_bytes", cost(costs.weight_grad_bytes, "0"), kFree, "kept of one micro-batch from I to W");
  visit("message_bytes", value(costs.message_bytes, at_least(0.0)).with_example("65536"), kFree,
        "of a value or gradient between two stages");
  visit("latency_us", value(costs.latency_us, at_least(0.0)).with_example("10"), kFree, "of any message");
  visit("gigabytes_per_s", value(costs.gigabytes_per_s, at_least(0.0)).with_example("10"), kFree,
        "of any link; 0: no limit");
}

void fields(FieldVisitor& visit, PipelineConfig& pipeline) {
  visit("stages",
        value(pipeline.stages, between(1, kMostStages)).or_else([&pipeline] { pipeline.stages = 0; }).with_example("1"),
        kFree, "Pieces of the model. Default: what `partition` says, else 1.");
  Field virtual_stages = value(pipeline.virtual_stages, between(1, kMostStages));
  if (!pipeline.schedule_file().empty()) virtual_stages.write = [] { return yaml::Value(); };
  visit("virtual_stages", virtual_stages, kFree,
        "Stages per worker, so there are stages / virtual_stages workers: 1 for most schedules, 2 or more for "
        "interleaved ones, 2 for those that place the stages in a V. Which stages a worker has is the schedule's "
        "business.");
  Field schedule = {
      "",
      [&pipeline](const Section& section, const std::string& key) { pipeline.schedule = read_schedule(section, key); },
      [&pipeline] { return scalar_value(pipeline.schedule); }};
  visit("schedule", schedule.checked([&pipeline](const Section& section) { check_schedule(section, pipeline); }), kFree,
        "The order of work. One of\n"
        "  gpipe, 1f1b, zbv, ...            `lockstep list schedules` has them all\n"
        "  auto                             the best by simulation of all that fit, and of some made for the costs:\n"
        "                                   those below, or else measured in a few steps that are thrown away\n"
        "  file:my.csv                      a file as torch.distributed.pipelining writes it, computes only (also\n"
        "                                   {file: my.csv}); it says which stages a worker has, so leave out\n"
        "                                   virtual_stages. See docs/numerics.md");
  Field partition = {"",
                     [&pipeline](const Section& section, const std::string& key) {
                       pipeline.partition = read_partition(section, key);
                     },
                     [&pipeline] { return partition_value(pipeline.partition); }};
  visit(
      "partition",
      partition.checked([&pipeline](const Section& section) { check_partition(section, pipeline); })
          .with_example("{by: params}"),
      kFree,
      "Where to cut. One of\n"
      "  {by: params}                     about the same number of parameters per stage (short: params)\n"
      "  {by: layers}                     about the same number of layers per stage (short: layers)\n"
      "  [3, 3, 2]                        layers per stage, each >= 1; one number per stage\n"
      "  {cut_before: [h.2, h.4]}         the first layer of each stage but the first\n"
      "or, by what the layers cost, which is then measured at the start (and kept in a cache); see docs/planning.md:\n"
      "  auto                             the fastest for the schedule, recompute and placement given here, that\n"
      "                                   workers.memory_limit allows\n"
      "  {by: time}                       the slowest stage as fast as possible\n"
      "  {by: memory}                     the stage with the most bytes as small as possible\n"
      "  {by: block}                      stages of about the same time, as torchgpipe cuts\n"
      "`lockstep plan` chooses the rest too.");
  visit("recompute", recompute(pipeline), kFree,
        "Which layers keep nothing but their inputs and are run again in the backward pass: never | except_last (not "
        "where the backward follows straight upon its forward) | always | a list of layer names with shell wildcards, "
        "such as [h.*]. Changes memory and time, no bit.");
  visit(
      "recompute_attention", value(pipeline.recompute_attention), kFree,
      "Attention with dropout computes its weights, rows x heads x length x length, again in the backward pass instead "
      "of keeping them; without dropout nothing of the kind is kept. Changes memory and time, no bit.");
  visit("in_flight_limit", value(pipeline.in_flight_limit, at_least<std::int64_t>(0)), kFree,
        "Most bytes of activations that schedule: auto may keep alive per worker; 0: no limit.");
  Field costs = mapping(pipeline.costs);
  costs.given = &pipeline.costs.given;
  visit("costs", costs, kFree,
        "Costs written by hand, for --dry-run and schedule: auto. A number counts for every stage; a list has one per "
        "stage or one per layer. Left out: all stages take the same time. Numbers >= 0.");
  visit("placement", placement(pipeline), kFree,
        "placement[i] is the worker that runs row i of the schedule: each of 0 .. workers-1 once. Default, also []: in "
        "order.");
}

}  // namespace lockstep
