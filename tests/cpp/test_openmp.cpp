// Does work run on the threads of an OpenMP runtime, for the thread that shares it and no other?
// The runtime is a stand-in that keeps what GOMP_parallel promises.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/openmp.h"
#include "sanitizers.h"

using namespace attnext::cpu;

namespace {

std::atomic<int> num_regions{0};
int team_size = 3;

// The caller is a member of its team, and leaves when all have.
void region(void (*work)(void*), void* argument, unsigned num_threads, unsigned flags) {
  ++num_regions;
  check(num_threads == 0 && flags == 0, "the team is the runtime's own");
  std::vector<std::thread> others;
  for (int i = 1; i < team_size; ++i) others.emplace_back(work, argument);
  work(argument);
  for (std::thread& other : others) other.join();
}

bool runs_every_item_once(int64_t num_items, int workers) {
  std::vector<std::atomic<int>> runs(static_cast<size_t>(num_items)),
      users(static_cast<size_t>(workers));
  std::atomic<bool> is_shared{false};
  auto body = [&](int64_t item, int worker) {
    if (users[static_cast<size_t>(worker)].fetch_add(1) != 0) is_shared = true;
    ++runs[static_cast<size_t>(item)];
    users[static_cast<size_t>(worker)].fetch_sub(1);
  };
  parallel_for(
      num_items, workers,
      [](void* context, int64_t item, int worker) {
        (*static_cast<decltype(body)*>(context))(item, worker);
      },
      &body);
  for (const auto& count : runs)
    if (count != 1) return false;
  return !is_shared;
}

void test_every_item_once() {
  share_openmp(region);
  check(shares_openmp(), "a thread that shares says so");
  int expected = 0;
  for (const int size : {1, 2, 3, 7}) {
    team_size = size;
    for (const int workers : {2, 3, 5}) {
      check(runs_every_item_once(200, workers), "every item once on any team");
      check(num_regions == ++expected, "in one region");
    }
  }
  check(runs_every_item_once(200, 1) && runs_every_item_once(1, 3), "small work is done");
  check(num_regions == expected, "without a region");
  team_size = 3;
}

void test_items_may_wait_for_lower_ones() {
  std::atomic<int64_t> next{0};
  auto body = [&](int64_t item, int) {
    while (next != item) std::this_thread::yield();
    ++next;
  };
  parallel_for(
      100, 3,
      [](void* context, int64_t item, int worker) {
        (*static_cast<decltype(body)*>(context))(item, worker);
      },
      &body);
  check(next == 100, "items may wait for lower ones");
}

void test_other_threads_have_their_own() {
  const int before = num_regions;
  std::thread([] {
    check(!shares_openmp(), "sharing is a thread's own");
    check(runs_every_item_once(100, 3), "every item once on another thread");
  }).join();
  check(num_regions == before, "another thread's work is not run there");
}

void test_executor_goes_before() {
  const int before = num_regions;
  set_parallel_for(
      [](void*, int workers, void (*body)(void*, int), void* argument) {
        for (int worker = 0; worker < workers; ++worker) body(argument, worker);
      },
      nullptr);
  check(runs_every_item_once(100, 3) && num_regions == before, "an executor goes before");
  set_parallel_for(nullptr, nullptr);
  check(runs_every_item_once(100, 3) && num_regions == before + 1, "and no longer");
}

void test_null_ends_it() {
  const int before = num_regions;
  share_openmp(nullptr);
  check(!shares_openmp(), "null ends it");
  check(runs_every_item_once(100, 3) && num_regions == before, "the pool is back");
  share_openmp(region);
}

#if CAN_FORK
void test_not_after_fork() {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const bool is_right = !shares_openmp() && runs_every_item_once(100, 3);
    _exit(is_right && failures == 0 ? 0 : 1);
  }
  int status = -1;
  check(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
            WEXITSTATUS(status) == 0,
        "a child has a pool of its own");
  check(shares_openmp(), "and its parent still shares");
}
#endif

}  // namespace

int main() {
  set_num_threads(5);
  test_every_item_once();
  test_items_may_wait_for_lower_ones();
  test_other_threads_have_their_own();
  test_executor_goes_before();
  test_null_ends_it();
#if CAN_FORK
  test_not_after_fork();
#endif
  return verdict();
}
