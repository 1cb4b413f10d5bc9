// Which instruction sets this build has, which of them this machine can run, and which one was
// chosen.
#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace attnext::cpu {

#if defined(ATTNEXT_HAS_AVX512_BF16)
const Kernels& kernels_avx512_bf16();
#endif
#if defined(ATTNEXT_HAS_AVX512)
const Kernels& kernels_avx512();
#endif
#if defined(ATTNEXT_HAS_AVX2)
const Kernels& kernels_avx2();
#endif
#if defined(ATTNEXT_HAS_NEON)
const Kernels& kernels_neon();
#endif
#if defined(ATTNEXT_HAS_BASELINE)
const Kernels& kernels_baseline();
#endif

namespace {

[[maybe_unused]] bool is_always_supported() { return true; }

#if defined(__x86_64__)
// Parts of x86-64-v3 that older compilers' __builtin_cpu_supports has no names for.
bool has_small_extensions() {
  unsigned a = 0, b = 0, c = 0, d = 0, extended = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return false;
  if (__get_cpuid(0x80000001, &a, &b, &extended, &d) == 0) return false;
  return (c & bit_F16C) != 0 && (c & bit_MOVBE) != 0 && (extended & bit_LZCNT) != 0;
}

[[maybe_unused]] bool is_level_3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_small_extensions();
}

[[maybe_unused]] bool is_level_4() {
  return is_level_3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

[[maybe_unused]] bool is_level_4_with_bf16() {
  return is_level_4() && __builtin_cpu_supports("avx512bf16");
}
#endif

// Best first. A level asks for all that its compiler flags let the compiler use.
constexpr Isa kIsas[] = {
#if defined(ATTNEXT_HAS_AVX512_BF16)
    {"avx512_bf16", is_level_4_with_bf16, kernels_avx512_bf16},
#endif
#if defined(ATTNEXT_HAS_AVX512)
    {"avx512", is_level_4, kernels_avx512},
#endif
#if defined(ATTNEXT_HAS_AVX2)
    {"avx2", is_level_3, kernels_avx2},
#endif
#if defined(ATTNEXT_HAS_NEON)
    {"neon", is_always_supported, kernels_neon},
#endif
#if defined(ATTNEXT_HAS_BASELINE)
    {"baseline", is_always_supported, kernels_baseline},
#endif
};
constexpr int kNumIsas = sizeof(kIsas) / sizeof(kIsas[0]);

struct Selection {
  const Kernels* kernels;
  bool is_forced;
  std::string error;
};

std::string names(bool only_supported) {
  std::string list;
  for (const Isa& isa : kIsas) {
    if (only_supported && !isa.is_supported()) continue;
    list += list.empty() ? isa.name : std::string(", ") + isa.name;
  }
  return list.empty() ? "none" : list;
}

// A build may lack everything its machine can run; then the last entry stands in, never to be run.
Selection best_supported() {
  for (const Isa& isa : kIsas) {
    if (isa.is_supported()) return {&isa.kernels(), false, ""};
  }
  return {&kIsas[kNumIsas - 1].kernels(), false,
          "this build has kernels for " + names(false) + ", of which this machine supports none"};
}

Selection select() {
  const char* const wanted = std::getenv("ATTNEXT_ISA");
  if (wanted == nullptr || *wanted == '\0') return best_supported();
  for (const Isa& isa : kIsas) {
    if (std::strcmp(isa.name, wanted) == 0 && isa.is_supported()) {
      return {&isa.kernels(), true, ""};
    }
  }
  Selection fallback = best_supported();
  fallback.error = "ATTNEXT_ISA must be one of " + names(false) + " that this machine supports (" +
                   names(true) + "), found " + wanted;
  return fallback;
}

// Not a function-local static: its guard, if taken by another thread during a fork, would stay
// taken in the child for ever. Two threads may both select; they select the same.
std::atomic<const Selection*> selection{nullptr};

const Selection& selected() {
  const Selection* current = selection.load(std::memory_order_acquire);
  if (current != nullptr) return *current;
  const Selection* const fresh = new Selection(select());
  if (selection.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *current;
}

}  // namespace

int num_isas() { return kNumIsas; }

const Isa& isa_at(int index) { return kIsas[index]; }

const Kernels& selected_kernels() { return *selected().kernels; }

const char* selection_error() {
  const std::string& error = selected().error;
  return error.empty() ? nullptr : error.c_str();
}

bool is_forced() { return selected().is_forced; }

}  // namespace attnext::cpu
