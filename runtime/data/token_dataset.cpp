// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/token_dataset.hpp"

#include <ATen/ops/empty.h>
#include <arrow/array.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>

#include <algorithm>

#include "runtime/base/check.hpp"
#include "runtime/data/table_dataset.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kIgnored = -100;  // of the losses: docs/numerics.md

using ArrayPointer = std::shared_ptr<arrow::Array>;

ArrayPointer storage_of(ArrayPointer array) {
  while (array->type_id() == arrow::Type::EXTENSION)
    array = static_cast<const arrow::ExtensionArray&>(*array).storage();
  return array;
}

bool is_text(const arrow::Array& array) {
  const arrow::Type::type id = array.type_id();
  if (id == arrow::Type::DICTIONARY) return is_text(*static_cast<const arrow::DictionaryArray&>(array).dictionary());
  return arrow::is_base_binary_like(id) || arrow::is_binary_view_like(id);
}

std::string_view text_at(const arrow::Array& array, std::int64_t row) {
  switch (int{array.type_id()}) {  // an int: is_text() has seen it
    case arrow::Type::STRING:
    case arrow::Type::BINARY: return static_cast<const arrow::BinaryArray&>(array).GetView(row);
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY: return static_cast<const arrow::LargeBinaryArray&>(array).GetView(row);
    case arrow::Type::STRING_VIEW:
    case arrow::Type::BINARY_VIEW: return static_cast<const arrow::BinaryViewArray&>(array).GetView(row);
    case arrow::Type::DICTIONARY: {
      const auto& cells = static_cast<const arrow::DictionaryArray&>(array);
      return text_at(*cells.dictionary(), cells.GetValueIndex(row));
    }
    default: LOCKSTEP_CHECK(false, array.type()->ToString());
  }
}

/// A list's values: where they stand in an array of numbers.
struct Span {
  const arrow::Array* values = nullptr;
  std::int64_t first = 0, count = 0;
};

template <typename List>
Span span_in(const arrow::Array& array, std::int64_t row) {
  const auto& lists = static_cast<const List&>(array);
  return {lists.values().get(), lists.value_offset(row), lists.value_length(row)};
}

Span span_at(const arrow::Array& array, std::int64_t row) {
  switch (int{array.type_id()}) {  // an int: the constructor has seen it
    case arrow::Type::LIST: return span_in<arrow::ListArray>(array, row);
    case arrow::Type::LARGE_LIST: return span_in<arrow::LargeListArray>(array, row);
    case arrow::Type::FIXED_SIZE_LIST: return span_in<arrow::FixedSizeListArray>(array, row);
    default: LOCKSTEP_CHECK(false, array.type()->ToString());
  }
}

template <typename Array>
void copy_values(const arrow::Array& array, std::int64_t first, std::int64_t count, std::int64_t* out) {
  const auto* values = static_cast<const Array&>(array).raw_values() + first;
  std::transform(values, values + count, out, [](auto value) { return static_cast<std::int64_t>(value); });
}

/// False: these are no whole numbers.
bool copy_numbers(const arrow::Array& array, std::int64_t first, std::int64_t count, std::int64_t* out) {
  switch (int{array.type_id()}) {  // an int: all others are no token ids
    case arrow::Type::INT8: return copy_values<arrow::Int8Array>(array, first, count, out), true;
    case arrow::Type::INT16: return copy_values<arrow::Int16Array>(array, first, count, out), true;
    case arrow::Type::INT32: return copy_values<arrow::Int32Array>(array, first, count, out), true;
    case arrow::Type::INT64: return copy_values<arrow::Int64Array>(array, first, count, out), true;
    case arrow::Type::UINT8: return copy_values<arrow::UInt8Array>(array, first, count, out), true;
    case arrow::Type::UINT16: return copy_values<arrow::UInt16Array>(array, first, count, out), true;
    case arrow::Type::UINT32: return copy_values<arrow::UInt32Array>(array, first, count, out), true;
    case arrow::Type::UINT64: return copy_values<arrow::UInt64Array>(array, first, count, out), true;
    case arrow::Type::NA: return count == 0;  // of a list that is empty in every row
    default: return false;
  }
}

/// The tokens of one column, row by row. Thread: any number at once.
class TokenColumn {
 public:
  /// `is_list`: lists of ids; else text.
  TokenColumn(const TableSplit& split, int column, bool is_list) : is_list_(is_list) {
    std::int64_t row = 0;
    for (const ArrayPointer& cells : split.cells(column)) {
      const ArrayPointer chunk = storage_of(cells);
      check_type(split, column, row, *chunk);
      first_rows_.push_back(row);
      chunks_.push_back(chunk);
      row += chunk->length();
    }
  }

  static bool holds_lists(const TableSplit& split, int column) {
    const ArrowChunks& cells = split.cells(column);
    return std::any_of(cells.begin(), cells.end(),
                       [](const ArrayPointer& chunk) { return arrow::is_list_like(storage_of(chunk)->type_id()); });
  }

