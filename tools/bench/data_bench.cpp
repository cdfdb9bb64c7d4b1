// SPDX-License-Identifier: Apache-2.0
//
// How fast a reader reads, and what it keeps in memory: the samples of `data` of a config in the order of training,
// batch by batch, by one thread, and nothing else.
//
//   data_bench CONFIG                             an epoch
//   data_bench CONFIG --batch 64 --samples 2000   so many samples, epoch after epoch
//
// Prints one JSON object: seconds to open the data, seconds and CPU seconds to read the samples, and the most memory of
// this process on the way (Linux counts what it has allocated and pages of files apart).
#include <ctime>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/base/clock.hpp"
#include "runtime/data/sampler.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::json;

struct Options {
  std::string config;
  std::int64_t batch = 64, samples = 0;
};

/// MiB of this process, by "RssAnon" and "RssFile"; the most so far.
class Memory {
 public:
  void look() {
    std::ifstream status("/proc/self/status");
    std::int64_t kib = 0;
    for (std::string word; status >> word;)
      for (const char* kind : {"RssAnon", "RssFile"})
        if (word == std::string(kind) + ":" && status >> kib)
          most_[kind] = std::max(most_.value(kind, 0.0), kib / 1024.0);
  }
  const Json& most() const { return most_; }

 private:
  Json most_ = Json::object();
};

double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

double seconds_since(double us) {
  return (now_us() - us) / 1e6;
}

Json read_all(const Options& options) {
  Memory memory;
  memory.look();
  const Json before = memory.most();
  const double opening = now_us();
  const DataSplits data = open_data(load_config_file(options.config).section("data"), {});
  const double open_s = seconds_since(opening);
  memory.look();
  const Json opened = memory.most();
  const std::int64_t size = data.train->size(), wanted = options.samples > 0 ? options.samples : size;
  Sampler sampler(size, 1);
  const double start = now_us();
  const double cpu_start = cpu_seconds();
  std::int64_t position = 0;
  double sum = 0;
  for (std::int64_t batches = 0; position < wanted; ++batches) {
    const std::vector<std::int64_t> samples = sampler.batch(position, std::min(options.batch, wanted - position));
    const Tensors read = read_samples(*data.train, samples, position);
    position += static_cast<std::int64_t>(samples.size());
    sum += static_cast<double>(read[0].nbytes());
    if (batches % 16 == 0) memory.look();
  }
  memory.look();
  return {{"samples", position},
          {"open_s", open_s},
          {"seconds", seconds_since(start)},
          {"cpu_seconds", cpu_seconds() - cpu_start},
          {"bytes_out", sum},
          {"mib_before", before},
          {"mib_opened", opened},
          {"mib_most", memory.most()}};
}

}  // namespace
}  // namespace lockstep

int main(int count, char** arguments) {
  lockstep::Options options;
  CLI::App app("How fast a reader reads, and what it keeps in memory");
  app.add_option("CONFIG", options.config, "its `data` is read")->required();
  app.add_option("--batch", options.batch, "samples at a time")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--samples", options.samples, "how many; 0: an epoch")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  CLI11_PARSE(app, count, arguments);
  try {
    std::printf("%s\n", lockstep::read_all(options).dump().c_str());
  } catch (const lockstep::Error& error) {
    std::fprintf(stderr, "data_bench: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
