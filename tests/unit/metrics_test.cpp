// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/metrics.hpp"

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "runtime/base/error.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::json;

class MetricsFile {
 public:
  std::string path() const { return folder_.file("metrics.jsonl"); }
  std::vector<std::string> lines() const {
    std::ifstream file(path());
    std::vector<std::string> result;
    for (std::string line; std::getline(file, line);) result.push_back(line);
    return result;
  }
  std::vector<Json> objects() const {
    std::vector<Json> result;
    for (const std::string& line : lines()) result.push_back(Json::parse(line));
    return result;
  }

 private:
  test::TemporaryFolder folder_;
};

StepResult step_result(std::int64_t step, double elapsed_us, double loss = 0.5) {
  StepResult result;
  result.step = step;
  result.heads = {{loss * 8, 8, 1}};
  result.gradient_norm = 1.25;
  result.learning_rate = 0.001;
  result.samples = 8;
  result.elapsed_us = elapsed_us;
  result.workers = {
      {.row = 0, .compute_us = 1500, .wait_us = 250, .peak_bytes = 4096, .peak_by_kind = {3000, 1096, 0, 0, 0}},
      {.row = 1, .compute_us = 500, .wait_us = 1250, .peak_bytes = 1024, .peak_by_kind = {0, 0, 24, 900, 100}}};
  return result;
}

Json kinds(std::int64_t parameters, std::int64_t gradients) {
  return {{"parameters", parameters}, {"gradients", gradients}, {"optimizer", 0}, {"activations", 0}, {"slots", 0}};
}

}  // namespace

TEST_CASE("a model with several heads has the loss of each beside their weighted sum", "[unit]") {
  const MetricsFile file;
  StepResult result = step_result(1, 2000);
  result.heads = {{4, 8, 1}, {6, 3, 0.25}};
  MetricsWriter writer(file.path());
  writer.step(result);
  writer.evaluation(result);
  const std::vector<Json> objects = file.objects();
  CHECK(objects.at(0).at("loss") == 1.0);
  CHECK(objects.at(0).at("losses") == Json{0.5, 2.0});
  CHECK(objects.at(1).at("eval").at("eval_loss") == 1.0);
  CHECK(objects.at(1).at("eval").at("losses") == Json{0.5, 2.0});
}

TEST_CASE("a step is one line with the documented keys", "[unit]") {
  const MetricsFile file;
  MetricsWriter(file.path()).step(step_result(1, 2000));
  CHECK(file.lines() == std::vector<std::string>{R"({"step":1,"loss":0.5,"grad_norm":1.25,"lr":0.001,"step_ms":2.0,)"
                                                 R"("samples_per_s":4000.0,"bubble":0.5,"workers":[)"
                                                 R"({"compute_ms":1.5,"wait_ms":0.25,"peak_bytes":4096,)"
                                                 R"("peak_by_kind":{"parameters":3000,"gradients":1096,)"
                                                 R"("optimizer":0,"activations":0,"slots":0}},)"
                                                 R"({"compute_ms":0.5,"wait_ms":1.25,"peak_bytes":1024,)"
                                                 R"("peak_by_kind":{"parameters":0,"gradients":0,)"
                                                 R"("optimizer":24,"activations":900,"slots":100}}]})"});
}

TEST_CASE("tokens, operations and their share of matrix products are there where they are known", "[unit]") {
  const MetricsFile file;
  MetricsWriter writer(file.path(), -1, /*tokens_per_sample=*/64);
  const auto with_operations = [](double elapsed_us) {
    StepResult result = step_result(1, elapsed_us);
    for (WorkerReport& worker : result.workers) {
      worker.stages = {{.stage = worker.row, .operations = 3e9}};
      worker.product_rate = 4e12;
    }
    return result;
  };
  for (const double elapsed_us : {9000.0, 2000.0, 4000.0}) writer.step(with_operations(elapsed_us));
  Prediction predicted;
  predicted.exposed = 0.125;
  writer.summary(predicted);
  const std::vector<Json> objects = file.objects();
  CHECK(objects[1].at("samples_per_s") == 4000.0);
  CHECK(objects[1].at("tokens_per_s") == 256000.0);
  CHECK(objects[1].at("tflop_per_s").get<double>() == Approx(3));
  CHECK(objects[1].at("product_share").get<double>() == Approx(3.0 / 8));
  const Json& summary = objects[3].at("summary");
  CHECK(summary.at("tokens_per_s").get<double>() == Approx(2 * 8 * 64 / 6e-3));
  CHECK(summary.at("tflop_per_s").get<double>() == Approx(2));
  CHECK(summary.at("product_share").get<double>() == Approx(0.25));
  CHECK(summary.at("product_tflop_per_s") == Json{4.0, 4.0});
  CHECK(summary.at("exposed_communication") == 0.125);
}

