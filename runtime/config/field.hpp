// SPDX-License-Identifier: Apache-2.0
//
// A key and its member, once. Whoever has options lists them for visitors that read, write, check or list them:
//
//   void fields(FieldVisitor& visit, DropoutConfig& config) {
//     visit("p", value(config.p, fraction_below_one()).required());
//   }
//
// Keys are visited in order, and a list may ask what the keys before have said. Layers list theirs so (layer_of.hpp);
// the lists of the config itself are in fields.hpp.
#pragma once

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <utility>
#include <vector>

#include "runtime/base/enums.hpp"
#include "runtime/config/value.hpp"

namespace lockstep {

class FieldVisitor;
using Keys = std::function<void(FieldVisitor&)>;

/// What a key is to a checkpoint.
struct Bits {
  bool decide = false;
  const char* before = nullptr;      ///< see value_before()
  const char* free_below = nullptr;  ///< of a mapping that others read: what its keys begin with that do not decide
};
inline constexpr Bits kFree{};
inline constexpr Bits kDecides{.decide = true};
/// Of a key that is younger than 0.1.0: what was computed before there was one, as YAML.
constexpr Bits decides_since(const char* before) {
  return {.decide = true, .before = before};
}

/// A member, as a key fills it and is written from it.
struct Field {
  std::string rule = {};  ///< what a value has to be; empty: the manual says it
  std::function<void(const Section&, const std::string& key)> read = {};
  std::function<yaml::Value()> write = {};  ///< null: the key is left out
  Keys keys = {};                           ///< of a mapping, in place of the three above
  bool is_required = false;
  std::function<void()> otherwise = {};            ///< without the key; none: the member keeps its default
  std::function<void(const Section&)> check = {};  ///< what depends on other keys; of the mapping that has the key
  bool* given = nullptr;                           ///< whether the mapping is there: it is not written when it was not
  std::string type = {}, users = {};               ///< with `users`, the key is of these types, and not of this one
  std::string shown = {};                          ///< in the reference, in place of the default

  Field& required() { return set(is_required, true); }
  Field& or_else(std::function<void()> action) { return set(otherwise, std::move(action)); }
  Field& checked(std::function<void(const Section&)> what) { return set(check, std::move(what)); }
  Field& with_example(const char* text) { return set(shown, text); }
  template <Named E>
  Field& only_of(E chosen, std::initializer_list<E> types) {
    if (std::find(types.begin(), types.end(), chosen) != types.end()) return *this;
    std::string all;
    for (const E* one = types.begin(); one != types.end(); ++one)
      all += concat(all.empty() ? "" : one + 1 == types.end() ? " and " : ", ", to_string(*one));
    type = name_of(chosen);
    return set(users, all);
  }

 private:
  template <typename T, typename V>
  Field& set(T& member, V&& to) {
    member = std::forward<V>(to);
    return *this;
  }
};

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void operator()(const std::string& key, const Field& field, const Bits& bits, const std::string& manual) = 0;
  /// Of something that is part of a model: it decides bits as a whole, and its page has the manual.
  void operator()(const std::string& key, const Field& field) { (*this)(key, field, kDecides, ""); }
};

// ---- members as fields ----

yaml::Value scalar_value(const std::string& text);
/// With one entry.
yaml::Value mapping_value(const std::string& key, yaml::Value value);
template <typename T>
std::string text_of(const T& value) {
  if constexpr (std::is_same_v<T, bool>)
    return value ? "true" : "false";
  else if constexpr (std::is_same_v<T, double>)
    return yaml::number_text(value);
  else
    return concat(value);
}
template <typename T>
yaml::Value list_value(const std::vector<T>& values) {
  yaml::Value list = scalar_value("");
  list.kind = yaml::Value::Kind::sequence;
  for (const T& value : values) list.items.push_back(scalar_value(text_of(value)));
  return list;
}

template <typename T>
Field value(T& member, const Rule<T>& rule) {
  return {rule.text,
          [&member, rule](const Section& section, const std::string& key) { member = section.get(key, rule); },
          [&member] { return scalar_value(text_of(member)); }};
}
template <typename T>
Field value(T& member) {
  return {"", [&member](const Section& section, const std::string& key) { member = section.get<T>(key); },
          [&member] { return scalar_value(text_of(member)); }};
}
template <Named E>
Field value(E& member) {
  const Rule<std::string> rule = one_of(names<E>());
  return {rule.text,
          [&member, rule](const Section& section, const std::string& key) {
            member = *find_enum<E>(section.get(key, rule));
          },
          [&member] { return scalar_value(name_of(member)); }};
}
/// `some`: what is expected in place of an empty list, when that is an error.
template <typename T>
Field list(std::vector<T>& member, const Rule<T>& each, const std::string& some = "") {
  return {"",
          [&member, each, some](const Section& section, const std::string& key) {
            member = section.list(key, each);
            if (member.empty() && !some.empty()) throw section.unexpected(key, some);
          },
          [&member] { return list_value(member); }};
}
Field keys_below(Keys keys);
/// A mapping whose list is fields(visit, member).
template <typename S>
Field mapping(S& member) {
  return keys_below([&member](FieldVisitor& visit) { fields(visit, member); });
}
/// A key of later work: only `neutral` passes.
template <typename T>
Field later(const T& neutral, const Rule<T>& rule, const char* work) {
  return {std::is_same_v<T, bool> ? "" : rule.text,
          [=](const Section& section, const std::string& key) {
            if (section.get(key, rule) == neutral) return;
            throw section.unexpected(key, text_of(neutral), concat("; ", work, ": not available yet"));
          },
          [] { return yaml::Value(); }};
}

// ---- what is done with lists ----

/// Reads the keys and refuses others.
void read_fields(const Section& section, const Keys& keys);
/// Holds what a program has filled in to the rules of reading; `what` stands where a file would in errors.
void check_fields(const std::string& what, const Keys& keys);
/// "p: 0.1, inplace: false", in order.
std::string line_of(const Keys& keys);
/// The same of one that nobody has filled in: an item for each key, "in" for one that is required, "bias: true".
std::vector<std::string> defaults_of(const Keys& keys);
/// A mapping with all of them. Keys that the chosen type does not use are left out, unless somebody has set them.
yaml::Value written_fields(const Keys& keys);

}  // namespace lockstep
