// Switching stacks on x86-64 and AArch64, and the pool the stacks come from.
#include "core/fiber.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <vector>

// The callee-saved registers of the platform's C convention; the rest is the caller's to save.
#if defined(__x86_64__)
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch,.-emulator_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,%function
emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emulator_switch,.-emulator_switch
)");
#else
#error "The emulator knows how to switch stacks on x86-64 and AArch64 only."
#endif

namespace emulator {
namespace {

// Committed as it is touched. A kernel's register arrays lie here: 256 floats are 1 KiB.
constexpr size_t kStackBytes = 256 * 1024, kGuardBytes = 64 * 1024;

std::vector<uint8_t*>& pool() {
  static std::vector<uint8_t*> stacks;  // mappings: guard below, stack above
  return stacks;
}

uint8_t* stack_of(int index) {
  while (static_cast<int>(pool().size()) <= index) {
    void* mapping = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED || mprotect(mapping, kGuardBytes, PROT_NONE) != 0) {
      throw std::bad_alloc();
    }
    pool().push_back(static_cast<uint8_t*>(mapping));
  }
  return pool()[index] + kGuardBytes;
}

}  // namespace

void start_fiber(Fiber& fiber, int stack_index, void (*entry)()) {
  fiber.stack = stack_of(stack_index);
  // Stacks that begin at the same offset would all compete for the same cache lines.
  const size_t offset = 64 * static_cast<size_t>(stack_index % 64);
  auto* top = fiber.stack + kStackBytes - 256 - offset;
#if defined(__x86_64__)
  // Six registers, then the address `ret` takes; what follows it is 8 modulo 16, as after a call.
  auto** frame = reinterpret_cast<void**>(top) - 8;
  memset(frame, 0, 8 * sizeof(void*));
  frame[6] = reinterpret_cast<void*>(entry);
#else
  auto** frame = reinterpret_cast<void**>(top - 160);
  memset(frame, 0, 160);
  frame[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  fiber.stack_pointer = frame;
}

bool is_stack_guard(uintptr_t address) {
  for (const uint8_t* mapping : pool()) {
    const auto begin = reinterpret_cast<uintptr_t>(mapping);
    if (address >= begin && address < begin + kGuardBytes) return true;
  }
  return false;
}

}  // namespace emulator
