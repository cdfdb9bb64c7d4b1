// SPDX-License-Identifier: Apache-2.0
//
// The exchanges of a program: one table of everything that rows send each other and of the work they have in common.
// Edges, the rows of the program (lower.hpp), their proof and their simulation are made by walking it.
//
//   kind      from        to        phases, each with its place
//   header    row r       row r+1   begin: make_header (row 0), post, receive, send
//             row 0       first row of each further replica         the same
//   value     a flow's two ends     maker: send                     ahead: post     reader: receive
//   gradient  the same, backwards   maker: send                     ahead: post     reader: receive
//   statistics all replicas of a stage                gradients: send, post, receive
//   reduce    all replicas of a bucket's stage        last_weight_grad: send, post    gradients: receive, reduce
//   shared    all that hold it      gradients: post, send, receive, shared_sum
//   gather    who has sums, who updates               gradients: send, post, receive
//   norm      rows 1 ..   row 0     norm: post, norm_parts, send    total: receive, norm_total
//   scale     row 0       rows 1..  total: send, post, receive      update: update
//   gather    who updates, who has copies             update: send, post, receive     (with shard_optimizer)
//   ready     rows of one memory    update: send, post, receive
//   result    rows 1 ..   row 0     begin: post                     first_compute: send   end: receive
//
// A result is that of the PREVIOUS program: no drain, and a device has the next compute to do while its last numbers
// are fetched. That is training with clipping. Without clipping norm and scale
// have no messages: what is left is norm_parts, which travel with the result, and update. With post_validation update
// stands at `norm`, behind the send and in front of the wait, and amend at `update`. Without replicas there are no
// statistics, gather and ready, and reduce only where there are several groups of micro-batches. evaluate has header,
// value and result, flush header and result, stop the header alone. Exchanges between stages of one row have no
// messages, but their work is done all the same. Every row ends with wait_sends.
//
// With servers (Topology::servers) there are these alone, and no phases: nobody there runs a program, workers compute
// what a row of it computes.
//
//   request   workers   servers
//   reply     servers   workers
//
// A further exchange is a further line: see docs/architecture.md, which also counts what that costs.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/base/enums.hpp"
#include "runtime/schedule/wiring.hpp"

