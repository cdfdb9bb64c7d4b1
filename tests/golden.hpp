// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/test.hpp"

namespace lockstep::test {

/// Compares with a file of the source folder as a whole. LOCKSTEP_UPDATE_GOLDEN=1 rewrites the file instead.
inline void check_golden_file(const std::string& file_in_source, const std::string& text) {
  const std::string path = std::string(LOCKSTEP_SOURCE_DIR "/") + file_in_source;
  const char* update = std::getenv("LOCKSTEP_UPDATE_GOLDEN");
  if (update != nullptr && std::string(update) == "1") {
    std::ofstream file(path, std::ios::binary);
    file << text;
    file.close();
    REQUIRE(file);
    return;
  }
  std::ifstream file(path, std::ios::binary);
  INFO("golden file " << path << "; LOCKSTEP_UPDATE_GOLDEN=1 rewrites it");
  REQUIRE(file);
  std::ostringstream expected;
  expected << file.rdbuf();
  CHECK(text == expected.str());
}

}  // namespace lockstep::test
