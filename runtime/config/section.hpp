// SPDX-License-Identifier: Apache-2.0
//
// A typed, located view of one YAML mapping. Whoever owns a part of the config reads its own keys from its Section and
// calls finish(), which refuses keys that nobody asked for. Torch-free; yaml-cpp stays behind this header.
//
// A Section is a cheap handle: copies look at the same immutable mapping, remember together which keys were asked for,
// and may be read from several threads.
//
//   Section data = ...;
//   const std::string glob = data.get<std::string>("train");   // required
//   const int rows = data.get<int>("rows", 64, at_least(1));   // default and rule
//   data.finish();                                             // unknown keys: ConfigError with the nearest name
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/error.hpp"
#include "runtime/base/location.hpp"
#include "runtime/base/nearest.hpp"

namespace lockstep {

namespace yaml {
struct Value;
}

/// "configs/a.yaml:12:9: train.batch: got -3, expected an integer >= 1". Exit code 2. An empty key is left out.
class ConfigError : public UserError {
 public:
  ConfigError(const Location& location, const std::string& key, const std::string& message);
  const Location& location() const { return location_; }
  const std::string& key() const { return key_; }

 private:
  Location location_;
  std::string key_;
};

/// A rule for a value: its text ("an integer >= 1") and its test.
template <typename T>
struct Rule {
  std::string text;
  std::function<bool(const T&)> holds;
  std::function<std::string(const T&)> advice = {};  ///< optional end of the message, such as "; did you mean 'x'?"
};
// T: int, int64_t, uint64_t, double.
template <typename T>
Rule<T> at_least(T low);
template <typename T>
Rule<T> above(T low);
template <typename T>
Rule<T> between(T low, T high);     ///< closed interval
Rule<double> fraction_below_one();  ///< 0 <= x < 1: probabilities of dropping, decay rates
Rule<std::string> not_empty();
Rule<std::string> one_of(std::vector<std::string> names);  ///< the error offers the nearest name

class Section {
 public:
  struct Node;  // holds the YAML node
  /// An empty mapping: every get() gives its default.
  Section();
  explicit Section(std::shared_ptr<Node> node);

  /// T: bool, int, int64_t, uint64_t, double, std::string, std::vector of int, int64_t, double or std::string.
  /// Booleans are true/false only; integers are decimal only; numbers are finite. A required key that is missing, a
  /// null, or another type: ConfigError that says what was got and what was expected.
  template <typename T>
  T get(const std::string& key) const;
  template <typename T>
  T get(const std::string& key, const T& default_value) const;
  template <typename T>
  T get(const std::string& key, const Rule<T>& rule) const;
  template <typename T>
  T get(const std::string& key, const T& default_value, const Rule<T>& rule) const;

  /// A list whose every element keeps the rule (the error names the element). A missing key: the default, or an error.
  /// T: int, int64_t, double, std::string.
  template <typename T>
  std::vector<T> list(const std::string& key, const Rule<T>& each) const;
  template <typename T>
  std::vector<T> list(const std::string& key, const std::vector<T>& default_value, const Rule<T>& each) const;

  // These mark the key as known, like every get. A null counts as present.
  bool has(const std::string& key) const;
  bool is_scalar(const std::string& key) const;    ///< present and a scalar
  bool is_sequence(const std::string& key) const;  ///< present and a list
  bool is_mapping(const std::string& key) const;   ///< present and a mapping
  /// A mapping below; an empty Section when the key is absent. Every call starts with no key known.
  Section section(const std::string& key) const;
  /// The same, but an absent key is an error.
  Section required_section(const std::string& key) const;
  /// A sequence of mappings; empty when absent. `advice` ends the error of an item that is none.
  std::vector<Section> sections(const std::string& key, const std::string& advice = "") const;
  /// The mapping `key`; a name alone stands for {type: name}. An empty Section when absent.
  Section named(const std::string& key) const;
  /// A list of these.
  std::vector<Section> named_list(const std::string& key) const;
  /// The same mapping without these keys, with places and paths as here: what is left to somebody else to read, so it
  /// counts as known here.
  Section without(const std::vector<std::string>& keys) const;
  /// The same mapping with the keys of `own` in the place of those of the same names, which stand where `own` has them.
  Section overlaid(const Section& own) const;
  /// The mapping's own keys, in file order.
  std::vector<std::string> keys() const;

  /// Refuses every key that no get/has/section asked for. Call once per Section, after reading.
  void finish() const;

  /// A ConfigError at the value of `key` (or at the mapping, when the key is absent).
  [[nodiscard]] ConfigError error(const std::string& key, const std::string& message) const;
  /// The same with "got X, expected `expected`" as the message; `advice` is appended as it is.
  [[nodiscard]] ConfigError unexpected(const std::string& key, const std::string& expected,
                                       const std::string& advice = "") const;
  /// Dotted path, e.g. "train.optimizer"; empty for the root.
  const std::string& path() const;
  /// Where the mapping stands.
  const Location& location() const;
  Origin origin() const { return {location(), path()}; }
  /// Block-style YAML text of this mapping: overrides applied, aliases and merge keys expanded, comments gone. "{}\n"
  /// when empty.
  std::string to_yaml() const;
  /// The value of `key` as YAML text, as to_yaml() would write it; empty when there is none.
  std::string text(const std::string& key) const;
  /// The tree behind it, for the other files of this folder.
  const yaml::Value& value() const;

 private:
  template <typename T>
  T read(const std::string& key, const Rule<T>& rule) const;
  [[nodiscard]] ConfigError missing(const std::string& key, const std::string& expected) const;

  std::shared_ptr<Node> node_;
};

/// What is laid over a file, such as a plan: each key of `section` takes the place of the one of the same name in the
/// mapping `key` of the config, and stands, for errors, where it stood.
struct ConfigOverlay {
  std::string key;
  Section section;
  std::vector<std::string> keys = {};  ///< which of them; empty: all
};

/// Reads a file into its root Section. Errors: unreadable file, bad YAML (with line and column), several documents, not
/// a mapping, duplicate keys anywhere (both lines named), tags. Aliases and merge keys (`<<: *a`) are expanded.
/// `overrides`: "a.b=c" texts (--set; "--change a.b=c" of another flag); c is parsed as YAML; each is applied in turn
/// before anything is read, replaces what was there and creates missing mappings on the way. `overlays` come before
/// them.
Section load_config_file(const std::string& path, const std::vector<std::string>& overrides = {},
                         const std::vector<ConfigOverlay>& overlays = {});
/// The same from text; `name` stands in for the file name in errors.
Section load_config_text(const std::string& text, const std::string& name,
                         const std::vector<std::string>& overrides = {},
                         const std::vector<ConfigOverlay>& overlays = {});

}  // namespace lockstep
