// SPDX-License-Identifier: Apache-2.0
//
// What a layer sees while it runs: its parameters, the mode, and where weight gradients that can wait are queued.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/tree_sum.hpp"
#include "runtime/layer/layer.hpp"

namespace lockstep {

class LowRank;

/// Which group of micro-batches is at work, and the groups whose gradients are added up here (train.gradient_groups).
struct GroupAtWork {
  int group = 0;
  TermRange mine = {0, 1};
};

/// Of a parameter, or of some of its rows: their numbers, int64, ascending, each once.
struct Gradient {
  at::Tensor values;
  at::Tensor rows = {};  ///< undefined: all of it
  std::size_t bytes() const;
};
/// left + right, in the memory of the left one where that has all rows.
Gradient sum_of(Gradient left, const Gradient& right);

/// A gradient, of some groups of micro-batches.
using GroupSum = TreeSum<Gradient>::Node;

/// One parameter as one layer holds it. A tie is two of these with one `value` and a gradient buffer each.
class Parameter {
 public:
  std::string local_name;  ///< as the layer asked for it
  std::string name;        ///< full name of the stored tensor; of a tie: of its first holder
  int index = -1;          ///< position in the model's parameter order; of a tie: of its first holder
  at::Tensor value;        ///< the master: float32, or float64 with train.precision: fp64
  /// dtype and shape of value; undefined until the first micro-batch of a step has added to it. Where there are several
  /// groups: of the last one, until add_up().
  at::Tensor gradient;
  bool is_sparse = false;  ///< then `gradient` is that of these rows, which were used, as Gradient has them
  at::Tensor rows;
  /// Of a sparse one: what `value` has of its rows, by number, int64, ascending; undefined: all of them.
  at::Tensor held_rows = {};
  /// Of a sparse one: embedding() reads nothing, and puts here which rows it would read. Null: it reads them.
  Tensors* asked_rows = nullptr;
  bool trainable = true;
  const GroupAtWork* at_work = nullptr;  ///< null: there is one group
  /// Dimensions of the parameter, where `value` is a part of it, flat; else value.dim().
  std::optional<std::int64_t> part_of_dimensions = {};
  std::int64_t dimensions() const { return part_of_dimensions.value_or(value.dim()); }
  /// Told of each new tensor that becomes `gradient`: how the engine accounts for its memory. May be empty.
  std::function<void(const at::Tensor&)> on_new_gradient;

  /// The first gradient of a step: `first` becomes the buffer that later ones are added to, so nobody else may hold it.
  void begin_gradient(at::Tensor first, at::Tensor of_rows = {});
  /// Adds one micro-batch's gradient (any floating dtype). The first one is taken over, or copied when somebody else
  /// still holds it. Callers keep micro-batch order.
  void accumulate(const at::Tensor& micro_batch_gradient);
  /// The same of a sparse one: of these rows. Both are this parameter's from here on.
  void accumulate_rows(at::Tensor of_rows, at::Tensor micro_batch_gradient);
  /// Whether accumulate() would add to `gradient` where it stands.
  bool has_gradient_of_group() const { return gradient.defined() && (!at_work || at_work->group == group_); }
  /// No micro-batch of this step is to come: the sums of those of its groups that nobody else is needed for, in order.
  std::vector<GroupSum> add_up();
  /// Bytes of `gradient` and of the sums that wait for add_up().
  std::int64_t gradient_bytes() const;
  /// The step is over.
  void forget_gradient();

  /// The value in `dtype`, cast at most once per step. The cast is never written to.
  const at::Tensor& cast(at::ScalarType dtype);
  void forget_cast() { cast_ = at::Tensor(); }

 private:
  void end_group();

  at::Tensor cast_;
  int group_ = 0;             // of `gradient`
  TreeSum<Gradient> groups_;  // those before
};

/// One buffer as its layer holds it (BufferSpec). Only end_step() may write to it.
struct Buffer {
  std::string local_name;
  std::string name;  ///< full name
  int index = -1;    ///< in ModelGraph::buffers
  at::Tensor value;
  bool is_state = false;  ///< StateSpec: a row per sample of the mini-batch; then only the engine writes to it
};

/// Weight gradients that were deferred by a backward: run right after it (B = I then W), or later (W). Same closures,
/// same order, so the two cannot drift.
class WeightGradQueue {
 public:
  void push(std::function<void()> work) { work_.push_back(std::move(work)); }
  void run();
  bool empty() const { return work_.empty(); }

