// SPDX-License-Identifier: Apache-2.0
//
// What the schedule tests share: golden files, small topologies, short ways to write actions and find instructions.
#pragma once

#include <string>
#include <vector>

#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/lower.hpp"
#include "runtime/schedule/schedule_error.hpp"
#include "tests/golden.hpp"
#include "tests/test.hpp"

namespace lockstep::test {

/// Compares with tests/golden/schedule/<name>.
inline void check_golden(const std::string& name, const std::string& text) {
  check_golden_file("tests/golden/schedule/" + name, text);
}

inline std::vector<Action> actions(const std::vector<std::string>& texts) {
  std::vector<Action> list;
  for (const std::string& text : texts) list.push_back(parse_action(text));
  return list;
}

inline Schedule schedule_of_rows(int stages, int micro_batches, const std::vector<std::vector<std::string>>& rows) {
  Schedule schedule{"test", stages, micro_batches, {}, {}};
  for (const auto& row : rows) schedule.rows.push_back(actions(row));
  return schedule;
}

/// A chain without targets, and one flow more.
inline Topology chain_with_skip(int stages, int from, int to, bool differentiable) {
  Topology topology = chain_topology(stages);
  topology.flows.clear();
  for (int s = 0; s + 1 < stages; ++s) {
    topology.flows.push_back({StageId(s), StageId(s + 1), true});
    if (s == from) topology.flows.push_back({StageId(from), StageId(to), differentiable});
  }
  return topology;
}

/// A skip from the first to the last stage, a parameter that both hold, and a frozen stage that only passes gradients
/// on.
inline Topology rich_topology(int stages) {
  Topology topology = stages > 2 ? chain_with_skip(stages, 0, stages - 1, true) : chain_topology(stages);
  topology.shared.push_back({{StageId(0), StageId(stages - 1)}});
  if (stages > 2) topology.has_weight_grad[1] = false;
  return topology;
}

/// Replicas of it, whose buckets have something to divide: three parameters, and ties with more than one block.
inline Topology with_replicas(Topology topology, const Replicas& replicas) {
  std::erase_if(topology.buckets, [&](const Bucket& bucket) { return !topology.has_weight_grad[index(bucket.stage)]; });
  for (Bucket& bucket : topology.buckets) {
    bucket.parameters = {0, 1, 2};
    bucket.blocks = Blocks({3 * kNormBlock + 5, kNormBlock + 1, 10});
  }
  for (std::size_t item = 0; item < topology.shared.size(); ++item)
    for (std::size_t holder = 0; holder < topology.shared[item].holders.size(); ++holder)
      topology.buckets.push_back({topology.shared[item].holders[holder],
                                  {3},
                                  Blocks({2 * kNormBlock}),
                                  static_cast<int>(item),
                                  static_cast<int>(holder)});
  topology.has_statistics.back() = true;
  return replicated(topology, replicas);
}

/// Whether the schedule's definition allows this shape.
inline bool is_legal(const ScheduleGenerator& generator, const ScheduleShape& shape) {
  if (!generator.virtual_stages.allows(shape.virtual_stages)) return false;
  return generator.name != "dualpipev" || shape.micro_batches >= 2 * shape.workers;
}

/// Every shape that the generator allows, of up to `most_workers` workers and 3 stages each.
inline std::vector<ScheduleShape> legal_shapes(const ScheduleGenerator& generator, int most_workers,
                                               const std::vector<int>& micro_batches) {
  std::vector<ScheduleShape> shapes;
  for (int workers = 1; workers <= most_workers; ++workers) {
    for (int virtual_stages = 1; virtual_stages <= 3; ++virtual_stages) {
      for (const int m : micro_batches) {
        const ScheduleShape shape{workers, virtual_stages, m};
        if (is_legal(generator, shape)) shapes.push_back(shape);
      }
    }
  }
  return shapes;
}

inline Program lowered(const std::string& generator, int workers, int micro_batches, LowerOptions options = {}) {
  return lower(make_schedule(generator, {workers, 1, micro_batches}), chain_topology(workers), options);
}

/// Position of the instruction that describe() calls `text`; fails the test when there is none.
inline int position_of(const Program& program, int row, const std::string& text) {
  const auto& instructions = program.rows.at(static_cast<std::size_t>(row));
  for (std::size_t i = 0; i < instructions.size(); ++i) {
    if (describe(program, instructions[i]) == text) return static_cast<int>(i);
  }
  FAIL("row " << row << " has no " << text);
  return -1;
}

inline std::string text_of(const std::vector<Finding>& findings) {
  std::ostringstream out;
  for (const Finding& f : findings) out << f.worker << '/' << f.position << ' ' << f.rule << ": " << f.message << '\n';
  return out.str();
}

/// What `call` throws, as text; fails the test when it throws nothing.
template <typename Exception, typename Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  FAIL("nothing was thrown");
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace lockstep::test
