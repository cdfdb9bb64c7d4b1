// SPDX-License-Identifier: Apache-2.0
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <optional>
#include <set>
#include <sstream>

#include "runtime/config/value.hpp"

namespace lockstep::yaml {
namespace {

/// The text by lines, to turn yaml-cpp's marks (0-based, columns in bytes) into what an editor shows.
class Places {
 public:
  Places(const std::string& text, std::string name, bool located) : name_(std::move(name)), located_(located) {
    std::istringstream stream(text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text);
    for (std::string line; std::getline(stream, line);) lines_.push_back(line);
  }

  Location at(const YAML::Mark& mark) const { return mark.is_null() ? at(0, 0) : at(mark.line, mark.column); }

  Location at(int line, int byte) const {
    if (!located_) return {name_, 0, 0};
    const std::string before = line_text(line).substr(0, static_cast<std::size_t>(byte));
    const auto continuation_bytes = std::count_if(
        before.begin(), before.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; });
    return {name_, line + 1, byte + 1 - static_cast<int>(continuation_bytes)};
  }

  std::string rest(const YAML::Mark& mark) const {
    const std::string line = line_text(mark.line);
    return static_cast<std::size_t>(mark.column) < line.size() ? line.substr(static_cast<std::size_t>(mark.column))
                                                               : "";
  }

  char character(const YAML::Mark& mark) const {
    const std::string here = rest(mark);
    return here.empty() ? ' ' : here[0];
  }

  /// Whether the quoted scalar at `mark` (or behind an anchor there) ends: yaml-cpp takes the end of the file for a
  /// quote.
  bool quote_closes(const YAML::Mark& mark) const {
    std::string text = rest(mark);
    // Most quotes close on their own line, and a document has many: look at 1, 2, 4, ... lines more only as needed.
    std::size_t line = static_cast<std::size_t>(mark.line) + 1;
    for (std::size_t more = 1; !quote_closes_in(text); more *= 2) {
      if (line >= lines_.size()) return false;
      for (std::size_t i = 0; i < more && line < lines_.size(); ++i) text += "\n" + lines_[line++];
    }
    return true;
  }

  bool indented_with_tab(int line) const {
    const std::string text = line_text(line);
    return text.substr(0, text.find_first_not_of(" \t")).find('\t') != std::string::npos;
  }

 private:
  static bool quote_closes_in(const std::string& text) {
    std::size_t at = 0;
    if (text.starts_with('&')) at = text.find_first_of(" \t\n");
    at = text.find_first_not_of(" \t\n", at);
    if (at == std::string::npos) return false;
    if (text[at] != '"' && text[at] != '\'') return true;
    const char quote = text[at];
    for (++at; at < text.size(); ++at) {
      if (quote == '"' && text[at] == '\\') {
        ++at;
      } else if (text[at] == quote) {
        if (quote == '"' || at + 1 >= text.size() || text[at + 1] != quote) return true;
        ++at;
      }
    }
    return false;
  }

  std::string line_text(int line) const {
    return line >= 0 && static_cast<std::size_t>(line) < lines_.size() ? lines_[static_cast<std::size_t>(line)] : "";
  }

  std::string name_;
  bool located_;
  std::vector<std::string> lines_;
};

/// A long text counts as several: an alias may repeat it.
std::size_t count_node(const Value& value) {
  return 1 + value.text.size() / 1024;
}

std::size_t count_nodes(const Value& value) {
  std::size_t count = count_node(value);
  for (const Value& item : value.items) count += count_nodes(item);
  for (const Entry& entry : value.entries) count += count_nodes(entry.value);
  return count;
}

int height(const Value& value) {
  int below = 0;
  for (const Value& item : value.items) below = std::max(below, height(item));
  for (const Entry& entry : value.entries) below = std::max(below, height(entry.value));
  return below + 1;
}

/// Syntax only: which lists and mappings are open. It goes over the text before the TreeBuilder, because yaml-cpp makes
/// odd events of an open bracket before it reports it.
class OpenBrackets final : public YAML::EventHandler {
 public:
  const std::vector<YAML::Mark>& marks() const { return marks_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    marks_.push_back(mark);
  }
  void OnSequenceEnd() override { marks_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    marks_.push_back(mark);
  }
  void OnMapEnd() override { marks_.pop_back(); }

 private:
  std::vector<YAML::Mark> marks_;
};

class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(const Places& places, std::string path) : places_(places), path_(std::move(path)) {
    root_.at = places.at(0, 0);
  }

