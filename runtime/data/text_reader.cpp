// SPDX-License-Identifier: Apache-2.0
//
// {type: text}: bytes as tokens, for language models.
//
//   train, eval   a glob(3) pattern or a list of them. The files that match, each once, in byte order of their paths,
//   are
//                 read into memory and joined as they are: nothing is put between two files, so the vocabulary is the
//                 256 byte values and a split is what `cat` prints. Folders that match are passed over. Relative
//                 patterns start at the working folder; `~` and `${X}` are ordinary characters, for no shell sees them.
//                 A name that exists is no pattern. A file that is no text (compressed, UTF-16) is taken, with a note.
//   context       tokens per sample; default: the model's
//   stride        from the start of one sample to the next; default: context
//   max_bytes     only the first so many bytes of each split; 0: all
//
// Sample i is the context + 1 bytes from i * stride: x int64 [rows, context] is all but the last, targets
// int64 [rows, context] all but the first. Bytes after the last whole sample are not used.
#include <ATen/ops/empty.h>

#include <algorithm>

#include "runtime/base/check.hpp"
#include "runtime/data/absent.hpp"
#include "runtime/data/input_files.hpp"
#include "runtime/data/readers.hpp"
#include "runtime/data/table_dataset.hpp"

namespace lockstep {
namespace {

class TextDataset : public Dataset {
 public:
  TextDataset(std::string bytes, std::int64_t context, std::int64_t stride)
      : bytes_(std::move(bytes)),
        context_(context),
        stride_(stride),
        below_(static_cast<unsigned char>(*std::max_element(bytes_.begin(), bytes_.end(), less)) + 1) {}

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return data_entries(rows, {at::kLong, {context_}, below_}, {at::kLong, {context_}, below_});
  }

  std::int64_t size() const override { return (static_cast<std::int64_t>(bytes_.size()) - context_ - 1) / stride_ + 1; }

  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const auto rows = static_cast<std::int64_t>(samples.size());
    Tensors result = {at::empty({rows, context_}, at::kLong), at::empty({rows, context_}, at::kLong)};
    auto* x = result[0].mutable_data_ptr<std::int64_t>();
    auto* targets = result[1].mutable_data_ptr<std::int64_t>();
    const auto token = [](char byte) { return static_cast<std::int64_t>(static_cast<unsigned char>(byte)); };
    for (const std::int64_t sample : samples) {
      LOCKSTEP_CHECK(sample >= 0 && sample < size(), "sample ", sample, " of ", size());
      const char* first = bytes_.data() + sample * stride_;
      x = std::transform(first, first + context_, x, token);
      targets = std::transform(first + 1, first + 1 + context_, targets, token);
    }
    return result;
  }

 private:
  static bool less(char a, char b) { return static_cast<unsigned char>(a) < static_cast<unsigned char>(b); }

  std::string bytes_;
  std::int64_t context_, stride_, below_;
};

struct TextOptions {
  std::vector<std::string> train, eval;
  std::int64_t context = 0, stride = 0, max_bytes = 0;
};

TextOptions read_options(const Section& section, const DataContext& defaults) {
  TextOptions options;
  options.train = read_globs(section, "train");
  if (section.has("eval")) options.eval = read_globs(section, "eval");
  const auto positive = at_least<std::int64_t>(1);
  if (!section.has("context") && defaults.context == 0) {
    throw section.unexpected("context", positive.text, "; this model has none that could be the default");
  }
  options.context = section.get("context", defaults.context, positive);
  options.stride = section.get("stride", options.context, positive);
  options.max_bytes = section.get<std::int64_t>("max_bytes", 0, at_least<std::int64_t>(0));
  section.finish();
  return options;
}

/// `note`: of the first file that is no text. `read`: the files as they were read.
std::string joined(const std::vector<std::string>& files, std::int64_t max_bytes, std::string& note,
                   std::vector<DataFile>& read) {
  constexpr std::size_t looked_at = 1 << 16;
  std::string bytes;
  for (const std::string& file : files) {
    const std::int64_t rest = max_bytes - static_cast<std::int64_t>(bytes.size());
    if (max_bytes > 0 && rest == 0) break;
    const std::string more = read_file(file, max_bytes > 0 ? rest : 0);
    if (const std::string format = foreign_format(std::string_view(more).substr(0, looked_at));
        note.empty() && !format.empty())
      note = concat(file, ": ", format, "; its bytes are the tokens, as they are");
    read.push_back(data_file(file, more));
    bytes += more;
  }
  return bytes;
}

std::shared_ptr<const Dataset> open_split(const Section& section, const std::string& key,
                                          const std::vector<std::string>& globs, const TextOptions& options,
                                          std::vector<DataFile>& read, std::vector<std::string>& notes) {
  const std::vector<std::string> files = files_of(section, key, globs);
  std::string note;
  std::string bytes = joined(files, options.max_bytes, note, read);
  if (!note.empty()) notes.push_back(one_line(note));
  const auto have = static_cast<std::int64_t>(bytes.size());
  if (have <= options.context) {
    const std::string more = files.size() > 1 ? concat(" and ", files.size() - 1, " more") : "";
    throw section.error(key,
                        concat("got ", have, " bytes (", files.front(), more, "), expected at least ",
                               static_cast<std::uint64_t>(options.context) + 1, " (context + 1)",
                               options.max_bytes > 0 && have == options.max_bytes ? "; max_bytes is too small" : ""));
  }
  return std::make_shared<TextDataset>(std::move(bytes), options.context, options.stride);
}

DataSplits open_text(const Section& section, const DataContext& defaults) {
  const TextOptions options = read_options(section, defaults);
  const bool absent = defaults.trained && !options.eval.empty();
  DataSplits splits;
  DataRecord& record = splits.record.emplace();
  if (!absent) splits.train = open_split(section, "train", options.train, options, record.train, splits.notes);
  if (!options.eval.empty())
    splits.eval = open_split(section, "eval", options.eval, options, record.eval, splits.notes);
  if (absent) splits.train = std::make_shared<AbsentDataset>(splits.eval, defaults.trained->samples);
  return splits;
}

}  // namespace

DataReader text_reader() {
  return {"text", "bytes of text files as tokens; targets are the next bytes", open_text};
}

}  // namespace lockstep
