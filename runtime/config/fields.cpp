// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/fields.hpp"

#include <cctype>
#include <map>
#include <utility>

namespace lockstep {

using yaml::Value;

namespace {

class Reader : public FieldVisitor {
 public:
  explicit Reader(const Section& section) : section_(section) {}
  void operator()(const std::string& key, const Field& field, const Bits&, const std::string&) override {
    const bool there = section_.has(key);
    if (field.given != nullptr) *field.given = there;
    if (!field.users.empty()) {
      // A key that the chosen type would ignore is a misunderstanding.
      if (there)
        throw section_.unexpected(key, concat("no ", key, " with type ", field.type),
                                  concat("; it belongs to ", field.users, ": remove it"));
      return;
    }
    if (field.keys)
      read_fields(field.is_required ? section_.required_section(key) : section_.section(key), field.keys);
    else if (there || field.is_required)
      field.read(section_, key);
    else if (field.otherwise)
      field.otherwise();
    if (field.check) field.check(section_);
  }

 private:
  const Section& section_;
};

/// By path: what decides bits, and the texts of a default Config.
struct Facts : public FieldVisitor {
  std::map<std::string, Bits> bits;
  std::map<std::string, std::string> defaults;
  std::string path = {};

  void operator()(const std::string& key, const Field& field, const Bits& of_key, const std::string&) override {
    const std::string whole = yaml::join_path(path, key);
    bits[whole] = of_key;
    if (!field.keys) {
      defaults[whole] = text(field.write());
      return;
    }
    const std::string before = std::exchange(path, whole);
    field.keys(*this);
    path = before;
  }

  /// As a key of a mapping.
  static std::string text(const Value& value, const std::string& key = "key") {
    return yaml::to_text(mapping_value(key, value));
  }
};

const Facts& facts() {
  static const Facts all = [] {
    Facts facts;
    Config config;
    fields(facts, config);
    return facts;
  }();
  return all;
}

class Writer : public FieldVisitor {
 public:
  explicit Writer(std::string path) : path_(std::move(path)) { mapping_.kind = Value::Kind::mapping; }
  void operator()(const std::string& key, const Field& field, const Bits&, const std::string&) override {
    if (field.given != nullptr && !*field.given) return;
    const std::string path = yaml::join_path(path_, key);
    Value value = field.keys ? written(field.keys, path) : field.write();
    if (value.kind == Value::Kind::null || (field.keys && value.entries.empty())) return;
    if (!field.users.empty() && facts().defaults.at(path) == Facts::text(value)) return;
    mapping_.entries.push_back(mapping_value(key, std::move(value)).entries.front());
  }
  static Value written(const Keys& keys, const std::string& path) {
    Writer writer(path);
    keys(writer);
    return std::move(writer.mapping_);
  }

 private:
  std::string path_;
  Value mapping_ = scalar_value("");
};

/// "key: value" of each; with `blank`, only "key" of those that are required.
class Liner : public FieldVisitor {
 public:
  explicit Liner(bool blank) : blank_(blank) {}
  void operator()(const std::string& key, const Field& field, const Bits&, const std::string&) override {
    std::string text = key;
    if (!blank_ || !field.is_required) {
      text = Facts::text(field.write(), key);
      text.pop_back();
    }
    items_.push_back(text);
  }
  static std::vector<std::string> items(const Keys& keys, bool blank) {
    Liner liner(blank);
    keys(liner);
    return std::move(liner.items_);
  }

 private:
  bool blank_;
  std::vector<std::string> items_;
};

void move_to(const std::string& file, Value& value) {
  value.at = {file, 0, 0};
  for (Value& item : value.items) move_to(file, item);
  for (yaml::Entry& entry : value.entries) move_to(file, entry.value);
}

}  // namespace

Value scalar_value(const std::string& text) {
  Value value;
  value.kind = Value::Kind::scalar;
  value.text = text;
  value.quoted = text.empty();
  value.at = {"Config", 0, 0};  // where errors of a Config that a program made stand
  return value;
}

Value mapping_value(const std::string& key, Value value) {
  yaml::Entry entry;
  entry.key = key;
  entry.value = std::move(value);
  Value mapping = scalar_value("");
  mapping.kind = Value::Kind::mapping;
  mapping.entries.push_back(std::move(entry));
  return mapping;
}

Field keys_below(Keys keys) {
  Field field;
  field.keys = std::move(keys);
  return field;
}

bool can_be_a_name(const std::string& text) {
  return !text.empty() && std::isalpha(static_cast<unsigned char>(text.front())) != 0;
}

void plugin_fields(FieldVisitor& visit, const PluginKind& plugin) {
  if (plugin.name.empty()) return;
  for (const yaml::Entry& entry : plugin.keys.value().entries) {
    if (entry.key == "type") continue;
    Field field;
    field.read = [](const Section&, const std::string&) {};  // by whoever knows the type
    field.write = [&entry] { return entry.value; };
    visit(entry.key, field, kDecides, "");
  }
}

bool PluginKind::operator==(const PluginKind& other) const {
  return name == other.name && (name.empty() || keys.to_yaml() == other.keys.to_yaml());
}

void read_fields(const Section& section, const Keys& keys) {
  Reader reader(section);
  keys(reader);
  section.finish();
}

void check_fields(const std::string& what, const Keys& keys) {
  Value value = written_fields(keys);
  move_to(what, value);
  read_fields(yaml::root_section(std::make_shared<const Value>(std::move(value))), keys);
}

std::string line_of(const Keys& keys) {
  return join(Liner::items(keys, /*blank=*/false));
}

std::vector<std::string> defaults_of(const Keys& keys) {
  return Liner::items(keys, /*blank=*/true);
}

Value written_fields(const Keys& keys) {
  return Writer::written(keys, "");
}

bool decides_bits(const std::string& key) {
  // A key below a mapping that others read is what that mapping is.
  std::string known = key;
  while (!facts().bits.contains(known)) {
    const std::size_t dot = known.rfind('.');
    if (dot == std::string::npos) return true;
    known.resize(dot);
  }
  const Bits& bits = facts().bits.at(known);
  const bool spared = bits.free_below != nullptr && key.starts_with(known + "." + bits.free_below);
  return bits.decide && !spared;
}

std::vector<std::string> config_keys() {
  std::vector<std::string> keys;
  for (const auto& [key, bits] : facts().bits) keys.push_back(key);
  return keys;
}

std::optional<std::string> value_before(const std::string& key) {
  const auto found = facts().bits.find(key);
  if (found == facts().bits.end() || found->second.before == nullptr) return std::nullopt;
  return found->second.before;
}

}  // namespace lockstep
