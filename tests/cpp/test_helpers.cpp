// Do the pool's threads keep off their caller's core, and stay where others have put them?
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/helpers.h"
#include "cpu/parallel.h"

#if !defined(__linux__)
int main() { std::printf("helpers are told where to run on Linux only\n"); }
#else

using namespace attnext::cpu;

namespace {

cpu_set_t cores_of(pid_t thread) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  sched_getaffinity(thread, sizeof(cores), &cores);
  return cores;
}

cpu_set_t only(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  return cores;
}

constexpr int kThreads = 4;
std::atomic<pid_t> helpers[kThreads] = {};  // who ran items beside the caller, by slot

// Onto `core`, and free to leave it again.
void go_to(int core, const cpu_set_t& all) {
  const cpu_set_t there = only(core);
  sched_setaffinity(0, sizeof(there), &there);
  sched_setaffinity(0, sizeof(all), &all);
}

void work() {
  std::atomic<int64_t> sum{0};
  parallel_for(
      100, get_num_threads(),
      [](void* context, int64_t item, int worker) {
        *static_cast<std::atomic<int64_t>*>(context) += item;
        if (worker > 0 && worker < kThreads)
          helpers[worker] = static_cast<pid_t>(syscall(SYS_gettid));
        std::this_thread::sleep_for(std::chrono::microseconds(20));  // so that all get some
      },
      &sum);
  check(sum == 4950, "every item is run once");
}

// Calls from `core` until the caller has stayed there throughout and `holds`.
template <class Condition>
bool comes_true_on(int core, const cpu_set_t& all, Condition holds) {
  for (int i = 0; i < 500; ++i) {
    go_to(core, all);
    work();
    if (sched_getcpu() == core && holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // helpers are only starting
  }
  return false;
}

void test_they_keep_off(const std::vector<int>& cores, const cpu_set_t& all) {
  for (const int core : {cores[0], cores[1], cores[0]}) {
    cpu_set_t others = all;
    CPU_CLR(core, &others);
    const auto keep_off = [&] {
      for (int i = 1; i < kThreads; ++i) {
        const cpu_set_t now = cores_of(helpers[i]);
        if (helpers[i] == 0 || !CPU_EQUAL(&now, &others)) return false;
      }
      return true;
    };
    check(comes_true_on(core, all, keep_off), "helpers run where their caller is not");
  }
}

void test_a_caller_with_one_core(const std::vector<int>& cores, const cpu_set_t& all) {
  const pid_t helper = helpers[1];
  const cpu_set_t before = cores_of(helper), one = only(cores[1]);
  sched_setaffinity(0, sizeof(one), &one);
  work();
  const cpu_set_t after = cores_of(helper);
  check(CPU_EQUAL(&before, &after), "helpers of a pinned caller stay where they are");
  sched_setaffinity(0, sizeof(all), &all);
}

void test_others_may_pin_them(const std::vector<int>& cores, const cpu_set_t& all) {
  const pid_t pinned = helpers[1];
  const cpu_set_t there = only(cores[0]);
  sched_setaffinity(pinned, sizeof(there), &there);
  for (const int core : {cores[1], cores[0], cores[1]}) {
    go_to(core, all);
    work();
    const cpu_set_t now = cores_of(pinned);
    check(CPU_EQUAL(&now, &there), "where somebody has pinned a helper it stays");
  }
}

void test_more_than_are_told() {
  set_num_threads(20);
  for (int i = 0; i < 5; ++i) work();
  set_num_threads(3);
  for (int i = 0; i < 20; ++i) work();
}

}  // namespace

int main() {
  const cpu_set_t all = cores_of(0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &all)) cores.push_back(core);
  set_num_threads(kThreads);
  work();
  if (cores.size() < 2) {
    std::printf("one core: nothing to keep off\n");
    return failures;
  }
  test_they_keep_off(cores, all);
  test_a_caller_with_one_core(cores, all);
  test_others_may_pin_them(cores, all);
  test_more_than_are_told();
  return verdict();
}
#endif
