// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/fields.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kZero = 0, kOne = 1;

/// The kernels compute in float32: where eps is 0 in it a gradient of 0 is divided by 0. (Asked for in fp64 too: nobody
/// means less.)
Rule<double> eps_in_float32() {
  return {
      "more than 1e-45: it is 0 in float32, and a gradient of 0 would be divided by it, which gives NaN; the usual "
      "value is 1e-8",
      [](const double& eps) { return static_cast<float>(eps) > 0; }};
}

Field pair(double& first, double& second, const Rule<double>& each, const char* both) {
  return {both,
          [&first, &second, each, both](const Section& section, const std::string& key) {
            if (!section.is_sequence(key)) throw section.unexpected(key, both);
            const std::vector<double> numbers = section.list<double>(key, each);
            if (numbers.size() != 2) throw section.unexpected(key, both);
            first = numbers[0];
            second = numbers[1];
          },
          [&first, &second] {
            return list_value<double>({first, second});
          }};
}

Field betas(OptimizerConfig& optimizer) {
  return pair(optimizer.beta1, optimizer.beta2, fraction_below_one(), "two numbers >= 0 and < 1, such as [0.9, 0.999]");
}

/// One number, or adafactor's two.
Field eps(OptimizerConfig& optimizer) {
  using enum OptimizerType;
  if (optimizer.type == adafactor)
    return pair(optimizer.eps1, optimizer.eps2, at_least(0.0), "two numbers >= 0, such as [1.0e-7, 1.0e-3]")
        .checked([&optimizer](const Section& section) {
          if (static_cast<float>(optimizer.eps1 * optimizer.eps1) > 0) return;
          throw section.unexpected(
              "eps", "a first number from 1e-22 on",
              "; its square is 0 in float32 else, and a gradient of 0 would be divided by it, which "
              "gives NaN; the usual values are [1.0e-7, 1.0e-3]");
        });
  Field field = value(optimizer.eps, eps_in_float32());
  field.rule = "more than 0 in float32";
  return field.only_of(optimizer.type, {adam, adamw, rmsprop, adagrad, rowwise_adagrad, adafactor})
      .or_else([&optimizer] {
        optimizer.eps = optimizer.type == adagrad || optimizer.type == rowwise_adagrad ? 1e-10 : 1e-8;
      })
      .with_example("1.0e-8");
}

void fields(FieldVisitor& visit, OptimizerGroup& group, const OptimizerConfig& optimizer) {
  double decay = group.weight_decay.value_or(optimizer.weight_decay);
  visit("match", list(group.match, not_empty(), "at least one pattern of parameter names").required(), kDecides, "");
  visit("lr_scale", value(group.lr_scale, at_least(0.0)), kDecides, "");
  visit("weight_decay", value(decay, at_least(0.0)), kDecides, "");
  group.weight_decay = decay;
}

