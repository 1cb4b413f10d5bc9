// How many threads a process gets that has not said: environment, then affinity and control groups.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace attnext::cpu {

// Processors that cpu.max of this process's control group, or of one above it, pays for.
inline int control_group_limit() {
  std::string path, quota;
  for (std::ifstream groups("/proc/self/cgroup"); std::getline(groups, path);) {
    if (path.rfind("0::", 0) == 0) break;
  }
  double limit = std::numeric_limits<int>::max();
  for (path.erase(0, 3);; path.erase(path.rfind('/'))) {
    double period = 0;
    std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
    if (file >> quota >> period && quota != "max" && period > 0) {
      limit = std::min(limit, std::ceil(std::atof(quota.c_str()) / period));
    }
    if (path.rfind('/') == std::string::npos) return static_cast<int>(std::max(limit, 1.0));
  }
}

inline int available_processors() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;  // hardware_concurrency may not respect it
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
  try {
    count = std::min(count, control_group_limit());
  } catch (...) {  // out of memory for a path: no limit known
  }
#endif
  return std::max(count, 1);
}

// The first number of a variable; 0 if there is none. OMP_NUM_THREADS may list one a nesting level.
inline int64_t positive_variable(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? 0 : std::max(std::strtol(text, nullptr, 10), 0L);
}

inline int default_num_threads() {
  for (const char* name : {"ATTNEXT_NUM_THREADS", "OMP_NUM_THREADS"}) {
    const int64_t count = positive_variable(name);
    if (count > 0)
      return static_cast<int>(std::min<int64_t>(count, std::numeric_limits<int>::max()));
  }
  return available_processors();
}

}  // namespace attnext::cpu