namespace lockstep {

enum class Mode : std::uint8_t {
  train,     ///< forward, backward, update
  evaluate,  ///< forward only
  flush,     ///< no compute: hands the results of the previous program to row 0
  stop,      ///< no compute and no result: the last header, after which every worker leaves
};

constexpr const char* to_string(Mode mode) {
  switch (mode) {
    case Mode::train: return "train";
    case Mode::evaluate: return "evaluate";
    case Mode::flush: return "flush";
    case Mode::stop: return "stop";
  }
  return nullptr;
}

enum class EdgeKind : std::uint8_t {
  header,      ///< StepHeader, along the chain row r -> r+1
  value,       ///< values of one flow, forward
  gradient,    ///< gradients of one flow, backward
  statistics,  ///< what layers of a stage have collected of their micro-batches; item: the stage, of replica 0
  reduce,      ///< a replica's gradients of Topology::buckets[item], its receiver's share of them
  shared,      ///< the gradient buffers of Topology::shared[item], between each ordered pair of rows that hold them
  gather,      ///< of Topology::buckets[item]: sums of gradients, or weights with Replicas::shard_optimizer
  ready,       ///< of the same: the sender has updated what the receiver reads
  norm,        ///< squared norms of gradients, row r -> row 0
  scale,       ///< the global norm, row 0 -> row r
  result,      ///< RowResult of the previous program, row r -> row 0
  request,     ///< ServerRequest: of a worker, to a server (Topology::servers)
  reply,       ///< ServerReply
};

constexpr const char* to_string(EdgeKind kind) {
  switch (kind) {
    case EdgeKind::header: return "header";
    case EdgeKind::value: return "value";
    case EdgeKind::gradient: return "gradient";
    case EdgeKind::statistics: return "statistics";
    case EdgeKind::reduce: return "reduce";
    case EdgeKind::shared: return "shared";
    case EdgeKind::gather: return "gather";
    case EdgeKind::ready: return "ready";
    case EdgeKind::norm: return "norm";
    case EdgeKind::scale: return "scale";
    case EdgeKind::result: return "result";
    case EdgeKind::request: return "request";
    case EdgeKind::reply: return "reply";
  }
  return nullptr;
}

/// Whether what layers make travels there; else it is for the worker itself.
constexpr bool of_layers(EdgeKind kind) {
  switch (kind) {
    case EdgeKind::value:
    case EdgeKind::gradient:
    case EdgeKind::statistics:
    case EdgeKind::reduce:
    case EdgeKind::shared:
    case EdgeKind::gather: return true;
    case EdgeKind::header:
    case EdgeKind::ready:
    case EdgeKind::norm:
    case EdgeKind::scale:
    case EdgeKind::result:
    case EdgeKind::request:
    case EdgeKind::reply: return false;
  }
  return false;
}

/// Whether replicas tell each other something about weights or gradients, or a server tells them.
constexpr bool between_replicas(EdgeKind kind) {
  return kind == EdgeKind::statistics || kind == EdgeKind::reduce || kind == EdgeKind::gather ||
         kind == EdgeKind::ready || kind == EdgeKind::reply;
}

enum class InstructionKind : std::uint8_t {
  make_header,  ///< row 0 only: decides what this program does
  post,
  receive,
  send,
  compute,     ///< one Action
  reduce,      ///< adds up the groups' gradients of Topology::buckets[item], of all replicas: this row's share
  shared_sum,  ///< adds the buffers of all holders of Topology::shared[item], in holder order, on every row with one
  norm_parts,  ///< this row's squared norms
  norm_total,  ///< row 0 only: sums the parts of all rows in the model's parameter order
  update,      ///< optimizer step of this row's parameters
  amend,  ///< post-validation: the norm is known now; where it asks for clipping, the update is undone and done again
  wait_sends,
};

constexpr const char* to_string(InstructionKind kind) {
  switch (kind) {
    case InstructionKind::make_header: return "make_header";
    case InstructionKind::post: return "post";
    case InstructionKind::receive: return "receive";
    case InstructionKind::send: return "send";
    case InstructionKind::compute: return "compute";
    case InstructionKind::reduce: return "reduce";
    case InstructionKind::shared_sum: return "shared_sum";
    case InstructionKind::norm_parts: return "norm_parts";
    case InstructionKind::norm_total: return "norm_total";
    case InstructionKind::update: return "update";
    case InstructionKind::amend: return "amend";
    case InstructionKind::wait_sends: return "wait_sends";
  }
  return nullptr;
}

/// Whether an instruction is one half of a message.
constexpr bool is_message(InstructionKind kind) {
  return kind == InstructionKind::post || kind == InstructionKind::receive || kind == InstructionKind::send;
}

/// Where in a row a phase stands. In one place: in the order of the table, then of the exchange's phases. What follows
/// the computes is in the order of this list.
enum class Place : std::uint8_t {
  begin,             ///< before all computes
  ahead,             ///< per micro-batch: one compute ahead of the one that reads the message
  reader,            ///< per micro-batch: straight in front of the compute that reads it
  maker,             ///< per micro-batch: straight behind the compute that makes it
  first_compute,     ///< behind the row's first compute and what it makes; where there is none, behind begin
  last_weight_grad,  ///< behind the row's last B or W of Exchange::stages; behind all computes if there is none
  gradients,         ///< behind all computes: the row's gradients are there
  norm,              ///< gradients have been added up over all that share them
  total,
  update,  ///< the norm is known
  end,
};

constexpr const char* to_string(Place place) {
  switch (place) {
    case Place::begin: return "begin";
    case Place::ahead: return "ahead";
    case Place::reader: return "reader";
    case Place::maker: return "maker";
    case Place::first_compute: return "first_compute";
    case Place::last_weight_grad: return "last_weight_grad";
    case Place::gradients: return "gradients";
    case Place::norm: return "norm";
    case Place::total: return "total";
    case Place::update: return "update";
    case Place::end: return "end";
  }
  return nullptr;
}

/// One step of an exchange, on every row that it concerns: a post or receive on those of `to`, a send on those of
/// `from`, work on those of `on`.
struct Phase {
  InstructionKind what = InstructionKind::post;
  Place place = Place::begin;
  std::vector<WorkerId> on = {};
};

struct Exchange {
  EdgeKind kind = EdgeKind::value;
  int item = -1;  ///< value, gradient: index of the flow; shared: of Topology::shared; reduce, gather, ready: of
                  ///< Topology::buckets; statistics: the stage; else free
  std::vector<WorkerId> from, to;                    ///< an edge from each to each, but none within a row
  std::vector<std::pair<WorkerId, WorkerId>> pairs;  ///< the edges, where there are fewer; empty: all of them
  std::vector<StageId> stages;  ///< value, gradient: from and to, in the direction of this exchange; shared: holders
  int lanes = 1;                ///< edges from each to each
  std::vector<Phase> phases;    ///< empty: this program has no use for it, but its edges are there

  bool per_micro_batch() const { return kind == EdgeKind::value || kind == EdgeKind::gradient; }
};

/// The table. All programs of a job have the same exchanges in the same order, hence the same edges; only phases
/// differ. `clip`: a global norm is needed before the update. `post_validation`: with clip, the update does not wait
/// for it.
std::vector<Exchange> exchanges_of(const Topology& topology, const Wiring& wiring, Mode mode, bool clip,
                                   bool post_validation);

}  // namespace lockstep