/// What the types of ours read; a plug-in's reads its own.
void own_fields(FieldVisitor& visit, OptimizerConfig& optimizer) {
  using enum OptimizerType;
  const OptimizerType& type = optimizer.type;
  visit("betas", betas(optimizer).only_of(type, {adam, adamw}), kDecides,
        "adam, adamw: decay rates of the two averages.");
  visit("eps", eps(optimizer), kDecides,
        "All but sgd: added to the denominator; default: 1e-10 for adagrad and rowwise_adagrad. adafactor has two: "
        "[the least denominator, "
        "the least root mean square of a weight], by default [2^-23, 0.001], with fp64 too.");
  visit("momentum", value(optimizer.momentum, at_least(0.0)).only_of(type, {sgd, rmsprop}), kDecides, "");
  visit("dampening", value(optimizer.dampening, at_least(0.0)).only_of(type, {sgd}), kDecides, "");
  visit("nesterov", value(optimizer.nesterov).only_of(type, {sgd}).checked([&optimizer](const Section& section) {
    if (!optimizer.nesterov || (optimizer.momentum > 0.0 && optimizer.dampening == 0.0)) return;
    throw section.unexpected(
        "nesterov", "false",
        "; Nesterov's method needs a momentum above 0 and no dampening: set these, or leave it out");
  }),
        kDecides, "Needs momentum > 0 and dampening 0.");
  visit("alpha", value(optimizer.alpha, fraction_below_one()).only_of(type, {rmsprop}), kDecides,
        "Decay rate of the average of squares.");
  visit("centered", value(optimizer.centered).only_of(type, {rmsprop}), kDecides,
        "Divide by the deviation from the average gradient.");
  visit("lr_decay", value(optimizer.lr_decay, at_least(0.0)).only_of(type, {adagrad, rowwise_adagrad}), kDecides,
        "lr / (1 + (s - 1) lr_decay) in step s.");
  visit("initial_accumulator_value",
        value(optimizer.initial_accumulator_value, at_least(0.0)).only_of(type, {adagrad, rowwise_adagrad}), kDecides,
        "Where the sums of squares start.");
  const Rule<double> falling{"a number <= 0", [](const double& number) { return number <= 0; }};
  visit("beta2_decay", value(optimizer.beta2_decay, falling).only_of(type, {adafactor}), kDecides,
        "Step s has weight s ^ beta2_decay in averages.");
  visit("d", value(optimizer.d, at_least(1.0)).only_of(type, {adafactor}), kDecides,
        "The largest root mean square of an update.");
}

Field groups(OptimizerConfig& optimizer) {
  return {"",
          [&optimizer](const Section& section, const std::string& key) {
            for (const Section& from : section.sections(key))
              read_fields(from,
                          [&](FieldVisitor& visit) { fields(visit, optimizer.groups.emplace_back(), optimizer); });
          },
          [&optimizer] {
            yaml::Value list = list_value<std::string>({});
            for (OptimizerGroup group : optimizer.groups)
              list.items.push_back(written_fields([&](FieldVisitor& visit) { fields(visit, group, optimizer); }));
            return list;
          }};
}

void own_fields(FieldVisitor& visit, LrScheduleConfig& schedule) {
  using enum LrScheduleType;
  const LrScheduleType& type = schedule.type;
  visit("min_lr", value(schedule.min_lr, at_least(0.0)).only_of(type, {linear, cosine, wsd, plateau}), kDecides,
        "The lowest learning rate.");
  visit("decay_steps", value(schedule.decay_steps, at_least(kZero)).only_of(type, {linear, cosine, wsd, one_cycle}),
        kDecides, "Its last step; 0: train.steps.");
  visit("stable_steps",
        value(schedule.stable_steps, at_least(kOne)).required().only_of(type, {wsd}).with_example("500"), kDecides,
        "Steps at optimizer.lr before the decay.");
  visit("pct_start", value(schedule.pct_start, between(0.0, 1.0)).only_of(type, {one_cycle}), kDecides,
        "Part of the steps in which it rises.");
  visit("div_factor", value(schedule.div_factor, at_least(1.0)).only_of(type, {one_cycle}), kDecides,
        "It starts at optimizer.lr divided by this.");
  visit("final_div_factor", value(schedule.final_div_factor, at_least(1.0)).only_of(type, {one_cycle}), kDecides,
        "It ends at its start divided by this.");
  visit("step_every", value(schedule.step_every, at_least(kOne)).required().only_of(type, {step}).with_example("100"),
        kDecides, "Steps between drops.");
  visit("step_factor", value(schedule.step_factor, above(0.0)).only_of(type, {step}), kDecides,
        "Each drop multiplies the learning rate by it.");
  visit("factor", value(schedule.factor, fraction_below_one()).only_of(type, {plateau}), kDecides,
        "Each reduction multiplies the learning rate by it.");
  visit("patience", value(schedule.patience, at_least(kZero)).only_of(type, {plateau}), kDecides,
        "Evaluations without progress that are let pass.");
  visit("threshold", value(schedule.threshold, fraction_below_one()).only_of(type, {plateau}), kDecides,
        "By what part a loss must be below the best.");
  visit("cooldown", value(schedule.cooldown, at_least(kZero)).only_of(type, {plateau}), kDecides,
        "Evaluations after a reduction that do not count.");
}

