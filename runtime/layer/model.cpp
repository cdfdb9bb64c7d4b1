// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/model.hpp"

namespace lockstep {

std::vector<std::string> names_in_files(const Model& model, std::vector<std::string> names) {
  for (const auto& [ours, theirs] : model.hub_spellings)
    for (std::size_t i = 0, count = names.size(); i < count; ++i)
      if (names[i].ends_with(ours)) names.push_back(names[i].substr(0, names[i].size() - ours.size()) + theirs);
  const std::string& prefix = model.hub_prefix;
  for (std::size_t i = 0, count = names.size(); i < count && !prefix.empty(); ++i)
    if (names[i].starts_with(prefix)) names.push_back(names[i].substr(prefix.size()));
  return names;
}

}  // namespace lockstep
