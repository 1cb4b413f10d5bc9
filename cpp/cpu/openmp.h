// How work runs on the threads of an OpenMP runtime that the process has anyway, as with PyTorch.
// Two pools in turns take each other's cores: threads that have just worked wait awake for a while.
#pragma once

#include "cpu/parallel.h"

namespace attnext::cpu {

// GOMP_parallel, which the runtimes of GCC, LLVM and Intel have: runs `work(argument)` on every
// thread of the caller's team. 0 threads: as many as its regions have by default.
using OpenMpRegion = void (*)(void (*work)(void*), void* argument, unsigned num_threads,
                              unsigned flags);

// For calls of this thread alone: a runtime has a team of threads for each thread that asks. Null:
// no longer. A child process after fork does not, as its runtime's threads are gone.
void share_openmp(OpenMpRegion region);
bool shares_openmp();

// False where this thread does not.
bool run_on_openmp(int64_t num_items, int workers, Job job, void* context);

}  // namespace attnext::cpu