TEST_CASE("metrics without operations, as older runs wrote them, are read", "[unit]") {
  const std::string old = R"({"step":1,"loss":0.5,"step_ms":2.0,"samples_per_s":4000.0,"bubble":0.5,"workers":[]})";
  const std::string line = R"({"step":2,"loss":0.5,"step_ms":2.0,"tflop_per_s":1.5,"product_share":0.25,"workers":[]})";
  const RunMetrics metrics = metrics_from_lines(old + "\n" + line + "\n", "metrics.jsonl");
  REQUIRE(metrics.tflop_per_s.size() == 2);
  CHECK(std::isnan(metrics.tflop_per_s[0]));
  CHECK(std::isnan(metrics.product_shares[0]));
  CHECK(metrics.tflop_per_s[1] == 1.5);
  CHECK(metrics.product_shares[1] == 0.25);
}

TEST_CASE("a line is in the file as soon as it was written", "[unit]") {
  const MetricsFile file;
  MetricsWriter writer(file.path());
  writer.step(step_result(1, 2000));
  CHECK(file.lines().size() == 1);
  StepResult evaluation = step_result(1, 100);
  evaluation.samples = 512;
  writer.evaluation(evaluation);
  REQUIRE(file.lines().size() == 2);
  CHECK(file.lines()[1] == R"({"eval":{"step":1,"eval_loss":0.5,"samples":512}})");
}

TEST_CASE("a run that goes on takes out what comes again, and says whether an evaluation does", "[unit]") {
  const MetricsFile file;
  const auto write = [&] {
    MetricsWriter writer(file.path());
    for (const std::int64_t step : {1, 2, 3}) writer.step(step_result(step, 2000));
    writer.evaluation(step_result(2, 100));
  };
  write();
  CHECK_FALSE(MetricsWriter(file.path(), 3).took_out_evaluation(3));
  CHECK(file.lines().size() == 4);
  CHECK(MetricsWriter(file.path(), 2).took_out_evaluation(2));
  CHECK(file.lines().size() == 2);
  write();
  CHECK_FALSE(MetricsWriter(file.path(), 1).took_out_evaluation(1));
  CHECK_FALSE(MetricsWriter(file.path()).took_out_evaluation(-1));
}

TEST_CASE("norms of parameters are a line behind their step, which goes with it", "[unit]") {
  const MetricsFile file;
  {
    MetricsWriter writer(file.path());
    for (const std::int64_t step : {1, 2, 3}) {
      StepResult result = step_result(step, 2000);
      if (step > 1) result.norms = {{1, 2.0, 0.5, 0.25}, {2, 0.0, 1.0, 0.0}};
      writer.step(result, {"a", "fc.0.weight", "fc.0.bias"});
    }
  }
  REQUIRE(file.lines().size() == 5);
  CHECK(file.objects()[2] == Json::parse(R"({"norms":{"step":2,"parameters":{
          "fc.0.weight":{"weight":2.0,"gradient":0.5,"update":0.25,"ratio":0.125},
          "fc.0.bias":{"weight":0.0,"gradient":1.0,"update":0.0,"ratio":"nan"}}}})"));
  std::string text;
  for (const std::string& line : file.lines()) text += line + "\n";
  CHECK(metrics_from_lines(text, "m").losses.size() == 3);
  MetricsWriter(file.path(), 2);
  CHECK(file.lines().size() == 3);
  CHECK(file.objects().back().contains("norms"));
}

TEST_CASE("metrics read back as the same doubles", "[unit]") {
  const MetricsFile file;
  MetricsWriter writer(file.path());
  const std::vector<double> losses = {
      0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.2250738585072011e-308, 1e22, 0.30000000000000004};
  for (const double loss : losses) {
    StepResult result = step_result(1, 1.0 / 3);
    result.gradient_norm = loss;
    writer.step(result);
  }
  const std::vector<Json> objects = file.objects();
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const double read = objects[i].at("grad_norm").get<double>();
    CHECK(read == losses[i]);
    CHECK(std::signbit(read) == std::signbit(losses[i]));
  }
}

TEST_CASE("what is not finite is a string, so that every line stays JSON", "[unit]") {
  const MetricsFile file;
  MetricsWriter writer(file.path());
  constexpr double infinity = std::numeric_limits<double>::infinity();
  StepResult result = step_result(1, 0, std::numeric_limits<double>::quiet_NaN());
  result.gradient_norm = infinity;
  result.learning_rate = -infinity;
  writer.step(result);
  writer.summary();
  const std::vector<Json> objects = file.objects();
  CHECK(objects[0].at("loss") == "nan");
  CHECK(objects[0].at("grad_norm") == "inf");
  CHECK(objects[0].at("lr") == "-inf");
  CHECK(objects[0].at("bubble") == "nan");
  CHECK(objects[1].at("summary").at("loss") == "nan");
}

