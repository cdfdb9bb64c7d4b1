// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/model_check.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <sstream>

#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/host/machine.hpp"
#include "runtime/training/data_look.hpp"
#include "runtime/training/not_finite.hpp"

namespace lockstep {
namespace {

using Verdict = CheckFinding::Verdict;

std::string short_number(double number) {
  std::ostringstream out;
  out.precision(3);
  out << number;
  return out.str();
}

/// The samples of one batch, alone.
class OneBatch : public Dataset {
 public:
  OneBatch(const Dataset& of, Tensors entries) : specs_(of.entries(1)), entries_(std::move(entries)) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> specs = specs_;
    for (EntrySpec& spec : specs) spec.sizes[0] = rows;
    return specs;
  }
  std::int64_t size() const override { return entries_.front().size(0); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const at::Tensor index = at::tensor(samples);
    Tensors rows;
    for (const at::Tensor& entry : entries_) rows.push_back(entry.index_select(0, index));
    return rows;
  }
  bool is_in_memory() const override { return true; }

 private:
  std::vector<EntrySpec> specs_;
  Tensors entries_;
};

/// What a few steps gave.
struct FewSteps : Observer {
  void on_result(const StepResult& result) override {
    if (result.mode != Mode::train) return;
    losses.push_back(result.loss());
    seconds += result.elapsed_us / 1e6;
    if (result.non_finite.found() && !broken.found()) broken = result.non_finite;
    workers = result.workers;
  }
  /// No longer a number, or far above where it began.
  bool exploded() const {
    if (broken.found()) return true;
    const std::size_t quarter = std::max<std::size_t>(1, losses.size() / 4);
    const double last = std::accumulate(losses.end() - static_cast<std::ptrdiff_t>(quarter), losses.end(), 0.0) /
                        static_cast<double>(quarter);
    constexpr double far = 3;
    return last > far * losses.front();
  }
  std::vector<double> losses;
  std::vector<WorkerReport> workers;
  NonFinite broken;
  double seconds = 0;
  DumpedTensors dumped;  // of the first step, of all workers
};

class Check {
 public:
  Check(Trainer& trainer, double state_bytes, const TrainTables& tables)
      : trainer_(trainer), state_bytes_(state_bytes), tables_(tables) {}

  std::vector<CheckFinding> run() {
    look_at_data();
    if (!look_at_state()) return std::move(findings_);
    FewSteps first;
    try {
      first = train(trainer_.data(), trainer_.config().train.optimizer.lr, 1);
    } catch (const Error& error) {
      add(Verdict::wrong, "memory", error.what(), "");
      return std::move(findings_);
    }
    look_at_memory(first);
    look_at_start(first);
    look_at_layers(first);
    constexpr double seconds = 12;  // of each of the next two
    constexpr double least = 3, most = 60;
    steps_ = static_cast<std::int64_t>(std::clamp(seconds / std::max(first.seconds, 1e-6), least, most));
    look_at_learning();
    look_at_rate();
    return std::move(findings_);
  }

 private:
  void add(Verdict verdict, const char* topic, std::string text, std::string advice = "") {
    findings_.push_back({verdict, topic, std::move(text), std::move(advice)});
  }

  /// `steps` steps with a constant learning rate.
  FewSteps train(const DataSplits& data, double rate, std::int64_t steps) {
    Config config = trainer_.config();
    config.train.steps = steps;
    config.train.eval_every = 0;
    config.train.early_stopping = {};
    config.train.stop_on_nan = false;
    config.train.lr_schedule = {};
    config.train.optimizer.lr = rate;
    config.checkpoint = {};
    Trainer trainer(assemble(trainer_.model(), data, config, {}, tables_));
    FewSteps few;
    std::mutex mutex;
    RunOptions run;
    run.observer = &few;
    run.dump_step = 1;
    run.take_dump = [&](int, const DumpedTensors& tensors) {
      const std::lock_guard lock(mutex);
      few.dumped.insert(tensors.begin(), tensors.end());
    };
    trainer.fit(run);
    return few;
  }

