// SPDX-License-Identifier: Apache-2.0
//
// safetensors files, damaged as bytes and as headers: a CheckpointError in one line, or tensors that lie in the file.
#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "runtime/checkpoint/safetensors.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

namespace lockstep::fuzz {
namespace {

/// The bytes of a whole file: several dtypes, an empty tensor, a scalar, and values that are not numbers.
std::string whole_file(const std::string& folder) {
  at::Tensor odd = at::zeros({5, 3});
  odd.fill_(std::numeric_limits<double>::quiet_NaN());
  odd[0][0] = std::numeric_limits<double>::infinity();
  write_safetensors(folder, "whole.safetensors",
                    {{"h.0.weight", odd},
                     {"h.0.bias", at::ones({3}, at::kBFloat16)},
                     {"count", at::full({}, 7, at::kLong)},
                     {"empty", at::zeros({0, 4})},
                     {"mask", at::ones({9}, at::kBool)}});
  return test::text_of_file(folder + "/whole.safetensors");
}

constexpr std::size_t kLengthBytes = 8;

std::string with_header(const std::string& header, const std::string& data, std::uint64_t length) {
  std::string bytes(kLengthBytes, '\0');
  for (std::size_t i = 0; i < kLengthBytes; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes + header + data;
}

/// Numbers, names and dtypes of the header, its length, or any byte of the file.
std::string damaged(const std::string& whole, Random& random) {
  static const std::vector<std::string> pieces = {"\"F32\"",
                                                  "\"F64\"",
                                                  "\"BOOL\"",
                                                  "\"F8_E4M3\"",
                                                  "\"\"",
                                                  "[",
                                                  "]",
                                                  "{",
                                                  "}",
                                                  ",",
                                                  ":",
                                                  "null",
                                                  "[0,4]",
                                                  "[4,0]",
                                                  "\"shape\"",
                                                  "\"data_offsets\"",
                                                  "\"h.0.weight\"",
                                                  "\"__metadata__\":1,",
                                                  "\\u0000",
                                                  "\\n",
                                                  "\xFF",
                                                  "[[[[[[",
                                                  "-1",
                                                  "1e3",
                                                  "\"a\nb\""};
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    length |= std::uint64_t{static_cast<unsigned char>(whole[i])} << (8 * i);
  std::string header = whole.substr(kLengthBytes, length), data = whole.substr(kLengthBytes + length);
  switch (random.below(5)) {
    case 0: return mutate_bytes(whole, random, pieces);
    case 1: {
      const std::vector<std::uint64_t> lengths = {
          0,           1,          length - 1, length + 1, whole.size() - 8, whole.size() - 7,
          100'000'000, 1ULL << 40, 1ULL << 63, ~0ULL,      ~0ULL - 7};
      return with_header(header, data, random.any(lengths));
    }
    case 2: data.resize(random.below(data.size() + 20)); return with_header(header, data, length);
    case 3: {  // one number
      const std::size_t from = random.below(header.size());
      const std::size_t at = header.find_first_of("0123456789", from);
      if (at == std::string::npos) return whole;
      const std::size_t end = header.find_first_not_of("0123456789", at);
      header.replace(at, end - at, random.any(odd_numbers()));
      return with_header(header, data, header.size());
    }
    default: header = mutate_bytes(header, random, pieces); return with_header(header, data, header.size());
  }
}

/// Opens the file and reads everything in it. "" or a broken promise.
std::string read_all(const std::string& path, std::size_t size) {
  const SafetensorsFile file(path);
  for (const TensorEntry& entry : file.entries()) {
    if (entry.begin < 0 || entry.end < entry.begin || static_cast<std::uint64_t>(entry.end) > size)
      return "a tensor that is not in the file";
    if (entry.sizes.size() > 64) continue;  // no tensor has that many dimensions
    file.read(entry, at::empty(entry.sizes, entry.dtype));
  }
  return "";
}

}  // namespace

TEST_CASE("damaged safetensors files are refused in one line, or hold what they say", "[fuzz]") {
  const test::TemporaryFolder folder;
  const std::string whole = whole_file(folder.path());
  const std::string path = folder.file("damaged.safetensors");
  int good = 0, bad = 0;
  const std::string wrong = run_cases("safetensors", 600, [&](Random& random, bool show) {
    const std::string bytes = damaged(whole, random);
    std::ofstream(path, std::ios::binary) << bytes;
    std::string message, inside;
    const std::string verdict = judge_input([&] { inside = read_all(path, bytes.size()); }, message);
    (message.empty() ? good : bad) += 1;
    if (show) WARN(bytes << "\nmessage: " << message);
    return verdict.empty() ? inside : verdict;
  });
  CHECK(wrong == "");
  if (good + bad >= 200) {
    CHECK(good >= 5);
    CHECK(bad >= 100);
  }
}

}  // namespace lockstep::fuzz
