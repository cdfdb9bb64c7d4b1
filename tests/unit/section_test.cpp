// SPDX-License-Identifier: Apache-2.0
//
// YAML as typed values: overrides, aliases, numbers, places in messages.
#include <fstream>
#include <thread>

#include "runtime/base/text.hpp"
#include "runtime/config/config.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"
#include "tests/unit/thrown_by.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

Section text_section(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return load_config_text(text, "job.yaml", overrides);
}

}  // namespace

TEST_CASE("overrides replace values, create mappings and take any YAML", "[unit]") {
  const Section root = text_section("a: {b: 1}\nc: 2\nempty:\n", {"a.b=[x, y]", "c={d: {e: true}}", "new.deep.key=3",
                                                                  "empty.now=1", " c.f = 4 ", "c.f=5"});
  CHECK(root.section("a").get<std::vector<std::string>>("b") == std::vector<std::string>{"x", "y"});
  CHECK(root.section("c").section("d").get<bool>("e"));
  CHECK(root.section("c").get<int>("f") == 5);
  CHECK(root.section("new").section("deep").get<int>("key") == 3);
  CHECK(root.section("empty").get<int>("now") == 1);
  CHECK(root.section("c").location().file == "--set c={d: {e: true}}");
}

TEST_CASE("an override of an aliased value leaves the other uses alone", "[unit]") {
  const Section root = text_section("a: &shared {x: 1, y: {z: 1}}\nb: *shared\n", {"b.y.z=2"});
  CHECK(root.section("a").section("y").get<int>("z") == 1);
  CHECK(root.section("b").section("y").get<int>("z") == 2);
}

TEST_CASE("aliases and merge keys are expanded, own keys win", "[unit]") {
  const Section root =
      text_section("a: &one {x: 1, y: 1}\nb: &two {y: 2, z: 2}\nc: {<<: [*one, *two], x: 3}\nd: {'<<': 4}\n");
  CHECK(root.section("c").to_yaml() == "x: 3\ny: 1\nz: 2\n");
  CHECK(root.to_yaml() == text_section(root.to_yaml()).to_yaml());
  CHECK(root.section("d").get<int>("<<") == 4);
}

TEST_CASE("aliases that stand for more than memory holds are refused", "[unit]") {
  std::string bomb = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n";
  for (int level = 1; level < 12; ++level) {
    bomb += concat("a", level, ": &a", level, " [");
    for (int use = 0; use < 9; ++use) bomb += concat("*a", level - 1, use < 8 ? ", " : "]\n");
  }
  CHECK(thrown_by([&] { text_section(bomb); }).find("more than 100000 values") != std::string::npos);

  CHECK(thrown_by([&] {
          text_section("a: " + std::string(70, '[') + std::string(70, ']'));
        }).find("more than 64 levels") != std::string::npos);
  std::string deep = "a0: &a0 [[[[[[[[[[1]]]]]]]]]]\n";
  for (int level = 1; level < 8; ++level)
    deep += concat("a", level, ": &a", level, " [[[[[[[[[[*a", level - 1, "]]]]]]]]]]\n");
  CHECK(thrown_by([&] { text_section(deep); }).find("more than 64 levels") != std::string::npos);
  CHECK_THROWS_AS(text_section("a: " + std::string(100000, '[')), ConfigError);
}

TEST_CASE("numbers are read to the last bit and to the last integer", "[unit]") {
  const Section root = text_section(
      "least: -9223372036854775808\nmost: 9223372036854775807\nint: -2147483648\nplus: +5\nzero: -0\n"
      "numbers: [1, -2.5, .5, 3., 1e3, 1.0E-4, 0.1, 5e-324, 1.7976931348623157e308]\n");
  CHECK(root.get<std::int64_t>("least") == std::numeric_limits<std::int64_t>::min());
  CHECK(root.get<std::int64_t>("most") == std::numeric_limits<std::int64_t>::max());
  CHECK(root.get<int>("int") == std::numeric_limits<int>::min());
  CHECK(root.get<int>("plus") == 5);
  CHECK(root.get<int>("zero") == 0);
  CHECK(root.get<std::vector<double>>("numbers") ==
        std::vector<double>{1, -2.5, 0.5, 3, 1000, 1e-4, 0.1, 5e-324, std::numeric_limits<double>::max()});
  CHECK_THROWS_AS(root.get<int>("most"), ConfigError);
  CHECK_THROWS_AS(root.get<std::uint64_t>("least"), ConfigError);
}

