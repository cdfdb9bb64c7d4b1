// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/one_line.hpp"

namespace lockstep {

std::string one_line(std::string text, std::size_t most) {
  if (text.size() > most) {
    text.resize(most);
    text += "...";
  }
  for (char& c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7F) c = ' ';
  }
  return text;
}

}  // namespace lockstep