/// What `auto` would mean is found by `lockstep plan`.
Field micro_batches(TrainConfig& train) {
  Field field = value(train.micro_batches, at_least(1));
  const auto read = field.read;
  field.read = [read](const Section& section, const std::string& key) {
    if (section.is_scalar(key) && section.get<std::string>(key) == "auto")
      throw section.unexpected(key, "an integer >= 1",
                               "; a plan names it: lockstep plan CONFIG ... -o plan.yaml, then --plan plan.yaml");
    read(section, key);
  };
  return field.checked([&train](const Section& section) {
    if (train.micro_batches > train.batch)
      throw section.unexpected("micro_batches", concat("at most train.batch, which is ", train.batch));
  });
}

Field eval_every(TrainConfig& train) {
  return value(train.eval_every, at_least(kZero)).checked([&train](const Section& section) {
    if (train.lr_schedule.is(LrScheduleType::plateau) && train.eval_every == 0)
      throw section.unexpected("eval_every", "an integer >= 1 with lr_schedule.type plateau",
                               "; the learning rate follows the evaluation loss");
    if (train.early_stopping.given && train.eval_every == 0)
      throw section.unexpected("eval_every", "an integer >= 1 with early_stopping", "; it follows evaluations");
  });
}

Field renames(InitConfig& init) {
  return {"",
          [&init](const Section& section, const std::string& key) {
            if (!section.is_mapping(key))
              throw section.unexpected(key, "names in the model with their names in the files");
            const Section names = section.section(key);
            const auto stars = [](const std::string& text) { return std::count(text.begin(), text.end(), '*'); };
            for (const std::string& model : names.keys()) {
              const auto file = names.get<std::string>(model, not_empty());
              if (stars(model) > 1 || stars(model) != stars(file))
                throw names.error(
                    model, concat("got '", model, "' for '", file, "', expected no * in both, or one * in both"));
              init.rename.emplace_back(model, file);
            }
          },
          [&init] {
            yaml::Value all = mapping_value("", scalar_value(""));
            all.entries.clear();
            for (const auto& [model, file] : init.rename)
              all.entries.push_back(mapping_value(model, scalar_value(file)).entries.front());
            return all;
          }};
}

/// Or epochs, from which they follow when the data is known.
Field steps(TrainConfig& train) {
  Field field = value(train.steps, at_least(kOne));
  if (train.epochs > 0 && train.steps == 0) field.write = [] { return yaml::Value(); };
  return field.or_else([&train] { train.steps = 0; }).with_example("200");
}

Field epochs(TrainConfig& train) {
  Field field = value(train.epochs, Rule<std::int64_t>{"an integer >= 1 or none", at_least(kOne).holds});
  const auto read = field.read;
  field.read = [&train, read](const Section& section, const std::string& key) {
    if (section.is_scalar(key) && section.text(key) == "none")
      train.epochs = 0;
    else
      read(section, key);
  };
  if (train.epochs == 0) field.write = [] { return scalar_value("none"); };
  field.checked([&train, rule = at_least(kOne)](const Section& section) {
    if (train.epochs == 0) section.get<std::int64_t>("steps", rule);  // required
    if (train.epochs > 0 && train.steps > 0)
      throw section.unexpected("epochs", "either steps or epochs", "; remove one of them");
  });
  return field;
}

struct TaskDefaults {
  const char* loss;
  std::vector<const char*> metrics;
};

