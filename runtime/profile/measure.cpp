// SPDX-License-Identifier: Apache-2.0
#include "runtime/profile/measure.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <exception>
#include <limits>
#include <set>
#include <thread>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/engine/memory.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

constexpr int kWarmUps = 2;
constexpr int kMostUpdates = 5;
constexpr std::int64_t kNoise = 1 << 16;

/// The threads that measure one layer at the same time. The first one decides when it is enough. Whoever leaves, done
/// or failed, leaves the barrier too, so that nobody waits for those who have gone.
struct Crew {
  explicit Crew(int size) : together(size) {}
  void give_up() {
    failed = true;
    end = 0;
  }
  std::barrier<> together;
  std::atomic<int> warm_ups{kWarmUps}, end{std::numeric_limits<int>::max()};  // rounds
  std::atomic<bool> failed{false};
};

struct Times {
  std::vector<double> forward_us, input_grad_us, weight_grad_us, all_us, update_us;

  void add(const StageReport& report) {
    forward_us.push_back(report.forward_us);
    input_grad_us.push_back(report.input_grad_us);
    weight_grad_us.push_back(report.weight_grad_us);
    all_us.push_back(report.forward_us + report.input_grad_us + report.weight_grad_us);
  }
};

/// Memory that pushes everything else out of the caches.
class ColdWalk {
 public:
  explicit ColdWalk(std::int64_t bytes)
      : bytes_(static_cast<std::size_t>(std::clamp<std::int64_t>(bytes, 0, kMostColdBytes))) {}
  void walk() {
    for (std::size_t i = 0; i < bytes_.size(); i += kLine) bytes_[i] = static_cast<unsigned char>(bytes_[i] + 1);
  }
  /// Tensors of the host that the layer before has just made.
  static void touch(const at::Tensor& tensor) {
    if (!tensor.device().is_cpu()) return;
    const auto* bytes = static_cast<const volatile unsigned char*>(tensor.const_data_ptr());
    for (std::size_t i = 0; i < tensor.nbytes(); i += kLine) static_cast<void>(bytes[i]);
  }

 private:
  static constexpr std::size_t kLine = 64;
  std::vector<unsigned char> bytes_;
};

/// A gradient that a layer outside sends back.
struct OuterGradient {
  int value;
  Use use;
  at::Tensor tensor;
};

/// One layer as the only stage of one worker, on the thread that measures it.
class Bench {
 public:
  Bench(const ModelGraph& graph, const Partition& partition, int layer, std::int64_t rows, const Losses& losses,
        const MeasureOptions& options)
      : graph_(graph), layer_(layer), options_(options), has_backward_(partition.topology.has_backward[layer]) {
    const at::NoGradGuard no_grad;
    const MemoryPool::Scope memory(pool_, MemoryKind::parameters);
    noise_ = random_noise();
    StageOptions stage = options.stage;
    stage.initialise = false;
    stage.recompute.assign(static_cast<std::size_t>(graph.layer_count()), true);  // where forward() asks for it
    stage_ = std::make_unique<Stage>(graph, partition, StageId(layer), losses, stage, store_);
    for (Parameter& parameter : stage_->parameters()[0]) {
      fill(parameter.value, graph.parameters[parameter.index].init);
      if (parameter.trainable) trained_.push_back(&parameter);
    }
    if (options.make_updater) updater_ = options.make_updater();
    header_.mode = Mode::train;
    header_.step = 1;
    header_.slices = {rows, rows, rows};
    for (const GraphHead& head : graph.heads) header_.heads.push_back({0, static_cast<double>(rows), head.weight});
    make_data();
  }

  LayerSample bytes();
  void times(Crew& crew, int thread, Times& times);

 private:
  at::Tensor random_noise() const {
    const RandomScope scope(mix_seed(1, 0, 0, "profile"));
    return at::randn({kNoise});
  }