 private:
  std::vector<std::function<void()>> work_;
};

/// A parameter that takes part in autograd directly: used by forward() through LayerContext::leaf.
struct ParameterLeaf {
  Parameter* parameter = nullptr;
  at::Tensor leaf;
};

class LayerContext {
 public:
  /// All arguments outlive the context; the queue outlives the backward.
  LayerContext(std::vector<Parameter>& parameters, WeightGradQueue& queue, at::Tensor anchor, bool training,
               at::ScalarType precision, bool recomputing = false)
      : parameters_(parameters),
        queue_(queue),
        anchor_(std::move(anchor)),
        training_(training),
        precision_(precision),
        recomputing_(recomputing) {}

  bool training() const { return training_; }
  /// This forward repeats an earlier one of the same micro-batch, to have its activations again for the backward:
  /// whatever a forward leaves behind (running statistics) has been left already.
  bool recomputing() const { return recomputing_; }
  /// Whether the weights of attention are computed again in the backward where they would be kept for it
  /// (pipeline.recompute_attention).
  bool recomputes_attention() const { return recomputes_attention_; }
  /// dtype of activations: float32, bfloat16 or float64.
  at::ScalarType precision() const { return precision_; }

  /// By local name; ModelError when describe() did not ask for it.
  Parameter& parameter(const std::string& local_name);

  /// The parameter as an autograd leaf, a master: for any LibTorch operator. Its gradient is computed with the input
  /// gradient (I). With `dtype`, the returned tensor is the leaf cast to it (the gradient is cast back by autograd).
  at::Tensor leaf(const std::string& local_name);
  at::Tensor leaf(const std::string& local_name, at::ScalarType dtype);

  /// By local name; ModelError when describe() did not ask for it.
  const at::Tensor& buffer(const std::string& local_name) const;
  /// Training: hands what this micro-batch contributes to the layer's buffers to end_step(). Of several calls for one
  /// micro-batch (recompute) the first counts, so a layer need not know whether it is computed again. Detached tensors.
  void collect(Tensors statistics) { collected_ = std::move(statistics); }

  /// A copy of what set_state() left for these samples in the step before: [rows, sizes...]; zeros at first, and in an
  /// evaluation. ModelError when describe() declares no such state.
  at::Tensor state(const std::string& local_name) const;
  /// Training: what state() gives these samples in the next step. Of several calls for one micro-batch (recompute) the
  /// first forward's counts. ModelError when the sizes are others.
  void set_state(const std::string& local_name, const at::Tensor& value);

  /// This forward has computed matrix products (convolutions, attention) of so many multiply-adds, and its backward
  /// will compute `gradients` times as many: one for the gradient of the input where there is one, one for that of a
  /// weight that is trained. From this come the floating-point operations per second that a run reports. The operators
  /// of operators.hpp and parts.hpp count themselves; a layer with products of its own may say
  ///
  ///   context.count_products(rows * in * out, x.requires_grad() + weight.requires_grad());
  void count_products(double multiply_adds, int gradients) { operations_ += 2 * multiply_adds * (1 + gradients); }

  /// Of the linear part of this name; null: it has none.
  const LowRank* adapter(const std::string& part) const;
  void lend_adapter(const LowRank& adapter) { adapter_ = &adapter; }

  // For the engine.
  double operations() const { return operations_; }  ///< a multiply-add is two
  void recompute_attention(bool whether) { recomputes_attention_ = whether; }
  void lend_buffers(const std::vector<Buffer>& buffers) { buffers_ = &buffers; }
  /// Of the mini-batch: those of this micro-batch.
  void lend_rows(std::int64_t begin, std::int64_t count) { first_row_ = begin, rows_ = count; }
  /// By index in the model.
  std::map<int, at::Tensor>& new_states() { return new_states_; }
  Tensors& collected() { return collected_; }

  // For operators with a split backward (operators.hpp).
  WeightGradQueue& weight_grads() { return queue_; }
  /// A scalar that requires grad: keeps an operator in the graph whose input needs no gradient but whose weight does.
  const at::Tensor& anchor() const { return anchor_; }
  const std::vector<ParameterLeaf>& leaves() const { return leaves_; }

 private:
  const Buffer& state_of(const std::string& local_name) const;

  std::vector<Parameter>& parameters_;
  WeightGradQueue& queue_;
  at::Tensor anchor_;
  bool training_;
  at::ScalarType precision_;
  bool recomputing_, recomputes_attention_ = false;
  std::vector<ParameterLeaf> leaves_;
  const std::vector<Buffer>* buffers_ = nullptr;
  const LowRank* adapter_ = nullptr;
  Tensors collected_;
  std::int64_t first_row_ = 0, rows_ = 0;
  double operations_ = 0;
  std::map<int, at::Tensor> new_states_;
};

}  // namespace lockstep
