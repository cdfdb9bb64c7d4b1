// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/program_shape.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "runtime/base/check.hpp"

namespace lockstep::test {

// ---- edges, and the messages around a compute ----

std::vector<Edge> expected_edges(const Topology& topology, const Wiring& wiring) {
  const auto& [row_of_stage, rows, lanes, memories] = wiring;
  const int replicas = topology.replicas.count, of_replica = rows / replicas;
  std::vector<Edge> edges;
  const auto add = [&edges](EdgeKind kind, int from, int to) -> Edge& {
    Edge edge;
    edge.kind = kind;
    edge.from = WorkerId(from);
    edge.to = WorkerId(to);
    return edges.emplace_back(edge);
  };
  const auto add_lanes = [&](EdgeKind kind, std::size_t flow, StageId from, StageId to) {
    const int from_row = row_of_stage[index(from)].value();
    const int to_row = row_of_stage[index(to)].value();
    for (int lane = 0; from_row != to_row && lane < lanes[flow]; ++lane) {
      Edge& edge = add(kind, from_row, to_row);
      edge.from_stage = from;
      edge.to_stage = to;
      edge.lane = lane;
      edge.item = static_cast<int>(flow);
    }
  };
  for (int row = 0; row < rows; ++row) {
    if (row % of_replica + 1 < of_replica) add(EdgeKind::header, row, row + 1);
    for (int other = 1; row == 0 && other < replicas; ++other) add(EdgeKind::header, 0, other * of_replica);
  }
  for (std::size_t i = 0; i < topology.flows.size(); ++i) {
    add_lanes(EdgeKind::value, i, topology.flows[i].from, topology.flows[i].to);
  }
  for (std::size_t i = 0; i < topology.flows.size(); ++i) {
    const Flow& flow = topology.flows[i];
    if (sends_gradient_back(topology, flow)) add_lanes(EdgeKind::gradient, i, flow.to, flow.from);
  }
  // The same stage of any two replicas; `wants` says whether there is an edge.
  const auto add_pairs = [&](EdgeKind kind, int item, StageId stage, const auto& wants) {
    for (int from = 0; from < replicas; ++from)
      for (int to = 0; to < replicas; ++to)
        if (from != to && wants(from, to))
          add(kind, row_of_stage[index(stage) + static_cast<std::size_t>(from * (topology.stages / replicas))].value(),
              row_of_stage[index(stage) + static_cast<std::size_t>(to * (topology.stages / replicas))].value())
              .item = item;
  };
  const auto any = [](int, int) { return true; };
  for (int stage = 0; stage < topology.stages / replicas; ++stage)
    if (replicas > 1 && topology.has_statistics[static_cast<std::size_t>(stage)])
      add_pairs(EdgeKind::statistics, stage, StageId(stage), any);
  const auto buckets = static_cast<int>(topology.buckets.size());
  const auto bucket = [&](int item) -> const Bucket& { return topology.buckets[static_cast<std::size_t>(item)]; };
  for (int item = 0; item < buckets; ++item) add_pairs(EdgeKind::reduce, item, bucket(item).stage, any);
  for (std::size_t item = 0; item < topology.shared.size(); ++item) {
    const std::vector<WorkerId> holders = rows_holding(topology.shared[item], wiring);
    for (const WorkerId from : holders) {
      for (const WorkerId to : holders) {
        if (from != to) add(EdgeKind::shared, from.value(), to.value()).item = static_cast<int>(item);
      }
    }
  }
  // Which replica, of those that share its memory.
  const auto memory_of = [&, &lists = memories](int item, int replica) {
    const auto stage = index(bucket(item).stage) + static_cast<std::size_t>(replica * (topology.stages / replicas));
    const int row = row_of_stage[stage].value();
    return lists.empty() ? row : lists[static_cast<std::size_t>(row)];
  };
  const auto in_memory = [&](int item, int of) {
    std::vector<int> members;
    for (int other = 0; other < replicas; ++other)
      if (memory_of(item, other) == memory_of(item, of)) members.push_back(other);
    return members;
  };
  const auto place_in_memory = [&](int item, int of) {
    const std::vector<int> members = in_memory(item, of);
    return static_cast<int>(std::find(members.begin(), members.end(), of) - members.begin());
  };
  const bool shards = topology.replicas.shard_optimizer;
  const auto add_gathers = [&] {
    for (int item = 0; item < buckets; ++item) {
      const auto shares = [&](int parts) {
        return bucket(item).blocks.divided(parts, topology.replicas.whole_parameters);
      };
      std::vector<int> by_memory;  // the order in which weights are sent: memory by memory
      for (int replica = 0; replica < replicas; ++replica)
        for (const int member : in_memory(item, replica))
          if (in_memory(item, replica).front() == replica) by_memory.push_back(member);
      const auto row = [&](int replica) {
        return row_of_stage[index(bucket(item).stage) +
                            static_cast<std::size_t>(replica * (topology.stages / replicas))]
            .value();
      };
      if (shards) {
        for (const int from : by_memory)
          for (const int to : by_memory) {
            const auto members = static_cast<int>(in_memory(item, to).size());
            if (memory_of(item, from) != memory_of(item, to) &&
                place_in_memory(item, from) % members == place_in_memory(item, to))
              add(EdgeKind::gather, row(from), row(to)).item = item;
          }
        continue;
      }
      const bool alone = in_memory(item, 0).size() == static_cast<std::size_t>(replicas);
      add_pairs(EdgeKind::gather, item, bucket(item).stage, [&](int from, int to) {
        const TermRange sums = shares(replicas)[static_cast<std::size_t>(from)];
        const TermRange wanted =
            shares(static_cast<int>(in_memory(item, to).size()))[static_cast<std::size_t>(place_in_memory(item, to))];
        return !alone && std::max(sums.begin, wanted.begin) < std::min(sums.end, wanted.end);
      });
    }
  };
  if (!shards) add_gathers();
  for (int row = 1; row < rows; ++row) add(EdgeKind::norm, row, 0);
  for (int row = 1; row < rows; ++row) add(EdgeKind::scale, 0, row);
  if (shards) add_gathers();
  for (int item = 0; item < buckets; ++item)
    for (int first = 0; first < replicas; ++first)
      if (in_memory(item, first).front() == first)
        add_pairs(EdgeKind::ready, item, bucket(item).stage, [&](int from, int to) {
          return memory_of(item, from) == memory_of(item, first) && memory_of(item, to) == memory_of(item, first);
        });
  for (int row = 1; row < rows; ++row) add(EdgeKind::result, row, 0);
  return edges;
}

namespace {

using Key = std::tuple<EdgeKind, StageId, StageId>;

/// The first edge and the number of lanes of every flow and direction.
std::map<Key, std::pair<EdgeId, int>> channels(const std::vector<Edge>& edges) {
  std::map<Key, std::pair<EdgeId, int>> found;
  for (std::size_t i = 0; i < edges.size(); ++i) {
    const Edge& edge = edges[i];
    if (edge.kind != EdgeKind::value && edge.kind != EdgeKind::gradient) continue;
    auto& [first, count] = found[{edge.kind, edge.from_stage, edge.to_stage}];
    if (count++ == 0) first = EdgeId(static_cast<int>(i));
  }
  return found;
}

}  // namespace

Messages::Messages(const Topology& topology, const std::vector<Edge>& edges,
                   const std::vector<WorkerId>& row_of_stage) {
  const auto stages = static_cast<std::size_t>(topology.stages);
  for (Table* table : {&inputs_, &outputs_}) table->fill(std::vector<std::vector<Channel>>(stages));
  const StageGraph graph = stage_graph(topology);
  const auto by_flow = channels(edges);
  for (int s = 0; s < topology.stages; ++s) {
    const StageId reader(s);
    for (const Op op : {Op::forward, Op::input_grad}) {
      const std::size_t direction = op == Op::forward ? 0 : 1;
      const EdgeKind kind = op == Op::forward ? EdgeKind::value : EdgeKind::gradient;
      for (const Action& required : required_before({reader, op, 0}, graph)) {
        if (row_of_stage[index(required.stage)] == row_of_stage[index(reader)]) continue;
        const auto found = by_flow.find({kind, required.stage, reader});
        LOCKSTEP_CHECK(found != by_flow.end(), "no ", to_string(kind), " edge ", required.stage, "->", reader);
        const Channel channel{found->second.first, found->second.second, required};
        inputs_[direction][index(reader)].push_back(channel);
        outputs_[direction][index(required.stage)].push_back(channel);
      }
    }
  }
  const auto by_edge = [](const Channel& a, const Channel& b) { return a.first < b.first; };
  for (Table* table : {&inputs_, &outputs_}) {
    for (auto& direction : *table) {
      for (auto& list : direction) std::sort(list.begin(), list.end(), by_edge);
    }
  }
}

std::vector<EdgeMessage> Messages::messages(const Table& table, const Action& action) {
  std::vector<EdgeMessage> found;
  if (action.op == Op::weight_grad) return found;
  const std::vector<Channel>& list = table[action.op == Op::forward ? 0 : 1][index(action.stage)];
  found.reserve(list.size());
  for (const Channel& channel : list) {
    found.push_back({EdgeId(channel.first.value() + action.micro_batch % channel.lanes),
                     {channel.action.stage, channel.action.op, action.micro_batch}});
  }
  return found;
}

// ---- the shape of a row ----

namespace {

enum Part {
  kHeader,
  kResultOut,
  kBody,
  kStatistics,
  kReductions,
  kTies,
  kSums,
  kNorm,
  kUpdate,
  kWeights,
  kReady,
  kResultIn,
  kWaitSends
};

class RowShape {
 public:
  RowShape(const Program& program, const Messages& messages, const std::vector<Instruction>& row) : program_(program) {
    for (const Instruction& instruction : row) {
      if (instruction.kind != InstructionKind::compute) continue;
      const int number = static_cast<int>(ordinal_.size());
      if (!ordinal_.emplace(instruction.action, number).second) continue;
      for (const EdgeMessage& message : messages.inputs(instruction.action)) reader_of_.emplace(message, number);
      for (const EdgeMessage& message : messages.outputs(instruction.action)) maker_of_.emplace(message, number);
    }
  }

