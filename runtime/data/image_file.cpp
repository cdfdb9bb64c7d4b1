// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/image_file.hpp"

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>
// After <cstdio>, which it needs.
#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include "runtime/base/check.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kMostPixels = std::int64_t{1} << 27;

DataError broken(const std::string& path, const char* kind, const std::string& why) {
  return DataError(concat(path, ": is no whole ", kind, " file: ", why));
}

void check_size(const std::string& path, std::int64_t width, std::int64_t height) {
  if (width < 1 || height < 1 || width * height > kMostPixels)
    throw DataError(concat(path, ": has ", width, " x ", height, " pixels, expected ", kMostPixels, " or fewer"));
}

/// Pillow's weights of ITU-R 601.
void to_grey(const std::uint8_t* rgb, int width, std::uint8_t* to) {
  for (int i = 0; i < width; ++i, rgb += 3)
    to[i] = static_cast<std::uint8_t>((19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 0x8000) >> 16);
}

// Both libraries leave a function by longjmp when they cannot go on: whoever calls them has nothing on the stack that
// wants to be destroyed, and says by its result that it came to this.

struct JpegErrors {
  jpeg_error_mgr manager = {};
  std::jmp_buf back = {};
  char text[JMSG_LENGTH_MAX] = {};
};

struct JpegState : jpeg_decompress_struct {
  JpegState() : jpeg_decompress_struct() {}
  ~JpegState() { jpeg_destroy_decompress(this); }
  JpegState(const JpegState&) = delete;
  JpegState& operator=(const JpegState&) = delete;
};

void leave_jpeg(j_common_ptr common) {
  auto* errors = reinterpret_cast<JpegErrors*>(common->err);
  common->err->format_message(common, errors->text);
  std::longjmp(errors->back, 1);
}

/// Of what libjpeg calls warnings and fills with grey, all but what leaves the picture whole is an error.
void judge_jpeg(j_common_ptr common, int level) {
  if (level >= 0) return;
  const int code = common->err->msg_code;
  if (code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR) return;
  leave_jpeg(common);
}

class JpegRows : public ImageRows {
 public:
  JpegRows(const std::string& bytes, const std::string& path, int channels) : path_(path) {
    channels_ = channels;
    jpeg_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = leave_jpeg;
    errors_.manager.emit_message = judge_jpeg;
    if (!create() || !read_header(bytes)) fail();
    width_ = static_cast<int>(jpeg_.image_width);
    height_ = static_cast<int>(jpeg_.image_height);
    check_size(path, width_, height_);
    if (!start()) fail();
    if (jpeg_.output_components != channels)
      row_.resize(static_cast<std::size_t>(width_) * static_cast<std::size_t>(jpeg_.output_components));
  }

  void next(std::uint8_t* to) override {
    if (!read_row(row_.empty() ? to : row_.data())) fail();
    if (row_.empty()) return;
    if (jpeg_.output_components == 4) from_cmyk();
    if (channels_ == 1)
      to_grey(row_.data(), width_, to);
    else
      std::copy_n(row_.data(), 3 * width_, to);
  }

 private:
  bool create() {
    if (setjmp(errors_.back)) return false;
    jpeg_create_decompress(&jpeg_);
    return true;
  }
  bool read_header(const std::string& bytes) {
    if (setjmp(errors_.back)) return false;
    jpeg_mem_src(&jpeg_, reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data())), bytes.size());
    jpeg_read_header(&jpeg_, TRUE);
    return true;
  }
  bool start() {
    if (setjmp(errors_.back)) return false;
    if (jpeg_.num_components == 4)
      jpeg_.out_color_space = JCS_CMYK;
    else
      jpeg_.out_color_space = channels_ == 1 && jpeg_.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&jpeg_);
    return true;
  }
  bool read_row(std::uint8_t* to) {
    if (setjmp(errors_.back)) return false;
    jpeg_read_scanlines(&jpeg_, &to, 1);
    return true;
  }
  /// In place: four bytes a pixel become three.
  void from_cmyk() {
    const auto times = [](int a, int b) {  // a * b / 255, rounded, as Pillow does
      const int product = a * b + 128;
      return ((product >> 8) + product) >> 8;
    };
    for (int i = 0; i < width_; ++i) {
      const std::uint8_t* ink = row_.data() + 4 * i;
      const int white = ink[3];
      std::array<std::uint8_t, 3> rgb = {};
      for (std::size_t c = 0; c < 3; ++c)
        rgb[c] = static_cast<std::uint8_t>(std::clamp(white - times(255 - ink[c], white), 0, 255));
      std::copy(rgb.begin(), rgb.end(), row_.data() + 3 * i);
    }
  }
  [[noreturn]] void fail() const { throw broken(path_, "JPEG", static_cast<const char*>(errors_.text)); }

  const std::string path_;
  JpegErrors errors_;
  JpegState jpeg_;
  std::vector<std::uint8_t> row_;  // when libjpeg's is another one than ours
};