TEST_CASE("the summary leaves the first step out of the times and nothing else", "[unit]") {
  const MetricsFile file;
  MetricsWriter writer(file.path());
  StepResult first = step_result(1, 90'000);
  first.workers[1].peak_bytes = 9999;
  first.workers[1].peak_by_kind = {9999, 0, 0, 0, 0};
  writer.step(first);
  for (const double elapsed_us : {2000.0, 8000.0, 4000.0, 2000.0}) writer.step(step_result(2, elapsed_us, 0.25));
  for (const double loss : {3.0, 2.0, 2.5}) writer.evaluation(step_result(2, 0, loss));
  writer.summary();
  Json summary = file.objects().back().at("summary");
  CHECK(summary.at("wall_s").get<double>() >= 0);
  summary.erase("wall_s");
  CHECK(summary == Json{{"steps", 5},
                        {"samples", 40},
                        {"step_ms", {{"median", 3.0}, {"min", 2.0}, {"max", 8.0}}},
                        {"samples_per_s", 2000.0},
                        {"loss", 0.25},
                        {"eval_loss", 2.5},
                        {"best_eval_loss", 2.0},
                        {"bubble", 0.625},
                        {"peak_bytes", {4096, 9999}},
                        {"peak_by_kind", {kinds(3000, 1096), kinds(9999, 0)}}});
}

TEST_CASE("the summary has what a plan said, or else the simulation with measured costs", "[unit]") {
  Prediction p;
  p.step_ms = 12;
  p.bubble = 0.25;
  p.in_flight_bytes = {1, 2};
  p.measured_in_flight_bytes = {3, 4};
  p.peak_bytes = {5, 6};
  p.layers = {{"body", 9, 9.5}, {"head", 8, 7}};
  const auto summary_of = [&](bool planned) {
    const MetricsFile file;
    MetricsWriter writer(file.path());
    p.planned = planned;
    writer.summary(p);
    return file.objects().at(0).at("summary");
  };
  CHECK(summary_of(true).at("predicted") ==
        Json{{"by", "plan"},
             {"step_ms", 12.0},
             {"bubble", 0.25},
             {"peak_bytes", {5.0, 6.0}},
             {"largest_miss", {{"layer", "head"}, {"step_ms", 8.0}, {"measured_ms", 7.0}}},
             {"layers",
              {{{"layer", "body"}, {"step_ms", 9.0}, {"measured_ms", 9.5}},
               {{"layer", "head"}, {"step_ms", 8.0}, {"measured_ms", 7.0}}}}});
  CHECK_FALSE(summary_of(true).contains("in_flight_bytes"));
  CHECK(summary_of(false).at("predicted") ==
        Json{{"by", "measured costs"}, {"step_ms", 12.0}, {"bubble", 0.25}, {"in_flight_bytes", {1.0, 2.0}}});
  CHECK(summary_of(false).at("in_flight_bytes") == Json{3.0, 4.0});
}

TEST_CASE("layers that are all off by the same factor are told from one that is off", "[unit]") {
  const auto factor_of = [](const std::vector<double>& measured) {
    Prediction p;
    for (std::size_t layer = 0; layer < measured.size(); ++layer)
      p.layers.push_back({"l", 10.0 * static_cast<double>(layer + 1), measured[layer]});
    return p.common_factor();
  };
  REQUIRE(factor_of({15, 30, 45}).has_value());
  CHECK(*factor_of({15, 30, 45}) == Approx(1.5));
  CHECK(*factor_of({8, 15, 22}) == Approx(0.75));
  CHECK(factor_of({30, 30, 45, 60, 75}).value_or(0) == Approx(1.6));  // one small one differs
  CHECK_FALSE(factor_of({10.5, 20, 32}));                             // too little
  CHECK_FALSE(factor_of({10, 20, 60}));                               // one layer
  CHECK_FALSE(factor_of({0, 0, 0}).value_or(0) > 0);
  CHECK_FALSE(factor_of({}));
}

TEST_CASE("a summary of nothing says null", "[unit]") {
  const MetricsFile file;
  MetricsWriter writer(file.path());
  writer.summary();
  const Json summary = file.objects().at(0).at("summary");
  CHECK(summary.at("steps") == 0);
  for (const char* key : {"step_ms", "samples_per_s", "loss", "eval_loss", "best_eval_loss", "bubble"}) {
    CHECK(summary.at(key).is_null());
  }
}

TEST_CASE("a NaN evaluation is neither the best nor in the way of it", "[unit]") {
  const MetricsFile file;
  MetricsWriter writer(file.path());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double loss : {nan, 2.0, nan}) writer.evaluation(step_result(1, 0, loss));
  writer.summary();
  CHECK(file.objects().back().at("summary").at("eval_loss") == "nan");
  CHECK(file.objects().back().at("summary").at("best_eval_loss") == 2.0);
}

TEST_CASE("metrics that cannot be written are the user's to fix", "[unit]") {
  try {
    MetricsWriter("/no/such/folder/metrics.jsonl");
    FAIL("no error");
  } catch (const UserError& error) {
    CHECK(std::string(error.what()) ==
          "metrics: cannot write /no/such/folder/metrics.jsonl: No such file or directory");
  }
}

TEST_CASE("a full disk is an error, not a gap in the metrics", "[unit]") {
  MetricsWriter writer("/dev/full");
  CHECK_THROWS_AS(writer.step(step_result(1, 2000)), Error);
}

}  // namespace lockstep
