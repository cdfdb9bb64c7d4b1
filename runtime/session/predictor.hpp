// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint that answers, from C++:
//
//   int main() {
//     return lockstep::run_ranks([](lockstep::Process& process) {
//       lockstep::Predictor predictor(process, {.path = "config.yaml"}, "runs/x/checkpoints/best");
//       const std::vector<NamedTensor> answers = predictor.predict(x);  // [rows, ...], as training had it
//       ...
//       return 0;
//     });
//   }
//
// The weights are loaded once, with the first call, and the workers wait between two. What is answered is the same bits
// as `lockstep predict` gives, whatever else is in the batch.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"
#include "runtime/training/answer_writer.hpp"

namespace lockstep {

class Predictor {
 public:
  /// The workers of the config's pipeline, one replica, in this process. `checkpoint`: its folder. `averaged`: the
  /// averages of the weights (train.ema). Nothing is opened yet. Throws UserError under a launcher with several ranks.
  Predictor(Process& process, ConfigSource source, std::string checkpoint, const AnswerOptions& options = {},
            bool averaged = false);
  /// Lets the workers end.
  ~Predictor();
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;

  /// `inputs`: the data's entries without the targets, each [rows, ...], of the host, rows >= 1; the same names, types
  /// and sizes in every call. Gives tensors_of() these rows. One thread at a time. Throws UserError for inputs
  /// that the model does not take or whose answers are not finite; after another error every call throws it again.
  std::vector<NamedTensor> predict(const std::vector<NamedTensor>& inputs);
  /// Of a model that reads x alone.
  std::vector<NamedTensor> predict(const at::Tensor& x) { return predict(std::vector<NamedTensor>{{"x", x}}); }

 private:
  class Job;
  Process& process_;
  ConfigSource source_;
  std::string checkpoint_;
  AnswerOptions options_;
  bool averaged_;
  std::unique_ptr<Job> job_;  // from the first call on
};

}  // namespace lockstep
