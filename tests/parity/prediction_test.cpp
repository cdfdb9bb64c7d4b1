// SPDX-License-Identifier: Apache-2.0
//
// Answers of a checkpoint: the same bits on every number of stages and replicas, whatever else is in the batch; and
// what is answered of which output.
#include <ATen/ATen.h>

#include "runtime/session/predictor.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

struct Case {
  Model model;
  DataSplits data;
  std::string loss;
};

std::vector<Case> cases() {
  return {
      {small_gpt(2, 0, false), token_data(21, 8, 11), "sparse_categorical_cross_entropy"},
      {mlp_with_skip(0.0, true), regression_data(19, 6, 3), "mean_squared_error"},
      {model_of("type: unet, inputs: 3, channels: 4, depth: 1, classes: 4"), image_data(13, 3, 8, 4, true),
       "segmentation_cross_entropy"},
      {model_of("type: cnn, inputs: 3, channels: 4, depth: 2, classes: 4"), image_data(22, 3, 8, 4, false),
       "sparse_categorical_cross_entropy"},
  };
}

/// Samples of a set, to be answered.
class Some : public Dataset {
 public:
  Some(std::shared_ptr<const Dataset> data, std::vector<std::int64_t> samples)
      : data_(std::move(data)), samples_(std::move(samples)) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> entries = data_->entries(rows);
    entries.back() = {"targets", at::kLong, {rows}, /*differentiable=*/false};
    return entries;
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(samples_.size()); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    std::vector<std::int64_t> theirs;
    for (const std::int64_t sample : samples) theirs.push_back(samples_.at(static_cast<std::size_t>(sample)));
    Tensors entries = data_->read(theirs);
    entries.back() = at::zeros({static_cast<std::int64_t>(samples.size())}, at::kLong);
    return entries;
  }

 private:
  std::shared_ptr<const Dataset> data_;
  std::vector<std::int64_t> samples_;
};

std::vector<std::int64_t> up_to(std::int64_t end) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < end; ++i) all.push_back(i);
  return all;
}

/// A checkpoint after two steps.
struct Trained {
  explicit Trained(const Case& its, int micro_batches = 3)
      : its_(its), config(small_config(its.loss, 6, micro_batches)) {
    config.train.steps = 2;
    config.train.eval_every = 0;
    config.checkpoint.every = "end";
    next_leg(its.model, its.data, config, folder.path());
    checkpoint = checkpoint_path(folder.path(), 2);
  }

  /// All answers, in order; `forms` says how.
  Answers answers(const Config& with, const std::vector<std::int64_t>& samples, const AnswerOptions& options = {}) {
    DataSplits data = its_.data;
    data.eval = std::make_shared<Some>(its_.data.train, samples);
    data.inputs.emplace();
    Trainer trainer(its_.model, data, with);
    trainer.resume(checkpoint, {.evaluates = true});
    forms = trainer.prepare_answers(options);
    rows = trainer.assembly().answer_rows;
    Answers all;
    all.heads.resize(forms.size());
    trainer.answer([&](const Answers& some) {
      CHECK(some.first == all.samples);
      all.samples += some.samples;
      for (std::size_t head = 0; head < forms.size(); ++head)
        all.heads[head].insert(all.heads[head].end(), some.heads[head].begin(), some.heads[head].end());
    });
    return all;
  }

  const Case& its_;
  Config config;
  const TemporaryFolder folder;
  std::string checkpoint;
  std::vector<AnswerForm> forms;
  std::int64_t rows = 0;
};

}  // namespace

TEST_CASE("answers have the same bits on every number of stages and replicas", "[parity]") {
  for (const Case& its : cases()) {
    INFO(its.model.name);
    Trained trained(its);
    trained.config.train.gradient_groups = 2;
    const auto samples = up_to(its.data.train->size());
    const Answers alone = trained.answers(one_worker(trained.config), samples);
    REQUIRE(alone.samples == its.data.train->size());
    REQUIRE(static_cast<std::int64_t>(alone.heads[0].size()) == alone.samples * trained.forms[0].numbers());
    Config config = with_pipeline(trained.config, 2, "1f1b");
    CHECK(trained.answers(config, samples).heads == alone.heads);
    config.replicas.count = 2;
    CHECK(trained.answers(config, samples).heads == alone.heads);
  }
}

