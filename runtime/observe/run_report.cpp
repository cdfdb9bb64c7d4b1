// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/run_report.hpp"

#include <filesystem>
#include <fstream>
#include <ostream>
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
  fs::path path = given;
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

}  // namespace lockstep
