// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/data_look.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iomanip>
#include <map>
#include <numeric>
#include <set>
#include <sstream>
#include <unordered_map>

#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "runtime/schedule/step_header.hpp"
#include "runtime/training/assembly.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kPiece = 256;            // samples that are read at once
constexpr std::int64_t kMostBytes = 256 << 20;  // of entries that a scan reads
constexpr std::size_t kMostClasses = 20, kMostPlaces = 5, kMostContents = 40;
constexpr std::int64_t kBytes = 256;  // values of a byte

std::vector<std::int64_t> numbers(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(end - begin));
  std::iota(all.begin(), all.end(), begin);
  return all;
}

bool has_classes(const Dataset& set) {
  const EntrySpec targets = set.entries(1).back();
  return targets.dtype == at::kLong && targets.sizes.size() == 1;
}

std::string number_text(double number) {
  std::ostringstream out;
  out << std::setprecision(6) << number;
  return out.str();
}

class Look {
 public:
  Look(const Config& config, const DataSplits& data, const DataLook& look)
      : look_(look), config_(config), data_(data) {}

  std::string all() {
    const DataScan train = scan_data(*data_.train, look_.scan);
    set("training set", *data_.train, data_.record ? &data_.record->train : nullptr, train);
    contents();
    for (int number = 0; number < evaluation_sets(data_); ++number) {
      const Dataset& eval = evaluation_set(data_, number);
      const DataScan seen = scan_data(eval, look_.scan);
      set(name_of_set(data_, number), eval, data_.record && number == 0 ? &data_.record->eval : nullptr, seen);
      duplicates(train, seen, eval);
    }
    const std::int64_t shown = std::min(look_.samples, data_.train->size());
    if (shown > 0) out_ << "\nsamples of the training set\n";
    for (std::int64_t sample = 0; sample < shown; ++sample) show(*data_.train, sample);
    for (const std::string& note : data_.notes) out_ << "note: " << note << "\n";
    return out_.str();
  }

  std::string step() {
    const TrainConfig& train = config_.train;
    Sampler sampler = sampler_of(config_, data_);
    const std::int64_t position = sampler.position_of(look_.step, train.batch), epoch = sampler.epoch_size();
    const std::vector<std::int64_t> samples = sampler.batch(position, train.batch);
    out_ << "step " << look_.step << ": epoch " << position / epoch + 1 << ", draws " << position % epoch << " to "
         << position % epoch + static_cast<std::int64_t>(samples.size()) - 1 << " of " << epoch << "\n";
    const std::vector<std::int64_t> slices =
        slice_rows(train.batch, train.micro_batches, static_cast<std::int64_t>(samples.size()));
    std::size_t at = 0;
    for (std::size_t slice = 0; slice < slices.size(); ++slice) {
      out_ << "micro-batch " << slice << "\n";
      for (std::int64_t row = 0; row < slices[slice]; ++row)
        out_ << "  " << name_of(*data_.train, samples[at++]) << "\n";
    }
    return out_.str();
  }

 private:
  static std::string name_of(const Dataset& set, std::int64_t sample) {
    const std::string place = set.place_of(sample);
    return concat("sample ", sample, place.empty() ? "" : concat(" (", place, ")"));
  }

