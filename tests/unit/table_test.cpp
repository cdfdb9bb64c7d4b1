// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/text_table.hpp"

#include <algorithm>
#include <sstream>

#include "runtime/base/error.hpp"
#include "tests/test.hpp"

using namespace lockstep;

namespace {

using Kind = Column::Kind;

const std::vector<Column> kColumns = {{"stage", Kind::list},
                                      {"layers"},
                                      {"parameters", Kind::same, true},
                                      {"in flight", Kind::range, true},
                                      {"first .. last", Kind::names, true}};

/// Every fourth stage has one layer, the others two.
std::vector<std::vector<Cell>> stages(int count) {
  std::vector<std::vector<Cell>> rows;
  for (int s = 0; s < count; ++s)
    rows.push_back({{std::to_string(s), 1.0 * s},
                    {s % 4 == 0 ? "1" : "2"},
                    {"0.20 M"},
                    {std::to_string(count - s), 1.0 * (count - s)},
                    {concat("layer.", s)}});
  return rows;
}

std::size_t lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

std::size_t widest(const std::string& text) {
  std::size_t most = 0;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) most = std::max(most, line.size());
  return most;
}

}  // namespace

TEST_CASE("a table of few rows has a line for each", "[unit]") {
  CHECK(table(kColumns, stages(2), 100) ==
        "stage  layers  parameters  in flight  first .. last\n"
        "    0       1      0.20 M          2  layer.0\n"
        "    1       2      0.20 M          1  layer.1\n");
  CHECK(lines(table(kColumns, stages(16), 100)) == 17);
}

TEST_CASE("of many rows those that say the same are one", "[unit]") {
  CHECK(table(kColumns, stages(20), 100) ==
        "             stage  layers  parameters  in flight  first .. last\n"
        "   0, 4, 8, 12, 16       1      0.20 M      4..20  layer.0, ...\n"
        "1-3, 5-7, 9-11, ..       2      0.20 M      1..19  layer.1, ...\n");
  std::vector<std::vector<Cell>> different = stages(64);
  for (std::size_t i = 0; i < different.size(); ++i) different[i][2].text = std::to_string(i);
  CHECK(lines(table(kColumns, different, 100)) == 65);  // nothing is hidden that is not said
  CHECK(lines(table(kColumns, stages(4096), 100)) == 3);
}

TEST_CASE("a narrow terminal gets a narrow table", "[unit]") {
  for (const int width : {200, 80, 60, 47, 40, 30, 20}) {
    CAPTURE(width);
    for (const int count : {3, 64})
      CHECK(widest(table(kColumns, stages(count), width)) <= static_cast<std::size_t>(std::max(width, 22)));
  }
  CHECK(table(kColumns, stages(1), 14) == "stage  layers\n    0       1\n");
}

TEST_CASE("numbers in a row are a range", "[unit]") {
  CHECK(ranges_text({}) == "");
  CHECK(ranges_text({3}) == "3");
  CHECK(ranges_text({3, 4}) == "3, 4");
  CHECK(ranges_text({0, 1, 2, 5, 7, 8, 9}) == "0-2, 5, 7-9");
}
