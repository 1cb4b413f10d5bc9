// Backward by matrix instructions: which instances and grids; what surrounds the products (row
// constants, sums over heads, gradients of a bias) is that of the FFMA path.
#include "mma/dispatch.h"
#include "mma/gradient.cuh"
#include "mma/load.cuh"
#include "simt/backward.cuh"
#include "simt/norms.h"
#include "simt/passes.h"
#include "simt/unread.h"

namespace attnext::cuda::mma {

// Defined in backward_launch.cuh, instantiated by the lines of instances.txt.
template <class Element, int kHeadDim, Budget kBudget, Features kFeatures>
cudaError_t launch_backward_queries(const BackwardArguments& a, dim3 grid, cudaStream_t stream);
template <class Element, int kHeadDim, Budget kBudget, Features kFeatures, KeyGradients kWanted>
cudaError_t launch_backward_keys(const BackwardArguments& a, dim3 grid, cudaStream_t stream);

namespace {

using Extras = simt::BackwardArguments<float>;
using Steps = simt::Steps<float>;

// Masks by rule alone, and one scale in a group that is positive: the plain kernels. Row sums are
// found by those with options.
Features features_of(const BackwardParams& params, const Problem& host) {
  const Problem& p = params.problem;
  const bool has_options = p.score == Score::kCosine || p.softcap > 0 ||
                           p.dropout.probability > 0 || is_present(p.mask) || is_present(p.bias) ||
                           p.alibi_slopes != nullptr || simt::has_row_sums(params);
  if (has_options) return Features::kOptions;
  for (int64_t i = 0; i < p.num_heads_q; ++i)
    if (!(host.scale[i] > 0) || host.scale[i] != host.scale[i - i % p.group_size])
      return Features::kOptions;
  return Features::kPlain;
}

template <class Element, int kWidth, Budget kBudget, Features kFeatures>
void start_products(BackwardArguments& a, Launch& launch) {
  constexpr int kBytes = sizeof(typename Element::Stored);
  const Problem& p = a.params.problem;
  const int64_t groups = p.batch * p.num_heads_kv;
  a.items = divide_up(p.seqlen_q * p.group_size,
                      BackwardShape<kWidth, kBytes, kBudget, kFeatures, Owner::kQueries>::kOwned);
  if (a.items > 0 && is_present(a.params.dq))
    launch.check(launch_backward_queries<Element, kWidth, kBudget, kFeatures>(
                     a, grid_of(groups * a.items), launch.stream),
                 "mma backward_queries_kernel");
  a.items = divide_up(p.seqlen_k,
                      BackwardShape<kWidth, kBytes, kBudget, kFeatures, Owner::kKeys>::kOwned);
  if (a.items == 0 || !launch.status().is_ok()) return;
  const auto start = [&](auto wanted) {
    launch.check(launch_backward_keys<Element, kWidth, kBudget, kFeatures, wanted.value>(
                     a, grid_of(groups * a.items), launch.stream),
                 "mma backward_keys_kernel");
  };
  if constexpr (kWidth <= widest_both(kBytes)) {
    if (is_present(a.params.dk)) start(std::integral_constant<KeyGradients, KeyGradients::kBoth>{});
  } else {
    if (is_present(a.params.dv))
      start(std::integral_constant<KeyGradients, KeyGradients::kValues>{});
    if (is_present(a.params.dk)) start(std::integral_constant<KeyGradients, KeyGradients::kKeys>{});
  }
}

void start_products(BackwardArguments& a, const Instance* chosen, Launch& launch) {
  with_element(a.params.problem, [&](auto element) {
    using Element = decltype(element);
    with_instance(kBackwardInstances, chosen, [&](auto index) {
      constexpr Instance i = kBackwardInstances[index.value];
      if constexpr (has_element<Element>(i))
        start_products<Element, i.width, i.budget, i.features>(a, launch);
    });
  });
}

Extras take_extras(const BackwardParams& params, Launch& launch) {
  const Problem& p = params.problem;
  const int64_t rows = simt::workspace_rows(p);
  const simt::BiasSum bias = simt::bias_sum_of(params);
  const bool has_bias_product = bias == simt::BiasSum::kDense || bias == simt::BiasSum::kPerKey;
  Extras a{};
  a.params = params;
  a.space.lse_log2 = launch.take<float>(rows);
  a.space.lse_rest = launch.take<float>(rows);
  a.space.delta = launch.take<float>(rows);
  if (simt::has_row_sums(params)) a.space.row_sums = launch.take<double>(rows * kNumRowSums);
  if (bias == simt::BiasSum::kPerKey)
    a.space.bias_keys = launch.take<double>(p.batch * p.num_heads_q * p.seqlen_k);
  if (has_bias_product) a.norms = simt::take_norms<float>(p, launch);
  return a;
}

}  // namespace

const char* why_not_backward(const BackwardParams& params, bool allows_tf32, const Device& device) {
  return why_no_instance(params.problem, allows_tf32, device);
}

Status backward(const BackwardParams& wanted, Launch& launch) {
  BackwardParams params = wanted;
  const Problem& p = params.problem;
  const Instance* const chosen = find_instance(
      kBackwardInstances, p, features_of(params, *launch.host_problem), launch.device);
  simt::take_unread(params, chosen->width <= widest_both(chosen->element_bytes), launch);
  Extras extras = take_extras(params, launch);
  if (!launch.status().is_ok()) return launch.status();
  const bool has_norms = extras.norms.q != nullptr;
  if (has_norms && !Steps::find_norms(p, extras.norms, launch).is_ok()) return launch.status();
  Steps::prepare_rows(extras, launch);
  BackwardArguments a{params,
                      access_of(p.q),
                      access_of(p.k),
                      access_of(p.v),
                      access_of(params.dout),
                      has_pairs(params.dq),
                      has_pairs(params.dk),
                      has_pairs(params.dv),
                      p.softcap > 0 ? effective_cap<float>(p.softcap * kLog2E) : 0,
                      p.dropout.probability > 0,
                      0,
                      extras.space.lse_log2,
                      extras.space.delta,
                      extras.space.row_sums};
  if (launch.status().is_ok()) start_products(a, chosen, launch);
  if (launch.status().is_ok()) simt::start_bias<float, DotTerm>(extras, launch);
  if (launch.status().is_ok()) Steps::add_up(extras, launch);
  return launch.status();
}

}  // namespace attnext::cuda::mma
