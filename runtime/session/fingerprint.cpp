// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/fingerprint.hpp"

#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>

#include "runtime/base/check.hpp"
#include "runtime/checkpoint/store.hpp"

namespace lockstep {
std::map<std::string, std::uint64_t> gather_fingerprint(Process& process, const ModelGraph& graph,
                                                        const JobOutcome& outcome) {
  struct Entry {
    std::int64_t index;
    std::uint64_t hash;
    std::int64_t begin = 0, end = 0;  // of a part
  };
  std::string mine;
  for (const FinalParameter& parameter : outcome.parameters) {
    Entry entry{parameter.index, parameter.hash};
    if (parameter.part) std::tie(entry.begin, entry.end) = std::pair(parameter.part->begin, parameter.part->end);
    mine.append(reinterpret_cast<const char*>(&entry), sizeof entry);
  }
  // Buffers are numbered after the parameters.
  const auto parameters = static_cast<std::int64_t>(graph.parameters.size());
  for (const FinalBuffer& buffer : outcome.buffers) {
    const Entry entry{parameters + buffer.index, buffer.hash};
    mine.append(reinterpret_cast<const char*>(&entry), sizeof entry);
  }
  std::map<std::string, std::uint64_t> hashes;
  for (const std::string& bytes : process.all_gather(mine))
    for (std::size_t at = 0; at + sizeof(Entry) <= bytes.size(); at += sizeof(Entry)) {
      Entry entry{};
      std::memcpy(&entry, bytes.data() + at, sizeof entry);
      std::string name = entry.index < parameters
                             ? graph.parameters[static_cast<std::size_t>(entry.index)].name
                             : graph.buffers[static_cast<std::size_t>(entry.index - parameters)].name;
      if (entry.begin < entry.end) name = name_of_part(name, {entry.begin, entry.end});
      const auto [stored, is_new] = hashes.emplace(name, entry.hash);
      LOCKSTEP_CHECK(is_new || stored->second == entry.hash, "copies of the tied parameter ", name, " differ");
    }
  return hashes;
}

std::string fingerprint_json(const TrainerState& state, const std::map<std::string, std::uint64_t>& parameters) {
  nlohmann::ordered_json json;
  for (const auto& [key, value] : state.environment.entries) json["environment"][key] = value;
  json["steps"] = state.step;
  if (state.step > 0) json["loss"] = state.loss;
  json["losses"] = hex(state.losses);
  for (const auto& [name, hash] : parameters) json["parameters"][name] = hex(hash);
  return json.dump(2) + "\n";
}

}  // namespace lockstep
