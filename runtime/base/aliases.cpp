// SPDX-License-Identifier: Apache-2.0
//
// What other tools call a key or a value of ours: whoever writes `batch_size` means `train.batch`, and no distance
// between words says so.
#include <algorithm>

#include "runtime/base/nearest.hpp"

namespace lockstep {
namespace {

struct Row {
  const char* ours;
  std::vector<std::string> theirs;  ///< as normal_word() writes them
};

// Keys of `model` and `data` belong to families and readers: some have one, some have not.
const std::vector<Row>& rows() {
  static const std::vector<Row> table = {
      {"seed", {"random_seed", "random_state", "manual_seed"}},
      {"run_dir", {"output_dir", "out_dir", "work_dir", "save_dir", "checkpoint_dir", "logdir", "log_dir"}},
      {"train.steps",
       {"max_steps",   "num_steps", "n_steps",    "total_steps", "train_steps", "num_train_steps", "training_steps",
        "max_iters",   "num_iters", "iterations", "iters",       "train_iters", "max_iterations",  "updates",
        "max_updates", "epochs",    "num_epochs", "n_epochs",    "max_epochs",  "num_train_epochs"}},
      {"train.batch",
       {"batch_size", "bs", "global_batch_size", "train_batch_size", "minibatch_size", "mini_batch", "mini_batch_size",
        "per_device_train_batch_size"}},
      {"train.micro_batches",
       {"num_micro_batches", "num_microbatches", "n_microbatches", "micro_batch", "micro_batch_size", "microbatch_size",
        "chunks", "gradient_accumulation_steps", "grad_accumulation_steps", "grad_accum", "grad_accum_steps",
        "accumulate_grad_batches", "accumulation_steps"}},
      {"train.loss", {"loss_fn", "loss_function", "criterion", "objective"}},
      {"train.precision", {"dtype", "fp16", "bf16", "amp", "mixed_precision", "torch_dtype"}},
      {"train.clip_grad_norm",
       {"max_grad_norm", "grad_clip", "gradient_clip_val", "gradient_clipping", "clip_norm", "clip_grad", "grad_norm"}},
      {"train.eval_every",
       {"eval_interval", "eval_freq", "eval_frequency", "val_check_interval", "val_interval", "evaluation_strategy"}},
      {"train.eval_batch", {"eval_batch_size", "val_batch_size", "per_device_eval_batch_size"}},
      {"train.eval_steps", {"eval_iters", "limit_val_batches", "val_steps"}},
      {"train.freeze", {"frozen", "freeze_layers", "frozen_layers"}},
      {"train.log_every", {"logging_steps", "log_interval", "log_freq", "log_every_n_steps", "print_freq"}},
      {"train.optimizer", {"optim", "optimiser"}},
      {"train.optimizer.type", {"optimizer_name", "optimizer_type"}},
      {"train.optimizer.lr", {"learning_rate", "base_lr", "init_lr", "initial_lr", "max_lr", "peak_lr"}},
      {"train.optimizer.betas", {"beta1", "beta2", "adam_beta1", "adam_beta2"}},
      {"train.optimizer.eps", {"epsilon", "adam_epsilon", "adam_eps"}},
      {"train.ema", {"ema_decay", "use_ema", "weight_averaging", "averaged_model"}},
      {"train.lr_schedule.factor", {"plateau_factor", "lr_factor"}},
      {"train.optimizer.weight_decay", {"wd", "l2", "weight_decay_rate"}},
      {"train.lr_schedule", {"scheduler", "lr_scheduler", "schedule_lr", "lr_scheduler_type", "lr_decay_style"}},
      {"train.lr_schedule.warmup_steps", {"warmup", "warmup_iters", "num_warmup_steps", "lr_warmup_steps"}},
      {"train.lr_schedule.min_lr", {"eta_min", "lr_min", "end_lr", "final_lr", "learning_rate_min"}},
      {"train.lr_schedule.decay_steps", {"t_max", "lr_decay_iters", "lr_decay_steps", "num_training_steps"}},
      {"train.lr_schedule.step_every", {"step_size"}},
      {"train.lr_schedule.step_factor", {"gamma", "lr_gamma", "decay_rate"}},
      {"pipeline.stages",
       {"num_stages", "n_stages", "pp", "pp_size", "pipeline_parallel_size", "pipeline_model_parallel_size",
        "pipeline_parallel_degree"}},
      {"pipeline.virtual_stages", {"num_model_chunks", "virtual_pipeline_size", "interleave", "num_chunks"}},
      {"pipeline.recompute",
       {"activation_checkpointing", "gradient_checkpointing", "recompute_activations", "checkpoint_activations"}},
      {"pipeline.recompute_attention", {"selective_recompute", "recompute_core_attention", "recompute_granularity"}},
      {"model.lora", {"peft", "adapter", "adapters", "low_rank"}},
      {"model.lora.rank", {"r", "lora_r", "lora_rank"}},
      {"model.lora.alpha", {"lora_alpha"}},
      {"model.lora.rank_stabilized", {"use_rslora", "rslora"}},
      {"model.lora.dropout", {"lora_dropout"}},
      {"model.lora.targets", {"target_modules", "lora_target"}},
      {"workers.threads", {"num_threads", "n_threads", "omp_num_threads", "intra_op_threads"}},
      {"workers.devices", {"device", "gpus", "accelerator", "cuda"}},
      {"kernels.deterministic",
       {"use_deterministic_algorithms", "deterministic_algorithms", "cudnn_deterministic", "full_determinism"}},
      {"kernels.float32_matmul", {"tf32", "allow_tf32", "float32_matmul_precision", "matmul_precision"}},
      {"checkpoint.every",
       {"save_every", "save_steps", "save_interval", "checkpoint_interval", "checkpoint_every", "save_freq"}},
      {"checkpoint.keep", {"save_total_limit", "max_to_keep", "save_top_k", "keep_last"}},
      {"checkpoint.best", {"load_best_model_at_end", "save_best", "metric_for_best_model"}},
      {"model.type", {"model_type", "architecture", "arch", "family"}},
      {"model.layers",
       {"num_layers", "n_layer", "n_layers", "num_hidden_layers", "hidden_layers", "num_blocks", "n_blocks"}},
      {"model.width", {"hidden_size", "hidden_dim", "n_embd", "embed_dim", "embedding_dim", "d_model", "model_dim"}},
      {"model.heads", {"num_heads", "n_head", "n_heads", "num_attention_heads", "attention_heads"}},
      {"model.context",
       {"block_size", "seq_len", "seq_length", "sequence_length", "max_seq_len", "max_length", "n_positions", "n_ctx",
        "context_length", "max_position_embeddings"}},
      {"model.vocab", {"vocab_size", "vocabulary", "vocabulary_size", "num_tokens"}},
      {"model.dropout", {"dropout_rate", "drop_rate", "p_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop"}},
      {"model.inputs",
       {"in_features", "input_size", "input_dim", "in_dim", "in_channels", "n_features", "num_features"}},
      {"model.outputs", {"out_features", "output_size", "output_dim", "out_dim"}},
      {"model.classes", {"num_classes", "n_classes", "num_labels", "n_labels"}},
      {"model.tie_embeddings", {"tie_word_embeddings", "tie_weights", "weight_tying"}},
      {"model.activation", {"activation_function", "hidden_act", "nonlinearity"}},
      {"data.type", {"dataset", "dataset_type", "reader"}},
      {"data.train", {"train_file", "train_path", "train_data", "train_files", "data_path", "data_dir"}},
      {"data.eval", {"eval_file", "val", "valid", "validation", "val_file", "validation_file", "test", "eval_data"}},
      {"data.targets", {"target", "label", "labels", "label_column", "target_column"}},
      {"data.delimiter", {"sep", "separator", "delim"}},
      {"data.normalize", {"standardize", "standardise", "normalise"}},
      {"data.columns", {"features", "feature_columns", "input_columns", "usecols", "use_columns"}},
      {"data.ignore", {"drop_columns", "ignore_columns", "exclude", "exclude_columns", "skip_columns"}},
      {"data.missing", {"na", "nan", "fillna", "impute", "imputation", "missing_values", "handle_missing"}},
      {"data.categories", {"categorical", "categorical_columns", "cat_features", "categorical_features"}},
      {"data.dates", {"parse_dates", "date_columns"}},
      {"data.text", {"text_column", "text_field", "dataset_text_field"}},
      {"data.tokens", {"input_ids", "token_ids"}},
      {"data.window", {"lookback", "sequence_window", "context_window"}},
      {"data.truncate", {"truncation"}},
      // keys of the layers that a config lists
      {"model.layers[].in", {"in_features", "in_channels", "input_size", "input_dim", "in_dim"}},
      {"model.layers[].out", {"out_features", "out_channels", "output_size", "output_dim", "out_dim"}},
      {"model.layers[].kernel", {"kernel_size", "filter_size"}},
      {"model.layers[].channels", {"num_features", "num_channels"}},
      {"model.layers[].width", {"normalized_shape", "embedding_dim"}},
      {"model.layers[].count", {"num_embeddings", "vocab_size"}},
      {"model.layers[].groups", {"num_groups"}},
      {"model.layers[].factor", {"scale_factor"}},
      {"model.layers[].p", {"dropout_rate", "rate", "prob"}},
      // values
      {"mean_squared_error", {"mse", "mse_loss"}},
      {"sparse_categorical_cross_entropy", {"cross_entropy", "crossentropy", "nll", "categorical_crossentropy"}},
      {"binary_cross_entropy", {"bce", "bce_with_logits", "binary_crossentropy", "logistic"}},
      {"fp32", {"float32"}},
      {"bf16", {"bfloat16", "bf16_mixed"}},
      {"fp64", {"float64", "double"}},
      {"linear", {"dense", "fc", "fully_connected", "affine"}},
  };
  return table;
}

}  // namespace

std::vector<std::string> own_names(const std::string& word) {
  const std::string wanted = normal_word(word);
  std::vector<std::string> meant, same;  // same: keys of ours of that name
  for (const Row& row : rows()) {
    const std::string ours = row.ours;
    if (std::find(row.theirs.begin(), row.theirs.end(), wanted) != row.theirs.end()) meant.push_back(ours);
    const bool fixed = !ours.starts_with("model.") && !ours.starts_with("data.");
    if (fixed && ours.find('.') != std::string::npos && ours.ends_with("." + wanted)) same.push_back(ours);
  }
  if (meant.empty() && same.size() == 1) return same;
  return meant;
}

std::string own_name(const std::string& word) {
  const std::vector<std::string> names = own_names(word);
  return names.empty() ? "" : names.front();
}

}  // namespace lockstep
