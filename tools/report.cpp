// SPDX-License-Identifier: Apache-2.0
#include "tools/report.hpp"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>

#include "runtime/base/error.hpp"
#include "runtime/base/output_file.hpp"
#include "runtime/observe/page.hpp"
#include "runtime/observe/trace.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw UserError(concat("report: cannot read ", path.string()));
  return text.str();
}

fs::path timeline_file(const std::string& given) {
  const fs::path path = given;
  if (fs::is_regular_file(path)) return path;
  if (!fs::is_directory(path)) throw UserError(concat("report: there is no run folder ", given));
  if (!fs::exists(path / "config.yaml"))
    throw UserError(concat("report: ", given, " holds no run; name the run_dir of a lockstep train"));
  if (!fs::exists(path / "timeline.json"))
    throw UserError(
        concat("report: the run in ", given,
               " left no timeline.json: it is still running, it failed, or it ended before the steps that it "
               "was to record"));
  return path / "timeline.json";
}

}  // namespace

int report_command(const ReportOptions& options, std::ostream& out) {
  const fs::path file = timeline_file(options.folder);
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  const std::string output = options.output.empty() ? (folder / "report.html").string() : options.output;
  check_writable("-o", output);
  if (!options.trace.empty()) check_writable("--trace", options.trace);
  const RunTimeline timeline = timeline_from_json(contents(file), file.string());
  const fs::path metrics_file = folder / "metrics.jsonl";
  const RunMetrics metrics =
      fs::exists(metrics_file) ? metrics_from_lines(contents(metrics_file), metrics_file.string()) : RunMetrics{};
  write_whole_file(output, html_page(timeline, metrics));
  out << "page written to " << output << '\n';
  if (options.trace.empty()) return 0;
  write_whole_file(options.trace, chrome_trace(timeline));
  out << "trace written to " << options.trace << "; open it in ui.perfetto.dev or chrome://tracing\n";
  return 0;
}

void add_report(CLI::App& app, std::function<int()>& command) {
  const auto options = std::make_shared<ReportOptions>();
  CLI::App* verb = app.add_subcommand("report", "A page about a run: measured and simulated timeline, workers, loss");
  verb->add_option("run", options->folder, "The folder of the run")->required()->type_name("RUN_FOLDER");
  verb->add_option("-o,--output", options->output, "The page; default: report.html in the run folder")
      ->type_name("FILE");
  verb->add_option("--trace", options->trace, "Write a Chrome trace as well")->type_name("FILE");
  verb->footer(
      "Examples:\n"
      "  lockstep report runs/quickstart\n"
      "  lockstep report runs/quickstart -o page.html --trace trace.json");
  verb->callback([options, &command] { command = [options] { return report_command(*options, std::cout); }; });
}

}  // namespace lockstep
