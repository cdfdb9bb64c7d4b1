// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/generators.hpp"

#include "runtime/base/table.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {
namespace {

const Table<ScheduleGenerator>& generator_table() {
  constexpr VirtualStages one{1, 1};
  constexpr VirtualStages two{2, 2};
  constexpr VirtualStages several{2, VirtualStages::kAnyNumber};
  static const Table<ScheduleGenerator> table(
      "schedule",
      {
          {"gpipe", "all forwards, then all backwards; keeps every micro-batch alive", one, gpipe},
          {"1f1b", "one forward, one backward; keeps at most workers - stage micro-batches alive", one, one_f_one_b},
          {"interleaved_1f1b", "1f1b over several stages a worker; its bubble divided by their number", several,
           interleaved_1f1b},
          {"looped_bfs", "gpipe over several stages a worker, stage by stage; its bubble divided by their number",
           several, looped_bfs},
          {"zb_h1", "1f1b with W put off into the bubble: a third of it, at the memory of 1f1b", one, zb_h1},
          {"interleaved_zb", "interleaved_1f1b with W put off into the bubble", several, interleaved_zb},
          {"zbv", "zero bubble: two stages a worker in a V; none when steps follow one another", two, zbv},
          {"dualpipev", "two stages a worker in a V, forwards paired with backwards; micro-batches >= 2 x workers", two,
           dualpipev},
      });
  return table;
}

}  // namespace

const std::vector<ScheduleGenerator>& schedule_generators() {
  return generator_table().entries();
}

std::vector<std::string> schedule_names() {
  return generator_table().names();
}

const ScheduleGenerator* find_generator(const std::string& name) {
  return generator_table().find(name);
}

std::string no_such_schedule(const std::string& name, const std::vector<std::string>& beside) {
  Table<ScheduleGenerator> all = generator_table();
  for (const std::string& other : beside) all.add({other, "", {}, {}});
  return all.missing(name);
}

std::string VirtualStages::text() const {
  if (most == kAnyNumber) return concat(">= ", least);
  return least == most ? concat(least) : concat(least, " to ", most);
}

Schedule make_schedule(const std::string& name, const ScheduleShape& shape) {
  if (shape.workers < 1 || shape.virtual_stages < 1 || shape.micro_batches < 1) {
    throw ScheduleError(concat("schedule ", name, ": got ", shape.workers, " workers, ", shape.virtual_stages,
                               " stages per worker and ", shape.micro_batches,
                               " micro-batches; each must be at least 1"));
  }
  const ScheduleGenerator* generator = find_generator(name);
  if (generator == nullptr) throw ScheduleError(no_such_schedule(name));
  const VirtualStages& allowed = generator->virtual_stages;
  if (!allowed.allows(shape.virtual_stages)) {
    const int nearest = allowed.nearest(shape.virtual_stages);
    ScheduleShape legal = shape;
    legal.virtual_stages = nearest;
    std::string then;
    try {
      generator->make(legal);
    } catch (const ScheduleError& error) {
      then = concat("; then: ", error.what());
    }
    throw ScheduleError(concat("schedule ", name, " has ", allowed.text(), nearest == 1 ? " stage" : " stages",
                               " per worker, got virtual_stages = ", shape.virtual_stages,
                               "; the nearest legal: virtual_stages = ", nearest, ", which is ",
                               shape.workers * nearest, " stages on ", shape.workers, " workers", then));
  }
  return generator->make(shape);
}

Schedule first_micro_batches(const Schedule& schedule, int micro_batches) {
  if (micro_batches < 1 || micro_batches > schedule.micro_batches) {
    throw ScheduleError(concat("schedule ", schedule.name, " has ", schedule.micro_batches,
                               " micro-batches, got a batch of ", micro_batches, "; legal: 1 to ",
                               schedule.micro_batches));
  }
  Schedule shorter{schedule.name, schedule.stages, micro_batches, {}, {}};
  const auto stays = [micro_batches](const Action& action) { return action.micro_batch < micro_batches; };
  for (const std::vector<Action>& row : schedule.rows) {
    std::copy_if(row.begin(), row.end(), std::back_inserter(shorter.rows.emplace_back()), stays);
  }
  for (const auto& [first, second] : schedule.overlapped) {
    if (stays(first) && stays(second)) shorter.overlapped.emplace_back(first, second);
  }
  return shorter;
}

Schedule replicated(const Schedule& one, const Replicas& replicas, int micro_batches) {
  Schedule all{one.name, one.stages * replicas.count, micro_batches, {}, {}};
  for (int replica = 0; replica < replicas.count; ++replica) {
    const TermRange run = replicas.micro_batches_of(replica, micro_batches);
    if (run.begin == run.end) {
      all.rows.resize(all.rows.size() + one.rows.size());
      continue;
    }
    const auto here = [&](Action action) {
      action.stage = StageId(action.stage.value() + replica * one.stages);
      action.micro_batch += run.begin;
      return action;
    };
    Schedule part = first_micro_batches(one, run.end - run.begin);
    for (std::vector<Action>& row : part.rows) {
      std::transform(row.begin(), row.end(), row.begin(), here);
      all.rows.push_back(std::move(row));
    }
    for (const auto& [first, second] : part.overlapped) all.overlapped.emplace_back(here(first), here(second));
  }
  return all;
}

StageId loop_stage(const ScheduleShape& shape, int worker, int number) {
  return StageId(number * shape.workers + worker);
}

StageId v_stage(const ScheduleShape& shape, int worker, int number) {
  return StageId(number == 0 ? worker : 2 * shape.workers - 1 - worker);
}

}  // namespace lockstep