TaskDefaults defaults_of(Task task) {
  switch (task) {
    case Task::none: break;
    case Task::regression: return {"mean_squared_error", {"mean_absolute_error", "root_mean_squared_error", "r2"}};
    case Task::binary: return {"binary_cross_entropy", {"accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc"}};
    case Task::multiclass: return {"sparse_categorical_cross_entropy", {"accuracy", "f1", "confusion_matrix"}};
    case Task::multilabel: return {"binary_cross_entropy", {"accuracy", "f1", "roc_auc"}};
    case Task::language_modelling: return {"sparse_categorical_cross_entropy", {"perplexity", "accuracy"}};
    case Task::segmentation: return {"segmentation_cross_entropy", {"accuracy", "mean_iou"}};
  }
  return {"", {}};
}

PluginKind kind_in(const Section& named) {
  return {named.get<std::string>("type", not_empty()), named};
}

yaml::Value written(const PluginKind& kind) {
  yaml::Value mapping = mapping_value("type", scalar_value(kind.name));
  for (const yaml::Entry& entry : kind.keys.value().entries)
    if (entry.key != "type") mapping.entries.push_back(entry);
  return mapping.entries.size() > 1 ? mapping : scalar_value(kind.name);
}

Field loss(TrainConfig& train) {
  Field field{"",
              [&train](const Section& section, const std::string& key) {
                if (section.is_sequence(key)) throw section.unexpected(key, "a name, or a mapping with a type");
                if (section.is_mapping(key))
                  train.loss = kind_in(section.named(key));
                else
                  train.loss = {section.get<std::string>(key, not_empty()), section.named(key)};
              },
              [&train] { return written(train.loss); }};
  field.is_required = train.task == Task::none;
  return field.or_else([&train] { train.loss = defaults_of(train.task).loss; })
      .with_example("sparse_categorical_cross_entropy");
}

Field metrics(TrainConfig& train) {
  Field field{"",
              [&train](const Section& section, const std::string& key) {
                train.metrics.clear();
                for (const Section& metric : section.named_list(key)) train.metrics.push_back(kind_in(metric));
              },
              [&train] {
                yaml::Value list = list_value<std::string>({});
                for (const PluginKind& metric : train.metrics) list.items.push_back(written(metric));
                return list;
              }};
  return field.or_else([&train] {
    train.metrics.clear();
    for (const char* metric : defaults_of(train.task).metrics) train.metrics.push_back(metric);
  });
}

Field post_validation(TrainConfig& train) {
  return value(train.post_validation).checked([&train](const Section& section) {
    if (train.post_validation && train.clip_grad_norm == 0.0)
      throw section.unexpected("post_validation", "false without clip_grad_norm",
                               "; only clipping makes an update wait: set train.clip_grad_norm, or leave it out");
  });
}

}  // namespace

void fields(FieldVisitor& visit, OptimizerConfig& optimizer) {
  using enum OptimizerType;
  visit("type",
        type_or_plugin(optimizer.type, optimizer.plugin, {"lr", "weight_decay", "decay_norms_and_biases", "groups"}),
        kDecides, "Or one of a plug-in's (`lockstep list optimizers`). Keys that the type does not use are errors.");
  const bool is_ours = optimizer.plugin.name.empty();
  visit("lr", value(optimizer.lr, at_least(0.0)).or_else([&optimizer, is_ours] {
    const bool faster = optimizer.type == rmsprop || optimizer.type == adagrad || optimizer.type == rowwise_adagrad ||
                        optimizer.type == adafactor;
    optimizer.lr = is_ours && faster ? 1e-2 : 1e-3;
  }),
        kDecides, "Learning rate; default: 0.01 for rmsprop, adagrad, rowwise_adagrad and adafactor, else 0.001.");
  if (is_ours) own_fields(visit, optimizer);
  visit("weight_decay", value(optimizer.weight_decay, at_least(0.0)).or_else([&optimizer, is_ours] {
    optimizer.weight_decay = is_ours && optimizer.type == adamw ? 0.01 : 0.0;
  }),
        kDecides,
        "Weight decay; default: 0.01 for adamw, else 0. adamw and adafactor take it from the weight (decoupled), the "
        "others add it to the gradient.");
  visit("decay_norms_and_biases", value(optimizer.decay_norms_and_biases), kDecides,
        "false: parameters with one dimension or none (norms, biases) take no weight decay.");
  visit(
      "groups", groups(optimizer), kDecides,
      "Parameters treated differently. `match`: names with shell wildcards (* ? [...]); the first group that matches a "
      "parameter wins. `lr_scale` >= 0 multiplies the scheduled learning rate (default 1); `weight_decay` >= 0 "
      "(default: the optimizer's). Such as:\n"
      "groups:\n"
      "  - match: [\"*.wte.weight\"]\n"
      "    lr_scale: 0.5\n"
      "    weight_decay: 0.0");
  plugin_fields(visit, optimizer.plugin);
}

