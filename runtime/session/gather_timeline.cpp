// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/gather_timeline.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"

namespace lockstep {
namespace {

template <typename T>
void put(std::string& bytes, const std::vector<T>& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::uint64_t count = values.size();
  bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
  bytes.append(reinterpret_cast<const char*>(values.data()), count * sizeof(T));
}

template <typename T>
std::vector<T> take(const std::string& bytes, std::size_t& at) {
  std::uint64_t count = 0;
  LOCKSTEP_CHECK(at + sizeof count <= bytes.size(), "a recording is too short");
  std::memcpy(&count, bytes.data() + at, sizeof count);
  at += sizeof count;
  LOCKSTEP_CHECK(count <= (bytes.size() - at) / sizeof(T), "a recording is too short");
  std::vector<T> values(count);
  if (count > 0) std::memcpy(values.data(), bytes.data() + at, count * sizeof(T));
  at += count * sizeof(T);
  return values;
}

std::vector<std::string> layers_by_stage(const Trainer& trainer) {
  std::vector<std::string> names;
  const Partition& partition = trainer.partition();
  for (int stage = 0; stage < partition.stages(); ++stage) {
    const int first = partition.layers_of(StageId(stage)).first, last = partition.layers_of(StageId(stage)).end - 1;
    const std::vector<LayerSpec>& layers = trainer.graph().layers;
    names.push_back(last > first ? concat(layers[first].name, " .. ", layers[last].name) : layers[first].name);
  }
  return names;
}

/// A whole positive number; -1 otherwise.
std::int64_t step_number(const std::string& text) {
  constexpr std::size_t kMostDigits = 15;
  const bool digits = std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits && !text.empty() && text.size() <= kMostDigits ? std::stoll(text) : -1;
}

}  // namespace

RecordRange range_to_record(const std::string& flag, const Trainer& trainer) {
  // Over all workers, so that a page of many workers can still be opened.
  constexpr std::size_t kMostSpans = 100'000, kLeastPerWorker = 4096;
  const std::int64_t steps = trainer.config().train.steps;
  RecordRange range = usual_range(steps, trainer.start().step);
  range.most_spans = std::max(kLeastPerWorker, kMostSpans / trainer.layout().rank_of_row.size());
  if (flag.empty()) return range;
  const std::size_t dash = flag.find('-');
  const std::int64_t first = step_number(flag.substr(0, dash));
  const std::int64_t last = dash == std::string::npos ? first : step_number(flag.substr(dash + 1));
  if (first < 1 || last < first || last > steps)
    throw UserError(concat("--trace-steps: got ", flag,
                           ", expected FIRST-LAST or one step, from 1 to train.steps, which is ", steps));
  range.first = first;
  range.steps = static_cast<int>(std::min<std::int64_t>(last - first + 1, range.most_spans));
  return range;
}

TimelineGatherer::TimelineGatherer(Process& process) : process_(process), offsets_(process.size()) {
  if (process.size() == 1) return;
  constexpr int kExchanges = 8;
  std::vector<ClockExchange> mine;
  for (int i = 0; i < kExchanges; ++i) {
    const double entered_us = now_us();
    process.all_gather("");
    mine.push_back({entered_us, now_us()});
  }
  std::string bytes;
  put(bytes, mine);
  const std::vector<std::string> all = process.all_gather(bytes + kernel_id());
  const auto read = [&](int rank) {
    std::size_t at = 0;
    const auto exchanges = take<ClockExchange>(all[rank], at);
    return std::pair(exchanges, all[rank].substr(at));
  };
  const auto [root, root_kernel] = read(0);
  for (int rank = 1; rank < process.size(); ++rank) {
    const auto [exchanges, kernel] = read(rank);
    offsets_[rank] = clock_offset(root, exchanges, !kernel.empty() && kernel == root_kernel);
  }
}

std::optional<RunTimeline> TimelineGatherer::gather(Trainer& trainer, const JobOutcome& outcome,
                                                    const RecordRange& range) {
  std::string bytes;
  put(bytes, outcome.recorded.spans);
  put(bytes, outcome.recorded.memory);
  put(bytes, std::vector<char>(1, outcome.recorded.cut ? 1 : 0));
  const std::vector<std::string> all = process_.all_gather(bytes);
  if (!process_.is_root()) return std::nullopt;
  Recorded recorded;
  double error_us = 0;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const ClockOffset& offset = offsets_[rank];
    std::size_t at = 0;
    for (Span span : take<Span>(all[rank], at)) {
      span.start_us -= offset.us;
      span.end_us -= offset.us;
      recorded.spans.push_back(span);
    }
    for (MemorySample sample : take<MemorySample>(all[rank], at)) {
      sample.at_us -= offset.us;
      recorded.memory.push_back(sample);
    }
    recorded.cut = recorded.cut || take<char>(all[rank], at).at(0) != 0;
    error_us = std::max(error_us, offset.error_us);
  }
  const Program& program = trainer.programs().get(Mode::train, trainer.micro_batches());
  std::optional<RunTimeline> result = measured_timeline(program, std::move(recorded), range.first);
  if (!result) return result;
  result->name = trainer.config().name;
  result->layers = layers_by_stage(trainer);
  result->clock_error_us = error_us;
  result->rank_of_worker.clear();
  for (const RankId rank : trainer.layout().rank_of_row) result->rank_of_worker.push_back(rank.value());
  const std::vector<at::Device>& devices = trainer.assembly().devices;
  if (std::any_of(devices.begin(), devices.end(), [](const at::Device& device) { return !device.is_cpu(); }))
    for (const at::Device& device : devices) result->device_of_worker.push_back(device.str());
  return result;
}

}  // namespace lockstep
