// The CPU back end of an instruction set that multiplies bfloat16 in pairs (-DATTNEXT_ISA): dot
// products of bfloat16. All else is what the kernels of the set below (-DATTNEXT_ISA_BELOW) do, and
// is not compiled a second time.
#include "cpu/isa_name.h"
// The name must come first.
#include "cpu/backward.h"
#include "cpu/forward.h"

namespace attnext::cpu {

const Kernels& ATTNEXT_CONCATENATE(kernels_, ATTNEXT_ISA_BELOW)();

namespace ATTNEXT_ISA_NAMESPACE {

static const Kernels& below() { return ATTNEXT_CONCATENATE(kernels_, ATTNEXT_ISA_BELOW)(); }

static void forward(const ForwardParams& params) {
  if (is_paired(params.problem)) return run_forward<float, PairedDotTerm>(params);
  below().forward(params);
}

static void backward(const BackwardParams& params) {
  if (is_paired(params.problem)) return run_backward<float, PairedDotTerm>(params);
  below().backward(params);
}

static void weights(const WeightsParams& params) { below().weights(params); }

static void stats(const StatsParams& params) { below().stats(params); }

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu

// What it lists stands above.
#include "cpu/kernels_table.h"
