// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/answer_writer.hpp"

#include <ATen/ATen.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

std::string prefix_of(const std::vector<AnswerForm>& forms, std::size_t head) {
  return forms.size() > 1 ? concat("head_", head, "_") : "";
}

/// Of what the activation gives.
const char* name_of_value(const AnswerForm& form) {
  return form.activation == "sigmoid" || form.activation == "softmax" ? "probability" : "score";
}

std::string number_text(double number, bool is_double) {
  std::array<char, 32> text = {};
  const auto end = is_double ? std::to_chars(text.data(), text.data() + text.size(), number)
                             : std::to_chars(text.data(), text.data() + text.size(), static_cast<float>(number));
  return {text.data(), end.ptr};
}

/// One field of a line, as JSON has it and as CSV has it.
struct Field {
  std::string name, text;
  bool is_text = false;
};

/// A file that is there when all of it is.
class Target {
 public:
  explicit Target(std::string path) : path_(std::move(path)) {
    if (path_ == "-") return;
    part_ = path_ + ".part";
    file_.open(part_, std::ios::binary | std::ios::trunc);
    check();
  }
  ~Target() {
    std::error_code ignored;
    if (!part_.empty()) fs::remove(part_, ignored);
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  std::ostream& stream() { return path_ == "-" ? std::cout : file_; }
  void check() {
    if (!stream().good()) throw Error(concat(path_, ": cannot be written: ", std::generic_category().message(errno)));
  }
  void finish() {
    stream().flush();
    check();
    if (part_.empty()) return;
    file_.close();
    std::error_code error;
    fs::rename(part_, path_, error);
    if (error) throw Error(concat(path_, ": cannot be written: ", error.message()));
    part_.clear();
  }

 private:
  std::string path_, part_;  // part_: empty when it is not ours, or no longer there
  std::ofstream file_;
};

/// What lines of CSV and JSON have in common: one line a sample.
class LineWriter : public AnswerWriter {
 public:
  LineWriter(const std::string& path, std::vector<AnswerForm> forms, const DataSplits& data)
      : forms_(std::move(forms)), data_(data), target_(path) {}

  void write(const Answers& answers) override {
    for (std::int64_t i = 0; i < answers.samples; ++i) {
      kept(answers.first + i);
      for (std::size_t head = 0; head < forms_.size(); ++head) {
        const std::int64_t each = forms_[head].numbers();
        answer(head, answers.heads[head].data() + i * each);
      }
      end_line();
    }
    target_.check();
  }
  void finish() override { target_.finish(); }

 protected:
  virtual void kept(std::int64_t sample) = 0;
  virtual void answer(std::size_t head, const double* numbers) = 0;
  virtual void end_line() = 0;

  /// Of value `i` of a head, which has several: a name of its own where it has one.
  std::string name_of(std::size_t head, std::int64_t i) const {
    const std::vector<std::string>& targets = data_.inputs->targets;
    const bool named = static_cast<std::int64_t>(targets.size()) == forms_[head].values();
    return named ? targets[static_cast<std::size_t>(i)] : concat(i);
  }
  /// Of a class, or of no (0) and yes (1) where there are two classes.
  bool has_name(const AnswerForm& form, double number) const {
    const auto named = static_cast<std::int64_t>(data_.class_names.size());
    if (form.decision == Decision::yes_no) return named == 2 && form.values() == 1;
    return form.decision == Decision::classes && static_cast<std::int64_t>(number) < named;
  }
  const std::string& class_name(double number) const { return data_.class_names[static_cast<std::size_t>(number)]; }

  /// What stands beside each other: of an output with one place for a class, or numbers.
  std::vector<Field> fields(std::size_t head, const double* numbers) const {
    const AnswerForm& form = forms_[head];
    const std::string prefix = prefix_of(forms_, head), value = name_of_value(form);
    std::vector<Field> fields;
    for (std::int64_t i = 0; i < form.values(); ++i, numbers += form.numbers_each()) {
      const std::string which = form.values() > 1 ? "_" + name_of(head, i) : "";
      if (form.decision == Decision::numbers) {
        fields.push_back({concat(prefix, "prediction", which), number_text(numbers[0], form.is_double)});
        continue;
      }
      const bool named = has_name(form, numbers[0]);
      fields.push_back({concat(prefix, "prediction", which),
                        named ? class_name(numbers[0]) : concat(static_cast<std::int64_t>(numbers[0])), named});
      fields.push_back({concat(prefix, value, which), number_text(numbers[1], form.is_double)});
      for (std::int64_t of = 0; form.all && of < form.classes; ++of)
        fields.push_back(
            {concat(prefix, value, "_", class_text(data_, of)), number_text(numbers[2 + of], form.is_double)});
    }
    return fields;
  }

