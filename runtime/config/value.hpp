// SPDX-License-Identifier: Apache-2.0
//
// One YAML document as a plain tree: what a Section looks at. For this folder, and for fields that read and write in a
// way of their own (field.hpp).
//
// Why not YAML::Node: it forgets duplicate keys, shares aliased nodes (an override would change all uses), cannot carry
// the place of an override, and gives a null the place of whatever follows it. This tree is made from the parser's
// events: aliases and merge keys (`<<`) are expanded, every node knows where it stands, nothing can contain itself.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/config/section.hpp"

namespace lockstep::yaml {

struct Entry;

struct Value {
  enum class Kind { null, scalar, sequence, mapping };
  Kind kind = Kind::null;
  bool quoted = false;  ///< scalar in quotes or a block scalar: text whatever it looks like
  std::string text;     ///< scalar
  Location at;
  std::vector<Value> items;    ///< sequence
  std::vector<Entry> entries;  ///< mapping, in file order, no key twice

  const Value* find(const std::string& key) const;
};

struct Entry {
  std::string key;
  bool key_quoted = false;
  Location key_at;
  Value value;
};

/// Deeper nesting and larger documents (aliases expanded) are refused: a few lines of aliases can stand for gigabytes.
inline constexpr int kMaxDepth = 64;
inline constexpr std::size_t kMaxNodes = 100'000;

/// What a text is, for Locations and errors.
struct Source {
  std::string name;       ///< the file, or what stands in for it
  std::string path = {};  ///< the key whose value the text is; empty for a whole document
  bool located = true;    ///< false: lines and columns stay 0, for texts that are not files
};

/// One document, which may be empty (null). Throws ConfigError. (parse.cpp, the only file that sees yaml-cpp.)
Value parse(const std::string& text, const Source& source);

/// Applies one "a.b=c" to a root mapping. Throws ConfigError. (override.cpp)
void apply_override(Value& root, const std::string& text);
/// Applies one overlay to a root mapping. Throws ConfigError when something other than a mapping is in its place.
void apply_overlay(Value& root, const ConfigOverlay& overlay);

/// Block style; `value` is a mapping. Reading the text again gives the same tree. (write.cpp)
std::string to_text(const Value& value, int indent = 0);
/// A string as a YAML scalar that reads back as the same text: quoted when it has to be.
std::string scalar_text(const std::string& text, bool quoted = false);
/// The shortest decimal text that reads back as the same number.
std::string number_text(double number);
/// What an error says was got: `-3`, `"3"`, `[0, 0, 1]`, `a mapping`. One line, cut when long.
std::string describe(const Value& value);

/// "a.b" from "a" and "b"; the path of a root's key is the key.
std::string join_path(const std::string& path, const std::string& key);

/// The Section of a whole document. (section.cpp)
Section root_section(std::shared_ptr<const Value> document);

// Scalars to C++ values (scalar.cpp). On failure `why` says what to do, or is empty when type says it all.
struct Conversion {
  bool ok = false;
  std::string why;
};
template <typename T>
Conversion convert(const Value& value, T& result);
template <typename T>
std::string type_text();  ///< "an integer"

}  // namespace lockstep::yaml
