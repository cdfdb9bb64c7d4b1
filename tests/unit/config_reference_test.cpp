// SPDX-License-Identifier: Apache-2.0
//
// configs/reference.yaml, made of the lists of keys (runtime/config/fields.hpp): key, default, manual and rule of each.
// LOCKSTEP_UPDATE_GOLDEN=1 rewrites it.
#include <cctype>
#include <sstream>

#include "runtime/config/fields.hpp"
#include "tests/golden.hpp"
#include "tests/test.hpp"

namespace lockstep {
namespace {

constexpr std::size_t kWidth = 120, kCommentColumn = 36;

constexpr const char* kHead =
    R"(# Every key that `lockstep train` reads, with its default, its meaning and what it may be.
#
# This file trains as it is, once `data.train` and `data.eval` name files of yours. A config of your own needs only the keys
# marked "required"; any other has the default that is shown. Every key can be overridden on the command line:
#   lockstep train configs/reference.yaml --set train.steps=50 --set 'workers.devices=[cpu]'
# Unknown and repeated keys are errors. Keys marked "not available yet" take only the value that is shown.
# Integers are decimal (no leading zeros, underscores or exponents); booleans are true or false.
# `lockstep` writes the config with every default filled in to the run folder.
)";

std::string sentence(std::string text) {
  if (text.empty()) return text;
  text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text + ".";
}

/// Manual and rule, as one text.
std::string about(const Field& field, const std::string& manual) {
  const std::string rule = field.is_required && !field.rule.empty() ? "required, " + field.rule : field.rule;
  return manual + (manual.empty() || rule.empty() ? "" : " ") + sentence(rule);
}

/// Comment lines; a line of the text that is indented stays as it is.
std::string comment(const std::string& text, const std::string& indent) {
  std::string lines;
  std::istringstream paragraphs(text);
  for (std::string paragraph; std::getline(paragraphs, paragraph);) {
    std::string line = indent + "#";
    if (paragraph.starts_with("  ")) {
      lines += line + " " + paragraph + "\n";
      continue;
    }
    std::istringstream words(paragraph);
    for (std::string word, number; words >> word;) {
      if (word.starts_with(">") && words >> number) word += " " + number;
      if (line.size() + 1 + word.size() > kWidth) lines += std::exchange(line, indent + "#") + "\n";
      line += " " + word;
    }
    lines += line + "\n";
  }
  return lines;
}

class Reference : public FieldVisitor {
 public:
  void operator()(const std::string& key, const Field& field, const Bits&, const std::string& manual) override {
    const std::string indent(2 * level_, ' ');
    if (level_ == 0 || field.keys || was_mapping_) text_ += "\n";
    was_mapping_ = static_cast<bool>(field.keys);
    const bool is_off = field.given != nullptr || !field.users.empty();  // by default
    if (is_off_ || (is_off && !field.keys)) return put_off(key, field, manual);
    text_ += comment(about(field, manual), indent);
    if (!field.keys) {
      put(key, field, indent);
      return;
    }
    text_ += indent + (is_off ? "# " : "") + key + ":\n";
    is_off_ = is_off;
    ++level_;
    was_mapping_ = false;
    field.keys(*this);
    --level_;
    is_off_ = false;
    was_mapping_ = level_ > 0;
  }
  const std::string& text() const { return text_; }

 private:
  /// "key: default\n"
  static std::string line(const std::string& key, const Field& field) {
    if (!field.shown.empty()) return key + ": " + field.shown + "\n";
    if (field.otherwise) field.otherwise();
    return yaml::to_text(mapping_value(key, field.write()));
  }

  void put(const std::string& key, const Field& field, const std::string& indent) {
    if (field.shown.find('\n') == std::string::npos) {
      text_ += indent + line(key, field);
      return;
    }
    text_ += indent + key + ":\n";
    std::istringstream lines(field.shown);
    for (std::string below; std::getline(lines, below);) text_ += indent + "  " + below + "\n";
  }

  /// A key that the default leaves out: on one line, as a comment.
  void put_off(const std::string& key, const Field& field, const std::string& manual) {
    const std::size_t level = is_off_ ? level_ - 1 : level_;
    std::string shown = std::string(2 * level, ' ') + (is_off_ ? "#   " : "# ") + line(key, field);
    shown.pop_back();
    shown.resize(std::max(shown.size() + 2, kCommentColumn), ' ');
    text_ += shown + "# " + (is_off_ ? manual : field.users + ": " + about(field, manual)) + "\n";
  }

  std::string text_ = kHead;
  std::size_t level_ = 0;
  bool was_mapping_ = false;  ///< the key before
  bool is_off_ = false;       ///< inside a mapping that the default leaves out
};

std::string reference_of_fields() {
  Reference reference;
  Config config;
  fields(reference, config);
  return reference.text();
}

}  // namespace

TEST_CASE("the reference config is what the lists of keys say", "[unit]") {
  test::check_golden_file("configs/reference.yaml", reference_of_fields());
}

TEST_CASE("every key has a manual or a rule, and no line of the reference is too long", "[unit]") {
  std::istringstream lines(reference_of_fields().substr(std::string(kHead).size()));
  for (std::string line; std::getline(lines, line);) {
    INFO(line);
    CHECK(line.size() <= kWidth);
    CHECK_FALSE(line.ends_with("#"));
  }
}

}  // namespace lockstep
