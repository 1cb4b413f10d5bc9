// The CPU back end of one instruction set: compiled once per ISA (-DATTNEXT_ISA=avx2 and that ISA's
// flags), it fills that ISA's table. Everything it includes has internal linkage or lives in a
// namespace of the ISA's own.
#include "cpu/isa_name.h"
// The name must come first.
#include "cpu/backward.h"
#include "cpu/forward.h"
#include "cpu/inspect.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

static void forward(const ForwardParams& params) {
  with_accumulator(params.problem, [&](auto zero) {
    with_term(params.problem,
              [&](auto term) { run_forward<decltype(zero), decltype(term)>(params); });
  });
}

static void backward(const BackwardParams& params) {
  with_accumulator(params.problem, [&](auto zero) {
    with_term(params.problem,
              [&](auto term) { run_backward<decltype(zero), decltype(term)>(params); });
  });
}

static void weights(const WeightsParams& params) {
  with_accumulator(params.problem, [&](auto zero) { run_weights<decltype(zero)>(params); });
}

static void stats(const StatsParams& params) {
  with_accumulator(params.problem, [&](auto zero) { run_stats<decltype(zero)>(params); });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu

// What it lists stands above.
#include "cpu/kernels_table.h"
