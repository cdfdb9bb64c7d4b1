// SPDX-License-Identifier: Apache-2.0
//
// The reader image_folder. What Pillow makes of the same files: tests/oracle/readers_test.py.
#include <thread>

#include "tests/contract/data_fixture.hpp"
#include "tests/image_files.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// Two classes of two pictures each, of several sizes and kinds.
void write_folder(const std::string& folder) {
  write_file(folder + "/cat/b.png", png_of(picture(16, 12, 3, 0)));
  write_file(folder + "/cat/a.JPG", jpeg_of(picture(20, 24, 3, 1)));
  write_file(folder + "/ant/deep/z.jpeg", jpeg_of(picture(9, 9, 1, 2)));
  write_file(folder + "/ant/y.png", png_of(picture(12, 30, 4, 3)));
}

std::vector<float> picture_of(const Tensors& read, std::int64_t row = 0) {
  return values<float>(read[0][row].contiguous());
}

const std::string kData = "type: image_folder, train: t, size: 8";

}  // namespace

TEST_CASE("image_folder: folders are classes, images lie in byte order of their paths", "[contract]") {
  const Folder folder;
  write_folder("t");
  write_file("t/ant/.DS_Store", "x");
  write_file("t/.git/x", "x");
  const DataSplits splits = open(kData);
  const Dataset& data = *splits.train;
  CHECK(splits.notes.empty());
  CHECK(splits.class_names == std::vector<std::string>{"ant", "cat"});
  CHECK(entry_texts(data, 3) == std::vector<std::string>{"x Float [3, 3, 8, 8]", "targets Long [3]"});
  CHECK(data.entries(1)[1].below == 2);
  check_keeps_its_word(data, all_of(data));
  std::vector<std::string> places;
  for (const std::int64_t sample : all_of(data)) places.push_back(data.place_of(sample));
  CHECK(places == std::vector<std::string>{"t/ant/deep/z.jpeg", "t/ant/y.png", "t/cat/a.JPG", "t/cat/b.png"});
  CHECK(values<std::int64_t>(data.read(all_of(data))[1]) == std::vector<std::int64_t>{0, 0, 1, 1});
  CHECK(data.classes() == std::vector<std::int64_t>{0, 0, 1, 1});
  CHECK(open("type: image_folder, train: t//, size: 8").train->place_of(0) == "t/ant/deep/z.jpeg");
}

TEST_CASE("image_folder: a picture of the size wanted is put out as it is", "[contract]") {
  const Folder folder;
  const Picture made = picture(8, 8, 3, 1);
  write_file("t/a/1.png", png_of(made));
  write_file("t/a/2.png", png_of(made, 8, true));
  write_file("t/a/3.png", png_of(made, 16));
  write_file("t/a/4.png", png_of(made, 16, true));
  write_file("t/a/5.jpg", png_of(made));  // what it is, its bytes say
  std::vector<float> expected;
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t i = 0; i < 64; ++i) expected.push_back(static_cast<float>(made.bytes[3 * i + c]) / 255.0f);
  const auto data = open(kData).train;
  for (const std::int64_t sample : all_of(*data)) {
    INFO(data->place_of(sample));
    CHECK(picture_of(data->read({sample})) == expected);
  }
  const auto normal = open(kData + ", mean: imagenet, std: [1, 0.5, 2]").train;
  CHECK(picture_of(normal->read({0}))[64] == (expected[64] - 0.456f) / 0.5f);
}

TEST_CASE("image_folder: of a picture only the middle counts, resized so that its shorter side fits", "[contract]") {
  const Folder folder;
  // 4 x 8 of which the outer rows are others: halves of it are means of four.
  Picture made = {8, 16, 1, std::vector<std::uint8_t>(128, 200)};
  for (std::size_t i = 32; i < 96; ++i) made.bytes[i] = i % 2 ? 40 : 20;
  write_file("t/a/1.png", png_of(made));
  const auto data = open("type: image_folder, train: t, size: 4, channels: 1").train;
  CHECK(entry_texts(*data, 1)[0] == "x Float [1, 1, 4, 4]");
  const std::vector<float> got = picture_of(data->read({0}));
  CHECK(got[5] == 30 / 255.0f);
  CHECK(got[0] > 30 / 255.0f);  // the rows outside, through antialiasing
}