TEST_CASE("texts keep what they are", "[unit]") {
  const Section root = text_section("a: 010\nb: yes\nc: 'it''s'\nd: |\n  two\n  lines\ne: x#y\nf: ''\n");
  CHECK(root.get<std::string>("a") == "010");
  CHECK(root.get<std::string>("b") == "yes");
  CHECK(root.get<std::string>("c") == "it's");
  CHECK(root.get<std::string>("d") == "two\nlines\n");
  CHECK(root.get<std::string>("e") == "x#y");
  CHECK(root.get<std::string>("f", "default").empty());
  CHECK(text_section(root.to_yaml()).to_yaml() == root.to_yaml());
}

TEST_CASE("a message is one line of text, whatever it shows", "[unit]") {
  CHECK(one_line("a\nb\tc\x7f") == "a b c ");
  CHECK(one_line("gr\xc3\xb6\xc3\x9f"
                 "e \xe6\x97\xa5 \xf0\x9f\x98\x80") ==
        "gr\xc3\xb6\xc3\x9f"
        "e \xe6\x97\xa5 \xf0\x9f\x98\x80");
  CHECK(one_line("\xff\xfe"
                 "a") == "\\xff\\xfea");
  CHECK(one_line("gr\xf6\xdf"
                 "e") == "gr\\xf6\\xdfe");
  CHECK(one_line("\xc0\x80 \xed\xa0\x80") == "\\xc0\\x80 \\xed\\xa0\\x80");
  CHECK(one_line("abcdef", 3) == "abc...");
  CHECK(reason_of(std::runtime_error("[json.exception.out_of_range.403] key 'step' not found")) ==
        "key 'step' not found");
  CHECK(reason_of(std::runtime_error("plain")) == "plain");
  const std::filesystem::filesystem_error missing("cannot get file size", "no file",
                                                  std::make_error_code(std::errc::no_such_file_or_directory));
  CHECK(reason_of(missing) == "no file: No such file or directory");
}

TEST_CASE("a section of an absent key gives defaults and says where the key would be", "[unit]") {
  const Section absent = text_section("a: 1\n\nb: {c: 1}\n").section("b").section("d");
  CHECK(absent.get<int>("e", 7) == 7);
  CHECK(absent.keys().empty());
  CHECK_NOTHROW(absent.finish());
  CHECK(thrown_by([&] { absent.get<int>("e"); }) == "job.yaml:3:4: b.d.e: missing, expected an integer");
  CHECK(Section().get("x", 3, at_least(1)) == 3);
  CHECK(Section().to_yaml() == "{}\n");
}

TEST_CASE("finish accepts exactly the keys that were asked for", "[unit]") {
  const Section root = text_section("a: 1\nb: {c: 2}\nd: [1]\n");
  const Section copy = root;
  root.get<int>("a");
  root.has("b");
  CHECK(thrown_by([&] { copy.finish(); }) == "job.yaml:3:1: d: got an unknown key, expected one of a, b");
  copy.is_sequence("d");
  CHECK_NOTHROW(root.finish());
  CHECK(root.keys() == std::vector<std::string>{"a", "b", "d"});
}

