// Forward by matrix instructions: when it can, with which instance and grid.
#include <cstdio>
#include <type_traits>

#include "mma/combine.cuh"
#include "mma/dispatch.h"
#include "ptx/launch.h"

namespace attnext::cuda::mma {

// Defined in forward_launch.cuh, instantiated by the lines of instances.txt.
template <class Element, int kHeadDim, Budget kBudget, Features kFeatures>
cudaError_t launch_forward(const ForwardArguments& a, dim3 grid, cudaStream_t stream);

namespace {

// Masks by rule alone, and scales that keep the order of scores: the plain kernel.
Features features_of(const Problem& p, const Problem& host) {
  const bool has_options = p.score == Score::kCosine || p.softcap > 0 ||
                           p.dropout.probability > 0 || is_present(p.mask) ||
                           is_present(p.bias) || p.alibi_slopes != nullptr;
  if (has_options) return Features::kOptions;
  for (int64_t i = 0; i < p.num_heads_q; ++i)
    if (!(host.scale[i] > 0)) return Features::kOptions;
  return Features::kPlain;
}

// Instances exist with both features where that buys a second fragment of rows.
constexpr bool is_compiled_plain(int width, Budget budget) {
  return forward_row_fragments(width, budget, Features::kPlain) > 1;
}

template <class Element, int kWidth, Budget kBudget>
cudaError_t start(const ForwardArguments& a, Features features, dim3 grid, cudaStream_t stream) {
  if constexpr (is_compiled_plain(kWidth, kBudget))
    if (features == Features::kPlain)
      return launch_forward<Element, kWidth, kBudget, Features::kPlain>(a, grid, stream);
  return launch_forward<Element, kWidth, kBudget, Features::kOptions>(a, grid, stream);
}

template <class Element, int kWidth>
cudaError_t start(const ForwardArguments& a, Budget budget, Features features, dim3 grid,
                  cudaStream_t stream) {
  if constexpr (std::is_same_v<Element, Float16>)
    if (budget == Budget::kTuring)
      return start<Element, kWidth, Budget::kTuring>(a, features, grid, stream);
  if constexpr (kWidth > kWidestSharedForward)
    if (budget == Budget::kSmall)
      return start<Element, kWidth, Budget::kSmall>(a, features, grid, stream);
  return start<Element, kWidth, Budget::kLarge>(a, features, grid, stream);
}

// The most splits of a sequence; 0: none is split.
int64_t longest_split(const Problem& host) {
  int64_t longest = 1;
  for (int64_t i = 0; i < host.batch; ++i) {
    const Mask& mask = host.sequences[i].mask;
    longest = max_of(longest, splits_of(mask, mask.seqlen_q * host.group_size));
  }
  return longest > 1 ? longest : 0;
}

Status start_forward(ForwardArguments& a, int width, int64_t tile_q, Launch& launch) {
  const Problem& p = a.params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  a.items = max_of(divide_up(rows, tile_q), a.splits);
  const dim3 grid = grid_of(a.items * p.batch * p.num_heads_kv);
  const Budget budget = budget_of(launch.device, width, kWidestSharedForward);
  const Features features = features_of(p, *launch.host_problem);
  launch.check(with_width(width,
                          [&](auto w) {
                            return dtype_of(p.q) == DType::kFloat16
                                       ? start<Float16, w.value>(a, budget, features, grid,
                                                                 launch.stream)
                                       : start<BFloat16, w.value>(a, budget, features, grid,
                                                                  launch.stream);
                          }),
               "mma forward_kernel");
  if (!launch.status().is_ok() || a.splits == 0) return launch.status();
  const int64_t blocks = divide_up(rows, kCombineWarps) * p.batch * p.num_heads_kv;
  launch.check(ptx::launch(combine_kernel, grid_of(blocks), dim3(32 * kCombineWarps), 0,
                           launch.stream, a),
               "mma combine_kernel");
  return launch.status();
}

}  // namespace

const char* why_not_forward(const ForwardParams& params, const Device& device) {
  return why_no_instance(params.problem, device);
}

Status forward(const ForwardParams& params, Launch& launch) {
  const Problem& p = params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  if (p.batch == 0 || p.num_heads_kv == 0 || rows == 0) return launch.status();
  const int width = instance_width(max_of(p.head_dim, p.head_dim_v));
  ForwardArguments a{params,         has_chunks(p.q), has_chunks(p.k), has_chunks(p.v),
                     has_pairs(params.out), 0,        longest_split(*launch.host_problem),
                     nullptr,        nullptr,         min_of(rows, kFewRows)};
  if (a.splits > 0) {
    const int64_t states = p.batch * p.num_heads_kv * a.splits * a.partial_rows;
    a.states = launch.take<float2>(states);
    a.partials = launch.take<float>(states * p.head_dim_v);
    if (!launch.status().is_ok()) return launch.status();
  }
  return start_forward(a, width, forward_tile_q(width, budget_of(launch.device, width, kWidestSharedForward)), launch);
}

int describe_forward(const ForwardParams& params, const Device& device, char* text,
                     size_t capacity) {
  const Problem& p = params.problem;
  const int width = instance_width(max_of(p.head_dim, p.head_dim_v));
  const Budget budget = budget_of(device, width, kWidestSharedForward);
  return std::snprintf(text, capacity,
                       "\"kernel\": \"mma\", \"instruction\": \"%s\", \"width\": %d, "
                       "\"tile_q\": %d, \"tile_k\": %d, \"split_keys\": %lld",
                       budget == Budget::kTuring ? "m16n8k8" : "m16n8k16", width,
                       forward_tile_q(width, budget), forward_tile_k(width, budget),
                       static_cast<long long>(kSplitKeys));
}

}  // namespace attnext::cuda::mma
