// The CPU back end of one instruction set: compiled once per ISA (-DATTNEXT_ISA=avx2 and that ISA's
// flags), it fills that ISA's table. Everything it includes has internal linkage or lives in a
// namespace of the ISA's own.
#define ATTNEXT_CONCATENATE_(a, b) a##b
#define ATTNEXT_CONCATENATE(a, b) ATTNEXT_CONCATENATE_(a, b)
#define ATTNEXT_ISA_NAMESPACE ATTNEXT_CONCATENATE(isa_, ATTNEXT_ISA)
#define ATTNEXT_TEXT_(a) #a
#define ATTNEXT_TEXT(a) ATTNEXT_TEXT_(a)

#include "cpu/backward.h"
#include "cpu/explain.h"
#include "cpu/inspect.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// The two types everything is accumulated in, and the three kinds of term: all that is compiled
// apart.
template <class F>
static auto dispatch(const Problem& p, F&& pass) {
  const auto with_term = [&](auto zero) {
    if (p.score == Score::kAdditive) return pass(zero, AdditiveTerm{});
    if (p.score == Score::kNegL2 || p.score == Score::kNegSqL2) return pass(zero, SquareTerm{});
    return pass(zero, DotTerm{});
  };
  if (kDTypes[p.q.dtype].accumulator == DType::kFloat64) return with_term(double{});
  return with_term(float{});
}

static void forward(const ForwardParams& params) {
  if constexpr (kHasPairs) {
    if (is_paired(params.problem)) return run_forward<float, PairedDotTerm>(params);
  }
  dispatch(params.problem,
           [&](auto zero, auto term) { run_forward<decltype(zero), decltype(term)>(params); });
}

static void backward(const BackwardParams& params) {
  if constexpr (kHasPairs) {
    if (is_paired(params.problem)) return run_backward<float, PairedDotTerm>(params);
  }
  dispatch(params.problem,
           [&](auto zero, auto term) { run_backward<decltype(zero), decltype(term)>(params); });
}

static void weights(const WeightsParams& params) {
  dispatch(params.problem,
           [&](auto zero, auto term) { run_weights<decltype(zero), decltype(term)>(params); });
}

static void stats(const StatsParams& params) {
  dispatch(params.problem,
           [&](auto zero, auto term) { run_stats<decltype(zero), decltype(term)>(params); });
}

static int explain(const Problem& problem, char* text, int capacity) {
  return dispatch(problem, [&](auto zero, auto term) {
    return run_explain<decltype(zero), decltype(term)>(problem, text, capacity);
  });
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
