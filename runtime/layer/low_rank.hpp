// SPDX-License-Identifier: Apache-2.0
//
// Low-rank adapters: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), with the names, shapes and
// arithmetic of Hugging Face's PEFT. A linear part y = x W^T + b becomes
//
//   y = x W^T + b + scale * (dropout(x) A^T) B^T        A: [rank, in], "lora_A.weight"; B: [out, rank], "lora_B.weight"
//
// A starts as torch.nn.Linear does (uniform in +-1/sqrt(in)), B as zeros, so that training starts from the base. The
// base is not trained. Which parts have an adapter is said of a whole model: models/lora.hpp.
#pragma once

#include <string>
#include <vector>

#include "runtime/layer/context.hpp"

namespace lockstep {

class FieldVisitor;

/// Every linear part that has its own weight, but those of the model's last layer.
inline constexpr const char* kAllLinear = "all-linear";

/// `model.lora` of a config.
struct LowRankConfig {
  std::int64_t rank = 8;
  double alpha = 8;  ///< scale = alpha / rank
  bool rank_stabilized =
      false;           ///< scale = alpha / sqrt(rank): Kalajdzievski, "A Rank Stabilization Scaling Factor" (2023)
  double dropout = 0;  ///< of x on its way to A, in training
  std::vector<std::string> targets = {kAllLinear};  ///< modules: their full names, or the ends of these behind a dot
  std::vector<std::string> modules_to_save = {};    ///< such modules are trained and saved themselves, as a new head is

  double scale() const;
  bool operator==(const LowRankConfig&) const = default;
};
void fields(FieldVisitor& visit, LowRankConfig& config);

/// "transformer.h.0.attn.c_attn.weight" -> "transformer.h.0.attn.c_attn"
std::string module_of(const std::string& parameter);
/// Whether the module is meant by one of the names: its own, or its end behind a dot.
bool is_named(const std::string& module, const std::vector<std::string>& names);

/// What the adapters of one model have in common.
class LowRank {
 public:
  explicit LowRank(const LowRankConfig& config) : scale_(config.scale()), dropout_(config.dropout) {}

  /// Local names of the adapter of a linear part.
  static std::string first_of(const std::string& part);   ///< A
  static std::string second_of(const std::string& part);  ///< B
  /// What the adapter of `part` adds to its output for x: [..., in] -> [..., out].
  at::Tensor output(LayerContext& context, const at::Tensor& x, const std::string& part) const;
  std::string onnx(OnnxGraph& graph, const std::string& x, const std::string& part) const;

 private:
  double scale_, dropout_;
};

}  // namespace lockstep