TEST_CASE("image_folder: read() is the same for all, draw() of a number for all splits of a batch", "[contract]") {
  const Folder folder;
  write_folder("t");
  for (const char* augment : {"{crop: random, flip: 0.5}", "{random_resized_crop: {}, flip: 0.5}", "{flip: 0.5}"}) {
    INFO(augment);
    const auto data = open(concat(kData, ", resize: 12, augment: ", augment)).train;
    const std::vector<std::int64_t> samples = {2, 3, 2, 1, 2, 2, 0, 2};
    const Tensors whole = data->draw(samples, 70);
    std::size_t others = 0;
    for (std::int64_t row = 0; row < 8; ++row) {
      const std::int64_t sample = samples[static_cast<std::size_t>(row)];
      CHECK(picture_of(whole, row) == picture_of(data->draw({sample}, 70 + row)));
      others += picture_of(whole, row) != picture_of(data->read({sample}));
    }
    CHECK(others >= 1);
    CHECK(picture_of(data->read({2})) == picture_of(open(kData + ", resize: 12").train->draw({2}, 70)));
    // From several threads at once.
    std::vector<std::vector<float>> found(8);
    std::vector<std::thread> threads;
    for (std::int64_t row = 0; row < 8; ++row)
      threads.emplace_back([&, row] {
        const Tensors drawn = data->draw({samples[static_cast<std::size_t>(row)]}, 70 + row);
        const float* first = drawn[0].const_data_ptr<float>();
        found[static_cast<std::size_t>(row)].assign(first, first + drawn[0].numel());
      });
    for (std::thread& thread : threads) thread.join();
    for (std::int64_t row = 0; row < 8; ++row) CHECK(found[static_cast<std::size_t>(row)] == picture_of(whole, row));
  }
}

TEST_CASE("image_folder: what is drawn is a part of the picture, mirrored or not", "[contract]") {
  const Folder folder;
  Picture made = {16, 8, 3, {}};
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 16; ++x)
      made.bytes.insert(made.bytes.end(), {static_cast<std::uint8_t>(x * 10), static_cast<std::uint8_t>(y), 7});
  write_file("t/a/1.png", png_of(made));
  const auto data = open(kData + ", augment: {crop: random, flip: 0.5}").train;
  int mirrored = 0;
  std::vector<int> places(9);
  for (std::int64_t drawn = 0; drawn < 300; ++drawn) {
    const std::vector<float> got = picture_of(data->draw({0}, drawn));
    const auto red = [&](std::size_t x) { return static_cast<int>(std::lround(got[x] * 25.5)); };
    const bool mirror = red(0) > red(7);
    mirrored += mirror;
    const int left = std::min(red(0), red(7));
    REQUIRE(left <= 8);
    ++places[static_cast<std::size_t>(left)];
    for (int x = 0; x < 8; ++x) CHECK(red(static_cast<std::size_t>(x)) == left + (mirror ? 7 - x : x));
  }
  CHECK(mirrored > 110);
  CHECK(mirrored < 190);
  for (const int count : places) CHECK(count > 10);
}

TEST_CASE("image_folder: eval has the classes of train, and its images are not changed at random", "[contract]") {
  const Folder folder;
  write_folder("t");
  write_folder("e");
  const std::string data = kData + ", eval: e, augment: {random_resized_crop: {}}";
  const DataSplits splits = open(data);
  CHECK(picture_of(splits.eval->read({1})) == picture_of(splits.train->read({1})));
  REQUIRE(splits.record->eval.size() == 1);
  CHECK(splits.record->eval[0].path == "e");
  DataContext context;
  context.trained = TrainedOn{17, {}};
  std::filesystem::remove_all("t");
  CHECK(open(data, context).train->size() == 17);
  write_folder("t");
  write_file("t/bee/1.png", png_of(picture(4, 4, 3, 0)));
  CHECK(error_of(data) == "e: lacks the class 'bee', which t has");
  CHECK(error_of(data, context) == "e: lacks the class 'bee', which t has");
  std::filesystem::rename("t/bee", "e/bee");
  CHECK(error_of(data) == "e: has a class 'bee', and t has not");
}

TEST_CASE("image_folder: the record knows names and sizes", "[contract]") {
  const Folder folder;
  const auto hash = [&] { return open(kData).record->train.at(0).hash; };
  write_folder("t");
  const std::uint64_t before = hash();
  std::filesystem::rename("t", "elsewhere");
  std::filesystem::rename("elsewhere", "t");
  CHECK(hash() == before);
  std::filesystem::rename("t/cat/b.png", "t/cat/c.png");
  CHECK(hash() != before);
  std::filesystem::rename("t/cat/c.png", "t/cat/b.png");
  std::ofstream("t/cat/b.png", std::ios::app) << " ";
  CHECK(hash() != before);
}