  /// -1: missing.
  std::int64_t size(std::int64_t row) const {
    const auto [chunk, at] = find(row);
    if (chunk->IsNull(at)) return -1;
    return is_list_ ? span_at(*chunk, at).count : static_cast<std::int64_t>(text_at(*chunk, at).size());
  }

  /// The first `count` of them; behind the last.
  std::int64_t* copy(std::int64_t row, std::int64_t count, std::int64_t* out) const {
    const auto [chunk, at] = find(row);
    if (!is_list_) {
      const std::string_view text = text_at(*chunk, at).substr(0, static_cast<std::size_t>(count));
      return std::transform(text.begin(), text.end(), out,
                            [](char c) { return static_cast<std::int64_t>(static_cast<unsigned char>(c)); });
    }
    const Span span = span_at(*chunk, at);
    copy_numbers(*span.values, span.first, count, out);
    return out + count;
  }

 private:
  void check_type(const TableSplit& split, int column, std::int64_t row, const arrow::Array& chunk) const {
    if (chunk.type_id() == arrow::Type::NA) split.fail(row, column, "got no value (null) in any row, expected tokens");
    const std::string got = concat("got cells of the type ", chunk.type()->ToString(), ", expected ");
    if (!is_list_ && !is_text(chunk)) split.fail(row, column, got + "text; lists of token ids are read with tokens:");
    if (!is_list_) return;
    const bool is_known = chunk.type_id() == arrow::Type::LIST || chunk.type_id() == arrow::Type::LARGE_LIST ||
                          chunk.type_id() == arrow::Type::FIXED_SIZE_LIST;
    if (!is_known) split.fail(row, column, got + "lists of token ids; text is read with text:");
    const auto& values = *static_cast<const arrow::BaseListType&>(*chunk.type()).value_type();
    if (!arrow::is_integer(values.id()) && values.id() != arrow::Type::NA)
      split.fail(row, column, got + "lists of whole numbers");
    for (std::int64_t i = 0; i < chunk.length(); ++i) {
      if (chunk.IsNull(i)) continue;
      const Span span = span_at(chunk, i);
      if (span.values->null_count() == 0) break;
      for (std::int64_t k = 0; k < span.count; ++k)
        if (span.values->IsNull(span.first + k))
          split.fail(row + i, column, concat("got a null at place ", k, " of the list (from 0), expected a token id"));
    }
  }

  std::pair<const arrow::Array*, std::int64_t> find(std::int64_t row) const {
    const auto behind = std::upper_bound(first_rows_.begin(), first_rows_.end(), row);
    const auto at = static_cast<std::size_t>(behind - first_rows_.begin()) - 1;
    return {chunks_[at].get(), row - first_rows_[at]};
  }

  bool is_list_;
  std::vector<ArrayPointer> chunks_;
  std::vector<std::int64_t> first_rows_;
};

class TokenDataset : public Dataset {
 public:
  TokenDataset(std::shared_ptr<const TableSplit> split, const TablePlan& plan, const TableOptions& options)
      : split_(std::move(split)),
        context_(options.context),
        pad_(options.pad),
        is_next_token_(options.task == TableTask::next_token),
        has_prompt_(plan.sequence.size() > 1),
        is_answered_(options.is_answered) {
    for (const int column : plan.sequence)
      columns_.emplace_back(*split_, column,
                            options.prompt.empty() ? options.text.empty() : TokenColumn::holds_lists(*split_, column));
  }

  /// Looks at every row once: lengths and token ids.
  void look(const TablePlan& plan, const TableOptions& options, KeptRows& kept, std::vector<std::string>& notes) {
    std::int64_t cut = 0;
    std::vector<std::int64_t> tokens;
    const std::int64_t most = context_ + (is_next_token_ && !is_answered_ ? 1 : 0);
    for (std::int64_t row = 0; row < split_->rows(); ++row) {
      std::int64_t length = 0;
      if (!is_whole(plan, row, kept, length)) continue;
      if (length > most && !options.truncate)
        split_->fail(row, plan.sequence.front(),
                     concat("got ", length, " tokens, expected at most ", most, " (context ", context_,
                            most > context_ ? " and the last target" : "",
                            "); truncate: true cuts such rows, or make context larger"));
      cut += length > most ? 1 : 0;
      tokens.resize(static_cast<std::size_t>(length));
      std::int64_t* out = tokens.data();
      for (const TokenColumn& column : columns_) out = column.copy(row, column.size(row), out);
      for (const std::int64_t token : tokens) {
        if (token < 0)
          split_->fail(row, plan.sequence.front(), concat("got the token id ", token, ", expected 0 or more"));
        below_ = std::max(below_, token + 1);
      }
    }
    below_ = std::max(below_, pad_ + 1);
    if (cut > 0)
      notes.push_back(one_line(concat(split_->first_path(), ": ", cut, " of ", split_->rows(), " rows are longer than ",
                                      most, " tokens and were cut")));
    rows_ = kept.rows();
    if (rows_.empty() && split_->rows() > 0)
      throw DataError(concat(split_->first_path(), ": got no row with tokens of the ", split_->rows(),
                             " rows, expected at least one"));
  }

