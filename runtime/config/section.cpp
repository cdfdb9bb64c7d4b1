// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/section.hpp"

#include <algorithm>
#include <mutex>

#include "runtime/base/text.hpp"
#include "runtime/config/value.hpp"

namespace lockstep {

using yaml::Entry;
using yaml::Value;

struct Section::Node {
  std::shared_ptr<const Value> mapping;  ///< shares the ownership of the whole document
  std::string path;
  std::mutex mutex = {};
  std::vector<std::string> known = {};  ///< guarded by mutex; in the order of asking, which is the order people expect

  const Value* find(const std::string& key) {
    const std::scoped_lock lock(mutex);
    if (std::find(known.begin(), known.end(), key) == known.end()) known.push_back(key);
    return mapping->find(key);
  }
  bool knows(const std::string& key) {
    const std::scoped_lock lock(mutex);
    return std::find(known.begin(), known.end(), key) != known.end();
  }
};

namespace {

std::shared_ptr<const Value> empty_mapping(const Location& at) {
  Value value;
  value.kind = Value::Kind::mapping;
  value.at = at;
  return std::make_shared<const Value>(std::move(value));
}

ConfigError unexpected_value(const Value& value, const std::string& path, const std::string& expected,
                             const std::string& advice) {
  return ConfigError(value.at, path, concat("got ", yaml::describe(value), ", expected ", expected, advice));
}

template <typename T>
T read_scalar(const Value& value, const std::string& path, const Rule<T>& rule) {
  T result{};
  const yaml::Conversion conversion = yaml::convert(value, result);
  if (!conversion.ok) {
    throw unexpected_value(value, path, rule.text, conversion.why.empty() ? "" : "; " + conversion.why);
  }
  if (!rule.holds(result)) throw unexpected_value(value, path, rule.text, rule.advice ? rule.advice(result) : "");
  return result;
}

template <typename T>
std::vector<T> read_list(const Value& value, const std::string& path, const Rule<T>& each) {
  if (value.kind != Value::Kind::sequence) {
    const bool scalar = value.kind == Value::Kind::scalar;
    throw unexpected_value(value, path, "a list", scalar ? concat("; write [", yaml::describe(value), "]") : "");
  }
  std::vector<T> result;
  for (const Value& item : value.items) {
    result.push_back(read_scalar(item, concat(path, "[", result.size(), "]"), each));
  }
  return result;
}

template <typename T>
Rule<T> any_value() {
  return {yaml::type_text<T>(), [](const T&) { return true; }};
}

// How each type of get() reads; the list types take any element.
template <typename T>
struct Reader {
  static Rule<T> any() { return any_value<T>(); }
  static T read(const Value& value, const std::string& path, const Rule<T>& rule) {
    return read_scalar(value, path, rule);
  }
};
template <typename E>
struct Reader<std::vector<E>> {
  using T = std::vector<E>;
  static Rule<T> any() {
    return {"a list", [](const T&) { return true; }};
  }
  static T read(const Value& value, const std::string& path, const Rule<T>& rule) {
    T result = read_list<E>(value, path, any_value<E>());
    if (!rule.holds(result)) throw unexpected_value(value, path, rule.text, rule.advice ? rule.advice(result) : "");
    return result;
  }
};

/// For a key that is not known in the mapping `path`: it may be one of another mapping.
std::string hint_for(const std::string& key, const std::string& path, const std::vector<std::string>& known) {
  std::string near = did_you_mean(key, known);
  const std::string ours = own_name(key);
  if (!near.empty() || ours.empty()) return near;
  const std::size_t dot = ours.rfind('.');
  return ours.substr(0, dot == std::string::npos ? 0 : dot) == path ? "" : concat("; did you mean ", ours, "?");
}

}  // namespace

ConfigError::ConfigError(const Location& location, const std::string& key, const std::string& message)
    // Keys and overrides may hold line breaks; a message is one line.
    : UserError(one_line(prefix_of({location, key}) + message)), location_(location), key_(key) {}

Section yaml::root_section(std::shared_ptr<const Value> document) {
  return Section(std::make_shared<Section::Node>(std::move(document), ""));
}

Section::Section() : node_(std::make_shared<Node>(empty_mapping({"(no file)", 0, 0}), "")) {}
Section::Section(std::shared_ptr<Node> node) : node_(std::move(node)) {}

template <typename T>
T Section::read(const std::string& key, const Rule<T>& rule) const {
  const Value* value = node_->find(key);
  if (!value) throw missing(key, rule.text);
  return Reader<T>::read(*value, yaml::join_path(path(), key), rule);
}

template <typename T>
T Section::get(const std::string& key) const {
  return read<T>(key, Reader<T>::any());
}

template <typename T>
T Section::get(const std::string& key, const T& default_value) const {
  return has(key) ? get<T>(key) : default_value;
}

template <typename T>
T Section::get(const std::string& key, const Rule<T>& rule) const {
  return read<T>(key, rule);
}

template <typename T>
T Section::get(const std::string& key, const T& default_value, const Rule<T>& rule) const {
  return has(key) ? read<T>(key, rule) : default_value;
}

template <typename T>
std::vector<T> Section::list(const std::string& key, const Rule<T>& each) const {
  const Value* value = node_->find(key);
  if (!value) throw missing(key, "a list");
  return read_list<T>(*value, yaml::join_path(path(), key), each);
}

template <typename T>
std::vector<T> Section::list(const std::string& key, const std::vector<T>& default_value, const Rule<T>& each) const {
  return has(key) ? list<T>(key, each) : default_value;
}

bool Section::has(const std::string& key) const {
  return node_->find(key) != nullptr;
}

bool Section::is_scalar(const std::string& key) const {
  const Value* value = node_->find(key);
  return value && value->kind == Value::Kind::scalar;
}

bool Section::is_sequence(const std::string& key) const {
  const Value* value = node_->find(key);
  return value && value->kind == Value::Kind::sequence;
}

bool Section::is_mapping(const std::string& key) const {
  const Value* value = node_->find(key);
  return value && value->kind == Value::Kind::mapping;
}

Section Section::section(const std::string& key) const {
  const Value* value = node_->find(key);
  const std::string below = yaml::join_path(path(), key);
  if (!value) return Section(std::make_shared<Node>(empty_mapping(location()), below));
  if (value->kind != Value::Kind::mapping) throw unexpected_value(*value, below, "a mapping", "");
  return Section(std::make_shared<Node>(std::shared_ptr<const Value>(node_->mapping, value), below));
}

Section Section::required_section(const std::string& key) const {
  if (!has(key)) throw missing(key, "a mapping");
  return section(key);
}

namespace {

/// {type: name}
std::shared_ptr<const Value> with_type(const Value& name) {
  auto mapping = std::make_shared<Value>();
  mapping->kind = Value::Kind::mapping;
  mapping->at = name.at;
  mapping->entries.push_back({"type", false, name.at, name});
  return mapping;
}

/// What a list has to be, and each of its items.
struct ListRule {
  const char* list;
  const char* item;
  std::string advice;
  bool names = false;  ///< a name alone stands for {type: name}
};

std::vector<Section> items_of(const std::shared_ptr<const Value>& whole, const Value* value, const std::string& path,
                              const ListRule& rule) {
  if (!value) return {};
  if (value->kind != Value::Kind::sequence) throw unexpected_value(*value, path, rule.list, "");
  std::vector<Section> result;
  for (const Value& item : value->items) {
    const std::string element = concat(path, "[", result.size(), "]");
    const bool is_name = rule.names && item.kind == Value::Kind::scalar;
    if (!is_name && item.kind != Value::Kind::mapping) throw unexpected_value(item, element, rule.item, rule.advice);
    result.push_back(Section(std::make_shared<Section::Node>(
        is_name ? with_type(item) : std::shared_ptr<const Value>(whole, &item), element)));
  }
  return result;
}

}  // namespace

std::vector<Section> Section::sections(const std::string& key, const std::string& advice) const {
  return items_of(node_->mapping, node_->find(key), yaml::join_path(path(), key),
                  {"a list of mappings", "a mapping", advice});
}

Section Section::named(const std::string& key) const {
  if (!is_scalar(key)) return section(key);
  return Section(std::make_shared<Node>(with_type(*node_->find(key)), yaml::join_path(path(), key)));
}

std::vector<Section> Section::named_list(const std::string& key) const {
  return items_of(node_->mapping, node_->find(key), yaml::join_path(path(), key),
                  {"a list of names, or of mappings with a type", "a name, or a mapping with a type", "", true});
}

Section Section::without(const std::vector<std::string>& keys) const {
  Value rest = *node_->mapping;
  std::erase_if(rest.entries,
                [&](const Entry& entry) { return std::find(keys.begin(), keys.end(), entry.key) != keys.end(); });
  for (const Entry& entry : rest.entries) has(entry.key);
  return Section(std::make_shared<Node>(std::make_shared<const Value>(std::move(rest)), path()));
}

Section Section::overlaid(const Section& own) const {
  Value both = *node_->mapping;
  for (const Entry& entry : own.value().entries) {
    const auto before = std::find_if(both.entries.begin(), both.entries.end(),
                                     [&](const Entry& each) { return each.key == entry.key; });
    if (before == both.entries.end())
      both.entries.push_back(entry);
    else
      *before = entry;
  }
  return Section(std::make_shared<Node>(std::make_shared<const Value>(std::move(both)), path()));
}

std::vector<std::string> Section::keys() const {
  std::vector<std::string> result;
  for (const Entry& entry : node_->mapping->entries) result.push_back(entry.key);
  return result;
}

void Section::finish() const {
  for (const Entry& entry : node_->mapping->entries) {
    if (node_->knows(entry.key)) continue;
    const std::scoped_lock lock(node_->mutex);
    const std::vector<std::string>& known = node_->known;
    throw ConfigError(entry.key_at, yaml::join_path(path(), entry.key),
                      concat("got an unknown key, expected ",
                             known.empty()      ? "none"
                             : known.size() > 1 ? "one of "
                                                : "",
                             join(known), hint_for(entry.key, path(), known)));
  }
}

ConfigError Section::error(const std::string& key, const std::string& message) const {
  const Value* value = node_->mapping->find(key);
  return ConfigError(value ? value->at : location(), yaml::join_path(path(), key), message);
}

ConfigError Section::unexpected(const std::string& key, const std::string& expected, const std::string& advice) const {
  const Value* value = node_->mapping->find(key);
  if (!value) return missing(key, expected + advice);
  return unexpected_value(*value, yaml::join_path(path(), key), expected, advice);
}

ConfigError Section::missing(const std::string& key, const std::string& expected) const {
  const std::string what = concat("missing, expected ", expected);
  // A required key is more often misspelled than forgotten.
  for (const Entry& entry : node_->mapping->entries) {
    const bool lacks_colon = entry.key.starts_with(key + " ");  // {in 288, out: 4}
    if (node_->knows(entry.key) || !(lacks_colon || nearest(entry.key, {key}))) continue;
    return ConfigError(entry.key_at, yaml::join_path(path(), key),
                       concat(what, "; is '", entry.key, "' here a misspelling of it?"));
  }
  return error(key, what);
}

const std::string& Section::path() const {
  return node_->path;
}
const Location& Section::location() const {
  return node_->mapping->at;
}
const yaml::Value& Section::value() const {
  return *node_->mapping;
}
std::string Section::to_yaml() const {
  return yaml::to_text(*node_->mapping);
}
std::string Section::text(const std::string& key) const {
  for (const Entry& entry : node_->mapping->entries) {
    if (entry.key != key) continue;
    Value alone;
    alone.kind = Value::Kind::mapping;
    alone.entries = {entry};
    const std::string all = yaml::to_text(alone);
    const std::size_t begin = all.find_first_not_of(" \n", yaml::scalar_text(key, entry.key_quoted).size() + 1);
    return all.substr(begin, all.find_last_not_of('\n') + 1 - begin);
  }
  return "";
}

#define LOCKSTEP_SECTION_GET(...)                                                        \
  template __VA_ARGS__ Section::get(const std::string&) const;                           \
  template __VA_ARGS__ Section::get(const std::string&, const __VA_ARGS__&) const;       \
  template __VA_ARGS__ Section::get(const std::string&, const Rule<__VA_ARGS__>&) const; \
  template __VA_ARGS__ Section::get(const std::string&, const __VA_ARGS__&, const Rule<__VA_ARGS__>&) const
#define LOCKSTEP_SECTION_LIST(T)                                                   \
  LOCKSTEP_SECTION_GET(T);                                                         \
  LOCKSTEP_SECTION_GET(std::vector<T>);                                            \
  template std::vector<T> Section::list(const std::string&, const Rule<T>&) const; \
  template std::vector<T> Section::list(const std::string&, const std::vector<T>&, const Rule<T>&) const

LOCKSTEP_SECTION_GET(bool);
LOCKSTEP_SECTION_GET(std::uint64_t);
LOCKSTEP_SECTION_LIST(int);
LOCKSTEP_SECTION_LIST(std::int64_t);
LOCKSTEP_SECTION_LIST(double);
LOCKSTEP_SECTION_LIST(std::string);
#undef LOCKSTEP_SECTION_LIST
#undef LOCKSTEP_SECTION_GET

}  // namespace lockstep
