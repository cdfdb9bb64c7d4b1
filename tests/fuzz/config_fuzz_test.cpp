// SPDX-License-Identifier: Apache-2.0
//
// Every config of configs/, damaged: as a tree (keys, types, values, structure, pieces of other configs), as text, and
// by --set. Then all that `lockstep train` does before it builds anything: read, make the model, open the data, make
// the Trainer. Whatever comes in, the answer is a Trainer or one line for the user.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "runtime/config/value.hpp"
#include "runtime/session/make_trainer.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

namespace lockstep::fuzz {
namespace {

using yaml::Entry;
using yaml::Value;

/// An empty working folder with a few small text files, so that no damaged pattern or path finds anything large.
class Scratch {
 public:
  Scratch() {
    std::filesystem::create_directories(folder_.file("text"));
    for (int i = 0; i < 3; ++i) {
      std::ofstream file(folder_.file(concat("text/", i, ".txt")));
      for (int line = 0; line < 200; ++line) file << "line " << line << " of file " << i << "\n";
    }
    std::filesystem::current_path(folder_.path());
  }
  ~Scratch() { std::filesystem::current_path(before_); }
  std::string text_pattern() const { return folder_.file("text/*.txt"); }

 private:
  std::filesystem::path before_ = std::filesystem::current_path();
  test::TemporaryFolder folder_;
};

void each_value(Value& value, const std::function<void(Value&)>& visit) {
  visit(value);
  for (Value& item : value.items) each_value(item, visit);
  for (Entry& entry : value.entries) each_value(entry.value, visit);
}

/// Paths of this machine and of the source folder become ones that are there, and devices the one that is everywhere.
void localize(Value& root, const Scratch& scratch) {
  each_value(root, [&](Value& value) {
    if (value.kind != Value::Kind::scalar) return;
    if (value.text.find("/usr/lib/python3") != std::string::npos || value.text.starts_with("data/"))
      value.text = scratch.text_pattern();
    if (value.text.starts_with("cuda:")) value.text = "cpu";
    if (value.text.starts_with("configs/")) value.text = LOCKSTEP_SOURCE_DIR "/" + value.text;
  });
}

std::map<std::string, Value> all_configs(const Scratch& scratch) {
  std::map<std::string, Value> configs;
  for (const auto& file : std::filesystem::directory_iterator(LOCKSTEP_SOURCE_DIR "/configs")) {
    if (file.path().extension() != ".yaml") continue;
    Value root = yaml::parse(test::text_of_file(file.path()), {file.path().filename().string()});
    localize(root, scratch);
    configs[file.path().filename().string()] = root;
  }
  return configs;
}

const std::vector<std::string>& odd_texts() {
  static const std::vector<std::string> texts = {"",
                                                 "~",
                                                 "auto",
                                                 "true",
                                                 "yes",
                                                 "cpu",
                                                 "cuda:0",
                                                 "cuda:9999",
                                                 "file:x.csv",
                                                 "gpipe",
                                                 "1f1b",
                                                 "interleaved_1f1b",
                                                 "mean_squared_error",
                                                 "sparse_categorical_cross_entropy",
                                                 "mlp",
                                                 "gpt",
                                                 "delay",
                                                 "text",
                                                 "csv",
                                                 "synthetic",
                                                 "sgd",
                                                 "adam",
                                                 "cosine",
                                                 "step",
                                                 "layers",
                                                 "params",
                                                 "never",
                                                 "always",
                                                 "tokens",
                                                 "classification",
                                                 "*",
                                                 "[",
                                                 "[!",
                                                 "**********a",
                                                 "a\nb",
                                                 "\t",
                                                 std::string("a\0b", 3),
                                                 "\x1b[31m",
                                                 "\xC3\xA9\xE2\x82\xAC",
                                                 "\xFF\xFE",
                                                 "/",
                                                 ".",
                                                 "..",
                                                 "/dev/null",
                                                 "/dev/zero",
                                                 "/proc/self/mem",
                                                 "/nowhere/*",
                                                 "~/x",
                                                 "${HOME}",
                                                 "2GiB",
                                                 "99999999999TiB",
                                                 "x",
                                                 std::string(5000, 'x')};
  return texts;
}

Entry entry_of(const std::string& key, const Value& value, bool quoted = false) {
  Entry entry;
  entry.key = key;
  entry.key_quoted = quoted;
  entry.value = value;
  return entry;
}

/// Damages a tree; what it grafts comes from all configs.
class TreeMutator {
 public:
  TreeMutator(Random& random, const std::map<std::string, Value>& configs) : random_(random) {
    for (const auto& [name, root] : configs) roots_.push_back(&root);
  }

