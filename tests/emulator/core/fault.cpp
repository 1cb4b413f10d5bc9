// The signal handler: it sends the faulting fiber to a function that reports, on a stack of its
// own.
#include "core/fault.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include <cstdint>

#include "core/memory.h"
#include "core/report.h"

namespace emulator {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
alignas(64) uint8_t report_stack[kStackBytes];
alignas(64) uint8_t handler_stack[kStackBytes];
uintptr_t fault_address;
struct sigaction previous_segv, previous_bus;
stack_t previous_alternate;
pthread_t machine_thread;  // faults of other threads of the host are theirs

void report_fault() {
  const void* address = reinterpret_cast<const void*>(fault_address);
  if (is_stack_guard(fault_address)) {
    fail(self().wait.site, "STACK OVERFLOW: a thread's local arrays exceed 256 KiB; last seen");
  }
  fail(self().wait.site, "MEMORY FAULT: a plain access at ", address,
       is_memory_guard(fault_address) ? ", outside the allocation beside it" : "",
       "; the thread last waited");
}

void handle(int signal, siginfo_t* info, void* context) {
  if (!machine().is_on_fiber ||
      !pthread_equal(machine_thread, pthread_self())) {  // not a kernel's: as if we were not here
    sigaction(signal, signal == SIGSEGV ? &previous_segv : &previous_bus, nullptr);
    return;
  }
  fault_address = reinterpret_cast<uintptr_t>(info->si_addr);
  auto& machine_context = static_cast<ucontext_t*>(context)->uc_mcontext;
  const auto entry = reinterpret_cast<uintptr_t>(report_fault);
  const auto top = reinterpret_cast<uintptr_t>(report_stack) + kStackBytes - 64;
#if defined(__x86_64__)
  machine_context.gregs[REG_RIP] = static_cast<greg_t>(entry);
  machine_context.gregs[REG_RSP] = static_cast<greg_t>(top - 8);  // as after a call
#else
  machine_context.pc = entry;
  machine_context.sp = top;
#endif
}

}  // namespace

FaultsReported::FaultsReported() {
  machine_thread = pthread_self();
  stack_t alternate{};
  alternate.ss_sp = handler_stack;
  alternate.ss_size = kStackBytes;
  sigaltstack(&alternate, &previous_alternate);
  struct sigaction action{};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, &previous_segv);
  sigaction(SIGBUS, &action, &previous_bus);
}

FaultsReported::~FaultsReported() {
  sigaction(SIGSEGV, &previous_segv, nullptr);
  sigaction(SIGBUS, &previous_bus, nullptr);
  sigaltstack(&previous_alternate, nullptr);
}

}  // namespace emulator
