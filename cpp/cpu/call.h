// What one parallel_for is while it runs: its items, claimed in order, and counted when done.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "cpu/arithmetic.h"
#include "cpu/parallel.h"

namespace attnext::cpu {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#else
  std::this_thread::yield();
#endif
}

// A thread that waits spins before it sleeps: in a virtual machine it takes 40 microseconds to
// wake. Long enough for the next call of a Python loop over small ones, or for another worker's
// last item; but a thread that spins has a core that other libraries' threads may want, so that one
// waits so long for a call only where the last two had come as soon (a pass may be two).
using Clock = std::chrono::steady_clock;
constexpr std::chrono::microseconds kShortSpin{3}, kLongSpin{20};

// Whether `is_done` came true within `longest`.
template <class F>
bool spin(std::chrono::microseconds longest, F&& is_done) {
  constexpr int kBetweenLooksAtTheClock = 16;
  const Clock::time_point end = Clock::now() + longest;
  do {
    for (int i = 0; i < kBetweenLooksAtTheClock; ++i) {
      if (is_done()) return true;
      relax();
    }
  } while (Clock::now() < end);
  return false;
}

// True while this thread runs items: a parallel_for in there runs inline.
inline thread_local bool is_inside_item = false;

struct InsideItem {
  const DefaultArithmetic arithmetic;  // an embedder's threads may have one of their own
  const bool was_inside = std::exchange(is_inside_item, true);
  ~InsideItem() { is_inside_item = was_inside; }
};

// One parallel_for. Workers that wake up late may hold it when its caller is long gone; they find
// no items left, and so never touch `context`.
struct Call {
  Job job;
  void* context;
  int64_t num_items;
  int num_slots;
  std::chrono::microseconds spin_after{kShortSpin};  // how long its workers wait for the next one
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> num_done{0};
  std::atomic<int> next_slot{1};  // 0 is the caller
  std::mutex mutex;
  std::condition_variable all_done;

  Call(Job job_, void* context_, int64_t num_items_, int num_slots_)
      : job(job_), context(context_), num_items(num_items_), num_slots(num_slots_) {}
};

inline void run_items(Call& call, int slot) {
  const InsideItem inside;
  int64_t num_run = 0;
  int64_t item;
  while ((item = call.next.fetch_add(1, std::memory_order_relaxed)) < call.num_items) {
    call.job(call.context, item, slot);
    ++num_run;
  }
  if (num_run == 0) return;
  const int64_t before = call.num_done.fetch_add(num_run, std::memory_order_acq_rel);
  if (before + num_run < call.num_items) return;
  // Taking the lock keeps the notification out of the gap between the caller's test and its sleep.
  std::unique_lock(call.mutex).unlock();
  call.all_done.notify_one();
}

// Items are counted, not workers: the caller waits for nobody who has not claimed one.
inline void wait_for_items(Call& call) {
  const auto is_done = [&] {
    return call.num_done.load(std::memory_order_acquire) == call.num_items;
  };
  if (spin(kLongSpin, is_done)) return;
  std::unique_lock lock(call.mutex);
  call.all_done.wait(lock, is_done);
}

}  // namespace attnext::cpu
