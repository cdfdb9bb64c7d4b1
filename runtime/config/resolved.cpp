// SPDX-License-Identifier: Apache-2.0
//
// A Config written back as YAML. Every key that config.cpp reads has its line here; the round-trip test holds the two
// together.
#include "runtime/base/size.hpp"
#include "runtime/config/config.hpp"
#include "runtime/config/value.hpp"

namespace lockstep {
namespace {

/// Lines of block YAML at one indentation; nested mappings write into the same text.
class Writer {
 public:
  void put(const std::string& key, const std::string& value) { line(key, yaml::scalar_text(value)); }
  void put(const std::string& key, double value) { line(key, yaml::number_text(value)); }
  void put(const std::string& key, bool value) { line(key, value ? "true" : "false"); }
  void put(const std::string& key, int value) { line(key, concat(value)); }
  void put(const std::string& key, std::int64_t value) { line(key, concat(value)); }
  void put(const std::string& key, std::uint64_t value) { line(key, concat(value)); }
  template <typename T>
  void put(const std::string& key, const std::vector<T>& values) {
    std::vector<std::string> items;
    for (const T& value : values) items.push_back(item(value));
    line(key, "[" + join(items) + "]");
  }

  /// `write` writes the keys of a mapping below `key`.
  template <typename Function>
  void mapping(const std::string& key, Function write) {
    text_ += indent() + key + ":\n";
    ++level_;
    write();
    --level_;
  }

  /// One element of a list of mappings: the first key stands behind the dash.
  template <typename Function>
  void element(Function write) {
    const std::size_t begin = text_.size();
    ++level_;
    write();
    --level_;
    text_.replace(begin, indent().size() + 2, indent() + "- ");
  }

  void verbatim(const std::string& key, const Section& section) {
    text_ += indent() + key + ":\n";
    std::string line_text;
    for (const char c : section.to_yaml()) {
      line_text += c;
      if (c != '\n') continue;
      text_ += indent() + "  " + line_text;
      line_text.clear();
    }
  }

  const std::string& text() const { return text_; }

 private:
  static std::string item(const std::string& value) { return yaml::scalar_text(value); }
  static std::string item(double value) { return yaml::number_text(value); }
  static std::string item(int value) { return concat(value); }

  std::string indent() const { return std::string(2 * level_, ' '); }
  void line(const std::string& key, const std::string& value) { text_ += indent() + key + ": " + value + "\n"; }

