// Who runs next? Threads switch only in wrappers, in an order drawn from the seed.
#pragma once

#include "core/machine.h"

namespace emulator {

void make_ready(Thread& thread);

// The running thread cannot go on before somebody makes it ready.
void wait_here(const Wait& wait);

// Lets others run, always or now and then.
void yield();
void maybe_yield();

// Somebody looks again whether another block has done something. Fails if that goes on for ever.
void note_spin(const Site& site);

// From the host: runs until a block has finished (machine().finished) or a check has failed.
void run_threads();

// Runs work of engines whose owner and group match, now: somebody waits for it.
void finish_work(const void* owner, uint32_t up_to_group);
bool has_work(const void* owner);

// A new order: how eagerly asynchronous operations complete, and whether warps starve.
void draw_order();

}  // namespace emulator
