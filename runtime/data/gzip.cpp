// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/gzip.hpp"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "runtime/base/check.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {

std::string unpacked(std::string_view bytes, const std::string& path) {
  constexpr std::size_t most = std::size_t{2} << 30, first = std::size_t{1} << 16;
  constexpr int gzip_window = 16 + MAX_WBITS;
  if (bytes.size() > std::numeric_limits<uInt>::max())
    throw DataError(concat(path, ": has ", bytes.size(), " bytes, too many to unpack here; unpack it first: gunzip"));
  z_stream stream = {};
  LOCKSTEP_CHECK(inflateInit2(&stream, gzip_window) == Z_OK, "zlib does not start");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::string text;
  int status = Z_OK;
  while (status == Z_OK && text.size() < most) {
    const std::size_t have = text.size();
    text.resize(std::min(most, std::max(first, 2 * have)));
    stream.next_out = reinterpret_cast<Bytef*>(text.data() + have);
    stream.avail_out = static_cast<uInt>(text.size() - have);
    status = inflate(&stream, Z_NO_FLUSH);
    text.resize(text.size() - stream.avail_out);
  }
  if (status == Z_OK) throw DataError(concat(path, ": holds more than 2 GiB; unpack it first: gunzip"));
  if (status != Z_STREAM_END)
    throw DataError(concat(path, ": gzip-compressed data that is damaged, or was cut short, after ", text.size(),
                           " unpacked bytes"));
  if (stream.avail_in > 0)
    throw DataError(concat(path, ": has ", stream.avail_in, " bytes behind its gzip-compressed data; it was altered"));
  return text;
}

}  // namespace lockstep