  std::string text_;
  std::size_t level_ = 0;
};

void write_optimizer(Writer& out, const OptimizerConfig& optimizer) {
  out.put("type", optimizer.type);
  out.put("lr", optimizer.lr);
  if (optimizer.type == "sgd") {
    out.put("momentum", optimizer.momentum);
    out.put("dampening", optimizer.dampening);
    out.put("nesterov", optimizer.nesterov);
  } else {
    out.put("betas", std::vector<double>{optimizer.beta1, optimizer.beta2});
    out.put("eps", optimizer.eps);
  }
  out.put("weight_decay", optimizer.weight_decay);
  out.put("decay_norms_and_biases", optimizer.decay_norms_and_biases);
  if (optimizer.groups.empty()) return out.put("groups", std::vector<std::string>{});
  out.mapping("groups", [&] {
    for (const OptimizerGroup& group : optimizer.groups) {
      out.element([&] {
        out.put("match", group.match);
        out.put("lr_scale", group.lr_scale);
        out.put("weight_decay", group.weight_decay < 0.0 ? optimizer.weight_decay : group.weight_decay);
      });
    }
  });
}

void write_lr_schedule(Writer& out, const LrScheduleConfig& schedule) {
  out.put("type", schedule.type);
  out.put("warmup_steps", schedule.warmup_steps);
  if (schedule.type == "step") {
    out.put("step_every", schedule.step_every);
    out.put("step_factor", schedule.step_factor);
  } else if (schedule.type != "constant") {
    out.put("min_lr", schedule.min_lr);
    out.put("decay_steps", schedule.decay_steps);
  }
}

void write_train(Writer& out, const TrainConfig& train) {
  out.put("steps", train.steps);
  out.put("batch", train.batch);
  out.put("micro_batches", train.micro_batches);
  out.put("loss", train.loss);
  out.put("precision", train.precision);
  out.put("clip_grad_norm", train.clip_grad_norm);
  out.put("post_validation", train.post_validation);
  out.mapping("optimizer", [&] { write_optimizer(out, train.optimizer); });
  out.mapping("lr_schedule", [&] { write_lr_schedule(out, train.lr_schedule); });
  out.put("eval_every", train.eval_every);
  out.put("eval_batch", train.eval_batch);
  out.put("eval_steps", train.eval_steps);
  out.put("freeze", train.freeze);
  out.put("stop_on_nan", train.stop_on_nan);
  out.put("log_every", train.log_every);
  out.put("stop_after", train.stop_after);
}

void write_partition(Writer& out, const PartitionConfig& partition) {
  if (!partition.counts.empty()) return out.put("partition", partition.counts);
  out.mapping("partition", [&] {
    if (partition.cut_before.empty()) {
      out.put("by", partition.by);
    } else {
      out.put("cut_before", partition.cut_before);
    }
  });
}

void write_costs(Writer& out, const CostsConfig& costs) {
  const auto list = [&](const std::string& key, const std::vector<double>& numbers) {
    if (numbers.size() == 1)
      out.put(key, numbers[0]);
    else if (!numbers.empty())
      out.put(key, numbers);
  };
  list("forward_ms", costs.forward_ms);
  list("input_grad_ms", costs.input_grad_ms);
  list("weight_grad_ms", costs.weight_grad_ms);
  list("activation_bytes", costs.activation_bytes);
  list("weight_grad_bytes", costs.weight_grad_bytes);
  out.put("message_bytes", costs.message_bytes);
  out.put("latency_us", costs.latency_us);
  out.put("gigabytes_per_s", costs.gigabytes_per_s);
}

void write_pipeline(Writer& out, const PipelineConfig& pipeline) {
  std::vector<int> placement = pipeline.placement;
  if (placement.empty()) {
    for (int row = 0; row < pipeline.workers(); ++row) placement.push_back(row);
  }
  out.put("stages", pipeline.stages);
  if (pipeline.schedule_file.empty()) out.put("virtual_stages", pipeline.virtual_stages);
  out.put("schedule", pipeline.schedule);
  write_partition(out, pipeline.partition);
  if (pipeline.recompute == "layers")
    out.put("recompute", pipeline.recompute_layers);
  else
    out.put("recompute", pipeline.recompute);
  out.put("in_flight_limit", pipeline.in_flight_limit);
  if (pipeline.costs.given) out.mapping("costs", [&] { write_costs(out, pipeline.costs); });
  out.put("placement", placement);
}

void write_workers(Writer& out, const WorkersConfig& workers) {
  if (workers.per_rank.empty()) {
    out.put("per_rank", std::string("auto"));
  } else if (workers.per_rank.size() == 1) {
    out.put("per_rank", workers.per_rank[0]);
  } else {
    out.put("per_rank", workers.per_rank);
  }
  out.put("devices", workers.devices.empty() ? std::vector<std::string>{"cpu"} : workers.devices);
  out.put("threads", workers.threads);
  out.put("bind", workers.bind);
  out.put("memory_limit", workers.memory_limit > 0 ? exact_size_text(workers.memory_limit) : std::string("none"));
}

}  // namespace

std::string resolved_yaml(const Config& config) {
  Writer out;
  out.put("name", config.name);
  out.put("seed", config.seed);
  out.verbatim("model", config.model);
  out.verbatim("data", config.data);
  out.mapping("train", [&] { write_train(out, config.train); });
  out.mapping("pipeline", [&] { write_pipeline(out, config.pipeline); });
  out.mapping("workers", [&] { write_workers(out, config.workers); });
  out.mapping("kernels", [&] { out.put("gemm", config.kernels.gemm); });
  out.mapping("checkpoint", [&] {
    out.put("every", config.checkpoint.every);
    out.put("keep", config.checkpoint.keep);
    out.put("best", config.checkpoint.best);
    out.put("background", config.checkpoint.background);
  });
  out.mapping("comm", [&] {
    out.put("watchdog_s", config.comm.watchdog_s);
    out.put("startup_s", config.comm.startup_s);
    out.put("save_s", config.comm.save_s);
  });
  out.put("run_dir", config.run_dir);
  return out.text();
}

}  // namespace lockstep
