// SPDX-License-Identifier: Apache-2.0
//
// A part of a picture, in another size. Private to this folder.
#pragma once

#include "runtime/data/image_file.hpp"
#include "runtime/data/pixels.hpp"

namespace lockstep {

/// Which part of a picture, and how it is seen: the box is taken out, resized, and of that a square is put out.
struct ImageView {
  int left = 0, top = 0, width = 0, height = 0;  ///< the box, in the picture
  int resized_width = 0, resized_height = 0;
  int window_left = 0, window_top = 0;  ///< of the square, in what was resized
  bool mirrored = false;                ///< left for right
};

/// Writes [channels, size, size] to `to`: the square of `size` pixels that the view says, as numbers.
///
/// Resizing is bilinear with antialiasing: the weights of a pixel are a triangle over its place in the picture, as wide
/// as the picture is reduced; first along rows, then along columns, each rounded to a byte, with weights of 22 bits:
/// the bytes of Pillow's Image.crop(box).resize(size, BILINEAR), and so torchvision's. Only rows that count are
/// resized, and nothing is decoded behind the last of them.
void render(ImageRows& rows, const ImageView& view, int size, const PixelValues& values, float* to);

/// The whole picture with its shorter side resized to `shorter`, and the square in the middle: as torchvision's Resize
/// and CenterCrop. shorter >= size.
ImageView centred(int width, int height, int shorter, int size);

/// The same, and a square anywhere.
ImageView cropped(int width, int height, int shorter, int size, RandomStream& random);

/// A random box with `scale` of the picture's area (from, to) and a ratio of width to height in `ratio`, resized to the
/// square: as torchvision's RandomResizedCrop, whose random numbers are others.
struct RandomBox {
  double least_scale = 0.08, most_scale = 1;
  double least_ratio = 3.0 / 4.0, most_ratio = 4.0 / 3.0;
};
ImageView boxed(int width, int height, int size, const RandomBox& box, RandomStream& random);

}  // namespace lockstep
