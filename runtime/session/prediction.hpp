// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint answers a file.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

struct PredictRequest {
  std::string checkpoint;       ///< its folder; the training data need not be there
  bool averaged = false;        ///< with the averages of its weights (train.ema)
  InputFile input;              ///< path "-": standard input, of rank 0
  std::string output = "-";     ///< a file, or standard output
  std::string format = "auto";  ///< make_answer_writer()
  AnswerOptions answers;
};

struct Predicted {
  std::int64_t samples = 0;
  std::string not_finite = {};  ///< what was not, and then nothing was written; empty: all was finite
};

/// Collective; rank 0 writes. Throws AlreadyReported for what is found before it starts.
Predicted predict(Process& process, const ConfigSource& source, const PredictRequest& request);

}  // namespace lockstep
