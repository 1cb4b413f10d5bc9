// Which of the compiled kernels a problem needs: the type it is accumulated in and the kind of
// term, all that is compiled apart.
#pragma once

#include "attention/score.h"
#include "cpu/simd/vec.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// run(term)
template <class F>
ATTNEXT_HD auto with_term(const Problem& p, F&& run) {
  if (p.score == Score::kAdditive) return run(AdditiveTerm{});
  if (p.score == Score::kNegL2 || p.score == Score::kNegSqL2) return run(SquareTerm{});
  return run(DotTerm{});
}

// run(a zero of the accumulator)
template <class F>
ATTNEXT_HD auto with_accumulator(const Problem& p, F&& run) {
  if (kDTypes[p.q.dtype].accumulator == DType::kFloat64) return run(double{});
  return run(float{});
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