  Value take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ == 0) return;
    if (places_.rest(mark).starts_with("---")) {
      fail(places_.at(mark),
           "got a second YAML document, expected one; remove the '---' line and what does not belong here");
    }
    fail(places_.at(mark),
         "got text that does not continue the YAML before it, expected one mapping; check the indentation "
         "and the punctuation here");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (expects_key()) fail(places_.at(mark), "got a value without a key, expected 'key: value'");
    Value value;
    value.at = null_place(mark);
    finish(std::move(value), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto anchored =
        std::find_if(anchored_.begin(), anchored_.end(), [&](const auto& a) { return a.first == anchor; });
    if (anchored == anchored_.end())
      fail(places_.at(mark), "got an alias inside its own anchor, expected a finite value");
    Value value = anchored->second;
    value.at = places_.at(mark);
    if (static_cast<int>(open_.size()) + height(value) > kMaxDepth) fail_depth(value.at);
    count(count_nodes(value), value.at);
    if (expects_key()) {
      take_key(value);
    } else {
      place(std::move(value));
    }
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    refuse_tag(mark, tag);
    if (tag == "!" && !places_.quote_closes(mark)) {
      fail(places_.at(mark), "got a quote that is never closed, expected its end");
    }
    Value value;
    value.kind = Value::Kind::scalar;
    value.quoted = tag == "!";
    value.text = text;
    value.at = places_.at(mark);
    finish(std::move(value), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Value::Kind::sequence, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Value::Kind::mapping, mark, tag, anchor);
  }
  void OnMapEnd() override {
    merge(open_.back().value);
    close();
  }

 private:
  /// A list or mapping whose end has not come yet.
  struct Open {
    Value value;
    YAML::anchor_t anchor = YAML::NullAnchor;
    std::optional<Entry> key;  ///< mapping: a key that waits for its value
    std::set<std::string> seen = {};
  };

  bool expects_key() const {
    return !open_.empty() && open_.back().value.kind == Value::Kind::mapping && !open_.back().key;
  }

  void open(Value::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    const Location at = places_.at(mark);
    refuse_tag(mark, tag);
    if (expects_key()) fail(at, "got a list or mapping as a key, expected 'key: value'");
    if (static_cast<int>(open_.size()) >= kMaxDepth) fail_depth(at);
    Value value;
    value.kind = kind;
    value.at = at;
    open_.push_back({std::move(value), anchor, std::nullopt});
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    finish(std::move(done.value), done.anchor);
  }

  void finish(Value value, YAML::anchor_t anchor) {
    count(count_node(value), value.at);
    if (anchor != YAML::NullAnchor) anchored_.emplace_back(anchor, value);
    if (expects_key()) {
      take_key(value);
    } else {
      place(std::move(value));
    }
  }

  void take_key(const Value& key) {
    Open& mapping = open_.back();
    if (key.kind != Value::Kind::scalar)
      fail(key.at, "got a list, a mapping or nothing as a key, expected 'key: value'");
    mapping.key = Entry{key.text, key.quoted, key.at, {}};
    if (mapping.seen.insert(key.text).second) return;
    const auto& entries = mapping.value.entries;
    const auto first = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key.text; });
    std::string lines;
    if (first->key_at.line != key.at.line) lines = concat(" (lines ", first->key_at.line, " and ", key.at.line, ")");
    fail(key.at, concat("got the key twice", lines, ", expected it once; keep one of the two"));
  }

  void place(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().value.kind == Value::Kind::sequence) {
      open_.back().value.items.push_back(std::move(value));
    } else {
      open_.back().key->value = std::move(value);
      open_.back().value.entries.push_back(std::move(*open_.back().key));
      open_.back().key.reset();
    }
  }

  // yaml-cpp marks an absent value with the token after it, lines further down.
  Location null_place(const YAML::Mark& mark) const {
    const std::string rest = places_.rest(mark);
    const bool written =
        rest.starts_with("~") || rest.starts_with("null") || rest.starts_with("Null") || rest.starts_with("NULL");
    if (written || open_.empty()) return places_.at(mark);
    return open_.back().key ? open_.back().key->key_at : open_.back().value.at;
  }

  /// `<<: *defaults`: adds the entries that the mapping does not have itself.
  void merge(Value& mapping) {
    const auto merge_key = std::find_if(mapping.entries.begin(), mapping.entries.end(),
                                        [](const Entry& entry) { return entry.key == "<<" && !entry.key_quoted; });
    if (merge_key == mapping.entries.end()) return;
    Value source = std::move(merge_key->value);
    mapping.entries.erase(merge_key);
    std::vector<Value> sources;
    if (source.kind == Value::Kind::sequence) {
      sources = std::move(source.items);
    } else {
      sources.push_back(std::move(source));
    }
    for (Value& from : sources) {
      if (from.kind != Value::Kind::mapping)
        fail(from.at, "got a merge key '<<' without a mapping, expected '<<: *anchor'");
      for (Entry& entry : from.entries) {
        if (!mapping.find(entry.key)) mapping.entries.push_back(std::move(entry));
      }
    }
  }

  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag.empty() || tag == "?" || tag == "!") return;
    const std::string core = "tag:yaml.org,2002:";
    const std::string shown = tag.starts_with(core) ? "!!" + tag.substr(core.size()) : tag;
    fail(places_.at(mark), concat("got the YAML tag '", shown, "', expected a plain value; remove the tag"));
  }

  void count(std::size_t nodes, const Location& at) {
    nodes_ += nodes;
    if (nodes_ > kMaxNodes) {
      fail(at, concat("got more than ", kMaxNodes, " values (aliases expanded), expected a configuration"));
    }
  }

  [[noreturn]] void fail_depth(const Location& at) const {
    fail(at, concat("got more than ", kMaxDepth, " levels of nesting, expected a configuration"));
  }

  [[noreturn]] void fail(const Location& at, const std::string& message) const {
    std::string path = path_;
    for (const Open& level : open_) {
      if (level.value.kind == Value::Kind::sequence) path += concat("[", level.value.items.size(), "]");
      if (level.key) path = join_path(path, level.key->key);
    }
    throw ConfigError(at, path, message);
  }

  const Places& places_;
  std::string path_;
  Value root_;
  std::vector<Open> open_;
  std::vector<std::pair<YAML::anchor_t, Value>> anchored_;
  std::size_t nodes_ = 0;
  int documents_ = 0;
};