  Spot place_of(const Instruction& instruction) const {
    switch (instruction.kind) {
      case InstructionKind::make_header: return {kHeader, 0, 0};
      case InstructionKind::compute: return {kBody, ordinal_.at(instruction.action), 3};
      case InstructionKind::reduce: return {kReductions, instruction.item, 1};
      case InstructionKind::shared_sum: return {kTies, instruction.item, 3};
      case InstructionKind::norm_parts: return {kNorm, 1, 0};
      case InstructionKind::norm_total: return {kNorm, 4, 0};
      case InstructionKind::update: return program_.post_validation ? Spot{kNorm, 2, 1} : Spot{kUpdate, 0, 0};
      case InstructionKind::amend: return {kUpdate, 0, 0};
      case InstructionKind::wait_sends: return {kWaitSends, 0, 0};
      case InstructionKind::post: return message_place(instruction, 0);
      case InstructionKind::receive: return message_place(instruction, 1);
      case InstructionKind::send: return message_place(instruction, 2);
    }
    LOCKSTEP_CHECK(false, "instruction kind ", static_cast<int>(instruction.kind));
    return {};
  }

 private:
  /// `step`: 0 post, 1 receive, 2 send.
  Spot message_place(const Instruction& instruction, int step) const {
    constexpr std::array<int, 3> kOutFirst = {1, 2, 0};    // send, post, receive
    constexpr std::array<int, 3> kTieSteps = {0, 2, 1};    // post, send, receive, shared_sum
    constexpr std::array<int, 3> kNormItems = {0, 3, 2};   // post, norm_parts, send, receive, norm_total
    constexpr std::array<int, 3> kScaleItems = {6, 7, 5};  // norm_total, send; or post, receive
    const auto at = static_cast<std::size_t>(step);
    const Edge& edge = program_.edges[index(instruction.edge)];
    switch (edge.kind) {
      case EdgeKind::header: return {kHeader, 1 + step, 0};
      case EdgeKind::result:
        if (step == 1) return {kResultIn, 0, 0};
        return step == 0 || ordinal_.empty() ? Spot{kResultOut, 0, 0} : Spot{kBody, 0, 5};  // behind the first compute
      case EdgeKind::statistics: return {kStatistics, edge.item, kOutFirst[at]};
      case EdgeKind::reduce:
        if (step == 1) return {kReductions, edge.item, 0};
        return {kBody, last_sum_of(program_.topology.buckets[static_cast<std::size_t>(edge.item)]),
                6 + 2 * edge.item + (step == 0 ? 1 : 0)};
      case EdgeKind::gather:
        return {program_.topology.replicas.shard_optimizer ? kWeights : kSums, edge.item, kOutFirst[at]};
      case EdgeKind::ready: return {kReady, edge.item, kOutFirst[at]};
      case EdgeKind::shared: return {kTies, edge.item, kTieSteps[at]};
      case EdgeKind::norm: return {kNorm, kNormItems[at], 0};
      case EdgeKind::scale: return {kNorm, kScaleItems[at], 0};
      case EdgeKind::request:
      case EdgeKind::reply:
      case EdgeKind::value:
      case EdgeKind::gradient: break;
    }
    const EdgeMessage message{instruction.edge, instruction.action};
    if (step == 2) return {kBody, number_in(maker_of_, message), 4};
    const int reader = number_in(reader_of_, message);
    if (step == 1) return {kBody, reader, 1};
    return reader == 0 ? Spot{kBody, 0, 0} : Spot{kBody, reader - 1, 2};  // one compute ahead
  }

