// SPDX-License-Identifier: Apache-2.0
//
// `lockstep profile`: what every layer of a config costs, one layer at a time, and links and workers; a file that
// `lockstep plan` reads.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iomanip>
#include <iostream>

#include "runtime/base/output_file.hpp"
#include "runtime/base/text.hpp"
#include "runtime/observe/progress.hpp"
#include "runtime/session/make_trainer.hpp"
#include "runtime/session/profiling.hpp"
#include "runtime/training/run_record.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

constexpr double kMisfit = 0.15;  // and more than the noise
constexpr double kTinyUs = 100;   // of such layers nothing is said: no plan depends on them

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
    if (!bar_) bar_ = std::make_unique<Progress>(progress.total, console_);
    const LayerSample& sample = progress.sample;
    const std::string what = concat(progress.layer, ", ", sample.rows, " rows", progress.cached ? ", cached" : "");
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

/// Milliseconds, in eight columns up to days.
std::string ms(double us) {
  return fixed_text(us * 1e-3, us < 1e6 ? 3 : us < 1e8 ? 1 : 0);
}

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

/// Neighbouring layers that cost the same.
struct Run {
  int first = 0, last = 0;
  std::string signature;
};

std::vector<Run> runs_of(const Trainer& trainer) {
  std::vector<Run> runs;
  for (int layer = 0; layer < trainer.graph().layer_count(); ++layer) {
    const std::string signature = signature_of(trainer.graph(), layer, trainer.losses());
    if (runs.empty() || runs.back().signature != signature)
      runs.push_back({layer, layer, signature});
    else
      runs.back().last = layer;
  }
  return runs;
}

void print_row(std::ostream& out, const std::vector<std::string>& numbers, const std::string& layers) {
  constexpr int widths[] = {7, 10, 10, 10, 10, 9, 12, 12};
  for (std::size_t i = 0; i < numbers.size(); ++i) out << std::setw(widths[i]) << numbers[i];
  out << "  " << layers << "\n";
}

/// A line for each run of equal layers, in the order of the model.
void print_table(std::ostream& out, const Trainer& trainer, const Profile& profile, double rows) {
  constexpr double mib = 1048576;
  const ModelGraph& graph = trainer.graph();
  double forward = 0, input_grad = 0, weight_grad = 0, update = 0, parameters = 0, held = 0;
  print_row(out, {"layers", "F ms", "I ms", "W ms", "update ms", "spread", "params MiB", "held MiB"}, "first .. last");
  for (const Run& run : runs_of(trainer)) {
    const LayerProfile layer = profile_of_layer(profile, graph.layers[run.first].name, run.signature);
    const LayerSample sample = sample_at(layer, rows);
    const int count = run.last - run.first + 1;
    const double parameter_mib = 4 * static_cast<double>(graph.elements_of_layer(run.first)) / mib;
    forward += count * sample.forward_us;
    input_grad += count * sample.input_grad_us;
    weight_grad += count * sample.weight_grad_us;
    update += count * sample.update_us;
    parameters += count * parameter_mib;
    held += count * sample.held_bytes / mib;
    std::string name = graph.layers[run.first].name;
    if (count > 1) name += " .. " + graph.layers[run.last].name;
    const double all_us = sample.forward_us + sample.input_grad_us + sample.weight_grad_us;
    if (layer.misfit > kMisfit + sample.spread && all_us > kTinyUs)
      name += concat("  misfit ", fixed_text(layer.misfit * 100, 0), " %: not linear in rows between the two sizes");
    print_row(out,
              {std::to_string(count), ms(sample.forward_us), ms(sample.input_grad_us), ms(sample.weight_grad_us),
               ms(sample.update_us), fixed_text(sample.spread * 100, 0) + " %", fixed_text(parameter_mib, 2),
               fixed_text(sample.held_bytes / mib, 2)},
              name);
  }
  print_row(out,
            {std::to_string(graph.layer_count()), ms(forward), ms(input_grad), ms(weight_grad), ms(update), "",
             fixed_text(parameters, 2), fixed_text(held, 2)},
            "all layers, each by itself");
}

void print_links(std::ostream& out, const Profile& profile) {
  const auto print = [&](const char* name, const LinkCost& link) {
    const bool given =
        std::find(profile.given_links.begin(), profile.given_links.end(), name) != profile.given_links.end();
    out << "link " << name << ": " << fixed_text(link.latency_us, 1) << " us";
    if (std::isfinite(link.bytes_per_us)) out << ", " << fixed_text(link.bytes_per_us * 1e-3, 2) << " GB/s";
    if (link.busy_us_per_byte > 0)
      out << ", takes " << fixed_text(link.busy_us_per_byte * 1048576, 0) << " us of each end per MiB";
    out << (given ? "\n" : " (assumed, not measured)\n");
  };
  print("same_rank", profile.links.same_rank);
  print("same_host", profile.links.same_host);
  print("other_host", profile.links.other_host);
  std::vector<std::string> speeds;
  for (const ProfiledWorker& worker : profile.workers) speeds.push_back(fixed_text(worker.speed, 2));
  if (speeds.size() > 1) out << "speed by rank: " << join(speeds) << "\n";
}

int profile(const ProfileOptions& options) {
  Process process;
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
  try {
    Shown shown(process.console());
    ProfilingOptions profiling;
    profiling.rows = rows;
    profiling.repeats = options.repeats;
    profiling.workers = options.workers;
    profiling.cache = !options.no_cache;
    if (process.is_root()) profiling.progress = [&](const ProfileProgress& progress) { shown(progress); };
    Log::Options log;
    log.console_info = process.is_root();
    log.console = process.console();
    profiling.log = Log(log);
    const Profile measured = overlaid(measure_profile(process, config, *trainer, profiling), by_hand);
    shown.finish();
    if (!process.is_root()) return 0;
    write_whole_file(options.output, to_json(measured));
    const auto slice = (config.train.batch + config.train.micro_batches - 1) / config.train.micro_batches;
    std::cout << trainer->config().name << ": " << trainer->graph().layer_count() << " layers, "
              << measured.layers.size() << " different, micro-batches of " << slice << " rows\n";
    print_table(std::cout, *trainer, measured, static_cast<double>(slice));
    print_links(std::cout, measured);
    std::cout << "written to " << options.output << std::endl;
    return 0;
  } catch (const std::exception& error) {
    process.fail(error);
  }
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
  verb->callback([options, &command] { command = [options] { return profile(*options); }; });
}

}  // namespace lockstep