TEST_CASE("rules are kept by values and by elements of lists", "[unit]") {
  const Section root = text_section("n: 5\nlist: [1, 2, 30]\nword: red\n");
  CHECK(root.get("n", between(1, 5)) == 5);
  CHECK(thrown_by([&] { root.get("n", above(5)); }) == "job.yaml:1:4: n: got 5, expected an integer > 5");
  CHECK(thrown_by([&] { root.list<int>("list", between(1, 9)); }) ==
        "job.yaml:2:14: list[2]: got 30, expected an integer from 1 to 9");
  const Rule<std::vector<int>> pair{"two integers", [](const std::vector<int>& list) { return list.size() == 2; }};
  CHECK(thrown_by([&] { root.get("list", pair); }) == "job.yaml:2:7: list: got [1, 2, 30], expected two integers");
  CHECK(thrown_by([&] {
          root.get("word", one_of({"rad", "green"}));
        }) == "job.yaml:3:7: word: got red, expected one of rad, green; did you mean 'rad'?");
}

TEST_CASE("long values are cut in errors, and errors are one line", "[unit]") {
  const Section root = text_section("a: " + std::string(500, 'x') + "\nb: \"1\\n2\"\n");
  CHECK(thrown_by([&] { root.get<int>("a"); }) ==
        "job.yaml:1:4: a: got " + std::string(57, 'x') + "..., expected an integer");
  CHECK(thrown_by([&] { root.get<int>("b"); }) ==
        "job.yaml:2:4: b: got \"1\\n2\", expected an integer; remove the quotes, they make it text");
}

TEST_CASE("byte order mark and Windows line ends do not move places", "[unit]") {
  const Section root = load_config_text(
      "\xEF\xBB\xBF"
      "a: 1\r\nb:\r\n  c: x\r\n",
      "job.yaml");
  CHECK(thrown_by([&] { root.section("b").get<int>("c"); }) == "job.yaml:3:6: b.c: got x, expected an integer");
}

TEST_CASE("the nearest name is found through slips, and nothing far is offered", "[unit]") {
  const std::vector<std::string> names = {"steps", "batch", "micro_batches", "lr", "adam", "adamw"};
  CHECK(nearest("setps", names) == "steps");
  CHECK(nearest("BATCH", names) == "batch");
  CHECK(nearest("micro-batches", names) == "micro_batches");
  CHECK(nearest("micro", names) == "micro_batches");
  CHECK(nearest("adamv", names) == "adamw");
  CHECK(nearest("lt", names) == "lr");
  CHECK_FALSE(nearest("colour", names));
  CHECK_FALSE(nearest("", names));
  CHECK_FALSE(nearest("x", {"y"}));
  CHECK_FALSE(nearest(std::string(100000, 'b'), names));
  CHECK(did_you_mean("setps", names) == "; did you mean 'steps'?");
  CHECK(did_you_mean("colour", names).empty());
}

TEST_CASE("a file that cannot be read is named, with the nearest one beside it", "[unit]") {
  const TemporaryFolder folder;
  const std::string path = folder.file("train.yaml");
  std::ofstream(path) << "a: 1\n";
  const std::string wrong = folder.file("tain.yaml");
  CHECK(load_config_file(path).get<int>("a") == 1);
  CHECK(thrown_by([&] { load_config_file(wrong); }) == wrong +
                                                           ": got no file (No such file or directory), expected a YAML "
                                                           "file that can be read; did you mean 'train.yaml'?");
  CHECK(thrown_by([&] { load_config_file(folder.path()); }) == folder.path() + ": got a folder, expected a YAML file");
  std::ofstream(path, std::ios::trunc).flush();
  CHECK(thrown_by([&] { load_config_file(path); }) ==
        path + ":1:1: got an empty document, expected a mapping ('key: value' lines)");
}

TEST_CASE("a section may be read from several threads", "[unit]") {
  const Section root = text_section("a: 1\nb: 2\nc: 3\n");
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 4; ++reader) {
    readers.emplace_back([root] {
      for (int round = 0; round < 200; ++round) {
        for (const std::string& key : root.keys()) root.get<int>(key);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  CHECK_NOTHROW(root.finish());
}
