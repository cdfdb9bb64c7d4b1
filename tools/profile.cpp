// SPDX-License-Identifier: Apache-2.0
//
// `lockstep profile`: what every layer of a config costs, one layer at a time, and links and workers; a file that
// `lockstep plan` reads.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <iostream>
#include <set>

#include "runtime/base/output_file.hpp"
#include "runtime/observe/progress.hpp"
#include "runtime/session/make_trainer.hpp"
#include "runtime/session/profile_table.hpp"
#include "runtime/session/profiling.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

struct ProfileOptions {
  ConfigSource source;
  std::string output, costs, rows;
  int repeats = 100, workers = 0;
  bool no_cache = false;
};

/// A bar on a terminal, else a line for each piece.
class Shown {
 public:
  explicit Shown(std::shared_ptr<Console> console) : console_(std::move(console)) {}
  void operator()(const ProfileProgress& progress) {
    if (!bar_ || progress.done == 1) bar_ = std::make_unique<Progress>(progress.total, console_);
    const LayerSample& sample = progress.sample;
    const std::string what =
        concat(progress.layer, ", ", sample.rows, " rows",
               progress.kind == kHostKind ? std::string() : " on " + progress.kind, progress.cached ? ", cached" : "");
    bar_->update(progress.done, what);
    if (!bar_->active()) std::cerr << concat(progress.done, "/", progress.total, "  ", what, "\n") << std::flush;
  }
  void finish() {
    if (bar_) bar_->finish();
  }

 private:
  std::shared_ptr<Console> console_;
  std::unique_ptr<Progress> bar_;
};

/// Of --rows.
std::vector<std::int64_t> rows_of(const std::string& text, const Trainer& trainer) {
  std::vector<std::int64_t> rows;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    std::int64_t number = 0;
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), number);
    const bool whole = problem == std::errc() && end == word.data() + word.size();
    const bool ascends = rows.empty() ? number >= 1 : number > rows.back();
    if (!whole || !ascends || rows.size() == 2)
      throw UserError(concat("--rows: got ", text, ", expected one or two ascending numbers of rows, such as 4,8"));
    rows.push_back(number);
  }
  const ModelGraph& graph = trainer.graph();
  if (!rows.empty() && rows.front() < graph.least_rows)
    throw UserError(concat("--rows: got ", text, ", expected at least ", graph.least_rows, ", which layer '",
                           graph.layers[graph.least_rows_layer].name, "' needs to be trained"));
  return rows;
}

int profile(Process& process, const ProfileOptions& options) {
  std::unique_ptr<Trainer> trainer;
  Config config;
  Profile by_hand;
  std::vector<std::int64_t> rows;
  process.together([&] {
    config = options.source.load(kMicroBatchesToMeasure).config;
    resolve_kernels(config);
    // One stage is every layer in its place; nothing of it is built.
    trainer = make_whole(options.source, config);
    if (!options.costs.empty()) by_hand = overlaid({}, load_profile(options.costs));
    rows = rows_of(options.rows, *trainer);
    if (process.is_root()) check_writable("-o", options.output);
  });
  Shown shown(process.console());
  ProfilingOptions profiling;
  profiling.rows = rows;
  profiling.repeats = options.repeats;
  profiling.workers = options.workers;
  profiling.cache = !options.no_cache;
  if (process.is_root()) profiling.progress = [&](const ProfileProgress& progress) { shown(progress); };
  profiling.log = process.log();
  const Profile measured = overlaid(measure_profile(process, config, *trainer, profiling), by_hand);
  shown.finish();
  if (!process.is_root()) return 0;
  write_whole_file(options.output, to_json(measured));
  std::set<std::string> different;
  for (const LayerProfile& layer : measured.layers) different.insert(layer.signature);
  const auto slice = (config.train.batch + config.train.micro_batches - 1) / config.train.micro_batches;
  std::cout << trainer->config().name << ": " << trainer->graph().layer_count() << " layers, " << different.size()
            << " different, micro-batches of " << slice << " rows\n"
            << profile_table(*trainer, measured, static_cast<double>(slice)) << "written to " << options.output
            << std::endl;
  return 0;
}

}  // namespace

void add_profile(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("profile", "Measure what each layer, the links and the workers cost");
  auto options = std::make_shared<ProfileOptions>();
  add_config_flags(*verb, options->source);
  verb->add_option("-o,--output", options->output, "The profile, JSON")->required()->type_name("FILE");
  verb->add_option("--rows", options->rows, "Sizes of micro-batches to measure (default: the config's, and half of it)")
      ->type_name("ROWS[,ROWS]");
  verb->add_option("--repeats", options->repeats, "Rounds that are measured; fewer where layers are slow")
      ->check(CLI::Range(kFewestRepeats, 10'000))
      ->capture_default_str();
  verb->add_option("--workers", options->workers,
                   "Threads that measure a layer at the same time (default: as many as will train here)")
      ->check(CLI::Range(1, 1024));
  verb->add_option("--costs", options->costs, "YAML with costs, links or workers that take the place of measured ones")
      ->type_name("FILE");
  verb->add_flag("--no-cache,!--cache", options->no_cache, "Measure everything again, and keep nothing for later runs");
  verb->footer(
      "One layer is built at a time, equal layers once: the model need not fit on this machine.\n"
      "Examples:\n"
      "  lockstep profile configs/quickstart.yaml -o profile.json\n"
      "  mpirun -n 2 lockstep profile configs/gpt-10b.yaml -o gpt-10b.json");
  verb->callback([options, &command] {
    command = [options] { return run_ranks([&](Process& process) { return profile(process, *options); }); };
  });
}

}  // namespace lockstep