TEST_CASE("an answer does not depend on what else is answered, or on its place", "[parity]") {
  for (const Case& its : cases()) {
    INFO(its.model.name);
    Trained trained(its);
    const std::int64_t size = its.data.train->size();
    std::vector<std::int64_t> many;
    for (int i = 0; i < 11; ++i)
      for (const std::int64_t sample : up_to(size)) many.push_back((sample * 5 + i) % size);
    const Answers all = trained.answers(trained.config, many);
    const auto each = static_cast<std::size_t>(trained.forms[0].numbers());
    CHECK(trained.rows >= 2);
    for (const std::size_t at : {std::size_t{0}, std::size_t{7}, many.size() - 1}) {
      const Answers one = trained.answers(trained.config, {many[at]});
      const auto begin = all.heads[0].begin() + static_cast<std::ptrdiff_t>(at * each);
      CHECK(one.samples == 1);
      CHECK(one.heads[0] == std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(each)));
    }
    // The same sample wherever it stands.
    for (std::size_t a = 0; a < many.size(); ++a)
      for (std::size_t b = a + 1; b < many.size(); b += 17)
        if (many[a] == many[b] && !std::equal(all.heads[0].begin() + static_cast<std::ptrdiff_t>(a * each),
                                              all.heads[0].begin() + static_cast<std::ptrdiff_t>((a + 1) * each),
                                              all.heads[0].begin() + static_cast<std::ptrdiff_t>(b * each)))
          FAIL_CHECK("sample " << many[a] << " at " << a << " and at " << b);
  }
}

TEST_CASE("no samples have no answers", "[parity]") {
  const Case its = cases()[1];
  Trained trained(its);
  CHECK(trained.answers(with_pipeline(trained.config, 2, "1f1b"), {}).samples == 0);
}

TEST_CASE("what is answered follows from the task, or from the loss", "[parity]") {
  const Case its = cases()[1];
  Trained trained(its);
  const auto samples = up_to(7);
  const at::Tensor plain = at::tensor(trained.answers(trained.config, samples).heads[0]).reshape({7, 3});
  CHECK(trained.forms[0].decision == Decision::numbers);
  CHECK(trained.forms[0].sizes == std::vector<std::int64_t>{3});

  Config config = trained.config;
  config.train.task = Task::multilabel;
  config.train.activation = "sigmoid";
  const at::Tensor labels = at::tensor(trained.answers(config, samples).heads[0]).reshape({7, 3, 2});
  CHECK(trained.forms[0].decision == Decision::yes_no);
  CHECK(at::equal(labels.select(2, 0), plain.gt(0).to(at::kDouble)));
  CHECK(at::equal(labels.select(2, 1), at::sigmoid(plain).to(at::kFloat).to(at::kDouble)));

  config.train.task = Task::none;  // the loss's own is the identity
  config.train.activation = "softmax";
  const at::Tensor classes = at::tensor(trained.answers(config, samples, {.all = true}).heads[0]).reshape({7, 5});
  CHECK(trained.forms[0].decision == Decision::classes);
  CHECK(trained.forms[0].classes == 3);
  CHECK(trained.forms[0].sizes.empty());
  const at::Tensor shares = at::softmax(plain.to(at::kFloat), -1).to(at::kDouble);
  CHECK(at::equal(classes.select(1, 0), plain.argmax(-1).to(at::kDouble)));
  CHECK(at::allclose(classes.narrow(1, 2, 3), shares, 1e-6, 1e-7));
  CHECK(at::equal(classes.select(1, 1), std::get<0>(classes.narrow(1, 2, 3).max(1))));

  config.train.activation = "softmx";
  CHECK_THROWS_WITH(trained.answers(config, samples),
                    Catch::Contains("train.activation: got 'softmx'") && Catch::Contains("did you mean 'softmax'?"));
}

TEST_CASE("a predictor answers batches of any size with the bits of predict", "[parity]") {
  const Case its = cases()[1];
  Trained trained(its);
  const auto samples = up_to(19);
  const Answers expected = trained.answers(trained.config, samples);
  const at::Tensor x = its.data.train->read(samples)[0];
  Process process;
  ConfigSource source;
  source.config = with_pipeline(trained.config, 2, "1f1b");
  source.model = [&] { return its.model; };
  Predictor predictor(process, source, trained.checkpoint);
  const at::Tensor all = at::tensor(expected.heads[0]).to(at::kFloat).reshape({19, 3});
  for (const auto& [first, rows] : {std::pair{0, 19}, {3, 1}, {5, 7}, {0, 2}}) {
    const std::vector<NamedTensor> answers = predictor.predict(x.narrow(0, first, rows));
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].name == "prediction");
    CHECK(at::equal(answers[0].tensor, all.narrow(0, first, rows)));
  }
  CHECK_THROWS_WITH(predictor.predict(x.narrow(1, 0, 2)), Catch::Contains("got x Float [19, 2], expected x Float"));
  CHECK_THROWS_WITH(predictor.predict(at::Tensor()), Catch::Contains("predict: got x no tensor"));
  CHECK(at::equal(predictor.predict(x)[0].tensor, all));  // it goes on
  CHECK_THROWS_WITH(predictor.predict(at::full({2, 6}, NAN)), Catch::Contains("not finite"));
  CHECK_THROWS_WITH(predictor.predict(x), Catch::Contains("not finite"));  // it has ended
}
