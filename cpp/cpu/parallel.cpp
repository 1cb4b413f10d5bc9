// How independent pieces of work reach the cores: a job pool, or what stands in for it.
#include "cpu/parallel.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#include "cpu/call.h"
#include "cpu/default_threads.h"
#include "cpu/helpers.h"
#include "cpu/openmp.h"

namespace attnext::cpu {
namespace {

// A worker is worth its wake-up (about 10 microseconds) from some 50 microseconds of work on.
constexpr double kCostPerWorker = 1e6;
// Above any machine; a typing error in an environment variable must not start a million threads.
constexpr int kMaxThreads = 1024;

struct Pool {
  std::atomic<bool> is_busy{false};
  std::atomic<uint64_t> generation{0};  // of `call`; written under the mutex, spun on without
  std::mutex mutex;                     // guards what follows
  std::condition_variable wake;
  std::shared_ptr<Call> call;
  Helpers helpers;
  int num_started = 0;
  int num_wanted = 0;
  // Of calls; for who set is_busy.
  Clock::time_point last_end{};
  bool last_came_soon = false;
};

void serve(Pool* pool) {
  {
    const std::lock_guard lock(pool->mutex);
    pool->helpers.add_this();
  }
  uint64_t seen = 0;
  std::chrono::microseconds longest = kShortSpin;
  while (true) {
    spin(longest, [&] { return pool->generation.load(std::memory_order_relaxed) != seen; });
    std::shared_ptr<Call> call;
    {
      std::unique_lock lock(pool->mutex);
      pool->wake.wait(lock, [&] {
        return pool->generation.load(std::memory_order_relaxed) != seen ||
               pool->num_started > pool->num_wanted;
      });
      if (pool->num_started > pool->num_wanted) {
        --pool->num_started;
        pool->helpers.remove_this();
        return;
      }
      seen = pool->generation.load(std::memory_order_relaxed);
      call = pool->call;
    }
    if (call == nullptr) continue;
    const int slot = call->next_slot.fetch_add(1, std::memory_order_relaxed);
    if (slot < call->num_slots) run_items(*call, slot);
    longest = call->spin_after;
  }
}

// The pool is never destroyed and its threads never joined: at exit they sleep in memory that
// stays, where a destructor that joins could wait for a thread that is itself in exit(). Unloading
// the library would take the code from under them, so it is kept from the first thread on.
std::atomic<Pool*> current_pool{nullptr};

void keep_library_loaded() {
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&serve), &self) == 0) return;
  dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

// A child process has none of its parent's threads, and may have inherited locks they held: it
// starts over with a pool of its own. Nothing here may be a function-local static, whose guard
// could be inherited the same way.
void forget_pool() { current_pool.store(nullptr, std::memory_order_relaxed); }
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, forget_pool);

Pool* pool() {
  Pool* pool = current_pool.load(std::memory_order_acquire);
  if (pool != nullptr) return pool;
  Pool* const fresh = new (std::nothrow) Pool;
  if (fresh == nullptr) return nullptr;
  if (current_pool.compare_exchange_strong(pool, fresh, std::memory_order_acq_rel)) return fresh;
  delete fresh;
  return pool;
}

// With the pool's mutex held. Threads that cannot be had are done without.
void start_threads(Pool* pool, int count) {
  if (pool->num_started == 0) keep_library_loaded();
  try {
    for (; pool->num_started < count; ++pool->num_started) std::thread(serve, pool).detach();
  } catch (...) {
  }
}

void publish(Pool* pool, std::shared_ptr<Call> call) {
  const int num_helpers = call->num_slots - 1;
  int num_sleepers = 0;
  {
    const std::lock_guard lock(pool->mutex);
    pool->num_wanted = get_num_threads() - 1;
    pool->call = std::move(call);
    pool->generation.fetch_add(1, std::memory_order_relaxed);
    start_threads(pool, std::min(num_helpers, pool->num_wanted));
    pool->helpers.keep_off_this_core();
    num_sleepers = pool->num_started > pool->num_wanted ? pool->num_started : num_helpers;
  }
  for (int i = 0; i < num_sleepers; ++i) pool->wake.notify_one();
}

void run_inline(int64_t num_items, Job job, void* context) {
  const InsideItem inside;
  for (int64_t item = 0; item < num_items; ++item) job(context, item, 0);
}

std::shared_ptr<Call> make_call(int64_t num_items, int workers, Job job, void* context) {
  try {
    return std::make_shared<Call>(job, context, num_items, workers);
  } catch (...) {
    return nullptr;
  }
}

// False if the pool serves another caller, or there is no memory for it.
bool run_on_pool(int64_t num_items, int workers, Job job, void* context) {
  Pool* const p = pool();
  if (p == nullptr || p->is_busy.exchange(true, std::memory_order_acquire)) return false;
  const std::shared_ptr<Call> call = make_call(num_items, workers, job, context);
  if (call != nullptr) {
    const bool came_soon = Clock::now() - p->last_end < kLongSpin;
    call->spin_after = came_soon && p->last_came_soon ? kLongSpin : kShortSpin;
    p->last_came_soon = came_soon;
    publish(p, call);
    run_items(*call, 0);
    wait_for_items(*call);
    p->last_end = Clock::now();
    const std::lock_guard lock(p->mutex);
    p->call.reset();
  }
  p->is_busy.store(false, std::memory_order_release);
  return call != nullptr;
}

// An embedder's way to run workers. Replaced ones are kept, as a call may be reading them.
struct Executor {
  void (*run)(void*, int, void (*)(void*, int), void*);
  void* context;
  const Executor* previous;
};
std::atomic<const Executor*> executor{nullptr};

void run_on_executor(const Executor& e, int64_t num_items, int workers, Job job, void* context) {
  Call call(job, context, num_items, workers);
  e.run(
      e.context, workers,
      [](void* argument, int worker) { run_items(*static_cast<Call*>(argument), worker); }, &call);
  run_items(call, 0);  // what an executor that ran fewer workers than asked has left
}

std::atomic<int> num_threads{0};  // 0: not asked for yet

}  // namespace

int num_workers(int64_t num_items, double cost) {
  if (is_inside_item) return 1;
  const double worthwhile = std::min<double>(cost / kCostPerWorker, get_num_threads());
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(num_items, worthwhile)));
}

void parallel_for(int64_t num_items, int workers, Job job, void* context) {
  if (workers > 1 && num_items > 1 && !is_inside_item) {
    const Executor* const e = executor.load(std::memory_order_acquire);
    if (e != nullptr && e->run != nullptr) {
      return run_on_executor(*e, num_items, workers, job, context);
    }
    if (run_on_openmp(num_items, workers, job, context)) return;
    if (run_on_pool(num_items, workers, job, context)) return;
  }
  run_inline(num_items, job, context);
}

void set_num_threads(int count) {
  num_threads.store(std::clamp(count, 0, kMaxThreads), std::memory_order_relaxed);
}

int get_num_threads() {
  const int known = num_threads.load(std::memory_order_relaxed);
  if (known > 0) return known;
  const int count = std::min(default_num_threads(), kMaxThreads);
  int unset = 0;
  num_threads.compare_exchange_strong(unset, count, std::memory_order_relaxed);
  return unset == 0 ? count : unset;
}

void set_parallel_for(void (*run)(void*, int, void (*)(void*, int), void*), void* context) {
  Executor* const fresh = new (std::nothrow) Executor{run, context, executor.load()};
  if (fresh == nullptr) return;  // no memory: whoever ran the work before still does
  while (!executor.compare_exchange_weak(fresh->previous, fresh)) {
  }
}

}  // namespace attnext::cpu