  void set_classes(const std::vector<std::int64_t>& of_rows) {
    for (const std::int64_t row : rows_) classes_.push_back(of_rows[static_cast<std::size_t>(row)]);
  }

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    const DataEntry x = {at::kLong, {context_}, below_};
    if (is_next_token_) return data_entries(rows, x, x);
    const auto most = std::max_element(classes_.begin(), classes_.end());
    return data_entries(rows, x, {at::kLong, {}, most == classes_.end() ? 0 : *most + 1});
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(rows_.size()); }
  bool reads_in_parallel() const override { return true; }
  std::vector<std::int64_t> classes() const override { return classes_; }
  std::string place_of(std::int64_t sample) const override {
    return split_->place_of(rows_.at(static_cast<std::size_t>(sample)));
  }

  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const auto rows = static_cast<std::int64_t>(samples.size());
    Tensors result = {at::empty({rows, context_}, at::kLong),
                      is_next_token_ ? at::empty({rows, context_}, at::kLong) : at::empty({rows}, at::kLong)};
    auto* x = result[0].mutable_data_ptr<std::int64_t>();
    auto* targets = result[1].mutable_data_ptr<std::int64_t>();
    std::vector<std::int64_t> tokens(static_cast<std::size_t>(context_ + 1));
    for (const std::int64_t sample : samples) {
      const std::int64_t row = rows_.at(static_cast<std::size_t>(sample));
      std::int64_t prompt = 0;
      const std::int64_t length = copy(row, tokens.data(), prompt);
      const std::int64_t inputs = std::min(length, context_);
      x = std::fill_n(std::copy_n(tokens.data(), inputs, x), context_ - inputs, pad_);
      if (!is_next_token_) {
        *targets++ = is_answered_ ? 0 : classes_[static_cast<std::size_t>(sample)];
        continue;
      }
      for (std::int64_t i = 1; i <= context_; ++i)
        *targets++ = i < length && i >= prompt ? tokens[static_cast<std::size_t>(i)] : kIgnored;
    }
    return result;
  }

 private:
  /// False: the row is left out.
  bool is_whole(const TablePlan& plan, std::int64_t row, KeptRows& kept, std::int64_t& length) const {
    if (!kept.has(row)) return false;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const bool is_prompt = has_prompt_ && i == 0;  // which may be empty
      const std::int64_t needed = is_prompt ? 0 : is_next_token_ && !has_prompt_ && !is_answered_ ? 2 : 1;
      const std::int64_t size = columns_[i].size(row);
      length += std::max<std::int64_t>(size, 0);
      if (size >= needed) continue;
      if (plan.rule_of(plan.sequence[i]).kind != MissingRule::Kind::drop)
        split_->fail(row, plan.sequence[i],
                     concat("got ", size < 0 ? "no value (null)" : concat(size, " tokens"), ", expected at least ",
                            needed, "; missing: drop leaves such rows out"));
      kept.drop(row);
      return false;
    }
    return true;
  }

  /// The row's tokens, at most context + 1 of them, and how many are of the prompt.
  std::int64_t copy(std::int64_t row, std::int64_t* tokens, std::int64_t& prompt) const {
    std::int64_t* out = tokens;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const std::int64_t room = context_ + 1 - (out - tokens);
      out = columns_[i].copy(row, std::min(room, columns_[i].size(row)), out);
      if (has_prompt_ && i == 0) prompt = out - tokens;
    }
    return out - tokens;
  }

  std::shared_ptr<const TableSplit> split_;
  std::vector<TokenColumn> columns_;
  std::int64_t context_, pad_, below_ = 1;
  bool is_next_token_, has_prompt_, is_answered_;
  std::vector<std::int64_t> rows_;     // by sample
  std::vector<std::int64_t> classes_;  // the same
};

}  // namespace

std::shared_ptr<const Dataset> token_dataset(std::shared_ptr<TableSplit> split, const TablePlan& plan,
                                             const TableOptions& options, bool teaches, TableLearnt& learnt,
                                             std::vector<std::string>& notes) {
  KeptRows kept(split->rows());
  std::vector<std::int64_t> classes;
  if (plan.has_classes) classes = classes_of(*split, plan, teaches, learnt, kept);
  const auto data = std::make_shared<TokenDataset>(split, plan, options);
  data->look(plan, options, kept, notes);
  if (plan.has_classes) data->set_classes(classes);
  for (const int column : plan.columns()) split->drop(column);
  return data;
}

}  // namespace lockstep