  /// Values of the size that training starts from, without drawing each of them.
  void fill(at::Tensor& value, const Init& init) const {
    switch (init.kind) {
      case Init::Kind::zeros: value.zero_(); return;
      case Init::Kind::ones: value.fill_(1.0); return;
      case Init::Kind::normal: scatter_noise(value, init.scale); return;
      case Init::Kind::uniform: scatter_noise(value, init.scale / std::sqrt(3.0)); return;
    }
  }
  void scatter_noise(const at::Tensor& value, double scale) const {
    const at::Tensor flat = value.view({-1}), scaled = (noise_ * scale).to(value.options());
    for (std::int64_t begin = 0; begin < flat.numel(); begin += kNoise) {
      const std::int64_t count = std::min(kNoise, flat.numel() - begin);
      flat.narrow(0, begin, count).copy_(scaled.narrow(0, 0, count));
    }
  }

  bool is_target(int value) const {
    return std::any_of(graph_.heads.begin(), graph_.heads.end(),
                       [&](const GraphHead& head) { return head.targets == value; });
  }
  at::Tensor made_of(const at::IntArrayRef sizes, at::ScalarType dtype) const {
    const at::Tensor value = at::empty(sizes, at::TensorOptions(dtype).device(options_.stage.device));
    if (value.numel() > 0) scatter_noise(value, 1.0);
    return value;
  }
  at::Tensor made_of(int value) const {
    const EntrySpec& entry = graph_.values[value].spec;
    const auto on_device = at::TensorOptions(entry.dtype).device(options_.stage.device);
    if (!at::isFloatingType(entry.dtype)) {
      // Of integers whose range is not known 0 fits everywhere.
      if (entry.below <= 1 || entry.dtype == at::kBool) return at::zeros(entry.sizes, on_device);
      const RandomScope scope(mix_seed(1, 1, 0, "profile"));
      return at::randint(entry.below, entry.sizes, at::kLong).to(on_device);
    }
    if (!is_target(value)) return made_of(entry.sizes, options_.stage.precision);
    return made_of(entry.sizes, entry.dtype).sigmoid_();  // probabilities are targets of some losses
  }

  /// Data lies in the batch for the whole step, whoever reads it: nothing that the layer keeps.
  void make_data() {
    std::set<int> ids;
    for (const int id : graph_.inputs[layer_]) ids.insert(id);
    for (const GraphHead& head : graph_.heads)
      if (head.layer == layer_) ids.insert({head.targets, head.output});
    for (const int id : graph_.outputs[layer_]) ids.erase(id);
    for (const int id : ids) {
      if (graph_.values[id].producer < 0)
        data_.emplace_back(id, made_of(id));
      else
        inputs_.push_back(id);
    }
  }
  std::vector<std::pair<int, at::Tensor>> make_inputs() const {
    std::vector<std::pair<int, at::Tensor>> made;
    for (const int id : inputs_) made.emplace_back(id, made_of(id));
    return made;
  }

  void put(int micro_batch, const std::vector<std::pair<int, at::Tensor>>& inputs) {
    for (const auto* list : {&std::as_const(data_), &inputs})
      for (const auto& [id, tensor] : *list) stage_->put_value(micro_batch, id, tensor);
  }
  void forward(int micro_batch, const std::vector<std::pair<int, at::Tensor>>& inputs, bool recompute = false) {
    put(micro_batch, inputs);
    stage_->forward(micro_batch, recompute);
    if (outputs_.empty()) {
      const Tensors values =
          stage_->values_of({StageId(layer_), StageId(layer_), graph_.outputs[layer_], {}}, micro_batch);
      for (const at::Tensor& value : values) outputs_.emplace_back(value.sizes().vec(), value.scalar_type());
    }
    stage_->release_values(micro_batch);
  }

