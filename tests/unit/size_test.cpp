// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/size.hpp"

#include "tests/test.hpp"

using namespace lockstep;

TEST_CASE("sizes are read with binary and decimal units", "[unit]") {
  const std::pair<const char*, std::int64_t> cases[] = {{"2GiB", std::int64_t{2} << 30},
                                                        {"512MiB", 512 << 20},
                                                        {"1.5GB", 1'500'000'000},
                                                        {"100", 100},
                                                        {"7 KiB", 7168},
                                                        {"0.5KiB", 512},
                                                        {"3kB", 3000},
                                                        {"12B", 12},
                                                        {"0", 0},
                                                        {"1TiB", std::int64_t{1} << 40}};
  for (const auto& [text, bytes] : cases) {
    INFO(text);
    CHECK(parse_size(text) == bytes);
  }
}

TEST_CASE("what is not a size is none", "[unit]") {
  for (const char* text :
       {"", "GiB", "2Gib", "2gib", "-1MiB", "1e9", "nan", "inf", "0x10", "2GiB ", "9999999TiB", "1..5GB"}) {
    INFO(text);
    CHECK_FALSE(parse_size(text).has_value());
  }
}

TEST_CASE("an exact size reads back to the same bytes", "[unit]") {
  for (const std::int64_t bytes : {std::int64_t{1}, std::int64_t{4097}, std::int64_t{1} << 20, std::int64_t{1500} << 20,
                                   std::int64_t{3} << 40, std::int64_t{999'999'999'999}})
    CHECK(parse_size(exact_size_text(bytes)) == bytes);
  CHECK(exact_size_text(std::int64_t{2} << 30) == "2GiB");
}

TEST_CASE("sizes for people have three digits or so", "[unit]") {
  CHECK(size_text(100) == "100 B");
  CHECK(size_text(512 << 20) == "512 MiB");
  CHECK(size_text(1536 << 20) == "1.50 GiB");
  CHECK(size_text((20 << 20) + 700'000) == "20.7 MiB");
}