  void mutate(Value& root) {
    for (std::size_t changes = 1 + random_.below(3); changes > 0; --changes) mutate_once(node_of(root));
  }

  Value scalar() {
    Value value;
    value.kind = Value::Kind::scalar;
    value.text = random_.any(random_.one_in(2) ? odd_numbers() : odd_texts());
    value.quoted = random_.one_in(8);
    return value;
  }

 private:
  Value& node_of(Value& root) {
    std::vector<Value*> nodes;
    each_value(root, [&nodes](Value& value) { nodes.push_back(&value); });
    return *nodes[random_.below(nodes.size())];
  }

  /// Of any config.
  Value graft() {
    Value root = *random_.any(roots_);
    return node_of(root);
  }

  void mutate_once(Value& node) {
    switch (node.kind) {
      case Value::Kind::mapping: return mutate_mapping(node);
      case Value::Kind::sequence: return mutate_sequence(node);
      case Value::Kind::scalar:
        if (random_.one_in(3)) return scale(node);
        [[fallthrough]];
      case Value::Kind::null: break;
    }
    replace(node);
  }

  void replace(Value& node) {
    const std::size_t choice = random_.below(8);
    if (choice == 0) {
      node = graft();
    } else if (choice == 1) {
      Value list;
      list.kind = Value::Kind::sequence;
      for (std::size_t count = random_.below(4); count > 0; --count)
        list.items.push_back(random_.one_in(2) ? node : scalar());
      node = list;
    } else if (choice == 2) {
      Value mapping;
      mapping.kind = Value::Kind::mapping;
      mapping.entries.push_back(entry_of(key(), node));
      node = mapping;
    } else if (choice == 3) {
      node = Value();
    } else {
      node = scalar();
    }
  }

  /// A number near by, or far away.
  void scale(Value& node) {
    char* end = nullptr;
    const auto number = static_cast<unsigned long long>(std::strtoll(node.text.c_str(), &end, 10));  // wraps around
    const auto with = [](unsigned long long changed) { return concat(static_cast<long long>(changed)); };
    if (end == node.text.c_str() || *end != '\0') return replace(node);
    switch (random_.below(5)) {
      case 0: node.text = with(number + 1); break;
      case 1: node.text = with(number - 1); break;
      case 2: node.text = with(number * 2); break;
      case 3: node.text += std::string(random_.below(14), '0'); break;
      case 4: node.text = concat(random_.below(20)); break;
    }
  }

  void mutate_mapping(Value& node) {
    std::vector<Entry>& entries = node.entries;
    if (entries.empty() || random_.one_in(4)) {
      entries.push_back(entry_of(key(), random_.one_in(2) ? graft() : scalar(), random_.one_in(8)));
      return;
    }
    const std::size_t at = random_.below(entries.size());
    switch (random_.below(5)) {
      case 0: entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(at)); break;
      case 1: entries[at].key = key(); break;
      case 2: entries[at].key = mutate_bytes(entries[at].key, random_, {"_", "x", " "}); break;
      case 3: std::swap(entries[at].value, entries[random_.below(entries.size())].value); break;
      case 4: replace(entries[at].value); break;
    }
  }

  void mutate_sequence(Value& node) {
    std::vector<Value>& items = node.items;
    if (items.empty()) {
      items.push_back(scalar());
      return;
    }
    const std::size_t at = random_.below(items.size());
    switch (random_.below(5)) {
      case 0: items.erase(items.begin() + static_cast<std::ptrdiff_t>(at)); break;
      case 1: items.insert(items.end(), random_.one_in(8) ? 5000 : 1, Value(items[at])); break;
      case 2: std::swap(items[at], items[random_.below(items.size())]); break;
      case 3: items.insert(items.begin() + static_cast<std::ptrdiff_t>(at), scalar()); break;
      case 4: replace(node); break;
    }
  }

  /// Of any mapping of any config.
  std::string key() {
    for (int tries = 0; tries < 20; ++tries) {
      const Value node = graft();
      if (node.kind == Value::Kind::mapping && !node.entries.empty()) return random_.any(node.entries).key;
    }
    return "type";
  }

