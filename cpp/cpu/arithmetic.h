// In which mode numbers are computed, whatever the calling thread has set for itself.
#pragma once

#include <cstdint>

namespace attnext::cpu {

// The standard's mode while it lives: to nearest, subnormal numbers as they are, no traps. Other
// libraries set flags of a thread (XLA's pool and torch.set_flush_denormal take subnormal numbers
// for zero), and a result must not depend on who computes which part of it. Only the registers that
// vectors are computed by count: saving the whole environment takes longer than a small call.
class DefaultArithmetic {
 public:
  DefaultArithmetic() : callers_(mode()) {
    if (callers_ != kDefault) set_mode(kDefault);
  }
  ~DefaultArithmetic() {
    if (callers_ != kDefault) set_mode(callers_);
  }
  DefaultArithmetic(const DefaultArithmetic&) = delete;
  DefaultArithmetic& operator=(const DefaultArithmetic&) = delete;

 private:
#if defined(__x86_64__)
  // Without the flags of what happened so far, which stay the caller's.
  static constexpr uint64_t kFlags = 0x3F, kDefault = 0x1F80;
  static uint64_t mode() { return __builtin_ia32_stmxcsr() & ~kFlags; }
  static void set_mode(uint64_t mode) {
    const uint64_t flags = __builtin_ia32_stmxcsr() & kFlags;
    __builtin_ia32_ldmxcsr(static_cast<unsigned>(mode | flags));
  }
#elif defined(__aarch64__)
  static constexpr uint64_t kDefault = 0;
  static uint64_t mode() {
    uint64_t fpcr;
    asm volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
  }
  static void set_mode(uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
  static constexpr uint64_t kDefault = 0;
  static uint64_t mode() { return kDefault; }
  static void set_mode(uint64_t) {}
#endif
  const uint64_t callers_;
};

}  // namespace attnext::cpu
