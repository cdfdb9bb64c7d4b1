// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "runtime/config/value.hpp"

namespace lockstep::yaml {
namespace {

std::string trim(const std::string& text) {
  const auto first = text.find_first_not_of(' ');
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(' ') - first + 1);
}

std::vector<std::string> split_path(const std::string& path) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', begin)) {
    parts.push_back(path.substr(begin, dot - begin));
    begin = dot + 1;
  }
  parts.push_back(path.substr(begin));
  return parts;
}

/// The value of `key`, created where it is missing. An entry that is set here stands, for errors, in the override.
Value& entry_of(Value& mapping, const std::string& key, const Location& at) {
  const auto found = std::find_if(mapping.entries.begin(), mapping.entries.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  if (found != mapping.entries.end()) return found->value;
  Value empty;
  empty.at = at;
  mapping.entries.push_back({key, false, at, std::move(empty)});
  return mapping.entries.back().value;
}

void make_mapping(Value& value, const std::string& path, const Location& at) {
  if (value.kind == Value::Kind::null) {
    value.kind = Value::Kind::mapping;
    value.at = at;
  }
  if (value.kind == Value::Kind::mapping) return;
  throw ConfigError(at, path,
                    concat("got a path through ", describe(value), ", expected a mapping; set ", path, " as a whole"));
}

}  // namespace

void apply_override(Value& root, const std::string& text) {
  // "--change KEY=VALUE" says itself which flag it comes from.
  const std::size_t flag_end = text.starts_with("--") ? text.find(' ') + 1 : 0;
  const Location at{flag_end > 0 ? text : "--set " + text, 0, 0};
  const std::string assignment = text.substr(flag_end);
  const auto equals = assignment.find('=');
  const std::string path = trim(assignment.substr(0, equals));
  if (equals == std::string::npos) throw ConfigError(at, "", "got no '=', expected key=value, such as train.steps=100");
  const std::vector<std::string> parts = split_path(path);
  if (std::find(parts.begin(), parts.end(), "") != parts.end()) {
    throw ConfigError(at, "", "got an empty key, expected key=value, such as train.steps=100");
  }
  Value value = parse(assignment.substr(equals + 1), {at.file, path, /*located=*/false});
  Value* target = &root;
  std::string walked;
  for (const std::string& part : parts) {
    if (!walked.empty()) make_mapping(*target, walked, at);
    target = &entry_of(*target, part, at);
    walked = join_path(walked, part);
  }
  *target = std::move(value);
}

void apply_overlay(Value& root, const ConfigOverlay& overlay) {
  const Value& over = overlay.section.value();
  Value& target = entry_of(root, overlay.key, over.at);
  make_mapping(target, overlay.key, over.at);
  for (const Entry& entry : over.entries) {
    const std::vector<std::string>& keys = overlay.keys;
    if (!keys.empty() && std::find(keys.begin(), keys.end(), entry.key) == keys.end()) continue;
    const auto same_key = [&](const Entry& other) { return other.key == entry.key; };
    std::erase_if(target.entries, same_key);
    target.entries.push_back(entry);
  }
}

}  // namespace lockstep::yaml
