// SPDX-License-Identifier: Apache-2.0
//
// {type: image_folder}: a folder with a folder of images for each class, as torchvision's ImageFolder reads it.
//
//   train, eval   folders; the names of the folders in them, in byte order, are the classes, the same in both. Images
//                 are files that end in .png, .jpg or .jpeg (in any case), at any depth, in byte order of their paths;
//                 others are passed over, with a note, and names that begin with a dot without
//   size          height and width of what is put out
//   channels      3 (red, green, blue; the default) or 1 (grey)
//   resize        the shorter side, before a square of `size` is cut out: of the middle, or, with augment.crop,
//   anywhere;
//                 default: size
//   mean, std     x is (byte / 255 - mean) / std, by channel, or `imagenet`; default: 0 and 1
//   augment       of training samples, seeded by their number: a function of seed and config alone
//     crop                  centre (the default) or random
//     random_resized_crop   {scale: [0.08, 1], ratio: [0.75, 1.3333333333333333]}: as torchvision's
//     flip                  probability of a mirror image, left for right; default: 0
//
// x float32 [rows, channels, size, size]; targets int64 [rows]: the class. What of a file counts is in image_file.hpp,
// how it is resized in image_view.hpp.
//
// Opening lists names and sizes, and reads no image: a broken one is found when it is its turn. A checkpoint records a
// hash of names and sizes, so an image that was altered to one of the same size goes unnoticed.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "runtime/base/check.hpp"
#include "runtime/data/image_view.hpp"
#include "runtime/data/input_files.hpp"
#include "runtime/data/readers.hpp"
#include "runtime/data/table_dataset.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kClasses = "classes";  // of DataRecord::learnt

struct FolderOptions {
  std::string train, eval;
  int size = 0, channels = 3, resize = 0;
  PixelValues values;
  bool random_crop = false;
  std::optional<RandomBox> box;
  double flip = 0;
  std::uint64_t seed = 1;
};

/// "[from, to]"
void read_pair(const Section& section, const std::string& key, double& least, double& most, const Rule<double>& rule) {
  const auto pair = section.list<double>(key, {least, most}, rule);
  if (pair.size() != 2 || pair[0] > pair[1]) throw section.unexpected(key, "two numbers, the smaller one first");
  least = pair[0];
  most = pair[1];
}

void read_augment(const Section& section, FolderOptions& options) {
  const Section augment = section.section("augment");
  options.random_crop = augment.get<std::string>("crop", "centre", one_of({"centre", "random"})) == "random";
  options.flip = read_flip(augment);
  if (augment.has("random_resized_crop")) {
    const Section crop = augment.required_section("random_resized_crop");
    RandomBox& box = options.box.emplace();
    read_pair(crop, "scale", box.least_scale, box.most_scale, between(1e-6, 1.0));
    read_pair(crop, "ratio", box.least_ratio, box.most_ratio, between(1e-3, 1e3));
    crop.finish();
    if (augment.has("crop"))
      throw augment.error("crop", "got a crop beside random_resized_crop, which is one; leave one of them out");
  }
  augment.finish();
}

FolderOptions read_options(const Section& section, const DataContext& context) {
  constexpr int largest = 1 << 12;
  FolderOptions options;
  options.train = section.get<std::string>("train", not_empty());
  if (section.has("eval")) options.eval = section.get<std::string>("eval", not_empty());
  options.size = section.get<int>("size", between(1, largest));
  options.channels =
      section.get<int>("channels", 3, {"1 or 3", [](int channels) { return channels == 1 || channels == 3; }});
  options.resize = section.get<int>("resize", options.size, between(options.size, largest));
  options.values = read_pixel_values(section, options.channels);
  options.seed = context.seed;
  read_augment(section, options);
  section.finish();
  if (!reads_images())
    throw section.error("type", "got image_folder, which this Lockstep was built without (LOCKSTEP_IMAGES=OFF)");
  return options;
}

/// The images of a folder, by class.
struct ImageList {
  std::string folder;
  std::vector<std::string> classes, names;  ///< names: "cat/1.jpg"
  std::vector<std::int64_t> begins;         ///< of each class in `names`
  DataFile record;
  std::string note;  ///< empty: nothing was passed over

  std::int64_t class_of(std::int64_t image) const {
    return std::upper_bound(begins.begin(), begins.end(), image) - begins.begin() - 1;
  }
  std::string path(std::int64_t image) const { return folder + "/" + names[static_cast<std::size_t>(image)]; }
};

bool has_image_name(const fs::path& path) {
  std::string end = path.extension();
  for (char& c : end) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return end == ".png" || end == ".jpg" || end == ".jpeg";
}

bool is_hidden(const fs::path& path) {
  return path.filename().native().starts_with('.');
}

