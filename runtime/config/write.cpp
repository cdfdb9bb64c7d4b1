// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "runtime/config/value.hpp"

namespace lockstep::yaml {
namespace {

constexpr std::size_t kLongestGot = 60;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Deliberately narrow: every scalar of these characters is plain in all YAML readers, in block and flow context.
bool is_plain(const std::string& text) {
  if (text.empty()) return false;
  const bool signed_or_dotted = text[0] == '-' || text[0] == '+' || text[0] == '.';
  const char first = signed_or_dotted && text.size() > 1 ? text[1] : text[0];
  if (!is_letter_or_digit(first) && !(first == '.' && text[0] != '.') && first != '_' && first != '/') return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return is_letter_or_digit(c) || std::string_view("_./+-").find(c) != std::string_view::npos;
  });
}

bool reads_as_null(const std::string& text) {
  return text == "null" || text == "Null" || text == "NULL";
}

std::string quote(const std::string& text) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (code < 0x20 || code == 0x7F) {
      quoted += {'\\', 'x', hex[code >> 4], hex[code & 0xF]};
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

bool is_flat(const Value& value) {
  return std::all_of(value.items.begin(), value.items.end(), [](const Value& item) {
    return item.kind == Value::Kind::scalar || item.kind == Value::Kind::null;
  });
}

/// Values that fit behind "key: " on its line.
std::string inline_text(const Value& value) {
  switch (value.kind) {
    case Value::Kind::null: return "null";
    case Value::Kind::scalar: return scalar_text(value.text, value.quoted);
    case Value::Kind::mapping: return "{}";
    case Value::Kind::sequence: break;
  }
  std::vector<std::string> items;
  for (const Value& item : value.items) items.push_back(inline_text(item));
  return "[" + join(items) + "]";
}

bool is_inline(const Value& value) {
  switch (value.kind) {
    case Value::Kind::null:
    case Value::Kind::scalar: return true;
    case Value::Kind::sequence: return is_flat(value);
    case Value::Kind::mapping: return value.entries.empty();
  }
  return true;
}

std::string sequence_text(const Value& sequence, int indent) {
  std::string text;
  for (const Value& item : sequence.items) {
    const std::string dash = std::string(static_cast<std::size_t>(indent), ' ') + "- ";
    if (is_inline(item)) {
      text += dash + inline_text(item) + "\n";
      continue;
    }
    // The first line of a nested block starts behind the dash.
    const std::string block =
        item.kind == Value::Kind::mapping ? to_text(item, indent + 2) : sequence_text(item, indent + 2);
    text += dash + block.substr(static_cast<std::size_t>(indent) + 2);
  }
  return text;
}

}  // namespace

const Value* Value::find(const std::string& key) const {
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
  return entry == entries.end() ? nullptr : &entry->value;
}

std::string to_text(const Value& value, int indent) {
  if (value.entries.empty()) return "{}\n";
  std::string text;
  for (const Entry& entry : value.entries) {
    text += std::string(static_cast<std::size_t>(indent), ' ') + scalar_text(entry.key, entry.key_quoted) + ":";
    if (is_inline(entry.value)) {
      text += " " + inline_text(entry.value) + "\n";
    } else if (entry.value.kind == Value::Kind::mapping) {
      text += "\n" + to_text(entry.value, indent + 2);
    } else {
      text += "\n" + sequence_text(entry.value, indent + 2);
    }
  }
  return text;
}

std::string scalar_text(const std::string& text, bool quoted) {
  return quoted || !is_plain(text) || reads_as_null(text) ? quote(text) : text;
}

std::string number_text(double number) {
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number).ptr;
  return {buffer.data(), end};
}

std::string describe(const Value& value) {
  std::string text;
  switch (value.kind) {
    case Value::Kind::null: return "nothing";
    case Value::Kind::mapping: return "a mapping";
    case Value::Kind::scalar:
      // Quotes say "this is text"; otherwise the error shows what the file shows.
      text = value.quoted || value.text.find_first_of("\n\t\"") != std::string::npos ? quote(value.text) : value.text;
      break;
    case Value::Kind::sequence:
      text = is_flat(value) ? inline_text(value) : concat("a list of ", value.items.size());
      break;
  }
  if (text.size() <= kLongestGot) return text;
  std::size_t cut = kLongestGot - 3;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return text.substr(0, cut) + "...";
}

std::string join_path(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

}  // namespace lockstep::yaml
