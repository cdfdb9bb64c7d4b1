// SPDX-License-Identifier: Apache-2.0
//
// Random damage to configs/reference.yaml: whatever comes in, the answer is a Config or a ConfigError.
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/config/config.hpp"
#include "tests/test.hpp"

namespace lockstep {
namespace {

std::string reference_text() {
  const auto path = std::filesystem::path(__FILE__).parent_path() / "../../configs/reference.yaml";
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Comments hide most random damage: without them nearly every mutation hits something that is read.
std::vector<std::string> lines_without_comments(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(' ') != std::string::npos) lines.push_back(line);
  }
  return lines;
}

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  std::string mutate(std::vector<std::string> lines) {
    const std::size_t changes = 1 + below(3);
    for (std::size_t change = 0; change < changes; ++change) mutate_once(lines);
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    if (below(20) == 0) text.resize(below(text.size()));
    return text;
  }

 private:
  std::size_t below(std::size_t count) { return std::uniform_int_distribution<std::size_t>(0, count - 1)(random_); }
  const std::string& any(const std::vector<std::string>& choices) { return choices[below(choices.size())]; }

  void mutate_once(std::vector<std::string>& lines) {
    static const std::vector<std::string> values = {"",
                                                    "~",
                                                    "0",
                                                    "-1",
                                                    "010",
                                                    "1e3",
                                                    "1e999",
                                                    "99999999999999999999",
                                                    ".nan",
                                                    "yes",
                                                    "true",
                                                    "\"3\"",
                                                    "'x",
                                                    "\"x",
                                                    "[",
                                                    "]",
                                                    "{",
                                                    "}",
                                                    "[1, 2]",
                                                    "[[1], {a: b}]",
                                                    "{a: 1}",
                                                    "{a: 1, a: 2}",
                                                    "auto",
                                                    "file:x",
                                                    "*x",
                                                    "&x 1",
                                                    "&x [*x]",
                                                    "!!int 3",
                                                    "|",
                                                    ">",
                                                    "- 1",
                                                    "? x",
                                                    "a: b",
                                                    "%x",
                                                    "@",
                                                    "`",
                                                    ", ",
                                                    "\t1",
                                                    "2147483648",
                                                    "cuda:0",
                                                    "[0]",
                                                    "[0, 0]",
                                                    "\xC3\xA9",
                                                    "\xFF",
                                                    std::string(1, '\0'),
                                                    "\x04"};
    static const std::vector<std::string> characters = {
        ":",    " ", "\t", "\"", "'", "[", "]",    "{", "}", ",",  "#", "-", "&", "*", "!",       "|",       "?",
        "\xC3", "0", "\r", "\n", "x", "~", "<<: ", "%", "@", "\\", ">", ".", "e", "_", "\n---\n", "\n...\n", "\x7F"};
    std::string& line = lines[below(lines.size())];
    const std::size_t at = below(line.size() + 1);
    const auto colon = line.find(':');
    switch (below(8)) {
      case 0: line.insert(at, any(characters)); break;
      case 1: line.erase(at, 1 + below(3)); break;
      case 2:
      case 3:
      case 4:
        if (colon != std::string::npos) line = line.substr(0, colon + 1) + " " + any(values);
        break;
      case 5: line = lines[below(lines.size())]; break;
      case 6: line.insert(0, std::string(1 + below(3), below(4) == 0 ? '\t' : ' ')); break;
      case 7: std::swap(line, lines[below(lines.size())]); break;
    }
  }

  std::mt19937 random_;
};

/// Whether it is a config; throws only what must never be thrown.
bool is_config(const std::string& text, const std::vector<std::string>& overrides) {
  try {
    const Config config = read_config(load_config_text(text, "fuzz.yaml", overrides));
    const std::string resolved = resolved_yaml(config);
    const Config again = read_config(load_config_text(resolved, "again.yaml"));
    if (resolved_yaml(again) != resolved) throw std::logic_error("resolved is not stable:\n" + resolved);
    return true;
  } catch (const ConfigError& error) {
    const std::string message = error.what();
    if (message.find('\n') != std::string::npos) throw std::logic_error("more than one line: " + message);
    const bool placed = message.starts_with("fuzz.yaml:") || message.starts_with("--set ");
    if (!placed) throw std::logic_error("no place, or the resolved config is bad: " + message);
    return false;
  }
}

}  // namespace

TEST_CASE("damaged configs and overrides end in a config or a ConfigError", "[unit]") {
  const std::string reference = reference_text();
  const std::vector<std::string> lines = lines_without_comments(reference);
  REQUIRE(lines.size() > 50);
  int good = 0;
  int bad = 0;
  for (unsigned seed = 0; seed < 800; ++seed) {
    const std::string text = Mutator(seed).mutate(lines);
    INFO("seed " << seed << "\n" << text);
    bool ok = false;
    REQUIRE_NOTHROW(ok = is_config(text, {}));
    (ok ? good : bad) += 1;
    const std::string override_text = Mutator(seed).mutate({"train.steps=3: x", "pipeline.partition: [1]"});
    INFO("override " << override_text);
    REQUIRE_NOTHROW(is_config(reference, {override_text}));
  }
  // A mutator that hits nothing, or destroys everything, would test nothing.
  CHECK(good > 25);
  CHECK(bad > 300);
}

}  // namespace lockstep
