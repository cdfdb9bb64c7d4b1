// SPDX-License-Identifier: Apache-2.0
//
// Tables for people: a row for each worker or stage, of which there may be many. Beyond kUnfolded rows those that say
// the same are one, which names them all. Torch-free.
//
//   stage        worker  layers    F ms  in flight  first .. last
//   0                 0       1   0.100         48  embed
//   1-46, 48       1-46       2  10.000      2..47  h.0 .. h.1, ...
#pragma once

#include <string>
#include <vector>

namespace lockstep {

struct Column {
  enum class Kind {
    same,   ///< rows are one only where they are equal in this
    list,   ///< a number of its own in every row: "3", "0-5, 7"
    range,  ///< the least and the most: "1..48"
    names,  ///< the first one's, aligned to the left, cut to what is left of the width; only as the last
  };
  std::string title;
  Kind kind = Kind::same;
  bool may_go = false;  ///< where the terminal is too narrow
};

struct Cell {
  std::string text;
  double value = 0;  ///< of a list or a range
};

inline constexpr std::size_t kUnfolded = 16;  ///< rows
inline constexpr int kTableColumns = 100;     ///< where no terminal says otherwise

/// At most `width` columns where the rows allow it. Every row has a cell for each column.
std::string table(const std::vector<Column>& columns, const std::vector<std::vector<Cell>>& rows, int width);

/// "0-5, 7" of ascending numbers.
std::string ranges_text(const std::vector<int>& numbers);

/// Of the terminal that the file leads to, or `otherwise`.
int columns_of_terminal(int file, int otherwise = kTableColumns);

}  // namespace lockstep
