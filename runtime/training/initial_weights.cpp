// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/initial_weights.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "runtime/base/pattern.hpp"
#include "runtime/base/text.hpp"
#include "runtime/checkpoint/adapter.hpp"
#include "runtime/checkpoint/weight_files.hpp"

namespace lockstep {
namespace {

/// `name` as a renaming has it; none: it is of other names.
std::optional<std::string> renamed(const std::pair<std::string, std::string>& rule, const std::string& name) {
  const auto& [model, file] = rule;
  const std::size_t star = model.find('*');
  if (star == std::string::npos) return name == model ? std::optional(file) : std::nullopt;
  const std::string before = model.substr(0, star), after = model.substr(star + 1);
  if (name.size() < before.size() + after.size() || !name.starts_with(before) || !name.ends_with(after))
    return std::nullopt;
  std::string text = file;
  return text.replace(text.find('*'), 1, name.substr(star, name.size() - before.size() - after.size()));
}

/// "a, b, c and 12 more"
std::string some_of(const std::vector<std::string>& all) {
  constexpr std::size_t shown = 6;
  if (all.size() <= shown) return join(all);
  return concat(join(std::vector<std::string>(all.begin(), all.begin() + shown)), " and ", all.size() - shown, " more");
}

class Matching {
 public:
  explicit Matching(const Assembly& assembly)
      : assembly_(assembly),
        graph_(assembly.graph),
        config_(assembly.config.train.init),
        files_(assembly.config.train.init_from) {
    found_.path = files_.path();
    found_.base = files_.base_path();
    for (std::size_t layer = 0; layer < graph_.held.size(); ++layer)
      for (const HeldParameter& held : graph_.held[layer])
        names_[held.index].insert(graph_.layers[layer].full_name(held.local_name));
  }

  InitialWeights find() {
    for (std::size_t i = 0; i < graph_.parameters.size(); ++i) look_for(static_cast<int>(i));
    for (const BufferInfo& buffer : graph_.buffers)
      if (!buffer.is_state) look_for(buffer.name, {}, buffer.dtype, buffer.sizes, /*may_be_fresh=*/false);
    for (const std::string& name : files_.names())
      if (!used_.contains(name)) found_.unused.push_back(name);
    check_adapter();
    check_names();
    check_matches();
    return std::move(found_);
  }

  InitialWeights find_base() {
    for (std::size_t i = 0; i < graph_.parameters.size(); ++i)
      if (graph_.parameters[i].is_base) look_for(static_cast<int>(i));
    check_adapter();
    check_matches();
    return std::move(found_);
  }

 private:
  bool is_fresh(const std::string& name) {
    bool fresh = false;
    for (std::size_t i = 0; i < config_.fresh.size(); ++i)
      if (matches(config_.fresh[i], name)) {
        used_fresh_.insert(i);
        fresh = true;
      }
    return fresh;
  }

  /// The tensors that may start what has these names, the first of them first.
  std::vector<std::string> candidates(const std::string& name, std::set<std::string> others) {
    for (std::size_t i = 0; i < config_.rename.size(); ++i)
      if (const std::optional<std::string> text = renamed(config_.rename[i], name)) {
        used_renames_.insert(i);
        return {*text};
      }
    others.erase(name);
    std::vector<std::string> all = {name};
    all.insert(all.end(), others.begin(), others.end());
    return names_in_files(assembly_.model, std::move(all));
  }

  void look_for(int index) {
    const ParameterInfo& parameter = graph_.parameters[static_cast<std::size_t>(index)];
    look_for(parameter.name, names_[index], parameter.dtype, parameter.sizes, /*may_be_fresh=*/true);
  }

  void look_for(const std::string& name, const std::set<std::string>& others, at::ScalarType dtype,
                const std::vector<std::int64_t>& sizes, bool may_be_fresh) {
    const TensorEntry* first = nullptr;
    const bool fresh = may_be_fresh && is_fresh(name);
    for (const std::string& candidate : candidates(name, others)) {
      const TensorEntry* entry = files_.find(candidate);
      if (!entry) continue;
      used_.insert(candidate);
      if (!first)
        first = entry;
      else if (!fresh && !files_.are_equal(first->name, candidate))
        untied_.push_back(concat(first->name, " and ", candidate));
    }
    if (fresh) return found_.fresh.push_back(name);
    if (!first) {
      if (!is_adapter_part(name) || has_adapter_) missing_.push_back(name);
      if (may_be_fresh) found_.fresh.push_back(name);
      return;
    }
    const bool fits = first->dtype == dtype || (at::isFloatingType(first->dtype) && at::isFloatingType(dtype));
    if (!fits || first->sizes != sizes)
      misshapen_.push_back(concat(first->name, " is ", to_string(*first), ", the model's ",
                                  name == first->name ? "" : name + " ", "has [", join(sizes), "]"));
    found_.from[name] = first->name;
  }

