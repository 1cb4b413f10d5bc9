// How independent pieces of work reach the cores: a job pool, or what stands in for it.
#pragma once

#include <cstdint>

namespace attnext::cpu {

// Work item `item`, on worker slot `worker` in [0, num_workers()): at most one item runs on a slot
// at a time, so a slot indexes scratch memory. Must not throw.
using Job = void (*)(void* context, int64_t item, int worker);

// How many slots parallel_for(num_items, cost, ..) will use. `cost` is the work of all items in
// floating-point operations: below a few tens of microseconds the caller does it all.
int num_workers(int64_t num_items, double cost);

// Runs job(context, i, worker) for every i in [0, num_items), `workers` as answered by num_workers.
// Items are claimed in increasing order, and every claimed item is being run by a live thread: an
// item may therefore wait for a lower one.
void parallel_for(int64_t num_items, int workers, Job job, void* context);

void set_num_threads(
    int count);  // < 1: the default again (ATTNEXT_NUM_THREADS, OMP_NUM_THREADS, affinity, cgroup)
int get_num_threads();

// An embedder's executor, as in attnext.h; null: the pool again.
void set_parallel_for(void (*run)(void*, int, void (*)(void*, int), void*), void* context);

}  // namespace attnext::cpu