  /// One for every use outside: the losses here make their own.
  std::vector<OuterGradient> make_gradients() const {
    std::vector<OuterGradient> made;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const int id = graph_.outputs[layer_][i];
      if (!graph_.values[id].requires_grad) continue;
      for (const Use& use : graph_.values[id].uses)
        if (use.layer < graph_.layer_count()) made.push_back({id, use, made_of(outputs_[i].first, outputs_[i].second)});
    }
    return made;
  }
  void put(int micro_batch, const std::vector<OuterGradient>& gradients) {
    for (const OuterGradient& gradient : gradients)
      stage_->put_gradient(micro_batch, gradient.value, gradient.use, gradient.tensor);
  }
  void input_grad(int micro_batch) {
    stage_->input_grad(micro_batch);
    stage_->release_gradients(micro_batch);
  }

  template <typename Work>
  double extra_bytes(const Work& work) {
    const std::int64_t before = pool_.bytes();
    pool_.reset_peak();
    work();
    return static_cast<double>(pool_.peak_bytes() - before);
  }
  double kept_since(std::int64_t before) const { return static_cast<double>(pool_.bytes() - before); }

  void time_updates(Crew& crew, Times& times);

  const ModelGraph& graph_;
  int layer_;
  const MeasureOptions& options_;
  bool has_backward_;
  MemoryPool pool_;
  at::Tensor noise_;
  ParameterStore store_;
  std::unique_ptr<Stage> stage_;
  std::vector<Parameter*> trained_;
  std::unique_ptr<ParameterUpdater> updater_;
  StepHeader header_;
  std::vector<std::pair<int, at::Tensor>> data_;                               // by value
  std::vector<int> inputs_;                                                    // values that other layers make
  std::vector<std::pair<std::vector<std::int64_t>, at::ScalarType>> outputs_;  // as they come
};

/// Micro-batch 0 pays for what is made once a step; micro-batch 1 is measured; 2 is run again in its backward.
LayerSample Bench::bytes() {
  const MemoryPool::Scope memory(pool_);
  LayerSample sample;
  stage_->begin(header_);
  auto first = make_inputs();
  const std::int64_t before_first = pool_.bytes();
  forward(0, first);
  const double first_held = kept_since(before_first);
  auto inputs = make_inputs();
  const std::int64_t before = pool_.bytes();
  sample.forward_extra_bytes = extra_bytes([&] { forward(1, inputs); });
  sample.held_bytes = std::max(0.0, kept_since(before));
  sample.step_bytes = std::max(0.0, first_held - sample.held_bytes);
  if (!has_backward_) return sample;

  put(0, make_gradients());
  first.clear();
  input_grad(0);
  stage_->weight_grad(0);  // the parameters' gradients are there from here on

  put(1, make_gradients());
  inputs.clear();  // from now on it shows who keeps them
  sample.input_grad_extra_bytes = extra_bytes([&] { stage_->input_grad(1); });
  stage_->release_gradients(1);
  const std::int64_t after_input_grad = pool_.bytes();
  sample.weight_grad_extra_bytes = extra_bytes([&] { stage_->weight_grad(1); });
  sample.held_w_bytes = std::max(0.0, -kept_since(after_input_grad));

  inputs = make_inputs();
  const std::int64_t before_again = pool_.bytes();
  forward(2, inputs, /*recompute=*/true);
  sample.again_held_bytes = std::max(0.0, kept_since(before_again));
  put(2, make_gradients());
  input_grad(2);
  stage_->weight_grad(2);
  stage_->end_step();
  return sample;
}

/// The two halves of a round, each after a walk and beside the other half of every second thread: in a pipeline too,
/// one worker's forward runs beside another's backward, and two weight gradients at once would fight for the memory.
void Bench::times(Crew& crew, int thread, Times& times) {
  const MemoryPool::Scope memory(pool_);
  ColdWalk cold(options_.cold_bytes);
  const auto inputs = make_inputs();
  const auto gradients = make_gradients();
  const bool backward_first = has_backward_ && thread % 2 == 1;
  const auto run_forward = [&] {
    stage_->begin(header_);
    forward(0, inputs);
  };
  const auto run_backward = [&](bool counts) {
    if (has_backward_) {
      put(0, gradients);
      input_grad(0);
      stage_->weight_grad(0);
    }
    stage_->end_step();
    if (counts) times.add(stage_->report());
  };
  const auto meet = [&](bool before_forward) {
    cold.walk();
    for (const auto& [id, tensor] : data_) ColdWalk::touch(tensor);
    for (const auto& [id, tensor] : inputs)
      if (before_forward) ColdWalk::touch(tensor);
    for (const OuterGradient& gradient : gradients)
      if (!before_forward) ColdWalk::touch(gradient.tensor);
    crew.together.arrive_and_wait();  // nobody is measured beside a walk, which takes more bandwidth than any layer
  };
  if (backward_first) run_forward();
  const double start_us = now_us();
  for (int round = 0;; ++round) {
    if (thread == 0) {
      const double spent_s = (now_us() - start_us) * 1e-6;
      if (round == 1 && spent_s > options_.most_seconds / 4) crew.warm_ups = std::min(crew.warm_ups.load(), 1);
      const int measured = round - crew.warm_ups;
      if (measured >= options_.repeats || (measured >= kFewestRepeats && spent_s > options_.most_seconds))
        crew.end = std::min(crew.end.load(), round);
    }
    meet(!backward_first);
    if (round >= crew.end) break;
    const bool counts = round >= crew.warm_ups;
    backward_first ? run_backward(counts) : run_forward();
    meet(backward_first);
    backward_first ? run_forward() : run_backward(counts);
  }
  if (backward_first) run_backward(false);
  time_updates(crew, times);
}