struct PngState {
  PngState() = default;
  ~PngState() { png_destroy_read_struct(&png, &info, nullptr); }
  PngState(const PngState&) = delete;
  PngState& operator=(const PngState&) = delete;
  png_structp png = nullptr;
  png_infop info = nullptr;
};

struct PngErrors {
  std::jmp_buf back = {};
  char text[200] = {};
};

void leave_png(png_structp png, png_const_charp text) {
  auto* errors = static_cast<PngErrors*>(png_get_error_ptr(png));
  std::snprintf(errors->text, sizeof errors->text, "%s", text);
  std::longjmp(errors->back, 1);
}

void ignore_png_warning(png_structp, png_const_charp) {}

/// What has not been read yet.
struct PngSource {
  const char* at = nullptr;
  std::size_t left = 0;
};

void read_png(png_structp png, png_bytep to, std::size_t bytes) {
  auto* source = static_cast<PngSource*>(png_get_io_ptr(png));
  if (bytes > source->left) png_error(png, "it was cut short");
  std::memcpy(to, source->at, bytes);
  source->at += bytes;
  source->left -= bytes;
}

class PngRows : public ImageRows {
 public:
  PngRows(const std::string& bytes, const std::string& path, int channels)
      : path_(path), source_{bytes.data(), bytes.size()} {
    channels_ = channels;
    state_.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &errors_, leave_png, ignore_png_warning);
    if (state_.png) state_.info = png_create_info_struct(state_.png);
    LOCKSTEP_CHECK(state_.info, "libpng does not start");
    if (!read_header()) fail();
    width_ = static_cast<int>(png_get_image_width(state_.png, state_.info));
    height_ = static_cast<int>(png_get_image_height(state_.png, state_.info));
    check_size(path, width_, height_);
    if (!start()) fail();
    colours_ = static_cast<std::size_t>(png_get_channels(state_.png, state_.info));
    if (png_get_interlace_type(state_.png, state_.info) != PNG_INTERLACE_NONE) {
      rows_.resize(row_bytes() * static_cast<std::size_t>(height_));
      for (int pass = 0; pass < passes_; ++pass)
        for (int row = 0; row < height_; ++row)
          if (!read_row(rows_.data() + row_bytes() * static_cast<std::size_t>(row))) fail();
    } else if (colours_ != static_cast<std::size_t>(channels)) {
      rows_.resize(row_bytes());
    }
  }

  void next(std::uint8_t* to) override {
    const bool interlaced = rows_.size() > row_bytes() || passes_ > 1;
    std::uint8_t* row = rows_.empty() ? to : rows_.data();
    if (interlaced)
      row += row_bytes() * static_cast<std::size_t>(given_++);
    else if (!read_row(row))
      fail();
    if (row == to) return;
    if (colours_ == static_cast<std::size_t>(channels_))
      std::copy_n(row, row_bytes(), to);
    else
      to_grey(row, width_, to);
  }

 private:
  std::size_t row_bytes() const { return static_cast<std::size_t>(width_) * colours_; }
  bool read_header() {
    if (setjmp(errors_.back)) return false;
    png_set_read_fn(state_.png, &source_, read_png);
    png_read_info(state_.png, state_.info);
    return true;
  }
  bool start() {
    if (setjmp(errors_.back)) return false;
    const int type = png_get_color_type(state_.png, state_.info);
    png_set_strip_16(state_.png);
    png_set_packing(state_.png);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(state_.png);
    if (type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(state_.png);
    png_set_strip_alpha(state_.png);
    if (channels_ == 3 && (type & PNG_COLOR_MASK_COLOR) == 0) png_set_gray_to_rgb(state_.png);
    passes_ = png_set_interlace_handling(state_.png);
    png_read_update_info(state_.png, state_.info);
    return true;
  }
  bool read_row(std::uint8_t* to) {
    if (setjmp(errors_.back)) return false;
    png_read_row(state_.png, to, nullptr);
    return true;
  }
  [[noreturn]] void fail() const { throw broken(path_, "PNG", static_cast<const char*>(errors_.text)); }

  const std::string path_;
  PngSource source_;
  PngErrors errors_;
  PngState state_;
  std::size_t colours_ = 0;  // of what libpng gives
  int passes_ = 1, given_ = 0;
  std::vector<std::uint8_t> rows_;  // all of an interlaced picture; one, when libpng's is another one than ours
};

}  // namespace

std::unique_ptr<ImageRows> open_image(const std::string& bytes, const std::string& path, int channels) {
  LOCKSTEP_CHECK(channels == 1 || channels == 3, channels, " channels");
  if (bytes.starts_with("\xff\xd8")) return std::make_unique<JpegRows>(bytes, path, channels);
  if (bytes.starts_with("\x89PNG")) return std::make_unique<PngRows>(bytes, path, channels);
  throw DataError(concat(path, ": is no PNG and no JPEG file; convert it, or remove it"));
}

bool reads_images() {
  return true;
}

}  // namespace lockstep