  void set(const std::string& name, const Dataset& set, const std::vector<DataFile>* files, const DataScan& seen) {
    out_ << (out_.tellp() > 0 ? "\n" : "") << name << ": " << set.size() << " samples";
    if (files) file_list(*files);
    out_ << (set.is_in_memory()        ? ", in memory"
             : set.reads_in_parallel() ? ", read ahead"
                                       : ", read ahead by one thread")
         << "\n";
    if (seen.samples < set.size()) out_ << "  of the first " << seen.samples << " samples:\n";
    const std::vector<EntrySpec> entries = set.entries(1);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const DataRange& range = seen.ranges[i];
      const std::vector<std::int64_t> sizes(entries[i].sizes.begin() + 1, entries[i].sizes.end());
      out_ << "  " << std::left << std::setw(9) << entries[i].name << " " << c10::toString(entries[i].dtype) << " [rows"
           << (sizes.empty() ? "" : ", ") << join(sizes) << "]";
      if (range.count > 0)
        out_ << "  from " << number_text(range.least) << " to " << number_text(range.most) << ", mean "
             << number_text(range.sum / static_cast<double>(range.count));
      if (range.not_finite > 0) out_ << ", " << range.not_finite << " not finite";
      out_ << "\n";
    }
    classes(seen);
    twins(set, seen);
  }

  void file_list(const std::vector<DataFile>& files) {
    std::int64_t bytes = 0;
    for (const DataFile& file : files) bytes += file.path.empty() ? 0 : file.size;
    if (files.empty() || files.front().path.empty()) return;
    out_ << " of " << files.front().path;
    if (files.size() > 1) out_ << " and " << files.size() - 1 << " more";
    out_ << ", " << size_text(static_cast<double>(bytes));
  }

  void classes(const DataScan& seen) {
    if (seen.classes.empty()) return;
    out_ << "  " << seen.classes.size() << " classes: ";
    std::vector<std::string> texts;
    for (const auto& [number, count] : seen.classes) {
      if (texts.size() == kMostClasses) {
        texts.push_back("...");
        break;
      }
      const double share = static_cast<double>(count) / static_cast<double>(seen.samples);
      texts.push_back(concat(class_text(data_, number), " ", count, " (", percent_text(share), ")"));
    }
    out_ << join(texts) << "\n";
  }

  void contents() {
    std::size_t shown = 0;
    for (const std::string& line : data_.contents) {
      if (shown++ == kMostContents) {
        out_ << "  ... (" << data_.contents.size() << " in all)\n";
        return;
      }
      out_ << "  " << line << "\n";
    }
  }

  void twins(const Dataset& set, const DataScan& seen) {
    if (seen.twins.empty()) return;
    out_ << "  " << seen.twins.size() << " samples have the x of an earlier one, such as "
         << name_of(set, seen.twins.front().first) << " that of " << name_of(set, seen.twins.front().second) << "\n";
  }

  void duplicates(const DataScan& train, const DataScan& seen, const Dataset& eval) {
    std::vector<std::string> places;
    std::int64_t count = 0;
    for (const auto& [hash, sample] : seen.hashes) {
      const auto found = train.hashes.find(hash);
      if (found == train.hashes.end()) continue;
      if (++count <= static_cast<std::int64_t>(kMostPlaces))
        places.push_back(concat(name_of(eval, sample), " is ", name_of(*data_.train, found->second)));
    }
    if (count == 0) return;
    out_ << "  " << count << " of them are in the training set too, and say little: " << join(places, "; ")
         << (count > static_cast<std::int64_t>(kMostPlaces) ? "; ..." : "") << "\n";
  }

  void show(const Dataset& set, std::int64_t sample) {
    const Tensors read = read_samples(set, {sample});
    const std::vector<EntrySpec> entries = set.entries(1);
    out_ << "  " << name_of(set, sample) << "\n";
    for (std::size_t i = 0; i < read.size(); ++i) {
      const bool target = i + 1 == read.size();
      const at::Tensor value = read[i][0];
      out_ << "    " << entries[i].name << ": ";
      if (target && has_classes(set))
        out_ << class_text(data_, value.item<std::int64_t>());
      else if (value.dim() == 3 && value.is_floating_point())
        picture(value);
      else if (value.scalar_type() == at::kLong && entries[i].below > 0 && entries[i].below <= kBytes)
        out_ << text_of(value);
      else
        out_ << list_of(value);
      out_ << "\n";
    }
  }

  std::string list_of(const at::Tensor& value) const {
    const at::Tensor flat = value.flatten();
    std::string text;
    for (std::int64_t i = 0; i < flat.numel(); ++i) {
      const std::string one =
          flat.is_floating_point() ? number_text(flat[i].item<double>()) : concat(flat[i].item<std::int64_t>());
      if (text.size() + one.size() + 2 > room()) return text + ", ...";
      text += (text.empty() ? "" : ", ") + one;
    }
    return text;
  }

  std::string text_of(const at::Tensor& value) const {
    std::string text = "\"";
    for (std::int64_t i = 0; i < value.numel() && text.size() < room(); ++i) {
      const auto byte = static_cast<unsigned char>(value.flatten()[i].item<std::int64_t>());
      if (byte == '\n')
        text += "\\n";
      else if (std::isprint(byte) != 0 || byte >= 0x80)
        text += static_cast<char>(byte);
      else
        text += '.';
    }
    return one_line(text) + "\"";
  }

  std::size_t room() const { return static_cast<std::size_t>(std::max(20, look_.columns - 16)); }

  /// [channels, height, width] in shades, of the mean of the channels.
  void picture(const at::Tensor& image) {
    static constexpr std::array<const char*, 5> shades = {" ", "░", "▒", "▓", "█"};
    const std::int64_t width = std::min<std::int64_t>({image.size(2), look_.columns - 6, 64});
    const std::int64_t height =
        std::max<std::int64_t>(1, image.size(1) * width / image.size(2) / 2);  // a cell is twice as high
    const at::Tensor grey =
        at::adaptive_avg_pool2d(image.to(at::kFloat).mean(0, true).unsqueeze(0), {height, width})[0][0];
    const auto least = grey.min().item<float>(), most = grey.max().item<float>();
    out_ << "image [" << join(image.sizes()) << "], from " << number_text(image.min().item<double>()) << " to "
         << number_text(image.max().item<double>());
    for (std::int64_t y = 0; y < height; ++y) {
      out_ << "\n      ";
      for (std::int64_t x = 0; x < width; ++x) {
        const float level = most > least ? (grey[y][x].item<float>() - least) / (most - least) : 0;
        out_ << shades[std::min<std::size_t>(4, static_cast<std::size_t>(level * 5))];
      }
    }
  }

  const DataLook& look_;
  const Config& config_;
  const DataSplits& data_;
  std::ostringstream out_;
};

}  // namespace