void fields(FieldVisitor& visit, EmaConfig& ema) {
  visit("decay", value(ema.decay, fraction_below_one()), kDecides, "What is kept of the average in each step.");
}

void fields(FieldVisitor& visit, EarlyStoppingConfig& stopping) {
  visit("watch", value(stopping.watch, not_empty()), kFree, "eval_loss, or one of train.metrics.");
  visit("patience", value(stopping.patience, at_least(kZero)), kFree,
        "Evaluations without progress that are let pass.");
  visit("min_delta", value(stopping.min_delta, at_least(0.0)), kFree, "By how much the best must be beaten.");
}

void fields(FieldVisitor& visit, InitConfig& init) {
  visit("missing", value(init.missing), kFree,
        "What the model has and the files have not: allow: it starts with values of its own.");
  visit("unknown", value(init.unknown), kFree, "What the files have and the model has not: allow: it is left out.");
  visit("fresh", list(init.fresh, not_empty()), kFree,
        "Parameters that start with values of their own in any case, such as a new head: names with shell wildcards.");
  visit("rename", renames(init), kFree,
        "Names in the model and what they are called in the files; one * on both sides stands for the same text. The "
        "first that matches counts. Such as: {\"transformer.h.*\": \"blocks.*\"}.");
}

void fields(FieldVisitor& visit, LrScheduleConfig& schedule) {
  using enum LrScheduleType;
  visit("type", type_or_plugin(schedule.type, schedule.plugin, {"warmup_steps"}), kDecides,
        "Or one of a plug-in's (`lockstep list lr_schedules`). Keys that the type does not use are errors.");
  Field warmup = value(schedule.warmup_steps, at_least(kZero));
  if (schedule.plugin.name.empty()) warmup.only_of(schedule.type, {constant, linear, cosine, step, wsd, plateau});
  visit("warmup_steps", warmup, kDecides, "Steps in which the learning rate grows linearly from 0 to optimizer.lr.");
  if (schedule.plugin.name.empty()) own_fields(visit, schedule);
  plugin_fields(visit, schedule.plugin);
}

