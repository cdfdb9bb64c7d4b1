// SPDX-License-Identifier: Apache-2.0
//
// table_bench CONFIG: opens the section `data` of CONFIG once and prints "ROWS SECONDS PEAK_MIB", for table_bench.py.
#include <sys/resource.h>

#include <chrono>
#include <exception>
#include <iostream>

#include "runtime/data/dataset.hpp"

int main(int count, char** arguments) {
  using namespace lockstep;
  try {
    if (count != 2) throw UserError("table_bench CONFIG");
    const Section data = load_config_file(arguments[1]).required_section("data");
    const auto start = std::chrono::steady_clock::now();
    const DataSplits splits = open_data(data, {});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    struct rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    std::cout << splits.train->size() << " " << took.count() << " " << static_cast<double>(usage.ru_maxrss) / 1024
              << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