void DataRange::add(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kDouble);
  const at::Tensor finite = values.isfinite();
  const std::int64_t good = finite.sum().item<std::int64_t>();
  not_finite += values.numel() - good;
  count += good;
  if (good == 0) return;
  const at::Tensor kept = good == values.numel() ? values : values.masked_select(finite);
  least = std::min(least, kept.min().item<double>());
  most = std::max(most, kept.max().item<double>());
  sum += kept.sum().item<double>();
}

DataScan scan_data(const Dataset& set, std::int64_t most) {
  DataScan found;
  std::int64_t bytes = 0;
  const bool classes = has_classes(set);
  while (found.samples < std::min(most, set.size()) && bytes < kMostBytes) {
    const std::int64_t end = std::min({found.samples + kPiece, most, set.size()});
    const Tensors entries = read_samples(set, numbers(found.samples, end));
    found.ranges.resize(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
      found.ranges[i].add(entries[i]);
      bytes += static_cast<std::int64_t>(entries[i].nbytes());
    }
    for (std::int64_t row = 0; row < end - found.samples; ++row) {
      const std::int64_t sample = found.samples + row;
      const auto [first, is_new] = found.hashes.try_emplace(hash_of(entries[0][row].contiguous()), sample);
      if (!is_new) found.twins.emplace_back(sample, first->second);
      if (classes) ++found.classes[entries.back()[row].item<std::int64_t>()];
    }
    found.samples = end;
  }
  return found;
}

std::string look_at_data(const Config& config, const DataSplits& data, const DataLook& look) {
  Look found(config, data, look);
  return look.step > 0 ? found.step() : found.all();
}

}  // namespace lockstep
