// SPDX-License-Identifier: Apache-2.0
//
// PNG and JPEG files, row by row, by libpng and libjpeg. Private to this folder.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace lockstep {

/// A picture that is being decoded. All of them give the bytes that Pillow's Image.open(path).convert("RGB") or ("L")
/// does, and so torchvision's ImageFolder:
///   - a palette is looked up, transparency dropped (not laid over a background), of 16 bits the upper 8 are taken
///   - CMYK and YCCK are taken to be inverted, as Adobe writes them
///   - grey out of colours is (19595 R + 38470 G + 7471 B) / 65536, rounded
///   - EXIF's orientation is not applied, nor are gamma and colour profiles
///   - of an animated PNG the first picture counts
/// Thread: one at a time.
class ImageRows {
 public:
  virtual ~ImageRows() = default;
  int width() const { return width_; }
  int height() const { return height_; }
  int channels() const { return channels_; }
  /// The next row: `channels` bytes per pixel. Throws DataError when the file is broken or was cut short.
  virtual void next(std::uint8_t* to) = 0;

 protected:
  int width_ = 0, height_ = 0, channels_ = 0;
};

/// Reads the header; what the file is, its first bytes say, and not its name. `bytes` outlive the result. `channels`: 3
/// (RGB) or 1 (grey). Throws DataError that names `path`: it is no PNG and no JPEG, is broken, or has more than 2^27
/// pixels.
std::unique_ptr<ImageRows> open_image(const std::string& bytes, const std::string& path, int channels);

/// Whether this Lockstep was built with libpng and libjpeg (LOCKSTEP_IMAGES). Without, open_image() throws.
bool reads_images();

}  // namespace lockstep