DataError unreadable(const fs::filesystem_error& error) {
  return DataError(concat(error.path1().native(), ": cannot be read: ", error.code().message(),
                          " (working folder: ", working_folder(), ")"));
}

std::vector<std::string> classes_in(const std::string& folder) try {
  std::vector<std::string> classes;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory() && !is_hidden(entry.path())) classes.push_back(entry.path().filename());
  std::sort(classes.begin(), classes.end());
  return classes;
} catch (const fs::filesystem_error& error) {
  throw unreadable(error);
}

class Listing {
 public:
  explicit Listing(const std::string& folder) {
    list_.folder = folder;
    while (list_.folder.size() > 1 && list_.folder.ends_with('/')) list_.folder.pop_back();
  }

  /// Whatever the images are of, of one class: all of the folder, or the one image that `folder` is.
  ImageList list_images() try {
    const fs::path path = list_.folder;
    if (fs::is_directory(path)) {
      list_class("");
    } else if (has_image_name(path) && fs::exists(path)) {
      list_.folder = path.has_parent_path() ? path.parent_path().native() : ".";
      list_.names = {path.filename().native()};
      list_.begins = {0};
    } else {
      throw DataError(concat(list_.folder, ": is no folder of images and no image (.png, .jpg, .jpeg)"));
    }
    return std::move(list_);
  } catch (const fs::filesystem_error& error) {
    throw unreadable(error);
  }

  ImageList list() {
    list_.classes = classes_in(list_.folder);
    try {
      for (const std::string& name : list_.classes) list_class(name);
    } catch (const fs::filesystem_error& error) {
      throw unreadable(error);
    }
    if (list_.classes.empty())
      throw DataError(concat(list_.folder, ": has no folders, expected one for each class, with its images"));
    if (passed_over_ > 0)
      list_.note =
          one_line(concat(list_.folder, ": ", passed_over_, " files do not end in .png, .jpg or .jpeg and are ",
                          "passed over, such as ", example_));
    record();
    return std::move(list_);
  }

 private:
  /// `name`: of its folder; empty: the whole one, which may have none.
  void list_class(const std::string& name) {
    const std::size_t begin = list_.names.size();
    list_.begins.push_back(static_cast<std::int64_t>(begin));
    std::vector<std::pair<std::string, std::int64_t>> found;
    const std::string folder = name.empty() ? list_.folder : list_.folder + "/" + name;
    for (fs::recursive_directory_iterator entry(folder, fs::directory_options::follow_directory_symlink), end;
         entry != end; ++entry) {
      if (is_hidden(entry->path())) {
        if (entry->is_directory()) entry.disable_recursion_pending();
      } else if (!entry->is_directory()) {
        add(*entry, found);
      }
    }
    if (found.empty() && !name.empty())
      throw DataError(concat(folder,
                             ": has no image (.png, .jpg, .jpeg), and its class no sample; add some, or remove "
                             "the folder"));
    std::sort(found.begin(), found.end());
    for (auto& [image, size] : found) {
      list_.names.push_back(std::move(image));
      sizes_.push_back(size);
    }
  }

  void add(const fs::directory_entry& entry, std::vector<std::pair<std::string, std::int64_t>>& found) {
    if (!has_image_name(entry.path())) {
      if (passed_over_++ == 0) example_ = entry.path();
      return;
    }
    const auto size = static_cast<std::int64_t>(entry.file_size());
    if (size == 0) throw DataError(concat(entry.path().native(), ": is empty; copy it again, or remove it"));
    found.emplace_back(entry.path().native().substr(list_.folder.size() + 1), size);
  }

  void record() {
    std::string text;
    for (std::size_t i = 0; i < sizes_.size(); ++i) text += concat(list_.names[i], '\0', sizes_[i], '\0');
    list_.record = {list_.folder, std::accumulate(sizes_.begin(), sizes_.end(), std::int64_t{0}), hash_of(text)};
  }

  ImageList list_;
  std::vector<std::int64_t> sizes_;
  std::int64_t passed_over_ = 0;
  std::string example_;
};