  DataSplits first_batch() const {
    const std::int64_t rows = std::min(trainer_.config().train.batch, trainer_.data().train->size());
    std::vector<std::int64_t> samples = trainer_.assembly().sampler().batch(0, rows);
    DataSplits data;
    data.train = std::make_shared<OneBatch>(*trainer_.data().train, read_samples(*trainer_.data().train, samples));
    return data;
  }

  // ---- data ----

  void look_at_data() {
    constexpr std::int64_t most = 5000;
    const DataSplits& data = trainer_.data();
    const DataScan train = scan_data(*data.train, most);
    const std::size_t before = findings_.size();
    for (const DataRange& range : train.ranges)
      if (range.not_finite > 0)
        add(Verdict::wrong, "data",
            concat(range.not_finite, " values of the first ", train.samples, " samples are NaN or infinite"),
            "fill or leave out such samples: lockstep data CONFIG says where");
    const auto twins = static_cast<std::int64_t>(train.twins.size());
    if (twins * 20 > train.samples)
      add(twins * 2 > train.samples ? Verdict::wrong : Verdict::doubtful, "data",
          concat(twins, " of the first ", train.samples, " samples have the inputs of an earlier one, such as ",
                 train.twins.front().first, " and ", train.twins.front().second),
          "leave repetitions out, or look whether a column is missing that tells them apart");
    if (data.eval) {
      const DataScan eval = scan_data(*data.eval, most);
      const auto known = std::count_if(eval.hashes.begin(), eval.hashes.end(),
                                       [&](const auto& entry) { return train.hashes.contains(entry.first); });
      if (known * 20 > static_cast<std::int64_t>(eval.hashes.size()))
        add(Verdict::doubtful, "data",
            concat(known, " of ", eval.samples, " samples of the evaluation set are in the training set too"),
            "an evaluation says nothing about samples that were trained on: divide the data anew");
    }
    look_at_classes(train);
    if (at::isFloatingType(data.train->entries(1).front().dtype)) {
      constexpr double large = 100;
      const DataRange& x = train.ranges.front();
      if (x.count > 0 && std::max(std::abs(x.least), std::abs(x.most)) > large)
        add(Verdict::doubtful, "data", concat("inputs go from ", short_number(x.least), " to ", short_number(x.most)),
            "scale them: data.normalize of tables, mean and std of images");
    }
    if (findings_.size() == before)
      add(Verdict::fine, "data",
          concat("the first ", train.samples, " samples: none is there twice, and nothing is out of the ordinary"));
  }

  void look_at_classes(const DataScan& train) {
    if (train.classes.empty()) return;
    std::int64_t most = 0, of = 0;
    for (const auto& [number, count] : train.classes)
      if (count > most) most = count, of = number;
    if (train.classes.size() == 1)
      add(Verdict::wrong, "data",
          concat("all of the first ", train.samples, " samples are of one class, ", class_text(trainer_.data(), of)),
          "look at the targets; if the file is sorted by class, take all of it");
    else if (most * 20 > train.samples * 19)
      add(Verdict::doubtful, "data",
          concat(percent_text(static_cast<double>(most) / static_cast<double>(train.samples)),
                 " of the samples are of the class ", class_text(trainer_.data(), of)),
          "who always says so is right as often: data.sampling.balance: classes, or class_weights of the loss; measure "
          "f1 or "
          "roc_auc");
  }

  // ---- memory ----

  /// Whether what the model keeps is there at all.
  bool look_at_state() {
    const auto available = static_cast<double>(machine_memory().available_bytes);
    if (state_bytes_ <= available || !on_host()) return true;
    add(Verdict::wrong, "memory",
        concat("parameters, gradients and optimizer state need ", size_text(state_bytes_), ", and ",
               size_text(available), " are free here"),
        "more hosts (mpirun), replicas.shard_optimizer, an optimizer that keeps less, or a smaller model; nothing was "
        "trained");
    return false;
  }

