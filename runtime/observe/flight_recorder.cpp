// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/flight_recorder.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>
#include <set>
#include <sstream>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

constexpr char kMagic[8] = {'L', 'S', 'F', 'L', 'I', 'G', 'H', '1'};
constexpr std::size_t kPage = 4096;
constexpr std::size_t kMessage = 3072;

/// The first page. What does not change is written before the file is mapped by anybody else.
struct Header {
  char magic[8];
  std::uint32_t records, text_bytes;
  std::int32_t row, rank, ranks, pid;
  std::int64_t started_ns;
  char host[64];
  alignas(64) Pulse pulse;
  alignas(64) std::int64_t ended_ns;
  std::uint32_t message_bytes;
  std::atomic<std::uint32_t> end;
  char message[kMessage];
  std::int32_t replica;  // from 1 on; 0: there is one pipeline
};
static_assert(sizeof(Header) <= kPage && std::is_standard_layout_v<Header>);

std::size_t to_pages(std::size_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

std::size_t file_bytes(std::size_t text_bytes, std::size_t records) {
  return kPage + to_pages(text_bytes) + records * sizeof(FlightRecord);
}

/// A mapping of the file, or null and why not.
void* map_file(const std::string& path, std::size_t bytes, std::string& problem) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) {
    problem = concat("cannot make ", path, ": ", std::strerror(errno));
    return nullptr;
  }
  void* base = nullptr;
  if (const int failure = ::posix_fallocate(file, 0, static_cast<off_t>(bytes)); failure != 0) {
    problem = concat("cannot allocate ", bytes, " bytes for ", path, ": ", std::strerror(failure));
  } else {
    base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (base == MAP_FAILED) {
      problem = concat("cannot map ", path, ": ", std::strerror(errno));
      base = nullptr;
    }
  }
  ::close(file);
  if (!base) ::unlink(path.c_str());
  return base;
}

bool makes_sense(const FlightRecord& record) {
  return record.is_whole() && is_enumerator(record.kind) && is_enumerator(record.op) && is_enumerator(record.edge) &&
         is_enumerator(record.mode);
}

struct OwnedLayer {
  int stage, layer;
  std::string name;
};

std::vector<OwnedLayer> owned_layers(const std::string& text) {
  std::vector<OwnedLayer> layers;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    OwnedLayer layer{};
    if (fields >> layer.stage >> layer.layer && fields.get() == '\t' && std::getline(fields, layer.name))
      layers.push_back(layer);
  }
  return layers;
}

}  // namespace

std::string FlightRecord::text() const {
  if (kind == InstructionKind::compute) return to_text(Action{StageId(stage), op, micro_batch});
  std::string result = to_string(kind);
  if (!has_edge()) return result;
  result += concat(" ", to_string(edge));
  if (from_stage >= 0) result += concat(" ", from_stage, "->", to_stage, " m", micro_batch);
  return result + concat(" (row ", from_row, " -> ", to_row, ")");
}

FlightRecord record_of(const Program& program, const Instruction& instruction) {
  FlightRecord record;
  record.kind = instruction.kind;
  record.mode = program.mode;
  if (instruction.kind == InstructionKind::compute) {
    record.op = instruction.action.op;
    record.stage = instruction.action.stage.value();
    record.micro_batch = instruction.action.micro_batch;
  } else if (instruction.edge.valid()) {
    const Edge& edge = program.edges[static_cast<std::size_t>(instruction.edge.value())];
    record.edge = edge.kind;
    record.from_row = static_cast<std::int16_t>(edge.from.value());
    record.to_row = static_cast<std::int16_t>(edge.to.value());
    record.from_stage = static_cast<std::int16_t>(edge.from_stage.value());
    record.to_stage = static_cast<std::int16_t>(edge.to_stage.value());
    record.micro_batch = instruction.action.micro_batch;
  }
  return record;
}

FlightRecorder::FlightRecorder(const std::string& path, const FlightOwner& owner) {
  bytes_ = file_bytes(owner.owns.size(), kRecords);
  if (!path.empty()) base_ = map_file(path, bytes_, warning_);
  if (!base_) {
    base_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
  }
  auto* header = new (base_) Header{};
  header->records = kRecords;
  header->text_bytes = static_cast<std::uint32_t>(owner.owns.size());
  header->row = owner.row;
  header->rank = owner.rank;
  header->ranks = owner.ranks;
  header->replica = owner.replica + 1;
  header->pid = ::getpid();
  header->started_ns = wall_ns();
  std::strncpy(header->host, owner.host.c_str(), sizeof(header->host) - 1);
  auto* text = static_cast<char*>(base_) + kPage;
  std::copy(owner.owns.begin(), owner.owns.end(), text);
  ring_ = reinterpret_cast<FlightRecord*>(text + to_pages(owner.owns.size()));
  pulse_ = &header->pulse;
  pulse_->alive();
  std::atomic_thread_fence(std::memory_order_release);
  std::memcpy(header->magic, kMagic, sizeof(kMagic));
}