void fields(FieldVisitor& visit, TrainConfig& train) {
  visit("steps", steps(train), kFree, "Optimizer steps; required without epochs.");
  visit("epochs", epochs(train), kFree, "Instead of steps: so many passes over the training set.");
  visit("batch", value(train.batch, at_least(kOne)).required().with_example("32"), kDecides,
        "Samples per optimizer step, over all replicas.");
  visit("micro_batches", micro_batches(train), kDecides,
        "Slices of the batch that stream through the pipeline, over all replicas; at most batch, need not divide it. "
        "More of them means "
        "less idle time and smaller activations. They are part of the numerics. `auto`: a plan names them (lockstep "
        "plan, then --plan).");
  visit("gradient_groups", value(train.gradient_groups, at_least(1)).with_example("1"), decides_since("1"),
        "Gradients of the micro-batches of a group are added one after the other, the sums of groups in a balanced "
        "binary tree: part of the numerics, at least replicas.count, at most micro_batches. Default: the checkpoint's "
        "when a run is resumed, else replicas.count. See docs/numerics.md.");
  visit("task", value(train.task), kFree,
        "What the model is for: the loss and the metrics that are meant where none are named. See docs/tasks.md.");
  visit("loss", loss(train), kDecides,
        "The loss (`lockstep list losses`): a name, or {type: NAME, ...} with its options; required without a task.");
  visit("metrics", metrics(train), kFree,
        "What evaluations measure beside the loss (`lockstep list metrics`): names, or {type: NAME, ...} with options. "
        "Default: the task's.");
  visit("activation", value(train.activation), kFree,
        "What `lockstep predict` makes an answer of the output with: identity, softmax (over the classes), or one of "
        "`lockstep list activations`. Empty: what belongs to the loss.");
  visit("precision", value(train.precision), kDecides,
        "bf16: computes in bfloat16; weights, gradients and optimizer state stay in float32. fp64: all of them in "
        "float64, for small models and comparisons.");
  visit("clip_grad_norm", value(train.clip_grad_norm, at_least(0.0)).with_example("0.0"), kDecides,
        "The largest global gradient norm; larger gradients are scaled down to it. 0: no clipping.");
  visit("post_validation", post_validation(train), decides_since("false"),
        "With clipping: do not wait for the norm. Every worker updates at once as if nothing had to be clipped, with a "
        "copy of its weights and optimizer state, and takes that back when the norm says otherwise. The same bits; "
        "worth it where clipping is rare.");
  visit("optimizer", mapping(train.optimizer), kDecides, "");
  visit("lr_schedule", mapping(train.lr_schedule), kDecides, "");
  Field ema = mapping(train.ema);
  ema.given = &train.ema.given;
  visit("ema", ema, kDecides,
        "An exponential average of the weights beside them, for `eval --ema` and `checkpoint export --ema`. Left out: "
        "none is kept.");
  Field early_stopping = mapping(train.early_stopping);
  early_stopping.given = &train.early_stopping.given;
  visit("early_stopping", early_stopping, kFree,
        "Leave, with a checkpoint where there are any, when evaluations make no progress any more. Left out: do not.");
  visit("eval_every", eval_every(train), kFree, "Steps between evaluations; 0: never.");
  visit("eval_batch", value(train.eval_batch, at_least(kZero)), kFree, "Samples per evaluation step; 0: train.batch.");
  visit("eval_steps", value(train.eval_steps, at_least(kZero)), kFree,
        "Batches per evaluation; 0: the whole evaluation set.");
  visit("freeze", list(train.freeze, not_empty()), kDecides,
        "Parameters that are not trained: names with shell wildcards.");
  visit("init_from", value(train.init_from), kFree,
        "Weights to start with instead of values of their own: a checkpoint, a folder of safetensors files (Hugging "
        "Face's), or one such file. A run that is resumed has those of its checkpoint. See docs/checkpoints.md.");
  visit("init", mapping(train.init), kFree, "What may differ between the weights of init_from and the model.");
  visit("stop_on_nan", value(train.stop_on_nan), kFree, "Leave when a loss or gradient is not finite.");
  visit("log_every", value(train.log_every, at_least(kOne)), kFree, "Steps between log lines.");
  visit("norms_every", value(train.norms_every, at_least(kZero)), kFree,
        "Steps between lines of metrics.jsonl with the norms of every parameter, its gradient and its update; 0: none. "
        "Such a step keeps a copy of the weights.");
  visit("stop_after", value(train.stop_after, at_least(kZero)), kFree,
        "Leave with a checkpoint and exit code 0 after that many steps of this job, as if told to; 0: do not.");
}

}  // namespace lockstep
