// Forward by matrix instructions: when it can, with which instance and grid.
#include <cstdio>

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
                           p.dropout.probability > 0 || is_present(p.mask) || is_present(p.bias) ||
                           p.alibi_slopes != nullptr;
  if (has_options) return Features::kOptions;
  for (int64_t i = 0; i < p.num_heads_q; ++i)
    if (!(host.scale[i] > 0)) return Features::kOptions;
  return Features::kPlain;
}

const Instance* instance_of(const Problem& p, Features features, const Device& device) {
  return find_instance(kForwardInstances, p, features, device);
}

// Whether the batch holds sequences of few rows, and of more.
struct Kinds {
  bool has_few = false, has_many = false;
};
Kinds kinds_of(const Problem& host) {
  Kinds kinds;
  for (int64_t i = 0; i < host.batch; ++i) {
    const bool is_few = has_few_rows(host.sequences[i].mask.seqlen_q * host.group_size);
    (is_few ? kinds.has_few : kinds.has_many) = true;
  }
  return kinds;
}

cudaError_t start_instance(const Instance* chosen, const ForwardArguments& a, dim3 grid,
                           cudaStream_t stream) {
  cudaError_t code = cudaSuccess;
  with_element(a.params.problem, [&](auto element) {
    using Element = decltype(element);
    with_instance(kForwardInstances, chosen, [&](auto index) {
      constexpr Instance i = kForwardInstances[index.value];
      if constexpr (has_element<Element>(i))
        code = launch_forward<Element, i.width, i.budget, i.features>(a, grid, stream);
    });
  });
  return code;
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

void start_kernel(ForwardArguments& a, Features features, Launch& launch) {
  const Problem& p = a.params.problem;
  const Instance* chosen = instance_of(p, features, launch.device);
  const int tile_q =
      forward_tile_q(chosen->width, chosen->element_bytes, chosen->budget, chosen->features);
  a.items = max_of(divide_up(p.seqlen_q * p.group_size, tile_q), a.splits);
  const dim3 grid = grid_of(a.items * p.batch * p.num_heads_kv);
  launch.check(start_instance(chosen, a, grid, launch.stream), "mma forward_kernel");
}

Status start_forward(ForwardArguments& a, Launch& launch) {
  const Problem& p = a.params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  const Kinds kinds = kinds_of(*launch.host_problem);
  if (kinds.has_many) start_kernel(a, features_of(p, *launch.host_problem), launch);
  if (kinds.has_few && launch.status().is_ok()) start_kernel(a, Features::kFewRows, launch);
  if (!launch.status().is_ok() || a.splits == 0) return launch.status();
  const int64_t blocks = divide_up(rows, kCombineWarps) * p.batch * p.num_heads_kv;
  launch.check(
      ptx::launch(combine_kernel, grid_of(blocks), dim3(32 * kCombineWarps), 0, launch.stream, a),
      "mma combine_kernel");
  return launch.status();
}

}  // namespace

const char* why_not_forward(const ForwardParams& params, bool allows_tf32, const Device& device) {
  return why_no_instance(params.problem, allows_tf32, device);
}

Status forward(const ForwardParams& params, Launch& launch) {
  const Problem& p = params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  if (p.batch == 0 || p.num_heads_kv == 0 || rows == 0) return launch.status();
  ForwardArguments a{params,
                     access_of(p.q),
                     access_of(p.k),
                     access_of(p.v),
                     has_pairs(params.out),
                     0,
                     longest_split(*launch.host_problem),
                     nullptr,
                     nullptr,
                     min_of(rows, kSplitRows)};
  if (a.splits > 0) {
    const int64_t states = p.batch * p.num_heads_kv * a.splits * a.partial_rows;
    a.states = launch.take<float2>(states);
    a.partials = launch.take<float>(states * p.head_dim_v);
    if (!launch.status().is_ok()) return launch.status();
  }
  return start_forward(a, launch);
}

int describe_forward(const ForwardParams& params, const Device& device, char* text,
                     size_t capacity) {
  const Problem& p = params.problem;
  const Features features =
      has_few_rows(p.seqlen_q * p.group_size) ? Features::kFewRows : Features::kOptions;
  const Instance& i = *instance_of(p, features, device);
  return std::snprintf(text, capacity,
                       "\"kernel\": \"mma\", \"instruction\": \"%s\", \"width\": %d, "
                       "\"tile_q\": %d, \"tile_k\": %d, \"split_keys\": %lld",
                       i.element_bytes == 4          ? "m16n8k8 tf32, three a product"
                       : i.budget == Budget::kTuring ? "m16n8k8"
                                                     : "m16n8k16",
                       i.width, forward_tile_q(i.width, i.element_bytes, i.budget, i.features),
                       forward_tile_k(i.width, i.element_bytes, i.budget, i.features),
                       static_cast<long long>(kSplitKeys));
}

}  // namespace attnext::cuda::mma
