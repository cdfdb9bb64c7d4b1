// SPDX-License-Identifier: Apache-2.0
//
// The readers idx, cifar10 and cifar100: exact values, random changes, and the whole text of every error.
#include "tests/contract/data_fixture.hpp"
#include "tests/image_files.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

const std::string kPixels = {0, 51, 102, '\xff', 1, 2, 3, 4, 5, 6, 7, 8};  // two images of 2 x 3

void write_mnist() {
  write_file("x", idx_file({2, 2, 3}, kPixels));
  write_file("y", idx_file({2}, {7, 2}));
}

const std::string kData = "type: idx, train: {images: x, labels: y}";

/// A record of CIFAR: the labels, and bytes that count from `first`.
std::string record(const std::string& labels, int first) {
  std::string text = labels;
  for (int i = 0; i < 3072; ++i) text += static_cast<char>(first + i);
  return text;
}

}  // namespace

TEST_CASE("idx: images are numbers from 0 to 1, targets their labels", "[contract]") {
  const Folder folder;
  write_mnist();
  const DataSplits splits = open(kData);
  const Dataset& data = *splits.train;
  CHECK(data.size() == 2);
  CHECK(entry_texts(data, 3) == std::vector<std::string>{"x Float [3, 1, 2, 3]", "targets Long [3]"});
  CHECK(data.entries(1)[1].below == 8);
  check_keeps_its_word(data, {0, 1, 1});
  const Tensors read = data.read({1, 0});
  CHECK(values<float>(read[0].narrow(0, 1, 1)) ==
        std::vector<float>{0.0f, 51 / 255.0f, 102 / 255.0f, 1.0f, 1 / 255.0f, 2 / 255.0f});
  CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{2, 7});
  CHECK(data.classes() == std::vector<std::int64_t>{7, 2});
  CHECK(data.place_of(1) == "x: image 1");
  CHECK(data.reads_in_parallel());
  REQUIRE(splits.record->train.size() == 2);
  CHECK(splits.record->train[1].path == "y");
}

TEST_CASE("idx: flat, mean and std", "[contract]") {
  const Folder folder;
  write_mnist();
  const auto data = open(kData + ", eval: {images: x, labels: y}, flat: true, mean: 0.1307, std: [0.3081]").eval;
  CHECK(entry_texts(*data, 2) == std::vector<std::string>{"x Float [2, 6]", "targets Long [2]"});
  CHECK(values<float>(data->read({0})[0])[1] == (51 / 255.0f - 0.1307f) / 0.3081f);
}

TEST_CASE("idx: read() never changes a sample, draw() does so by its number alone", "[contract]") {
  const Folder folder;
  std::string pixels;
  for (int i = 1; i <= 25; ++i) pixels += static_cast<char>(i);
  write_file("x", idx_file({1, 5, 5}, pixels));
  write_file("y", idx_file({1}, {0}));
  const std::string keys = ", augment: {padding: 2, flip: 0.5}";
  const auto data = open(kData + keys).train;
  const auto picture = [&](const at::Tensor& x) {
    std::vector<int> numbers;
    for (const float value : values<float>(x)) numbers.push_back(static_cast<int>(std::lround(value * 255)));
    return numbers;
  };
  const std::vector<int> whole = picture(data->read({0})[0]);
  CHECK(whole.front() == 1);
  const Tensors drawn = data->draw(std::vector<std::int64_t>(200, 0), 1000);
  int shifted = 0, mirrored = 0;
  for (std::int64_t row = 0; row < 200; ++row) {
    const std::vector<int> got = picture(drawn[0][row]);
    CHECK(got == picture(data->draw({0}, 1000 + row)[0]));
    // The pixel in the middle says what was done; all others have to agree.
    const int middle = got[12] - 1;
    REQUIRE(middle >= 0);
    const auto at = [&](int y, int x) { return y < 0 || y > 4 || x < 0 || x > 4 ? 0 : y * 5 + x + 1; };
    const auto seen = [&](bool mirror) {
      std::vector<int> pixels_seen;
      for (int y = 0; y < 5; ++y)
        for (int x = 0; x < 5; ++x)
          pixels_seen.push_back(at(y + middle / 5 - 2, middle % 5 + (mirror ? 2 - x : x - 2)));
      return pixels_seen;
    };
    CHECK((got == seen(false) || got == seen(true)));
    shifted += middle != 12;
    mirrored += got == seen(true);
  }
  CHECK(shifted > 150);
  CHECK(mirrored > 60);
  CHECK(mirrored < 140);
  DataContext other;
  other.seed = 2;
  CHECK(picture(open(kData + keys, other).train->draw(std::vector<std::int64_t>(200, 0), 1000)[0]) !=
        picture(drawn[0]));
  CHECK(picture(open(kData).train->draw({0}, 5)[0]) == whole);
}