void Bench::time_updates(Crew& crew, Times& times) {
  std::vector<Parameter*> updated;
  for (Parameter* parameter : trained_)
    if (parameter->gradient.defined()) updated.push_back(parameter);
  if (!updater_ || crew.failed || updated.empty()) return;
  const at::NoGradGuard no_grad;
  const MemoryPool::Scope memory(pool_, MemoryKind::optimizer);
  double sink = 0;
  for (int round = 0; round <= std::min(options_.repeats, kMostUpdates); ++round) {
    crew.together.arrive_and_wait();
    if (crew.failed) return;
    const double start_us = now_us();
    for (Parameter* parameter : updated) {
      if (!options_.clip) break;
      sink += squared_norm(parameter->gradient);
      parameter->gradient.mul_(0.999);
    }
    updater_->update(updated, 1e-4, round + 1);
    if (round > 0) times.update_us.push_back(now_us() - start_us);
  }
  static_cast<void>(sink);
}

/// Three decimals, for a file that people read.
double rounded(double number) {
  return std::round(number * 1e3) / 1e3;
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

/// What all threads measured.
std::vector<double> joined(const std::vector<Times>& all, std::vector<double> Times::*which) {
  std::vector<double> values;
  for (const Times& times : all) values.insert(values.end(), (times.*which).begin(), (times.*which).end());
  return values;
}

}  // namespace

LayerSample measure_layer(const ModelGraph& graph, const Partition& partition, int layer, std::int64_t rows,
                          const Losses& losses, const MeasureOptions& options) {
  LOCKSTEP_CHECK(options.workers >= 1 && options.repeats >= kFewestRepeats, "workers ", options.workers, ", repeats ",
                 options.repeats);
  LOCKSTEP_CHECK(partition.stages() == graph.layer_count(), "a partition of ", partition.stages(), " stages");
  Crew crew(options.workers);
  std::vector<Times> times(static_cast<std::size_t>(options.workers));
  std::vector<LayerSample> bytes(times.size());
  std::vector<std::exception_ptr> errors(times.size());
  const auto work = [&](std::size_t thread) {
    try {
      // OpenMP counts threads per calling thread, as for workers.
      at::init_num_threads();
      at::set_num_threads(options.threads);
      Bench bench(graph, partition, layer, rows, losses, options);
      const double start_us = now_us();
      bytes[thread] = bench.bytes();
      // That was three micro-batches: of a slow layer warm-up enough.
      if (thread == 0 && now_us() - start_us > options.most_seconds * 1e6) crew.warm_ups = 0;
      bench.times(crew, static_cast<int>(thread), times[thread]);
    } catch (...) {
      errors[thread] = std::current_exception();
      crew.give_up();
    }
    crew.together.arrive_and_drop();
  };
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < times.size(); ++thread) threads.emplace_back(work, thread);
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);

  LayerSample sample = bytes[0];
  sample.rows = rows;
  sample.forward_us = rounded(quantile(joined(times, &Times::forward_us), 0.5));
  sample.input_grad_us = rounded(quantile(joined(times, &Times::input_grad_us), 0.5));
  sample.weight_grad_us = rounded(quantile(joined(times, &Times::weight_grad_us), 0.5));
  sample.update_us = rounded(quantile(joined(times, &Times::update_us), 0.5));
  const std::vector<double> all = joined(times, &Times::all_us);
  const double median = quantile(all, 0.5);
  sample.spread = median > 0 ? rounded((quantile(all, 0.75) - quantile(all, 0.25)) / median) : 0;
  return sample;
}

}  // namespace lockstep