TEST_CASE("image_folder: what is wrong is named", "[contract]") {
  const Folder folder;
  write_folder("t");
  write_file("empty/a/1.png", "");
  write_file("none/a/1.txt", "x");
  write_file("flat/1.png", png_of(picture(4, 4, 3, 0)));
  write_file("t/readme.txt", "passed over: no class");
  const std::string here = folder.path();
  const std::vector<Bad> cases = {
      {"type: image_folder, train: no, size: 8",
       "no: cannot be read: No such file or directory (working folder: " + here + ")"},
      {"type: image_folder, train: flat, size: 8",
       "flat: has no folders, expected one for each class, with its images"},
      {"type: image_folder, train: none, size: 8",
       "none/a: has no image (.png, .jpg, .jpeg), and its class no sample; add some, or remove the folder"},
      {"type: image_folder, train: empty, size: 8", "empty/a/1.png: is empty; copy it again, or remove it"},
      {"type: image_folder, train: t", "job.yaml:1:7: data.size: missing, expected an integer from 1 to 4096"},
      {"type: image_folder, train: t, size: 8, resize: 7",
       "job.yaml:1:55: data.resize: got 7, expected an integer from 8 to 4096"},
      {"type: image_folder, train: t, size: 8, channels: 2", "job.yaml:1:57: data.channels: got 2, expected 1 or 3"},
      {"type: image_folder, train: t, size: 8, channels: 1, mean: imagenet",
       "job.yaml:1:66: data.mean: got imagenet, which has 3 channels; these images have 1"},
      {"type: image_folder, train: t, size: 8, augment: {crop: center}",
       "job.yaml:1:63: data.augment.crop: got center, expected one of centre, random; did you mean 'centre'?"},
      {"type: image_folder, train: t, size: 8, augment: {random_resized_crop: {scale: [1, 0.5]}}",
       "job.yaml:1:86: data.augment.random_resized_crop.scale: got [1, 0.5], expected two numbers, the smaller one "
       "first"},
      {"type: image_folder, train: t, size: 8, augment: {random_resized_crop: {scale: [0, 1]}}",
       "job.yaml:1:87: data.augment.random_resized_crop.scale[0]: got 0, expected a number from 1e-06 to 1"},
      {"type: image_folder, train: t, size: 8, augment: {random_resized_crop: {}, crop: random}",
       "job.yaml:1:88: data.augment.crop: got a crop beside random_resized_crop, which is one; leave one of them out"},
      {"type: image_folder, train: t, size: 8, augment: {padding: 4}",
       "job.yaml:1:57: data.augment.padding: got an unknown key, expected one of crop, flip, random_resized_crop"},
      {"type: image_folder, train: t, size: 8, sizes: 7",
       "job.yaml:1:47: data.sizes: got an unknown key, expected one of type, train, eval, size, channels, resize, "
       "mean, "
       "std, augment; did you mean 'size'?"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
  write_file("t/ant/notes.txt", "x");
  CHECK(open(kData).notes ==
        std::vector<std::string>{"t: 1 files do not end in .png, .jpg or .jpeg and are passed over, "
                                 "such as t/ant/notes.txt"});
}

TEST_CASE("image_folder: a broken image is named when it is read", "[contract]") {
  const Folder folder;
  const std::string png = png_of(picture(40, 40, 3, 0)), jpeg = jpeg_of(picture(40, 40, 3, 0));
  const auto error_with = [&](const std::string& bytes) {
    write_file("t/a/1.png", bytes);
    const auto data = open(kData).train;
    try {
      data->read({0});
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(error_with(png) == "no error");
  CHECK(error_with(jpeg) == "no error");
  const std::string of = "t/a/1.png: ";
  CHECK(error_with("GIF89a........") == of + "is no PNG and no JPEG file; convert it, or remove it");
  CHECK(error_with(png.substr(0, png.size() / 2)) == of + "is no whole PNG file: it was cut short");
  CHECK(error_with(png.substr(0, 20)) == of + "is no whole PNG file: it was cut short");
  std::string damaged = png;
  damaged[png.size() / 2] = static_cast<char>(damaged[png.size() / 2] + 1);
  CHECK_THAT(error_with(damaged), Catch::StartsWith(of + "is no whole PNG file: IDAT: "));
  CHECK(error_with(jpeg.substr(0, jpeg.size() / 2)) == of + "is no whole JPEG file: Premature end of JPEG file");
  CHECK(error_with(jpeg.substr(0, 100)) == of + "is no whole JPEG file: Premature end of JPEG file");
  CHECK(error_with(jpeg.substr(0, 2)) == of + "is no whole JPEG file: Premature end of JPEG file");
  std::string large = jpeg;
  const std::size_t frame = large.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  for (std::size_t i = 5; i < 9; ++i) large[frame + i] = i % 2 ? '\xea' : '\x60';
  CHECK(error_with(large) == of + "has 60000 x 60000 pixels, expected 134217728 or fewer");
  std::string cmyk = jpeg_of(picture(40, 40, 4, 0));
  CHECK(error_with(cmyk) == "no error");
  CHECK(error_with(jpeg_of(picture(40, 40, 3, 0), 90, true)) == "no error");
  CHECK(error_with(jpeg_of(picture(40, 40, 3, 0), 90, true).substr(0, 700)) ==
        of + "is no whole JPEG file: Premature end of JPEG file");
}