FlightRecorder::~FlightRecorder() {
  ::munmap(base_, bytes_);
}

void FlightRecorder::begin(FlightRecord record) {
  record.sequence = ++sequence_;
  record.begin_ns = wall_ns();
  current_ = &ring_[(sequence_ - 1) % kRecords];
  // The compiler must keep the order, the processor need not: whoever reads after a kill sees all of our stores.
  current_->seal = 0;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  *current_ = record;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  current_->seal = ~record.sequence;
  pulse_->layer.store(-1, std::memory_order_relaxed);
  pulse_->seen_ns.store(record.begin_ns, std::memory_order_relaxed);
  const bool waits = record.kind == InstructionKind::receive || record.kind == InstructionKind::send;
  pulse_->turn_to(!waits ? -1 : record.kind == InstructionKind::receive ? record.from_row : record.to_row);
}

void FlightRecorder::end() {
  current_->end_ns = wall_ns();
  pulse_->seen_ns.store(current_->end_ns, std::memory_order_relaxed);
  pulse_->waits_for.store(-1, std::memory_order_relaxed);
}

void FlightRecorder::finish(FlightEnd end, const std::string& message) {
  auto* header = static_cast<Header*>(base_);
  header->message_bytes = static_cast<std::uint32_t>(std::min(message.size(), kMessage));
  std::memcpy(header->message, message.data(), header->message_bytes);
  header->ended_ns = wall_ns();
  header->end.store(static_cast<std::uint32_t>(end), std::memory_order_release);
}

std::optional<FlightLog> read_flight_log(const std::string& path, std::string& problem) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    problem = concat(path, ": cannot be read: ", std::strerror(errno));
    return std::nullopt;
  }
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() < kPage || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) {
    problem = concat(path, ": not a flight recorder's file, or one that was only begun");
    return std::nullopt;
  }
  alignas(Header) char page[sizeof(Header)];
  std::memcpy(page, bytes.data(), sizeof(Header));
  const Header& header = *reinterpret_cast<const Header*>(page);
  const std::size_t ring = kPage + to_pages(header.text_bytes);
  if (header.records == 0 || header.records > 1U << 20 || ring > bytes.size()) {
    problem = concat(path, ": its header makes no sense");
    return std::nullopt;
  }
  FlightLog log;
  log.owner = {header.row,
               header.rank,
               header.ranks,
               std::string(header.host, ::strnlen(header.host, sizeof(header.host))),
               bytes.substr(kPage, header.text_bytes),
               header.replica - 1};
  log.pid = header.pid;
  log.started_ns = header.started_ns;
  log.seen_ns = header.pulse.seen_ns.load();
  log.ended_ns = header.ended_ns;
  log.beats = header.pulse.beats.load();
  log.layer = header.pulse.layer.load();
  log.waits_for = header.pulse.waits_for.load();
  if (const Activity activity = header.pulse.activity.load(); is_enumerator(activity)) log.activity = activity;
  if (const auto end = static_cast<FlightEnd>(header.end.load()); is_enumerator(end)) log.end = end;
  log.message.assign(header.message, std::min<std::size_t>(header.message_bytes, kMessage));
  const std::size_t there = std::min<std::size_t>(header.records, (bytes.size() - ring) / sizeof(FlightRecord));
  for (std::size_t i = 0; i < there; ++i) {
    FlightRecord record;
    std::memcpy(&record, bytes.data() + ring + i * sizeof(record), sizeof(record));
    if (makes_sense(record) && (record.sequence - 1) % header.records == i) log.records.push_back(record);
  }
  std::sort(log.records.begin(), log.records.end(),
            [](const FlightRecord& a, const FlightRecord& b) { return a.sequence < b.sequence; });
  return log;
}

std::string FlightLog::layer_name(int index) const {
  for (const OwnedLayer& owned : owned_layers(owner.owns))
    if (owned.layer == index) return owned.name;
  return concat("layer ", index);
}

std::vector<int> FlightLog::stages() const {
  std::set<int> found;
  for (const OwnedLayer& owned : owned_layers(owner.owns)) found.insert(owned.stage);
  return {found.begin(), found.end()};
}

std::string FlightLog::layers_of(int stage_id) const {
  std::string first, last;
  for (const OwnedLayer& owned : owned_layers(owner.owns)) {
    if (owned.stage != stage_id) continue;
    if (first.empty()) first = owned.name;
    last = owned.name;
  }
  return first == last ? first : first + " .. " + last;
}

std::string recorder_folder(const std::string& run_folder) {
  return run_folder + "/recorder";
}
std::string recorder_file(const std::string& run_folder, int row) {
  return concat(recorder_folder(run_folder), "/worker-", row, ".bin");
}

}  // namespace lockstep