  const std::vector<AnswerForm> forms_;
  const DataSplits& data_;
  Target target_;
};

class CsvWriter : public LineWriter {
 public:
  using LineWriter::LineWriter;
  void write_names() {
    for (const std::string& name : data_.inputs->names) cell(name);
    for (std::size_t head = 0; head < forms_.size(); ++head) {
      const std::vector<double> none(static_cast<std::size_t>(forms_[head].numbers()));
      for (const Field& field : fields(head, none.data())) cell(field.name);
    }
    CsvWriter::end_line();
  }

 protected:
  void kept(std::int64_t sample) override {
    if (data_.inputs->names.empty()) return;
    for (const auto& text : data_.inputs->cells(sample)) cell(text.value_or(""));
  }
  void answer(std::size_t head, const double* numbers) override {
    for (const Field& field : fields(head, numbers)) cell(field.text);
  }
  void end_line() override {
    target_.stream() << '\n';
    is_first_ = true;
  }

 private:
  void cell(const std::string& text) {
    std::ostream& out = target_.stream();
    if (!std::exchange(is_first_, false)) out << ',';
    const bool plain =
        text.find_first_of(",\"\r\n") == std::string::npos && !text.starts_with(' ') && !text.ends_with(' ');
    if (plain) {
      out << text;
      return;
    }
    out << '"';
    for (const char c : text) out << (c == '"' ? "\"\"" : std::string(1, c));
    out << '"';
  }
  bool is_first_ = true;
};

class JsonWriter : public LineWriter {
 public:
  using LineWriter::LineWriter;

 protected:
  void kept(std::int64_t sample) override {
    if (data_.inputs->names.empty()) return;
    const auto cells = data_.inputs->cells(sample);
    for (std::size_t i = 0; i < cells.size(); ++i) {
      // What JSON would read as a number, true or false is one.
      const bool is_value = cells[i] && nlohmann::json::accept(*cells[i]) &&
                            std::string_view("{[\"n").find((*cells[i])[0]) == std::string_view::npos;
      member(data_.inputs->names[i], !cells[i] ? "null" : is_value ? *cells[i] : quoted(*cells[i]));
    }
  }
  void answer(std::size_t head, const double* numbers) override {
    const AnswerForm& form = forms_[head];
    if (form.decision != Decision::classes || form.sizes.empty()) {
      for (const Field& field : fields(head, numbers))
        member(field.name, field.is_text ? quoted(field.text) : field.text);
      return;
    }
    const std::string prefix = prefix_of(forms_, head), value = name_of_value(form);
    member(prefix + "prediction", nested(form, numbers, [&](const double* place) {
             return has_name(form, place[0]) ? quoted(class_name(place[0]))
                                             : concat(static_cast<std::int64_t>(place[0]));
           }));
    member(prefix + value,
           nested(form, numbers, [&](const double* place) { return number_text(place[1], form.is_double); }));
    if (!form.all) return;
    member(prefix + (value == "score" ? "scores" : "probabilities"), nested(form, numbers, [&](const double* place) {
             std::vector<std::string> all;
             for (std::int64_t of = 0; of < form.classes; ++of)
               all.push_back(number_text(place[2 + of], form.is_double));
             return "[" + join(all, ",") + "]";
           }));
  }
  void end_line() override {
    target_.stream() << "}\n";
    is_first_ = true;
  }