  Random& random_;
  std::vector<const Value*> roots_;
};

/// A config as the command gets it.
struct Input {
  std::string text;
  std::vector<std::string> overrides;
};

/// A dotted path into the tree.
std::string path_into(const Value& root, Random& random) {
  std::string path;
  for (const Value* at = &root; at->kind == Value::Kind::mapping && !at->entries.empty();) {
    const Entry& entry = at->entries[random.below(at->entries.size())];
    path += (path.empty() ? "" : ".") + entry.key;
    at = &entry.value;
    if (random.one_in(4)) break;
  }
  return path;
}

const std::vector<std::string>& yaml_pieces() {
  static const std::vector<std::string> pieces = {":",
                                                  ": ",
                                                  " ",
                                                  "\t",
                                                  "\"",
                                                  "'",
                                                  "[",
                                                  "]",
                                                  "{",
                                                  "}",
                                                  ",",
                                                  "#",
                                                  "- ",
                                                  "&a ",
                                                  "*a",
                                                  "!!int ",
                                                  "|",
                                                  ">",
                                                  "? ",
                                                  "\xC3",
                                                  "\r\n",
                                                  "\n",
                                                  "\n  ",
                                                  "~",
                                                  "<<: ",
                                                  "%YAML",
                                                  "@",
                                                  "\\",
                                                  "\n---\n",
                                                  "\n...\n",
                                                  "\xEF\xBB\xBF",
                                                  "[[",
                                                  "{a: ",
                                                  "\xFF\xFE",
                                                  std::string(1, '\0'),
                                                  "\"\\0\"",
                                                  "&a [*a]",
                                                  "&b {<<: *b}",
                                                  "999999999999",
                                                  "\x04"};
  return pieces;
}

Input damaged(const Value& root, const std::map<std::string, Value>& configs, Random& random) {
  TreeMutator mutator(random, configs);
  switch (random.below(8)) {
    case 0: {
      const std::string value = random.one_in(2) ? mutator.scalar().text : random.any(yaml_pieces());
      return {yaml::to_text(root), {path_into(root, random) + "=" + value}};
    }
    case 1:
    case 2: return {mutate_bytes(yaml::to_text(root), random, yaml_pieces()), {}};
    default: {
      Value tree = root;
      mutator.mutate(tree);
      if (tree.kind != Value::Kind::mapping) return {yaml::describe(tree), {}};
      return {yaml::to_text(tree), {}};
    }
  }
}

Config config_of(const Input& input) {
  return read_config(load_config_text(input.text, "fuzz.yaml", input.overrides));
}

/// On rank 0 of `ranks`.
void check_before_training(const Input& input, int ranks) {
  Config config = config_of(input);
  // The command measures the layers of these, then has counts. What it makes of a damaged file is the same without.
  if (config.pipeline.partition.needs_profile()) config.pipeline.partition = {};
  make_trainer({}, config, {RankId(0), ranks, nullptr});
}

}  // namespace

TEST_CASE("every config, damaged, gives a trainer or one line for the user", "[fuzz]") {
  const Scratch scratch;
  const std::map<std::string, Value> configs = all_configs(scratch);
  REQUIRE(configs.size() >= 7);
  int good = 0, bad = 0;
  std::map<std::string, int> messages;
  for (const auto& [name, root] : configs) {
    const std::string text = yaml::to_text(root);
    INFO(name);
    // Some are for several ranks. What is damaged was whole before.
    const int ranks = std::max<int>(1, static_cast<int>(config_of({text, {}}).workers.per_rank.size()));
    REQUIRE_NOTHROW(check_before_training({text, {}}, ranks));
    const std::string wrong = run_cases(name, 40, [&](Random& random, bool show) {
      const Input input = damaged(root, configs, random);
      if (show) WARN(input.text << "\noverrides: " << join(input.overrides));
      std::string message;
      std::string verdict = judge_input([&] { check_before_training(input, ranks); }, message);
      (message.empty() ? good : bad) += 1;
      ++messages[message];
      if (show) WARN("message: " << message);
      return verdict;
    });
    CHECK(wrong == "");
  }
  // A mutator that hits nothing, or destroys everything in the same way, would test nothing.
  if (good + bad >= 200) {
    CHECK(good > (good + bad) / 50);
    CHECK(bad > (good + bad) / 4);
    CHECK(messages.size() >= 100);
  }
}

}  // namespace lockstep::fuzz
