// SPDX-License-Identifier: Apache-2.0
//
// What workers and servers say to each other beside tensors. Their bytes are made in step_header.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/schedule/step_header.hpp"

namespace lockstep {

struct ServerRequest {
  enum class Kind : std::uint8_t {
    work,     ///< of server 0: what was done, and what is to be done next
    read,     ///< values, to compute a share of a training step with; the tensors: rows of each table here
    look,     ///< the same for an evaluation
    update,   ///< the tensors: gradients (served_weights.hpp)
    squares,  ///< with max_staleness 0: all shares are in; squared norms of their sums
    settle,   ///< with max_staleness 0: the update of a whole mini-batch
    save,     ///< a checkpoint
    drain,    ///< it is on the disk
    leave,    ///< the worker asks for nothing any more; it has ended, or failed
  };
  Kind kind = Kind::work;
  std::int64_t step = 0;
  int share = -1;
  double learning_rate = 0;                ///< update by shares, settle
  double coefficient = 1;                  ///< settle: of the gradients
  bool first = false;                      ///< read, look: the worker's first: also what is not trained
  std::string text = {};                   ///< work: bytes of a RowResult, or none; leave: what went wrong, or nothing
  std::vector<WorkerReport> servers = {};  ///< work: what servers have reported to the worker
  std::vector<StepResult> results = {};    ///< of any kind: what the observer of the server's process is to be told

  std::string to_bytes() const;
  static ServerRequest from_bytes(const std::string& bytes);
};

constexpr const char* to_string(ServerRequest::Kind kind) {
  switch (kind) {
    case ServerRequest::Kind::work: return "work";
    case ServerRequest::Kind::read: return "read";
    case ServerRequest::Kind::look: return "look";
    case ServerRequest::Kind::update: return "update";
    case ServerRequest::Kind::squares: return "squares";
    case ServerRequest::Kind::settle: return "settle";
    case ServerRequest::Kind::save: return "save";
    case ServerRequest::Kind::drain: return "drain";
    case ServerRequest::Kind::leave: return "leave";
  }
  return nullptr;
}

struct ServerReply {
  std::string header = {};              ///< of work: bytes of a StepHeader
  std::int64_t staleness = -1;          ///< of an update that was made by itself
  NormParts squares = {};               ///< of squares
  WorkerReport report = {};             ///< what the server has done since it last said so
  std::vector<std::string> saved = {};  ///< what it has written: StateKeeper::take_reports()

  std::string to_bytes() const;
  static ServerReply from_bytes(const std::string& bytes);
};

}  // namespace lockstep