 private:
  static std::string quoted(const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  void member(const std::string& name, const std::string& value) {
    target_.stream() << (std::exchange(is_first_, false) ? "{" : ",") << quoted(name) << ":" << value;
  }
  /// `text(place)` of every place, as `sizes` has them.
  template <typename Text>
  static std::string nested(const AnswerForm& form, const double*& numbers, const Text& text, std::size_t dimension) {
    if (dimension == form.sizes.size()) {
      const std::string one = text(numbers);
      numbers += form.numbers_each();
      return one;
    }
    std::vector<std::string> parts;
    for (std::int64_t i = 0; i < form.sizes[dimension]; ++i)
      parts.push_back(nested(form, numbers, text, dimension + 1));
    return "[" + join(parts, ",") + "]";
  }
  template <typename Text>
  static std::string nested(const AnswerForm& form, const double* numbers, const Text& text) {
    return nested(form, numbers, text, 0);
  }
  bool is_first_ = true;
};

class TensorWriter : public AnswerWriter {
 public:
  TensorWriter(std::string path, std::vector<AnswerForm> forms) : path_(std::move(path)), forms_(std::move(forms)) {
    all_.heads.resize(forms_.size());
  }
  void write(const Answers& answers) override {
    all_.samples += answers.samples;
    for (std::size_t head = 0; head < forms_.size(); ++head)
      all_.heads[head].insert(all_.heads[head].end(), answers.heads[head].begin(), answers.heads[head].end());
  }
  void finish() override {
    const fs::path path(path_);
    const std::string folder = path.has_parent_path() ? path.parent_path().native() : ".";
    const std::string part = path.filename().native() + ".part";
    write_safetensors(folder, part, tensors_of(forms_, all_));
    fs::rename(fs::path(folder) / part, path);
  }

 private:
  std::string path_;
  std::vector<AnswerForm> forms_;
  Answers all_;
};

std::string format_of(const std::string& format, const std::string& path) {
  if (format != "auto") return format;
  if (path.ends_with(".safetensors")) return "safetensors";
  return path.ends_with(".jsonl") || path.ends_with(".ndjson") || path.ends_with(".json") ? "jsonl" : "csv";
}

void check_names(const std::vector<AnswerForm>& forms, const InputColumns& inputs) {
  for (std::size_t head = 0; head < forms.size(); ++head)
    for (const char* name : {"prediction", "probability", "score"})
      if (std::find(inputs.names.begin(), inputs.names.end(), prefix_of(forms, head) + name) != inputs.names.end())
        throw UserError(concat("--keep: got ", prefix_of(forms, head), name, ", which is the name of an answer; name ",
                               "the column otherwise"));
}

}  // namespace

std::vector<NamedTensor> tensors_of(const std::vector<AnswerForm>& forms, const Answers& answers) {
  std::vector<NamedTensor> tensors;
  for (std::size_t head = 0; head < forms.size(); ++head) {
    const AnswerForm& form = forms[head];
    const std::string prefix = prefix_of(forms, head), value = name_of_value(form);
    const at::ScalarType dtype = form.is_double ? at::kDouble : at::kFloat;
    std::vector<std::int64_t> sizes = form.sizes;
    sizes.insert(sizes.begin(), answers.samples);
    const at::Tensor places =
        at::tensor(answers.heads[head], at::kDouble).reshape({answers.samples * form.values(), form.numbers_each()});
    const auto column = [&](std::int64_t i, at::ScalarType of) {
      return places.select(1, i).to(of).reshape(sizes).contiguous();
    };
    if (form.decision == Decision::numbers) {
      tensors.push_back({prefix + "prediction", column(0, dtype)});
      continue;
    }
    tensors.push_back({prefix + "prediction", column(0, at::kLong)});
    tensors.push_back({prefix + value, column(1, dtype)});
    if (!form.all) continue;
    std::vector<std::int64_t> with_classes = sizes;
    with_classes.push_back(form.classes);
    tensors.push_back({prefix + (value == "score" ? "scores" : "probabilities"),
                       places.narrow(1, 2, form.classes).to(dtype).reshape(with_classes).contiguous()});
  }
  return tensors;
}

std::unique_ptr<AnswerWriter> make_answer_writer(const std::string& format, const std::string& path,
                                                 const std::vector<AnswerForm>& forms, const DataSplits& data) {
  LOCKSTEP_CHECK(data.inputs, "data with targets");
  const std::string which = format_of(format, path);
  check_names(forms, *data.inputs);
  if (which == "safetensors") {
    if (path == "-") throw UserError("--format: got safetensors for standard output, expected csv or jsonl");
    return std::make_unique<TensorWriter>(path, forms);
  }
  if (which == "jsonl") return std::make_unique<JsonWriter>(path, forms, data);
  for (const AnswerForm& form : forms)
    if (form.decision == Decision::classes && !form.sizes.empty())
      throw UserError(concat("--format: got csv for answers with ", join(form.sizes, " x "),
                             " classes a sample, expected jsonl or safetensors"));
  auto writer = std::make_unique<CsvWriter>(path, forms, data);
  writer->write_names();
  return writer;
}

}  // namespace lockstep
