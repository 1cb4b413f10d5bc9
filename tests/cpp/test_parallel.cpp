// Does the job pool run every item once, in an order items may rely on, whoever calls it and forks?
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/parallel.h"
#include "sanitizers.h"

using namespace attnext::cpu;

namespace {

constexpr double kLarge = 1e12;  // work worth every thread

// Whether it became true before a stuck test would be noticed.
template <class Condition>
bool comes_true(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

template <class Body>
void run(int64_t num_items, int workers, Body& body) {
  parallel_for(
      num_items, workers,
      [](void* context, int64_t item, int worker) { (*static_cast<Body*>(context))(item, worker); },
      &body);
}

// Runs `num_items` and says whether each ran once and no slot was shared.
bool runs_every_item_once(int64_t num_items, int workers) {
  std::vector<std::atomic<int>> runs(num_items), users(workers);
  std::atomic<bool> is_shared{false};
  auto body = [&](int64_t item, int worker) {
    if (users[worker].fetch_add(1) != 0) is_shared = true;
    ++runs[item];
    users[worker].fetch_sub(1);
  };
  run(num_items, workers, body);
  for (const auto& count : runs) {
    if (count != 1) return false;
  }
  return !is_shared;
}

void test_every_item_once() {
  for (int workers = 1; workers <= 5; ++workers) {
    for (int64_t num_items : {0, 1, 2, 3, 7, 100, 10000}) {
      check(runs_every_item_once(num_items, workers), "every item once, one item a slot");
    }
  }
}

void test_runs_at_once() {
  std::atomic<bool> is_higher_started{false}, was_seen{false};
  auto body = [&](int64_t item, int) {
    if (item == 1) is_higher_started = true;
    if (item == 0) was_seen = comes_true([&] { return is_higher_started.load(); });
  };
  run(2, 2, body);
  check(was_seen, "two workers run two items at once");
}

void test_items_may_wait_for_lower_ones() {
  constexpr int64_t kItems = 2000;
  std::atomic<int64_t> num_finished{0};
  std::atomic<bool> all_came{true};
  auto body = [&](int64_t item, int) {
    if (!comes_true([&] { return num_finished == item; })) all_came = false;
    ++num_finished;
  };
  run(kItems, 4, body);
  check(all_came && num_finished == kItems, "an item that waits for all lower ones ends");
}

void test_nested() {
  std::vector<std::atomic<int>> runs(64);
  std::atomic<bool> is_inline{true};
  auto outer = [&](int64_t item, int) {
    const std::thread::id thread = std::this_thread::get_id();
    if (num_workers(8, kLarge) != 1) is_inline = false;
    auto inner = [&](int64_t inner_item, int worker) {
      if (worker != 0 || std::this_thread::get_id() != thread) is_inline = false;
      ++runs[item * 8 + inner_item];
    };
    run(8, 2, inner);
  };
  run(8, 2, outer);
  check(is_inline, "a nested call runs on its own thread");
  for (const auto& count : runs) check(count == 1, "every nested item once");
}

void test_concurrent_callers() {
  std::atomic<bool> all_right{true};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&all_right] {
      for (int call = 0; call < 200; ++call) {
        if (!runs_every_item_once(50, 3)) all_right = false;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  check(all_right, "every item once for four callers at a time");
}

// Results of one call must be there for the next, on whatever thread it runs.
void test_results_are_visible() {
  std::vector<int64_t> values(257, 0);
  for (int64_t round = 0; round < 500; ++round) {
    auto body = [&](int64_t item, int) { values[item] += item; };
    run(static_cast<int64_t>(values.size()), 3, body);
  }
  for (size_t i = 0; i < values.size(); ++i) {
    check(values[i] == 500 * static_cast<int64_t>(i), "a call sees what the one before wrote");
  }
}

void test_thread_counts() {
  set_num_threads(3);
  check(get_num_threads() == 3, "the number of threads set is the number got");
  check(num_workers(100, kLarge) == 3, "large work uses all threads");
  check(num_workers(2, kLarge) == 2, "no more workers than items");
  check(num_workers(0, kLarge) == 1, "no items still have a slot");
  check(num_workers(100, 1e5) == 1, "small work stays with the caller");
  check(num_workers(100, 2e6) == 2, "a worker has enough work to wake up for");
  setenv("OMP_NUM_THREADS", "5,2", 1);
  set_num_threads(0);
  check(get_num_threads() == 5, "OMP_NUM_THREADS is a default");
  setenv("ATTNEXT_NUM_THREADS", "7", 1);
  set_num_threads(-1);
  check(get_num_threads() == 7, "ATTNEXT_NUM_THREADS goes before OMP_NUM_THREADS");
  setenv("ATTNEXT_NUM_THREADS", "many", 1);
  set_num_threads(0);
  check(get_num_threads() == 5, "a value that is no number is no value");
  unsetenv("ATTNEXT_NUM_THREADS");
  unsetenv("OMP_NUM_THREADS");
  set_num_threads(0);
  check(get_num_threads() >= 1, "there is always a thread");
}

#if defined(__linux__)
int64_t count_threads() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

void test_pool_grows_and_shrinks() {
  set_num_threads(2);
  check(runs_every_item_once(100, 2), "every item once before growing");
  const int64_t few = count_threads();
  set_num_threads(6);
  check(runs_every_item_once(100, 6), "every item once after growing");
  const int64_t many = count_threads();
  check(many > few, "more threads are started");
  set_num_threads(2);
  check(comes_true([&] { return runs_every_item_once(100, 2) && count_threads() <= few; }),
        "threads beyond those wanted end");
}
#endif

struct Executor {
  int num_calls = 0;
  int num_skipped = 0;  // workers left out, which the contract forbids
};

void run_backwards(void* context, int num_workers, void (*body)(void*, int), void* argument) {
  Executor& executor = *static_cast<Executor*>(context);
  ++executor.num_calls;
  for (int worker = num_workers - 1; worker >= executor.num_skipped; --worker) {
    body(argument, worker);
  }
}

void test_external_executor() {
  Executor executor;
  set_parallel_for(run_backwards, &executor);
  check(runs_every_item_once(100, 4), "every item once on an embedder's executor");
  check(executor.num_calls == 1, "the embedder's executor is the one that ran");
  executor.num_skipped = 4;
  check(runs_every_item_once(100, 4), "every item once on an executor that runs nothing");
  set_parallel_for(nullptr, nullptr);
  check(runs_every_item_once(100, 4) && executor.num_calls == 2, "null gives the pool back");
}

#if CAN_FORK
// The child's verdict, or a failure if an inherited lock holds it for ever.
bool child_succeeds() {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    failures = 0;
    const bool is_right = runs_every_item_once(1000, 3);
    test_runs_at_once();
    _exit(is_right && failures == 0 ? 0 : 1);
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

void test_fork_after_use() {
  check(runs_every_item_once(100, 3), "every item once before a fork");
  check(child_succeeds(), "the pool works in a child forked after use");
  check(runs_every_item_once(100, 3), "every item once after a fork");
}

#if CAN_FORK_WHILE_BUSY
void test_fork_while_busy() {
  std::atomic<bool> is_over{false};
  std::thread caller([&] {
    while (!is_over) check(runs_every_item_once(20, 3), "every item once during forks");
  });
  for (int i = 0; i < 50; ++i)
    check(child_succeeds(), "the pool works in a child of a busy parent");
  is_over = true;
  caller.join();
}
#endif
#endif

}  // namespace

int main() {
  test_thread_counts();
  set_num_threads(4);
  test_every_item_once();
  test_runs_at_once();
  test_items_may_wait_for_lower_ones();
  test_nested();
  test_concurrent_callers();
  test_results_are_visible();
  test_external_executor();
#if defined(__linux__)
  test_pool_grows_and_shrinks();
  set_num_threads(4);
#endif
#if CAN_FORK
  test_fork_after_use();
#endif
#if CAN_FORK_WHILE_BUSY
  test_fork_while_busy();
#endif
  return verdict();
}
