// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/window_dataset.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "runtime/base/check.hpp"
#include "runtime/data/csv_text.hpp"
#include "runtime/data/table_dataset.hpp"

namespace lockstep {
namespace {

/// The table's samples, sorted so that every series is a run of them.
struct Series {
  std::vector<std::int64_t> samples;
  std::vector<std::int64_t> begins;  ///< of the runs, in `samples`; one behind the last one too
};

Series sorted(const SeriesOf& of, const std::vector<std::int64_t>& rows) {
  std::map<std::int32_t, std::vector<std::int64_t>> groups;  // by number, which is the order of first appearance
  for (std::size_t i = 0; i < rows.size(); ++i)
    groups[of.group.codes.empty() ? 0 : of.group.codes[static_cast<std::size_t>(rows[i])]].push_back(
        static_cast<std::int64_t>(i));
  // A row of the same group that was dropped between two rows ends a run.
  std::map<std::int32_t, std::vector<std::int64_t>> all;
  const std::int64_t last = rows.empty() ? 0 : rows.back() + 1;
  std::vector<std::int64_t> place(static_cast<std::size_t>(last));  // of a row within its group
  std::map<std::int32_t, std::int64_t> count;
  for (std::int64_t row = 0; row < last; ++row)
    place[static_cast<std::size_t>(row)] =
        count[of.group.codes.empty() ? 0 : of.group.codes[static_cast<std::size_t>(row)]]++;
  Series series;
  for (const auto& [code, samples] : groups) {
    std::int64_t before = -2;
    for (const std::int64_t sample : samples) {
      const std::int64_t here = place[static_cast<std::size_t>(rows[static_cast<std::size_t>(sample)])];
      if (here != before + 1) series.begins.push_back(static_cast<std::int64_t>(series.samples.size()));
      before = here;
      series.samples.push_back(sample);
    }
  }
  series.begins.push_back(static_cast<std::int64_t>(series.samples.size()));
  return series;
}

at::Tensor in_order(const at::Tensor& table, const std::vector<std::int64_t>& samples) {
  at::Tensor result = at::empty(table.sizes(), table.options());
  if (samples.empty()) return result;
  const std::size_t bytes = table.nbytes() / static_cast<std::size_t>(table.size(0));
  auto* out = static_cast<char*>(result.mutable_data_ptr());
  for (const std::int64_t sample : samples) {
    std::memcpy(out, static_cast<const char*>(table.const_data_ptr()) + static_cast<std::size_t>(sample) * bytes,
                bytes);
    out += bytes;
  }
  return result;
}

class WindowDataset : public Dataset {
 public:
  WindowDataset(at::Tensor x, at::Tensor targets, std::vector<std::int64_t> starts, const WindowOptions& window,
                std::function<std::string(std::int64_t)> place_of)
      : x_(std::move(x)),
        targets_(std::move(targets)),
        starts_(std::move(starts)),
        window_(window),
        place_of_(std::move(place_of)) {}

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    const std::int64_t features = x_.size(1);
    const std::vector<std::int64_t> sizes =
        window_.flat ? std::vector{window_.length * features} : std::vector{window_.length, features};
    return data_entries(rows, {at::kFloat, sizes}, {at::kFloat, {window_.horizon * targets_.size(1)}});
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(starts_.size()); }
  bool reads_in_parallel() const override { return true; }
  bool is_in_memory() const override { return true; }
  std::string place_of(std::int64_t sample) const override {
    return place_of_(starts_.at(static_cast<std::size_t>(sample)));
  }

  Tensors read(const std::vector<std::int64_t>& samples) const override {
    Tensors result;
    for (const EntrySpec& entry : entries(static_cast<std::int64_t>(samples.size())))
      result.push_back(at::empty(entry.sizes, entry.dtype));
    auto* x = result[0].mutable_data_ptr<float>();
    auto* targets = result[1].mutable_data_ptr<float>();
    for (const std::int64_t sample : samples) {
      const std::int64_t start = starts_.at(static_cast<std::size_t>(sample));
      x = copy(x_, start, window_.length, x);
      targets = copy(targets_, start + window_.length, window_.horizon, targets);
    }
    return result;
  }