  /// The number of the compute behind which a bucket's gradients are there; behind all if there is none.
  int last_sum_of(const Bucket& bucket) const {
    const int of_replica = program_.topology.stages / program_.topology.replicas.count;
    int last = -1;
    for (const auto& [action, number] : ordinal_)
      if (action.stage.value() % of_replica == bucket.stage.value() && action.op != Op::forward &&
          action.op != Op::input_grad)
        last = std::max(last, number);
    return last >= 0 ? last : std::max(static_cast<int>(ordinal_.size()) - 1, 0);
  }

  /// 0 for a message that no compute of the row reads or makes: another rule reports it.
  static int number_in(const std::map<EdgeMessage, int>& numbers, const EdgeMessage& message) {
    const auto found = numbers.find(message);
    return found == numbers.end() ? 0 : found->second;
  }

  const Program& program_;
  std::map<Action, int> ordinal_;
  std::map<EdgeMessage, int> reader_of_, maker_of_;
};

}  // namespace

std::vector<Spot> places_of_row(const Program& program, const Messages& messages, const std::vector<Instruction>& row) {
  const RowShape shape(program, messages, row);
  std::vector<Spot> places;
  places.reserve(row.size());
  for (const Instruction& instruction : row) places.push_back(shape.place_of(instruction));
  return places;
}

std::vector<std::size_t> out_of_order(const std::vector<Spot>& places) {
  // Longest non-descending subsequence. ends[n]: where the one of length n + 1 with the lowest last place stops.
  std::vector<std::size_t> ends;
  std::vector<std::optional<std::size_t>> before(places.size());
  const auto lower = [&places](const Spot& place, std::size_t end) { return place < places[end]; };
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto at = std::upper_bound(ends.begin(), ends.end(), places[i], lower);
    if (at != ends.begin()) before[i] = *(at - 1);
    if (at == ends.end()) {
      ends.push_back(i);
    } else {
      *at = i;
    }
  }
  std::vector<bool> stays(places.size(), false);
  std::optional<std::size_t> at = ends.empty() ? std::nullopt : std::optional(ends.back());
  for (; at; at = before[*at]) stays[*at] = true;
  std::vector<std::size_t> moved;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (!stays[i]) moved.push_back(i);
  }
  return moved;
}

