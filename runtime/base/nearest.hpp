// SPDX-License-Identifier: Apache-2.0
//
// Names that people meant.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace lockstep {

/// Case and the choice between - and _ are not what people get wrong on purpose.
std::string normal_word(const std::string& word);
/// What we call what other tools call `word`, or where the key of ours that is called so stands: "train.batch", or a
/// value; empty when it is not known. (aliases.cpp)
std::string own_name(const std::string& word);
/// All of them: keys of different places may be called the same elsewhere.
std::vector<std::string> own_names(const std::string& word);
/// The candidate that other tools call `word`, else the one closest to it (Damerau-Levenshtein, case-insensitive), if
/// any is close enough to be meant.
std::optional<std::string> nearest(const std::string& word, const std::vector<std::string>& candidates);
/// "; did you mean 'x'?" or "".
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace lockstep
