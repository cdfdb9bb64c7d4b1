// SPDX-License-Identifier: Apache-2.0
//
// Answers (answers.hpp) as files. In front of them stand the columns that the input is kept of.
//
//   prediction    a number; or the class, by its name where classes have names; or yes and no, 1 and 0, by the names of
//                 the two classes where there are such
//   probability   of the class, or of yes; `score` where the activation gives no probabilities
//   probability_C of class C, with AnswerForm::all
//
// Where an output has several numbers each has a column: prediction_NAME, or prediction_0, _1, ... In JSON lines and
// safetensors what has several places is nested as the output is: `prediction`, `probability`, `probabilities` (classes
// last). With several heads names begin with "head_0_".
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/checkpoint/safetensors.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/training/answers.hpp"

namespace lockstep {

class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;
  /// In the order of the samples. Throws Error when it cannot be written.
  virtual void write(const Answers& answers) = 0;
  /// All are there: from here on the file is. Without, nothing is left of it.
  virtual void finish() = 0;
};

/// `format`: csv, jsonl, safetensors, or auto: by the end of the path, else csv. `path`: "-" is standard output.
/// `data`: with inputs; outlives it. Throws UserError when the format cannot hold such answers.
std::unique_ptr<AnswerWriter> make_answer_writer(const std::string& format, const std::string& path,
                                                 const std::vector<AnswerForm>& forms, const DataSplits& data);

/// `prediction`, `probability` or `score`, `probabilities`: [samples, ...] of all heads.
std::vector<NamedTensor> tensors_of(const std::vector<AnswerForm>& forms, const Answers& answers);

}  // namespace lockstep
