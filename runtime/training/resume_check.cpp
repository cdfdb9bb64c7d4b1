// SPDX-License-Identifier: Apache-2.0
//
// Whether a config and its data go on as a checkpoint's run would have (trainer_state.hpp).
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>

#include "runtime/base/text.hpp"
#include "runtime/training/data_record.hpp"
#include "runtime/training/trainer_state.hpp"

namespace lockstep {
namespace {

constexpr const char* kDecaySteps = "train.lr_schedule.decay_steps";
constexpr const char* kTrainData = "data.train";

struct Difference {
  std::string key;
  std::string now, before;  ///< for messages: "nothing" when there is none
  std::string flag;         ///< what --change takes: "train.batch=8", "data"
  std::string advice = "set it as it was";
};

/// The section that holds `key`, and the key's own name.
std::pair<Section, std::string> find(const Section& root, const std::string& key) {
  const std::size_t dot = key.find('.');
  if (dot == std::string::npos) return {root, key};
  const std::string first = key.substr(0, dot), rest = key.substr(dot + 1);
  if (root.is_mapping(first)) return find(root.section(first), rest);
  const std::size_t bracket = first.find('[');  // "layers[3]"
  const std::string list = first.substr(0, bracket);
  if (bracket == std::string::npos || !root.is_sequence(list)) return {root, key};
  const std::vector<Section> items = root.sections(list);
  const std::size_t item = std::strtoul(first.c_str() + bracket + 1, nullptr, 10);
  return item < items.size() ? find(items[item], rest) : std::pair(root, key);
}

/// 0 and 0.0 are one value.
bool same_value(const std::string& a, const std::string& b) {
  if (a == b) return true;
  char *end_a = nullptr, *end_b = nullptr;
  const double x = std::strtod(a.c_str(), &end_a), y = std::strtod(b.c_str(), &end_b);
  return !a.empty() && !b.empty() && *end_a == '\0' && *end_b == '\0' && x == y;
}

/// Whether `key` is `change`, or stands below it.
bool is_within(const std::string& key, const std::string& change) {
  return key == change || key.starts_with(change + ".") || key.starts_with(change + "[");
}

/// As a shell takes it.
std::string quoted(const std::string& text) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("_./,:+-=@%").find(static_cast<char>(c)) != std::string_view::npos;
  };
  if (std::all_of(text.begin(), text.end(), plain)) return text;
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

class ResumeCheck {
 public:
  ResumeCheck(const Config& config, const TrainerState& fresh, const TrainerState& state, const ResumeRules& rules)
      : config_(config), fresh_(fresh), state_(state), rules_(rules) {
    compare_numerics();
    if (!rules_.evaluates) compare_data();
  }

  const std::vector<Difference>& differences() const { return differences_; }

  bool accepts(const Difference& difference) const {
    return std::any_of(rules_.changes.begin(), rules_.changes.end(),
                       [&](const std::string& change) { return accepts(change, difference.key); });
  }

  /// Of a change that lets nothing through: a note, for the same command may be started again after it has been made.
  /// Throws UserError when there is no such key.
  std::vector<std::string> notes_of_changes() const {
    std::vector<std::string> notes;
    for (const std::string& change : rules_.changes) {
      if (std::any_of(differences_.begin(), differences_.end(),
                      [&](const Difference& difference) { return accepts(change, difference.key); }))
        continue;
      check_known(change);
      notes.push_back(concat("--change ", change, ": nothing that a resume compares differs there"));
    }
    return notes;
  }

 private:
  /// Keys that follow from another one change with it.
  bool accepts(const std::string& change, const std::string& key) const {
    if (key == kDecaySteps && follows_steps() && is_within("train.steps", change)) return true;
    // A file with other samples has another number of them, and another arithmetic.
    if ((key == kDataArithmetic || key == "data") && is_within(change, "data")) return true;
    return is_within(key, change) || follows_type(key, change);
  }
  /// Of another type a mapping has other keys and other defaults: betas come and go with train.optimizer.type.
  bool follows_type(const std::string& key, const std::string& change) const {
    constexpr std::string_view type = ".type";
    if (!change.ends_with(type)) return false;
    const std::string mapping = change.substr(0, change.size() - type.size());
    if (key == change || !is_within(key, mapping) || fresh_.numeric(change) == state_.numeric(change)) return false;
    const auto [section, name] = find(config_.root, key);
    return fresh_.records(key) != state_.records(key) || !section.has(name);
  }
  bool follows_steps() const { return config_.train.lr_schedule.decay_steps == 0; }

  void check_known(const std::string& change) const {
    std::vector<std::string> keys = {"data"};
    for (const TrainerState* state : {&fresh_, &state_})
      for (const auto& [key, value] : state->numerics) keys.push_back(key);
    if (std::any_of(keys.begin(), keys.end(), [&](const std::string& key) { return is_within(key, change); })) return;
    const std::vector<std::string> all = config_keys();
    if (std::none_of(all.begin(), all.end(), [&](const std::string& key) { return is_within(key, change); }))
      throw UserError(concat("--change: got ", change, ", expected KEY=VALUE or a key of the config, such as data",
                             did_you_mean(change, keys)));
  }

  /// What may differ without a word: names of files whose content is known, and what only training depends on.
  bool counts(const std::string& key) const {
    const auto read_from_files = [](const TrainerState& state) {
      return state.data && !state.data->train.empty() && !state.data->train.front().path.empty();
    };
    if (key == kTrainData && (rules_.evaluates || (read_from_files(fresh_) && read_from_files(state_)))) return false;
    if (!rules_.evaluates) return true;
    return is_within(key, "model") || is_within(key, "data") || is_within(key, "train.loss") || key == "seed" ||
           key == "train.precision";
  }

