// How a thread of the device is suspended and resumed: a stack of its own and a saved stack
// pointer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

struct Fiber {
  void* stack_pointer = nullptr;  // where it goes on; meaningful while it is suspended
  uint8_t* stack = nullptr;       // lowest usable byte; a page that cannot be touched lies below
};

// Prepares `fiber` to start in `entry`, which never returns, with a stack from the pool.
void start_fiber(Fiber& fiber, int stack_index, void (*entry)());

// Saves where the running fiber is in *from and goes on at `to`.
extern "C" void emulator_switch(void** from, void* to);

// Does the address belong to the page below a stack?
bool is_stack_guard(uintptr_t address);

}  // namespace emulator
