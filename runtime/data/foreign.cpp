// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "runtime/base/error.hpp"
#include "runtime/data/input_files.hpp"

namespace lockstep {
namespace {

struct Signature {
  std::string_view bytes;
  const char* what;
  const char* advice;
};

constexpr const char* kUnpack = "unpack it first";
constexpr const char* kExport = "export the table as CSV";
constexpr const char* kTable = "read it with type: table, or export the table as CSV";
const std::array<Signature, 11> kSignatures = {
    {{"\x1f\x8b", "gzip-compressed data", "unpack it first: gunzip"},
     {"\x28\xb5\x2f\xfd", "zstd-compressed data", "unpack it first: unzstd"},
     {"\xfd"
      "7zXZ",
      "xz-compressed data", "unpack it first: unxz"},
     {"BZh91AY&SY", "bzip2-compressed data", "unpack it first: bunzip2"},
     {"PK\x03\x04", "a zip archive (or a spreadsheet: .xlsx, .ods)", "unpack it, or export the table as CSV"},
     {"7z\xbc\xaf", "a 7z archive", kUnpack},
     {"PAR1", "a Parquet file", kTable},
     {"ARROW1", "an Arrow file", kTable},
     {"\x89HDF", "an HDF5 file", kExport},
     {"\x93NUMPY", "a NumPy file", kExport},
     {"%PDF-", "a PDF file", kExport}}};

/// "UTF-16" or "UTF-32" when that is what the NUL bytes of an English text would mean; empty when they mean nothing.
std::string wide_encoding(std::string_view text) {
  constexpr std::size_t looked_at = 400;
  std::array<std::size_t, 4> nuls = {};
  const std::size_t end = std::min(text.size(), looked_at) / 4 * 4;
  for (std::size_t i = 0; i < end; ++i) nuls[i % 4] += text[i] == '\0' ? 1 : 0;
  const std::size_t most = end / 4;
  const auto often = [&](std::size_t place) { return most > 0 && 2 * nuls[place] > most; };
  const int places = often(0) + often(1) + often(2) + often(3);
  if (places == 3) return "UTF-32";
  if (places == 2 && often(0) == often(2)) return "UTF-16";
  return "";
}

std::string encoding_of(std::string_view text) {
  using namespace std::string_view_literals;
  if (text.starts_with("\xff\xfe\0\0"sv) || text.starts_with("\0\0\xfe\xff"sv)) return "UTF-32";
  if (text.starts_with("\xff\xfe"sv) || text.starts_with("\xfe\xff"sv)) return "UTF-16";
  return wide_encoding(text);
}

}  // namespace

std::string foreign_format(std::string_view bytes) {
  // Names of columns may begin like some of these files, but no text has such bytes.
  const auto is_binary = [&] {
    return std::any_of(bytes.begin(), bytes.end(), [](char c) { return c >= 0 && c < '\t'; });
  };
  for (const Signature& signature : kSignatures)
    if (bytes.starts_with(signature.bytes) && is_binary())
      return concat("got ", signature.what, ", expected text; ", signature.advice);
  if (const std::string encoding = encoding_of(bytes); !encoding.empty())
    return concat("got text in ", encoding, ", expected UTF-8; convert it: iconv -f ", encoding, " -t UTF-8");
  if (const std::size_t nul = bytes.find('\0'); nul != std::string_view::npos)
    return concat("got binary data (a zero byte at byte ", nul, "), expected text");
  const std::size_t cr = bytes.find('\r');
  if (bytes.find('\n') == std::string_view::npos && cr != std::string_view::npos && cr + 1 < bytes.size())
    return "got lines that end with CR alone, expected LF or CRLF; convert them: tr '\\r' '\\n'";
  return "";
}

}  // namespace lockstep
