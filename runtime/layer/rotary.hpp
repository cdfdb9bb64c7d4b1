// SPDX-License-Identifier: Apache-2.0
//
// Rotary position embedding (Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021) in the
// layout of Hugging Face's Llama: the first half of a head are the real parts of its numbers, the second half the
// imaginary ones. And the ways in which models that were trained on short texts stretch it, by the names and with the
// formulas of transformers' modeling_rope_utils.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

class FieldVisitor;
class OnnxGraph;

enum class RotaryScaling : std::uint8_t {
  none,
  linear,    ///< Chen et al., "Extending Context Window of Large Language Models via Positional Interpolation" (2023)
  llama3,    ///< of Llama 3.1: what turns slowly is stretched, what turns fast is not
  yarn,      ///< Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models" (2023)
  longrope,  ///< Ding et al., "LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens" (2024)
};
constexpr const char* to_string(RotaryScaling scaling) {
  switch (scaling) {
    case RotaryScaling::none: return "none";
    case RotaryScaling::linear: return "linear";
    case RotaryScaling::llama3: return "llama3";
    case RotaryScaling::yarn: return "yarn";
    case RotaryScaling::longrope: return "longrope";
  }
  return nullptr;
}

struct RotaryConfig {
  double theta = 10000.0;  ///< the slowest turn takes about so many positions, over 2 pi
  RotaryScaling scaling = RotaryScaling::none;
  double factor = 1.0;                                      ///< of the context, by which it is stretched
  std::int64_t original_context = 0;                        ///< before that
  double attention_factor = 0.0;                            ///< of cosine and sine; 0: as the paper has it
  double low_freq_factor = 1.0, high_freq_factor = 4.0;     ///< llama3
  double beta_fast = 32.0, beta_slow = 1.0;                 ///< yarn
  std::vector<double> short_factor = {}, long_factor = {};  ///< longrope, one per pair of numbers
};
/// The keys `rope_theta` and, below `rope_scaling`, the others.
void fields(FieldVisitor& visit, RotaryConfig& config);

/// What the heads are turned by at each position: [length, width / 2].
struct RotaryTable {
  at::Tensor cosine, sine;
};
/// For heads of `width` numbers, in the dtype and on the device of `like`. The angles are float32 in every precision,
/// as the originals' are.
RotaryTable rotary_table(const RotaryConfig& config, std::int64_t width, std::int64_t length, const at::Tensor& like);

/// x [..., length, width], every head turned. Differentiable.
at::Tensor rotated(const at::Tensor& x, const RotaryTable& table);

/// The same two as nodes of an ONNX graph; `length`: int64 [].
struct OnnxRotaryTable {
  std::string cosine, sine;
};
OnnxRotaryTable onnx_rotary_table(OnnxGraph& graph, const RotaryConfig& config, std::int64_t width,
                                  const std::string& length);
std::string onnx_rotated(OnnxGraph& graph, const std::string& x, std::int64_t width, const OnnxRotaryTable& table);

}  // namespace lockstep
