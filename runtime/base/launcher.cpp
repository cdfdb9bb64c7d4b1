// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/launcher.hpp"

#include <cstdlib>
#include <initializer_list>

namespace lockstep {

int launched_processes() {
  for (const char* variable : {"PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS"})
    if (const char* size = std::getenv(variable); size && std::atoi(size) > 1) return std::atoi(size);
  return 1;
}

bool launched() {
  for (const char* variable : {"PMI_RANK", "PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"})
    if (std::getenv(variable)) return true;
  return launched_processes() > 1;  // srun without any PMI
}

}  // namespace lockstep
