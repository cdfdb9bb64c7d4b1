// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/prediction.hpp"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

#include "runtime/base/output_file.hpp"
#include "runtime/session/prepared_job.hpp"
#include "runtime/training/answer_writer.hpp"
#include "runtime/training/not_finite.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

/// Standard input of rank 0 as a file of every rank, gone when this is.
class StandardInput {
 public:
  explicit StandardInput(Process& process) : folder_((fs::temp_directory_path() / "lockstep-XXXXXX").native()) {
    std::string bytes;
    if (process.is_root()) bytes.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (process.size() > 1) bytes = process.all_gather(bytes, kLongPatience).front();
    process.together([&] {
      if (!mkdtemp(folder_.data())) throw UserError(concat(folder_, ": cannot be made, for standard input"));
      std::ofstream file(path(), std::ios::binary);
      file << bytes;
      if (!file.flush()) throw UserError(concat(path(), ": cannot be written, for standard input"));
    });
  }
  ~StandardInput() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  StandardInput(const StandardInput&) = delete;
  StandardInput& operator=(const StandardInput&) = delete;
  std::string path() const { return folder_ + "/standard-input"; }

 private:
  std::string folder_;
};

class NotFinite : public Observer {
 public:
  void on_result(const StepResult& result) override {
    if (result.mode != Mode::evaluate) return;
    if (result.non_finite.found() && !not_finite_)
      not_finite_ = NotFiniteRun{result.non_finite, result.mode, result.step, samples_, result.set};
    samples_ += result.samples;
  }
  const std::optional<NotFiniteRun>& not_finite() const { return not_finite_; }

 private:
  std::int64_t samples_ = 0;
  std::optional<NotFiniteRun> not_finite_;
};

}  // namespace

Predicted predict(Process& process, const ConfigSource& source, const PredictRequest& request) {
  InputFile input = request.input;
  std::optional<StandardInput> standard_input;
  if (input.path == "-") input.path = standard_input.emplace(process).path();
  process.together([&] {
    if (process.is_root() && request.output != "-") check_writable("--output", request.output);
  });
  const PreparedJob job = prepare_job(process, source,
                                      {.resume = request.checkpoint,
                                       .flag = "--checkpoint",
                                       .evaluates = true,
                                       .averaged = request.averaged,
                                       .inputs = input});
  Trainer& trainer = *job.trainer;
  std::unique_ptr<AnswerWriter> writer;
  process.together([&] {
    const auto forms = trainer.prepare_answers(request.answers, source.registry(trainer.config()).activations);
    if (process.is_root()) writer = make_answer_writer(request.format, request.output, forms, trainer.data());
  });
  process.connect(trainer);
  for (const std::string& note : trainer.data().notes)
    if (process.is_root()) std::cerr << "lockstep: " << note << std::endl;
  Predicted predicted;
  NotFinite finding;
  RunOptions run;
  run.observer = &finding;
  trainer.answer(
      [&](const Answers& answers) {
        writer->write(answers);
        predicted.samples += answers.samples;
      },
      run);
  if (finding.not_finite())
    predicted.not_finite = concat("an answer is not finite: ", describe(finding.not_finite()->first, trainer.graph()),
                                  " (", samples_text(trainer.config(), trainer.data(), *finding.not_finite()),
                                  "); nothing was written; look at these inputs");
  else if (writer)
    writer->finish();
  return predicted;
}

}  // namespace lockstep