 private:
  static float* copy(const at::Tensor& table, std::int64_t first, std::int64_t rows, float* out) {
    const std::int64_t width = table.size(1);
    return std::copy_n(table.const_data_ptr<float>() + first * width, rows * width, out);
  }

  at::Tensor x_, targets_;            // series after series
  std::vector<std::int64_t> starts_;  // by sample
  WindowOptions window_;
  std::function<std::string(std::int64_t)> place_of_;
};

void check_order(const TableSplit& split, int column, const std::vector<double>& order, const Series& series,
                 const std::vector<std::int64_t>& rows) {
  std::size_t run = 0;
  for (std::size_t i = 0; i < series.samples.size(); ++i) {
    if (static_cast<std::int64_t>(i) == series.begins[run]) {
      ++run;
      continue;
    }
    const std::int64_t row = rows[static_cast<std::size_t>(series.samples[i])];
    const std::int64_t before = rows[static_cast<std::size_t>(series.samples[i - 1])];
    if (order[static_cast<std::size_t>(row)] > order[static_cast<std::size_t>(before)]) continue;
    split.fail(row, column,
               concat("got ", shown_cell(split, column, row), " after ", shown_cell(split, column, before), " (",
                      split.place_of(before), "), expected more; sort the rows of each group by this column"));
  }
}

}  // namespace

SeriesOf series_of(TableSplit& split, const TablePlan& plan) {
  SeriesOf series;
  const auto refuse = [&](int column, const auto& is_missing) {
    for (std::int64_t row = 0; row < split.rows(); ++row)
      if (is_missing(static_cast<std::size_t>(row)))
        fail_missing(split, column, row, "a value", "every row of a series has its group and its place");
  };
  if (plan.group >= 0) {
    series.group = names_of(split, plan.group, static_cast<std::size_t>(split.rows()));
    refuse(plan.group, [&](std::size_t row) { return series.group.codes[row] < 0; });
  }
  if (plan.order >= 0) {
    const ColumnKind kind = kind_of(split, plan.order);
    series.order = numbers_of(split, plan.order, kind == ColumnKind::date ? kind : ColumnKind::number);
    refuse(plan.order, [&](std::size_t row) { return std::isnan(series.order[row]); });
  }
  return series;
}

std::shared_ptr<const Dataset> window_dataset(std::shared_ptr<const TableSplit> split, const TablePlan& plan,
                                              const WindowOptions& window, const SeriesOf& of, DecodedTable table,
                                              std::vector<std::int64_t>& last_rows) {
  const Series series = sorted(of, table.rows);
  if (!of.order.empty()) check_order(*split, plan.order, of.order, series, table.rows);
  const std::int64_t needed = window.length + window.horizon;
  std::vector<std::int64_t> starts;
  std::int64_t longest = 0;
  for (std::size_t run = 0; run + 1 < series.begins.size(); ++run) {
    longest = std::max(longest, series.begins[run + 1] - series.begins[run]);
    for (std::int64_t at = series.begins[run]; at + needed <= series.begins[run + 1]; at += window.stride) {
      starts.push_back(at);
      last_rows.push_back(
          table.rows[static_cast<std::size_t>(series.samples[static_cast<std::size_t>(at + window.length - 1)])]);
    }
  }
  if (starts.empty() && split->rows() > 0)
    throw DataError(concat(split->first_path(), ": got ", series.begins.size() - 1, " series of at most ", longest,
                           " rows, expected one of ", needed, " or more: length ", window.length, " + horizon ",
                           window.horizon));
  const auto place = [split, samples = series.samples, rows = table.rows](std::int64_t at) {
    return split->place_of(rows[static_cast<std::size_t>(samples[static_cast<std::size_t>(at)])]);
  };
  return std::make_shared<WindowDataset>(in_order(table.x, series.samples), in_order(table.targets, series.samples),
                                         std::move(starts), window, place);
}

}  // namespace lockstep
