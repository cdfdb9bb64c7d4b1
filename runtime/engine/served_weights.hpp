// SPDX-License-Identifier: Apache-2.0
//
// What one server has: parameters with their optimizer state, and, the first one, the buffers. Used by its thread.
//
// In messages, in the order of the server's parts:
//
//   values     of a dense part all of it, of a sparse one the rows that were asked for; then, of who has them, buffers
//   gradients  numbers [n, 3], int64: of each gradient the position of its part here, which of the parameter's holders
//              and which group of micro-batches; then each gradient, of a sparse part two tensors: its rows' elements
//              and their numbers in the whole table, which are undefined where they are all that were read; then, for
//              who has buffers, what layers have collected (Collected)
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/engine/collected.hpp"
#include "runtime/engine/job_outcome.hpp"
#include "runtime/engine/keeper.hpp"
#include "runtime/engine/weights.hpp"

namespace lockstep {

/// What each server has, by Slice::parameter in the model's order: about equally many elements, of whole parameters; a
/// sparse table may be divided between rows, unless `whole_tables`.
std::vector<std::vector<Slice>> parts_of_servers(const ModelGraph& graph, int servers, bool whole_tables);
/// The rows of a part of a table.
ElementRange rows_of(const ParameterInfo& table, const Slice& part);

class ServedWeights {
 public:
  struct Options {
    std::uint64_t seed = 1;
    DrawnParameters draws = {};     ///< the others' values come from somewhere else; empty: all are drawn
    MakeUpdater make_updater = {};  ///< empty: nothing is updated
    bool has_buffers = false;
  };
  /// References outlive it. Throws LayerError, MemoryLimitError.
  ServedWeights(const ModelGraph& graph, std::vector<Slice> parts, const Options& options, MemoryPool& pool);
  ServedWeights(const ServedWeights&) = delete;
  ServedWeights& operator=(const ServedWeights&) = delete;

  /// Copies of values. `rows`: of each sparse part, their numbers in the whole table. `all`: also what is not trained.
  Tensors values(const Tensors& rows, bool all) const;

  /// A share of a mini-batch: its gradients, and the rows that its worker had read.
  struct Share {
    Tensors gradients, read;
  };
  /// An update with one share alone, which has one gradient of each trained part. `step`: of the optimizer, from 1.
  void update(double learning_rate, std::int64_t step, const Share& share);

  /// Shares of one update, by their numbers, which settle() makes.
  void keep(int number, Share share) { shares_[number] = std::move(share); }
  /// Of the sums of all that are kept, added in the order of docs/numerics.md. Throws ModelError where there is none.
  NormParts squares();
  /// With gradients times `coefficient`, if that is below 1 (or not a number). Brings buffers up to date.
  void settle(double learning_rate, std::int64_t step, double coefficient);

  /// Of parts that are whole: of the sums of all shares that are kept, and of values.
  void hash_sums(std::int64_t step, std::vector<ParameterHash>& hashes);
  void hash_values(std::int64_t step, std::vector<ParameterHash>& hashes) const;

  /// The live tensors.
  WorkerState state();
  void add_to(JobOutcome& outcome) const;

 private:
  struct Part {
    Slice slice;
    Parameter parameter;
    int table = -1;                     // of a sparse one: its number among those here
    std::optional<ElementRange> range;  // of the whole parameter; none: all of it
    std::int64_t first_row = 0;
  };
  struct Numbered {
    std::size_t part = 0;
    int holder = 0, group = 0;
    Gradient gradient;
  };
  std::vector<Numbered> gradients_of(const Share& share) const;
  void add_up();
  void apply(double learning_rate, std::int64_t step, const std::vector<Gradient>& gradients);
  void end_step();

  const ModelGraph& graph_;
  MemoryPool& pool_;
  bool has_buffers_;
  std::deque<Part> parts_;
  std::vector<std::vector<Buffer>> buffers_;  // by layer
  std::vector<std::size_t> trained_;          // in parts_: what the updater was made for
  std::shared_ptr<ParameterUpdater> updater_;
  std::map<int, Share> shares_;
  std::vector<Gradient> sums_;  // of shares_, by part; empty: not made yet
};

}  // namespace lockstep