// yaml-cpp ends silently at 0x04 and keeps other control characters; YAML allows none of them.
void refuse_control_characters(const std::string& text, const std::string& path, const Places& places) {
  int line = 0;
  int byte = 0;
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if ((code < 0x20 && c != '\t' && c != '\n' && c != '\r') || code == 0x7F) {
      throw ConfigError(places.at(line, byte), path,
                        concat("got the control character ", static_cast<int>(code), ", expected UTF-8 text"));
    }
    byte = c == '\n' ? 0 : byte + 1;
    line += c == '\n' ? 1 : 0;
  }
}

bool before(const YAML::Mark& a, const YAML::Mark& b) {
  return a.line < b.line || (a.line == b.line && a.column < b.column);
}

ConfigError bad_yaml(const YAML::Exception& exception, const std::string& path, const Places& places,
                     const std::vector<YAML::Mark>& open) {
  const bool in_brackets = exception.msg.ends_with("flow not found") && !open.empty();
  // At the end of the text yaml-cpp has lost its place; the bracket is the better one anyway.
  const bool misplaced = exception.mark.is_null() || (in_brackets && before(exception.mark, open.back()));
  const YAML::Mark mark = misplaced && !open.empty() ? open.back() : exception.mark;
  std::string advice = "check the indentation and the quotes here, and quote a text that contains ': '";
  const char here = places.character(mark);
  if (places.indented_with_tab(mark.line)) {
    advice = "the line is indented with a tab: use spaces";
  } else if (in_brackets) {
    const Location from = places.at(open.back());
    const std::string where = from.line == 0 ? "" : concat(" of line ", from.line);
    advice = concat("close the '", places.character(open.back()), "'", where, ", or add a comma");
  } else if (std::string("*&!%@`,").find(here) != std::string::npos) {
    advice = concat("quote a text that begins with ", here);
  }
  const char* expected = path.empty() ? "'key: value' lines" : "a YAML value";
  return ConfigError(places.at(mark), path,
                     concat("got text that is not YAML (", exception.msg, "), expected ", expected, "; ", advice));
}

}  // namespace

Value parse(const std::string& text, const Source& source) {
  const Places places(text, source.name, source.located);
  refuse_control_characters(text, source.path, places);
  OpenBrackets open;
  try {
    std::istringstream syntax_stream(text);
    YAML::Parser(syntax_stream).HandleNextDocument(open);
    TreeBuilder builder(places, source.path);
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    // Ends with the second document at the latest, where the builder throws: of a stray comma yaml-cpp makes no end.
    while (parser.HandleNextDocument(builder)) {
    }
    return builder.take_root();
  } catch (const YAML::Exception& exception) {
    throw bad_yaml(exception, source.path, places, open.marks());
  }
}

}  // namespace lockstep::yaml
