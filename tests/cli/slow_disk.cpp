// SPDX-License-Identifier: Apache-2.0
//
// A slow disk, for LD_PRELOAD: fsync of files whose path contains $SLOW_FSYNC_OF takes $SLOW_FSYNC_S seconds longer.
#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

extern "C" int fsync(int file) {
  using Fsync = int (*)(int);
  static const auto real = reinterpret_cast<Fsync>(::dlsym(RTLD_NEXT, "fsync"));
  const char *of = std::getenv("SLOW_FSYNC_OF"), *seconds = std::getenv("SLOW_FSYNC_S");
  char path[4096];
  const ssize_t length = ::readlink(("/proc/self/fd/" + std::to_string(file)).c_str(), path, sizeof(path));
  if (of && seconds && length > 0 && std::string(path, static_cast<std::size_t>(length)).find(of) != std::string::npos)
    std::this_thread::sleep_for(std::chrono::seconds(std::atoi(seconds)));
  return real(file);
}