  bool is_adapter_part(const std::string& name) const {
    return assembly_.model.adapter && (name.ends_with(LowRank::first_of("")) || name.ends_with(LowRank::second_of("")));
  }

  /// What no shape shows.
  void check_adapter() const {
    if (!has_adapter_) return;
    const AdapterInfo info = adapter_info(files_.path());
    const auto& adapter = assembly_.model.adapter;
    const Section config = assembly_.config.root;
    if (!adapter)
      throw config.section("train").error(
          "init_from", concat(files_.path(), " is an adapter of ", info.base, ", and the model has none: give it one ",
                              "(model.lora), or merge the two first (lockstep export --merge)"));
    if (info.rank != adapter->rank)
      throw config.section("model").section("lora").error(
          "rank",
          concat("the adapter of ", files_.path(), " has the rank ", info.rank, ", here it is ", adapter->rank));
    if (info.scale != adapter->scale())
      throw config.section("model").section("lora").error(
          "alpha",
          concat("the adapter of ", files_.path(), " is scaled by ", info.scale, ", here by ", adapter->scale(),
                 " (alpha / rank, with rank_stabilized alpha / sqrt(rank)), which no tensor shows"));
  }

  /// Of train.init.
  void check_names() const {
    const Section init = assembly_.config.root.section("train").section("init");
    for (std::size_t i = 0; i < config_.fresh.size(); ++i)
      if (!used_fresh_.contains(i))
        throw init.error("fresh", concat("got '", config_.fresh[i], "', which matches no parameter of the model"));
    for (std::size_t i = 0; i < config_.rename.size(); ++i)
      if (!used_renames_.contains(i))
        throw init.error("rename", concat("got '", config_.rename[i].first,
                                          "', which no parameter of the model is called, or an earlier one has them"));
  }

  void check_matches() const {
    std::vector<std::string> findings;
    if (config_.missing == Unmatched::refuse && !missing_.empty())
      findings.push_back(concat("it lacks ", missing_.size(), " of the model's ",
                                graph_.parameters.size() + graph_.buffers.size(), " tensors: ", some_of(missing_),
                                " (init: {missing: allow} starts them with values of their own)"));
    const std::vector<std::string> unknown = unknown_ones();
    if (config_.unknown == Unmatched::refuse && !unknown.empty())
      findings.push_back(concat("it has ", unknown.size(), " that the model has not: ", some_of(unknown),
                                " (init: {unknown: allow} leaves them out; init: {rename: {NAME: ITS NAME}} takes ",
                                "one for another name)"));
    if (!misshapen_.empty())
      findings.push_back(concat("of another shape or kind: ", some_of(misshapen_),
                                " (init: {fresh: [NAME]} starts one with values of its own)"));
    if (!untied_.empty())
      findings.push_back(concat("the model has one parameter where it has two different tensors: ", some_of(untied_),
                                " (a model without the tie takes both)"));
    if (found_.from.empty()) findings.push_back("it starts nothing of the model");
    if (!findings.empty())
      throw assembly_.config.root.section("train").error(
          "init_from", concat("the weights of ", files_.path(), " do not match: ", join(findings, "; ")));
  }

  std::vector<std::string> unknown_ones() const {
    std::vector<std::string> unknown;
    std::copy_if(found_.unused.begin(), found_.unused.end(), std::back_inserter(unknown),
                 [&](const std::string& name) { return !matches(assembly_.model.hub_unused, name); });
    return unknown;
  }

  const Assembly& assembly_;
  const ModelGraph& graph_;
  const InitConfig& config_;
  WeightFiles files_;
  bool has_adapter_ = is_adapter(files_.path());
  std::map<int, std::set<std::string>> names_;  // by parameter: of all its holders
  InitialWeights found_;
  std::set<std::string> used_;  // tensors of the files
  std::set<std::size_t> used_fresh_, used_renames_;
  std::vector<std::string> missing_, misshapen_, untied_;
};

}  // namespace

std::string InitialWeights::summary() const {
  std::string text = concat("starts from ", from.size(), " tensors of ", path);
  if (!fresh.empty()) text += concat("; with values of their own: ", some_of(fresh));
  if (!unused.empty()) text += concat("; not used: ", some_of(unused));
  return text;
}

InitialWeights initial_weights(const Assembly& assembly) {
  return Matching(assembly).find();
}

InitialWeights base_weights(const Assembly& assembly) {
  return Matching(assembly).find_base();
}

}  // namespace lockstep
