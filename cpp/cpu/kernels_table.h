// The table of an instruction set. Included last, by the file that has defined the set's forward,
// backward, weights and stats.
#pragma once

#include "cpu/explain.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

static int explain(const Problem& problem, char* text, int capacity) {
  return with_accumulator(
      problem, [&](auto zero) { return run_explain<decltype(zero)>(problem, text, capacity); });
}

}  // namespace ATTNEXT_ISA_NAMESPACE

const Kernels& ATTNEXT_CONCATENATE(kernels_, ATTNEXT_ISA)() {
  using namespace ATTNEXT_ISA_NAMESPACE;
  static constexpr Kernels kTable = {.isa = ATTNEXT_TEXT(ATTNEXT_ISA),
                                     .forward = forward,
                                     .backward = backward,
                                     .weights = weights,
                                     .stats = stats,
                                     .explain = explain};
  return kTable;
}

}  // namespace attnext::cpu