  bool on_host() const {
    const auto& devices = trainer_.assembly().devices;
    return std::all_of(devices.begin(), devices.end(), [](const at::Device& device) { return device.is_cpu(); });
  }

  void look_at_memory(const FewSteps& first) {
    double all = 0, most = 0;
    for (const WorkerReport& worker : first.workers) {
      all += static_cast<double>(worker.peak_bytes);
      most = std::max(most, static_cast<double>(worker.peak_bytes));
    }
    const auto limit = static_cast<double>(trainer_.config().workers.memory_limit);
    const auto available = static_cast<double>(machine_memory().available_bytes);
    constexpr double close = 0.9;
    std::string text = concat("a step needs at most ", size_text(most), " on a worker");
    if (first.workers.size() > 1) text += concat(", ", size_text(all), " on all");
    const std::string advice = "more micro-batches (smaller activations), pipeline.recompute, a smaller batch";
    if (limit > 0 && most > close * limit)
      add(Verdict::doubtful, "memory", concat(text, ", and workers.memory_limit is ", size_text(limit)), advice);
    else if (on_host() && all > close * available)
      add(Verdict::doubtful, "memory", concat(text, ", and ", size_text(available), " are free here"), advice);
    else
      add(Verdict::fine, "memory", text);
  }

  // ---- the model ----

  /// The summed loss of a batch whose outputs are 0, over all heads.
  double loss_of_zeros() const {
    const Assembly& assembly = trainer_.assembly();
    const DataSplits data = first_batch();
    std::vector<std::int64_t> samples(static_cast<std::size_t>(data.train->size()));
    std::iota(samples.begin(), samples.end(), std::int64_t{0});
    const Tensors entries = data.train->read(samples);
    double sum = 0;
    for (std::size_t head = 0; head < assembly.losses.size(); ++head) {
      const GraphHead& of = assembly.graph.heads[head];
      std::vector<std::int64_t> sizes = assembly.graph.values[static_cast<std::size_t>(of.output)].spec.sizes;
      sizes[0] = data.train->size();
      const at::Tensor& targets = entries[static_cast<std::size_t>(of.source)];
      const double denominator = assembly.losses[head]->denominator(targets);
      const double numerator = assembly.losses[head]->numerator(at::zeros(sizes), targets).item<double>();
      if (denominator > 0) sum += of.weight * numerator / denominator;
    }
    return sum;
  }

  void look_at_start(const FewSteps& first) {
    const double loss = first.losses.front(), expected = loss_of_zeros();
    const std::string text = concat("the loss of the first batch is ", short_number(loss),
                                    ", of outputs of 0 it would be ", short_number(expected));
    constexpr double far = 2;
    if (first.broken.found())
      add(Verdict::wrong, "start", concat("the first step is not finite: ", describe(first.broken, trainer_.graph())),
          "look at the inputs, and at how the layer starts");
    else if (expected > 0 && loss > far * expected)
      add(Verdict::doubtful, "start", text,
          "the model is surer than it can be: scale the inputs, or let the last layer start smaller");
    else
      add(Verdict::fine, "start", text);
  }

  static std::pair<std::string, std::string> names_of(const std::string& dumped, const std::string& kind) {
    const std::string rest = dumped.substr(kind.size());
    const std::size_t slash = rest.rfind('/');
    return {rest.substr(0, slash), rest.substr(slash + 1)};
  }