std::optional<std::size_t> belongs_behind(const std::vector<Spot>& places, std::size_t position) {
  std::optional<std::size_t> target;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (i != position && places[i] <= places[position] && (!target || places[i] >= places[*target])) target = i;
  }
  return target;
}

std::vector<Finding> mismatches(const Program& program) {
  std::vector<Finding> findings;
  using Sequence = std::vector<std::pair<Action, int>>;  // with positions
  std::map<InstructionKind, std::vector<Sequence>> sequences;
  for (const auto kind : {InstructionKind::post, InstructionKind::receive, InstructionKind::send}) {
    sequences[kind].resize(program.edges.size());
  }
  for (const std::vector<Instruction>& row : program.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (!is_message(row[i].kind)) continue;
      sequences[row[i].kind][index(row[i].edge)].emplace_back(row[i].action, static_cast<int>(i));
    }
  }
  for (std::size_t e = 0; e < program.edges.size(); ++e) {
    const Sequence& sent = sequences[InstructionKind::send][e];
    for (const auto kind : {InstructionKind::post, InstructionKind::receive}) {
      const Sequence& taken = sequences[kind][e];
      std::size_t i = 0;
      while (i < std::min(sent.size(), taken.size()) && sent[i].first == taken[i].first) ++i;
      if (i == sent.size() && i == taken.size()) continue;
      const WorkerId row = program.edges[e].to;
      const EdgeMessage by_sender{EdgeId(static_cast<int>(e)), i < sent.size() ? sent[i].first : Action{}};
      const EdgeMessage by_taker{by_sender.edge, i < taken.size() ? taken[i].first : Action{}};
      findings.push_back(
          {row, i < taken.size() ? taken[i].second : -1, "match",
           concat("message ", i, " of its edge: row ", program.edges[e].from, " has ",
                  i < sent.size() ? describe(program, on_edge(InstructionKind::send, by_sender)) : "no more sends",
                  ", row ", row, " has ",
                  i < taken.size() ? describe(program, on_edge(kind, by_taker))
                                   : concat("no more ", to_string(kind), "s"))});
    }
  }
  return findings;
}

}  // namespace lockstep::test