#ifdef LOCKSTEP_TEST_IMAGES
TEST_CASE("idx: files may be packed with gzip", "[contract]") {
  const Folder folder;
  write_mnist();
  const auto plain = open(kData).train->read({0, 1});
  write_file("x", gzip_of(idx_file({2, 2, 3}, kPixels)));
  write_file("y", gzip_of(idx_file({2}, {7, 2})));
  const auto packed = open(kData).train->read({0, 1});
  CHECK(values<float>(packed[0]) == values<float>(plain[0]));
  CHECK(values<std::int64_t>(packed[1]) == values<std::int64_t>(plain[1]));
  const std::string whole = gzip_of(idx_file({2, 2, 3}, kPixels));
  write_file("x", whole.substr(0, whole.size() - 9));
  CHECK(error_of(kData) == "x: gzip-compressed data that is damaged, or was cut short, after 28 unpacked bytes");
  write_file("x", whole + "abc");
  CHECK(error_of(kData) == "x: has 3 bytes behind its gzip-compressed data; it was altered");
  write_file("x", whole.substr(0, 5));
  CHECK(error_of(kData) == "x: gzip-compressed data that is damaged, or was cut short, after 0 unpacked bytes");
}
#endif

TEST_CASE("idx: what is wrong is named", "[contract]") {
  const Folder folder;
  write_mnist();
  write_file("three", idx_file({3}, {1, 2, 3}));
  write_file("cut", idx_file({2, 2, 3}, kPixels.substr(1)));
  write_file("none", idx_file({0, 2, 3}, ""));
  write_file("huge", idx_file({2147483647, 2147483647, 2147483647}, kPixels));
  write_file("float", std::string("\0\0\x0d\3", 4) + std::string(20, '\0'));
  write_file("text", "label,pixel\n1,2\n");
  write_file("short", std::string("\0\0\x08\3\0\0", 6));
  write_file("empty", "");
  write_file("wide", idx_file({1, 2, 4}, "abcdefgh"));
  write_file("one", idx_file({1}, {1}));
  const std::string here = folder.path();
  const std::vector<Bad> cases = {
      {"type: idx, train: {images: no, labels: y}",
       "no: cannot be read: No such file or directory (working folder: " + here + ")"},
      {"type: idx, train: x", "job.yaml:1:26: data.train: got x, expected a mapping"},
      {"type: idx, train: {images: x}", "job.yaml:1:26: data.train.labels: missing, expected a non-empty string"},
      {"type: idx, train: {images: x, labels: y, label: z}",
       "job.yaml:1:49: data.train.label: got an unknown key, expected one of images, labels; did you mean 'labels'?"},
      {"type: idx, train: {images: x, labels: three}", "three: got 3 labels, expected 2, one for each image of x"},
      {"type: idx, train: {images: y, labels: x}",
       "y: got an IDX file of type 8 with 1 dimensions, expected type 8 (unsigned bytes) with 3: images, rows, "
       "columns"},
      {"type: idx, train: {images: cut, labels: y}",
       "cut: its header says 2 x 2 x 3 bytes, and it has 11; it was cut short, or added to"},
      {"type: idx, train: {images: none, labels: y}", "none: got 0 x 2 x 3, expected one image or more"},
      {"type: idx, train: {images: huge, labels: y}",
       "huge: its header says 2147483647 x 2147483647 x 2147483647 bytes, and it has 12; it was cut short, or added "
       "to"},
      {"type: idx, train: {images: float, labels: y}",
       "float: got an IDX file of type 13 with 3 dimensions, expected type 8 (unsigned bytes) with 3: images, rows, "
       "columns"},
      {"type: idx, train: {images: text, labels: y}",
       "text: is no IDX file: it does not begin with two zero bytes and a type"},
      {"type: idx, train: {images: empty, labels: y}",
       "empty: is no IDX file: it does not begin with two zero bytes and a type"},
      {"type: idx, train: {images: short, labels: y}", "short: its header is cut short"},
      {"type: idx, train: {images: x, labels: y}, eval: {images: wide, labels: one}",
       "wide: got images of 2 x 4 pixels, expected 2 x 3 as in x"},
      {"type: idx, train: {images: x, labels: y}, std: 0",
       "job.yaml:1:55: data.std: got 0, expected a number from 1e-06 to 1e+06"},
      {"type: idx, train: {images: x, labels: y}, mean: [1, 2]",
       "job.yaml:1:56: data.mean: got [1, 2], expected a number, or a list of 1"},
      {"type: idx, train: {images: x, labels: y}, mean: imagenet",
       "job.yaml:1:56: data.mean: got imagenet, which has 3 channels; these images have 1"},
      {"type: idx, train: {images: x, labels: y}, augment: {flip: 2}",
       "job.yaml:1:66: data.augment.flip: got 2, expected a number from 0 to 1"},
      {"type: idx, train: {images: x, labels: y}, augment: {crop: 2}",
       "job.yaml:1:60: data.augment.crop: got an unknown key, expected one of padding, flip"},
      {"type: idx, train: {images: x, labels: y}, flatt: true",
       "job.yaml:1:50: data.flatt: got an unknown key, expected one of type, train, eval, mean, std, augment, flat; "
       "did "
       "you mean 'flat'?"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
}

TEST_CASE("cifar10: records of a label and three planes, from several files", "[contract]") {
  const Folder folder;
  write_file("data_batch_1.bin", record({3}, 0) + record({9}, 100));
  write_file("data_batch_2.bin", record({0}, 50));
  const DataSplits splits = open("type: cifar10, train: data_batch_*.bin, eval: data_batch_2.bin");
  const Dataset& data = *splits.train;
  CHECK(entry_texts(data, 2) == std::vector<std::string>{"x Float [2, 3, 32, 32]", "targets Long [2]"});
  CHECK(data.size() == 3);
  CHECK(data.entries(1)[1].below == 10);
  const Tensors read = data.read({2, 1});
  CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{0, 9});
  CHECK(read[0][0][0][0][0].item<float>() == 50 / 255.0f);
  CHECK(read[0][0][2][31][31].item<float>() == static_cast<float>((50 + 3071) % 256) / 255.0f);
  CHECK(read[0][1][0][0][0].item<float>() == 100 / 255.0f);
  CHECK(data.place_of(2) == "data_batch_2.bin: image 0");
  CHECK(data.classes() == std::vector<std::int64_t>{3, 9, 0});
  CHECK(splits.class_names.size() == 10);
  CHECK(splits.class_names[3] == "cat");
  const auto normal = open("type: cifar10, train: data_batch_2.bin, mean: imagenet, std: imagenet").train->read({0});
  CHECK(normal[0][0][1][0][0].item<float>() == (50 / 255.0f - 0.456f) / 0.224f);
}

TEST_CASE("cifar100: fine labels, or coarse ones", "[contract]") {
  const Folder folder;
  write_file("train.bin", record({19, 99}, 0) + record({4, 0}, 1));
  const DataSplits fine = open("type: cifar100, train: train.bin");
  CHECK(fine.train->classes() == std::vector<std::int64_t>{99, 0});
  CHECK(fine.train->entries(1)[1].below == 100);
  CHECK(fine.class_names.empty());
  const DataSplits coarse = open("type: cifar100, train: train.bin, labels: coarse");
  CHECK(coarse.train->classes() == std::vector<std::int64_t>{19, 4});
  CHECK(coarse.train->entries(1)[1].below == 20);
  CHECK(coarse.train->read({1})[0][0][0][0][1].item<float>() == 2 / 255.0f);
}

TEST_CASE("cifar: what is wrong is named", "[contract]") {
  const Folder folder;
  write_file("good.bin", record({3}, 0));
  write_file("cut.bin", record({3}, 0).substr(1));
  write_file("empty.bin", "");
  write_file("label.bin", record({3}, 0) + record({10}, 0));
  const std::string here = folder.path();
  const std::vector<Bad> cases = {
      {"type: cifar10, train: no_*.bin",
       "job.yaml:1:30: data.train: no file matches 'no_*.bin' (working folder: " + here + ")"},
      {"type: cifar10, train: cut.bin",
       "cut.bin: has 3072 bytes, which are no whole number of records of 3073 bytes; it was cut short, or is no file "
       "of "
       "the binary version of CIFAR-10"},
      {"type: cifar10, train: empty.bin",
       "empty.bin: has 0 bytes, which are no whole number of records of 3073 bytes; it was cut short, or is no file of "
       "the binary version of CIFAR-10"},
      {"type: cifar100, train: good.bin",
       "good.bin: has 3073 bytes, which are no whole number of records of 3074 bytes; it was cut short, or is no file "
       "of "
       "the binary version of CIFAR-100"},
      {"type: cifar10, train: label.bin",
       "label.bin: image 1: got the label 10, expected 0 to 9; is it a file of the binary version of CIFAR-10?"},
      {"type: cifar10, train: good.bin, labels: fine",
       "job.yaml:1:40: data.labels: got an unknown key, expected one of type, train, eval, mean, std, augment"},
      {"type: cifar100, train: good.bin, labels: both",
       "job.yaml:1:49: data.labels: got both, expected one of fine, coarse"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
}

TEST_CASE("images: who only evaluates does not open the training files", "[contract]") {
  const Folder folder;
  write_mnist();
  write_file("c.bin", record({3}, 0));
  DataContext context;
  context.trained = TrainedOn{17, {}};
  for (const char* data : {"type: idx, train: {images: no, labels: no}, eval: {images: x, labels: y}",
                           "type: cifar10, train: no.bin, eval: c.bin"}) {
    INFO(data);
    CHECK(error_of(data) != "no error");
    CHECK(open(data, context).train->size() == 17);
  }
}
