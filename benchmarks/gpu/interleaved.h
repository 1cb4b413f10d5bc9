// How are contenders timed? In turn, so that clocks and temperature drift alike for all.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "probe.h"

namespace probe {

struct Sizes {
  int heads, seqlen, runs;
};

struct Contender {
  const char* name;
  double work;  // of a run; per second and divided by 1e12 it is given as `unit`
  const char* unit;
  double allowed;                 // error
  std::function<void()> prepare;  // so that a run that writes nothing is found out
  std::function<void()> launch;   // does not wait
  std::function<double()> error;
};

struct Case {
  const char* name;
  std::function<void(const Sizes&)> run;
};

// Milliseconds of one launch.
inline float time_once(const Contender& contender, cudaEvent_t start, cudaEvent_t end) {
  float milliseconds = 0;
  contender.prepare();
  require(cudaEventRecord(start), contender.name);
  contender.launch();
  require(cudaEventRecord(end), contender.name);
  require(cudaEventSynchronize(end), contender.name);
  require(cudaEventElapsedTime(&milliseconds, start, end), contender.name);
  return milliseconds;
}

// First each alone, compared; then all in turn. A line of JSON each.
inline void compare(const std::vector<Contender>& contenders, const Sizes& n) {
  cudaEvent_t start, end;
  require(cudaEventCreate(&start), "cudaEventCreate");
  require(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> errors;
  for (const Contender& c : contenders) {
    c.prepare();
    c.launch();
    errors.push_back(c.error());
  }
  std::vector<std::vector<float>> times(contenders.size());
  for (int run = 0; run < n.runs; ++run)
    for (size_t i = 0; i < contenders.size(); ++i)
      times[i].push_back(time_once(contenders[i], start, end));
  for (size_t i = 0; i < contenders.size(); ++i) {
    const Contender& c = contenders[i];
    std::sort(times[i].begin(), times[i].end());
    const double median = times[i][times[i].size() / 2];
    std::printf(
        "{\"choice\": \"%s\", \"status\": \"%s\", \"ms\": %.4g, \"fastest ms\": %.4g, \"%s\": "
        "%.4g, "
        "\"error\": %.3g}\n",
        c.name, errors[i] <= c.allowed ? "ok" : "failed", median, times[i].front(), c.unit,
        c.work / (median * 1e-3) / 1e12, errors[i]);
  }
  cudaEventDestroy(start);
  cudaEventDestroy(end);
}

// No argument: the names. Else: case, heads, seqlen, runs.
inline int run_case(const std::vector<Case>& cases, int count, char** arguments) {
  for (const Case& c : cases) {
    if (count < 5) std::printf("%s\n", c.name);
    if (count < 5 || std::string(arguments[1]) != c.name) continue;
    c.run({std::atoi(arguments[2]), std::atoi(arguments[3]), std::atoi(arguments[4])});
    return 0;
  }
  return count < 5 ? 0 : 2;
}

}  // namespace probe