  void look_at_layers(const FewSteps& first) {
    const std::size_t before = findings_.size();
    const std::string gradient = "parameter_gradient/", activation = "activation/";
    std::vector<std::string> untrained, silent, same;
    for (const auto& [name, tensor] : first.dumped) {
      if (name.starts_with(gradient)) {
        const bool waits = trainer_.model().adapter && name.ends_with(LowRank::first_of(""));  // its B starts as 0
        if (!waits && tensor.numel() > 0 && !tensor.any().item<bool>())
          untrained.push_back(name.substr(gradient.size()));
        continue;
      }
      if (!name.starts_with(activation) || !at::isFloatingType(tensor.scalar_type()) || tensor.numel() == 0) continue;
      const auto [layer, output] = names_of(name, activation);
      constexpr double mostly = 0.95;
      const at::Tensor by_sample = tensor.reshape({tensor.size(0), -1});
      const double zeros = (by_sample == 0).all(0).to(at::kDouble).mean().item<double>();
      if (zeros >= mostly)
        silent.push_back(concat(layer, " (", percent_text(zeros), ")"));
      else if (tensor.size(0) > 1 && (by_sample == by_sample.narrow(0, 0, 1)).all().item<bool>())
        same.push_back(layer);
    }
    if (!untrained.empty())
      add(Verdict::wrong, "layers", concat("no gradient reaches ", shown(untrained)),
          "is a layer before the loss saturated, dead or multiplied by 0? Freeze what is not meant to be trained "
          "(train.freeze)");
    if (!silent.empty())
      add(Verdict::wrong, "layers", concat("outputs that are 0 for every sample of the batch: ", shown(silent)),
          "such units are dead: a smaller learning rate or other initial values, gelu in place of relu, scaled inputs");
    if (!same.empty())
      add(Verdict::wrong, "layers", concat("outputs that are the same for every sample: ", shown(same)),
          "what the model says does not depend on its inputs: are they constant, or scaled away?");
    if (findings_.size() == before)
      add(Verdict::fine, "layers", "every parameter has a gradient, and no layer is dead");
  }

  static std::string shown(std::vector<std::string> names) {
    constexpr std::size_t most = 5;
    const std::size_t all = names.size();
    names.resize(std::min(all, most));
    return concat(join(names), all > most ? concat(", ... (", all, ")") : "");
  }

  // ---- learning ----

  void look_at_learning() {
    const double rate = trainer_.config().train.optimizer.lr;
    const FewSteps few = train(first_batch(), rate, steps_);
    if (few.exploded()) return;  // look_at_rate() says it
    const double first = few.losses.front(), least = *std::min_element(few.losses.begin(), few.losses.end());
    const std::string text = concat("one batch, ", steps_, " times: its loss goes from ", short_number(first), " to ",
                                    short_number(few.losses.back()));
    constexpr double enough = 0.9;
    if (least > enough * first)
      add(Verdict::wrong, "learning", text,
          concat("a batch that cannot be learnt is a sign of a learning rate that is too small (", short_number(rate),
                 "), of inputs that do not tell targets apart, or of targets that do not belong to them"));
    else
      add(Verdict::fine, "learning", text);
  }

  void look_at_rate() {
    const double rate = trainer_.config().train.optimizer.lr;
    const FewSteps few = train(trainer_.data(), rate, steps_);
    const std::string text = concat("learning rate ", short_number(rate), ", ", few.losses.size(),
                                    " steps: the loss goes from ", short_number(few.losses.front()), " to ",
                                    few.broken.found() ? "what is no number" : short_number(few.losses.back()));
    if (!few.exploded()) return add(Verdict::fine, "rate", text);
    for (double smaller = rate / 10; smaller >= rate / 1e4; smaller /= 10)
      if (!train(trainer_.data(), smaller, steps_).exploded())
        return add(Verdict::wrong, "rate", text + ": it explodes",
                   concat("train.optimizer.lr: ", short_number(smaller),
                          " does not; or clip gradients (train.clip_grad_norm), or warm up"));
    add(Verdict::wrong, "rate", text + ": it explodes, with a ten-thousandth of the learning rate too",
        "look at the data and at how the layers start");
  }

  Trainer& trainer_;
  double state_bytes_;
  const TrainTables& tables_;
  std::int64_t steps_ = 0;
  std::vector<CheckFinding> findings_;
};

}  // namespace

std::vector<CheckFinding> check_model(Trainer& trainer, double state_bytes, const TrainTables& tables) {
  return Check(trainer, state_bytes, tables).run();
}

}  // namespace lockstep