class ImageFolder : public Dataset {
 public:
  ImageFolder(std::shared_ptr<const ImageList> list, FolderOptions options)
      : list_(std::move(list)), options_(std::move(options)) {}

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return data_entries(rows, {at::kFloat, {options_.channels, options_.size, options_.size}},
                        {at::kLong, {}, static_cast<std::int64_t>(list_->classes.size())});
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(list_->names.size()); }
  bool reads_in_parallel() const override { return true; }

  Tensors read(const std::vector<std::int64_t>& samples) const override {
    return views(samples, [&](std::size_t, int width, int height) {
      return centred(width, height, options_.resize, options_.size);
    });
  }

  Tensors draw(const std::vector<std::int64_t>& samples, std::int64_t first) const override {
    return views(samples, [&](std::size_t row, int width, int height) {
      RandomStream random = augmentation(options_.seed, first + static_cast<std::int64_t>(row));
      // First, so that it does not depend on how often the crop draws.
      const bool mirrored = options_.flip > 0 && random.uniform() < options_.flip;
      ImageView view = options_.box           ? boxed(width, height, options_.size, *options_.box, random)
                       : options_.random_crop ? cropped(width, height, options_.resize, options_.size, random)
                                              : centred(width, height, options_.resize, options_.size);
      view.mirrored = mirrored;
      return view;
    });
  }

  std::vector<std::int64_t> classes() const override {
    std::vector<std::int64_t> classes;
    for (std::int64_t image = 0; image < size(); ++image) classes.push_back(list_->class_of(image));
    return classes;
  }
  std::string place_of(std::int64_t sample) const override { return list_->path(sample); }

 private:
  /// `view_of`: of a row, from its picture's width and height.
  template <typename F>
  Tensors views(const std::vector<std::int64_t>& samples, const F& view_of) const {
    const std::vector<EntrySpec> specs = entries(static_cast<std::int64_t>(samples.size()));
    Tensors result = {at::empty(specs[0].sizes, at::kFloat), at::empty(specs[1].sizes, at::kLong)};
    auto* x = result[0].mutable_data_ptr<float>();
    for (std::size_t row = 0; row < samples.size(); ++row, x += result[0].stride(0)) {
      LOCKSTEP_CHECK(samples[row] >= 0 && samples[row] < size(), "sample ", samples[row], " of ", size());
      const std::string path = list_->path(samples[row]), bytes = read_file(path);
      const std::unique_ptr<ImageRows> picture = open_image(bytes, path, options_.channels);
      render(*picture, view_of(row, picture->width(), picture->height()), options_.size, options_.values, x);
      result[1].mutable_data_ptr<std::int64_t>()[row] = list_->class_of(samples[row]);
    }
    return result;
  }

  std::shared_ptr<const ImageList> list_;
  FolderOptions options_;
};

/// Another list would give the classes other numbers.
void check_classes(const ImageList& eval, const std::vector<std::string>& expected, const std::string& train) {
  if (eval.classes == expected) return;
  const auto [ours, theirs] = std::mismatch(eval.classes.begin(), eval.classes.end(), expected.begin(), expected.end());
  const bool more = theirs == expected.end() || (ours != eval.classes.end() && *ours < *theirs);
  throw DataError(more ? concat(eval.folder, ": has a class '", *ours, "', and ", train, " has not")
                       : concat(eval.folder, ": lacks the class '", *theirs, "', which ", train, " has"));
}

/// None in what was written before there were any.
std::vector<std::string> learnt_classes(const std::string& learnt) {
  if (learnt.empty()) return {};
  const auto json = nlohmann::ordered_json::parse(learnt);
  return json.contains(kClasses) ? json.at(kClasses).get<std::vector<std::string>>() : std::vector<std::string>();
}

DataSplits open_folders(const Section& section, const DataContext& context) {
  const FolderOptions options = read_options(section, context);
  const bool absent = context.trained && !options.eval.empty();
  DataSplits splits;
  if (context.trained && context.trained->inputs) {
    const auto images = std::make_shared<const ImageList>(Listing(context.trained->inputs->path).list_images());
    splits.eval = std::make_shared<ImageFolder>(images, options);
    splits.class_names = learnt_classes(context.trained->record.learnt);
    splits.inputs = InputColumns{{"file"}, [images](std::int64_t sample) {
                                   return std::vector{std::optional(images->names[static_cast<std::size_t>(sample)])};
                                 }};
    return splits;
  }
  DataRecord& record = splits.record.emplace();
  std::shared_ptr<const ImageList> train, eval;
  if (!absent) {
    train = std::make_shared<const ImageList>(Listing(options.train).list());
    record.train = {train->record};
    splits.train = std::make_shared<ImageFolder>(train, options);
  }
  if (!options.eval.empty()) {
    eval = std::make_shared<const ImageList>(Listing(options.eval).list());
    record.eval = {eval->record};
    splits.eval = std::make_shared<ImageFolder>(eval, options);
  }
  // Of a training set that is not opened the names alone, where it still is.
  if (train && eval) check_classes(*eval, train->classes, train->folder);
  std::error_code ignored;
  if (absent && fs::is_directory(options.train, ignored))
    check_classes(*eval, classes_in(options.train), options.train);
  for (const auto& list : {train, eval})
    if (list && !list->note.empty()) splits.notes.push_back(list->note);
  splits.class_names = (train ? train : eval)->classes;
  record.learnt = nlohmann::ordered_json{{kClasses, splits.class_names}}.dump();
  return splits;
}

}  // namespace

DataReader image_folder_reader() {
  return {"image_folder", "PNG and JPEG images, a folder for each class", open_folders, /*takes_inputs=*/true};
}

}  // namespace lockstep
