// SPDX-License-Identifier: Apache-2.0
//
// The flight recorder of one worker: its last instructions and waits, in a file that is mapped into memory and so
// outlives whatever happens to the process, kill -9 included. `lockstep why` reads it. No torch.
//
// The file is one page of header (who, when, the worker's Pulse, how it ended), the text of what it owns (a line per
// layer), and a ring of fixed-size records with sequence numbers. It is allocated whole before it is mapped: writing to
// a hole on a full disk would be a SIGBUS. When it cannot be allocated the recorder works in memory only: heartbeats go
// on, nothing is left behind. A record costs about 0.1 us.
//
// FlightRecorder: one worker's thread writes, anybody reads the pulse. Reading a file is safe at any time, while it is
// written and when it is torn: a record counts only if its last word confirms its first.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/observe/pulse.hpp"
#include "runtime/schedule/program.hpp"

namespace lockstep {

/// One instruction of one program run. Enough to say what it was without the program.
struct FlightRecord {
  std::uint64_t sequence = 0;                   ///< counts from 1; 0: nothing was written here
  std::int64_t begin_ns = 0, end_ns = 0;        ///< wall_ns(); end 0: it did not come to its end
  std::int64_t step = 0;                        ///< 0: before the first header
  std::int32_t micro_batch = -1;                ///< of a compute, or of the value or gradient that travels
  std::int32_t stage = -1;                      ///< compute: which stage
  std::int16_t from_row = -1, to_row = -1;      ///< post, receive, send: the edge's rows
  std::int16_t from_stage = -1, to_stage = -1;  ///< value, gradient: the flow's stages, in the edge's direction
  InstructionKind kind = InstructionKind::compute;
  Op op = Op::forward;  ///< compute
  EdgeKind edge = EdgeKind::value;
  Mode mode = Mode::train;
  std::uint64_t seal = 0;  ///< ~sequence once all of it has been written

  bool is_whole() const { return sequence != 0 && seal == ~sequence; }
  bool has_edge() const { return from_row >= 0; }
  /// As describe() of program.hpp names instructions: "receive value 0->1 m3 (row 0 -> 1)".
  std::string text() const;
};
static_assert(sizeof(FlightRecord) == 64);

/// `instruction` of `program`, before its times are known.
FlightRecord record_of(const Program& program, const Instruction& instruction);

enum class FlightEnd : std::uint32_t {
  none,     ///< still running, or killed
  done,     ///< ran to the stop header
  failed,   ///< threw; the message is in the file
  stopped,  ///< left because another worker had failed
};

constexpr const char* to_string(FlightEnd end) {
  switch (end) {
    case FlightEnd::none: return "none";
    case FlightEnd::done: return "done";
    case FlightEnd::failed: return "failed";
    case FlightEnd::stopped: return "stopped";
  }
  return nullptr;
}

/// Who a recorder belongs to.
struct FlightOwner {
  int row = 0, rank = 0, ranks = 1;
  std::string host;
  std::string owns;  ///< a line per layer: "stage<TAB>layer<TAB>name"
  int replica = -1;  ///< -1: there is one pipeline
};

class FlightRecorder {
 public:
  static constexpr int kRecords = 1024;

  /// Makes the file, or works in memory when `path` is empty or the file cannot be made; then warning() says why.
  FlightRecorder(const std::string& path, const FlightOwner& owner);
  ~FlightRecorder();
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecorder& operator=(const FlightRecorder&) = delete;

  const std::string& warning() const { return warning_; }
  Pulse& pulse() { return *pulse_; }

  /// An instruction begins: writes its record and beats.
  void begin(FlightRecord record);
  void end();
  void finish(FlightEnd end, const std::string& message = "");

 private:
  void* base_ = nullptr;
  std::size_t bytes_ = 0;
  Pulse* pulse_ = nullptr;
  FlightRecord* ring_ = nullptr;
  FlightRecord* current_ = nullptr;
  std::uint64_t sequence_ = 0;
  std::string warning_;
};

/// What a recorder's file says.
struct FlightLog {
  FlightOwner owner;
  int pid = 0;
  std::int64_t started_ns = 0;
  std::int64_t seen_ns = 0;  ///< last sign of life
  std::int64_t ended_ns = 0;
  std::uint64_t beats = 0;
  int layer = -1;      ///< that it computes
  int waits_for = -1;  ///< the row that it waits for
  Activity activity = Activity::none;
  FlightEnd end = FlightEnd::none;
  std::string message;                ///< with FlightEnd::failed
  std::vector<FlightRecord> records;  ///< whole ones, by sequence

  const FlightRecord* last() const { return records.empty() ? nullptr : &records.back(); }
  std::string layer_name(int index) const;    ///< or "layer N"
  std::vector<int> stages() const;            ///< ascending
  std::string layers_of(int stage_id) const;  ///< "h.2 .. head"
};

/// Nullopt when the file is not a recorder's, or too short to be one; `problem` says why.
std::optional<FlightLog> read_flight_log(const std::string& path, std::string& problem);

/// Where the recorder of a row lies in a run folder.
std::string recorder_folder(const std::string& run_folder);
std::string recorder_file(const std::string& run_folder, int row);

}  // namespace lockstep