  void compare_numerics() {
    const std::map<std::string, std::string> ours(fresh_.numerics.begin(), fresh_.numerics.end());
    const std::map<std::string, std::string> theirs(state_.numerics.begin(), state_.numerics.end());
    for (const auto& [key, value] : state_.numerics)
      if (!decides_bits(key) && !ours.count(key))
        continue;  // it did when the checkpoint was written
      else if (!ours.count(key))
        add(key, "nothing", value, flag_of(key, ""));
      else if (!same_value(ours.at(key), value))
        add(key, ours.at(key), value, flag_of(key, ours.at(key)));
    for (const auto& [key, value] : fresh_.numerics) {
      if (theirs.count(key)) continue;
      const std::optional<std::string> before = value_before(key);  // the key is younger than the checkpoint
      if (!before || !same_value(value, *before)) add(key, value, before.value_or("nothing"), flag_of(key, value));
    }
  }

  void add(const std::string& key, const std::string& now, const std::string& before, const std::string& flag) {
    if (!counts(key)) return;
    differences_.push_back({key, now, before, flag});
    if (key == kDecaySteps)
      differences_.back().advice = concat("set ", key, "=", before, " to train longer at the same learning rates");
  }

  std::string flag_of(const std::string& key, const std::string& value) const {
    if (key == kDataArithmetic) return "data";
    if (key == kDecaySteps && follows_steps()) return concat("train.steps=", config_.train.steps);
    if (const std::size_t dot = key.rfind('.'); dot != std::string::npos) {
      const std::string type = key.substr(0, dot) + ".type";
      if (follows_type(key, type)) return flag_of(type, fresh_.numeric(type).value_or(""));
    }
    const bool can_be_set =
        !value.empty() && value.find('\n') == std::string::npos && key.find('[') == std::string::npos;
    return quoted(can_be_set ? concat(key, "=", value) : key);
  }

  void compare_data() {
    const std::string advice = "train on the same data, wherever it lies";
    if (fresh_.samples != state_.samples)
      differences_.push_back(
          {"data", concat(fresh_.samples, " training samples"), concat(state_.samples), "data", advice});
    else if (fresh_.data && state_.data)
      if (const auto difference = data_difference(fresh_.data->train, state_.data->train))
        differences_.push_back({kTrainData, difference->now, difference->before, "data", advice});
    if (fresh_.records(kEvalEvery) && fresh_.data && state_.data)
      if (const auto difference = data_difference(fresh_.data->eval, state_.data->eval))
        differences_.push_back({"data.eval", difference->now, difference->before, "data",
                                "evaluate on the same data, which the learning rate follows"});
  }

  const Config& config_;
  const TrainerState& fresh_;
  const TrainerState& state_;
  const ResumeRules& rules_;
  std::vector<Difference> differences_;
};

/// About the first of them; the flags are for all, unless they are too many for a line.
ConfigError refusal(const Config& config, const std::vector<Difference>& refused, const std::string& checkpoint,
                    const ResumeRules& rules) {
  constexpr std::size_t most_flags = 8;
  const Difference& first = refused.front();
  std::string why = "the evaluation would not be that of what it has trained; set it as it was";
  if (!rules.evaluates && !rules.misfit.empty() && is_within(first.key, "model")) {
    why = concat("its weights do not fit this model; set it as it was (", rules.misfit, ")");
  } else if (!rules.evaluates) {
    std::vector<std::string> flags;
    for (const Difference& each : refused)
      if (std::find(flags.begin(), flags.end(), "--change " + each.flag) == flags.end())
        flags.push_back("--change " + each.flag);
    if (flags.size() > most_flags) flags.resize(1);
    why = concat("resuming would not go on as that run; ", first.advice,
                 ", or go on with what it is now, knowingly: ", join(flags, " "));
  }
  const auto [section, name] = find(config.root, first.key);
  return section.error(
      name, concat("got ", first.now, ", expected ", first.before, " as in the checkpoint ", checkpoint, ": ", why));
}

}  // namespace

ResumeFindings check_resumable(const Config& config, const TrainerState& fresh, const TrainerState& state,
                               const std::string& checkpoint, const ResumeRules& rules) {
  const ResumeCheck check(config, fresh, state, rules);
  ResumeFindings findings;
  findings.notes = check.notes_of_changes();
  std::vector<Difference> refused;
  for (const Difference& difference : check.differences())
    if (check.accepts(difference))
      findings.changed.push_back(
          one_line(concat(difference.key, ": ", difference.now, " instead of ", difference.before)));
    else
      refused.push_back(difference);
  if (!refused.empty()) throw refusal(config, refused, checkpoint, rules);
  if (rules.evaluates) return findings;
  if (config.train.steps < state.step)
    throw config.root.section("train").error(
        "steps", concat("got ", config.train.steps, ", expected at least ", state.step, ", the step of the checkpoint ",
                        checkpoint, "; set it to more, or resume from an older one"));
  if (fresh.data && state.data && !fresh.data->eval.empty() && !state.data->eval.empty())
    if (const auto difference = data_difference(fresh.data->eval, state.data->eval))
      findings.warning = one_line(concat("the evaluation data is ", difference->now, ", of the checkpoint it was ",
                                         difference->before, ": their losses cannot be compared"));
  return findings;
}

}  // namespace lockstep
