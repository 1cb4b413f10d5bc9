// Forward on FFMA units: how it is launched.
#pragma once

#include "simt/forward.cuh"
#include "simt/norms.h"
#include "simt/passes.h"

namespace attnext::cuda::simt {

// Splits of the longest sequence, if any sequence is one of few rows.
inline int64_t longest_split(const Problem& host) {
  int64_t longest = 1;
  for (int64_t i = 0; i < host.batch; ++i)
    longest = max_of(longest, num_splits(host.sequences[i].mask, host.group_size));
  return longest;
}

template <class A>
SplitStates<A> take_splits(const Problem& p, int64_t num_splits, Launch& launch) {
  SplitStates<A> s{nullptr, nullptr, nullptr, num_splits, 0};
  if (num_splits == 1) return s;
  s.rows = min_of(p.seqlen_q * p.group_size, kTileRows<kManyRows>);
  const int64_t rows = p.batch * p.num_heads_kv * num_splits * s.rows;
  s.row_max = launch.take<A>(rows);
  s.row_sum = launch.take<A>(rows);
  s.o = launch.take<A>(rows * p.head_dim_v);
  return s;
}

template <class A, class Term, int kRows>
Status start_forward(ForwardArguments<A>& a, Launch& launch) {
  constexpr uint32_t kBytes = forward_bytes<A, Term, kRows>();
  static_assert(kBytes <= kMaxSharedBytes);
  const Problem& p = a.params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  a.items_per_head = max_of(divide_up(rows, kTileRows<kRows>), a.splits.num_splits);
  a.slices = num_slices(p.head_dim_v, kQuads<A, Term>);
  return start(launch, "forward_kernel", forward_kernel<A, Term, kRows>,
               rows == 0 ? 0 : p.batch * p.num_heads_kv * a.slices * a.items_per_head, kBytes, a);
}

template <class A, class Term>
Status run_forward(const ForwardParams& params, Launch& launch) {
  const Problem& p = params.problem;
  ForwardArguments<A> a{params, take_norms<A>(p, launch),
                        take_splits<A>(p, longest_split(*launch.host_problem), launch), 0, 0};
  if (!launch.status().is_ok() || !Steps<A>::find_norms(p, a.norms, launch).is_ok())
    return launch.status();
  const int64_t rows = p.seqlen_q * p.group_size;
  // A small tile for few rows only where it matters: an instance of its own costs compile time.
  constexpr bool kHasSmallTile = Term::kIsBilinear && sizeof(A) == 4;
  const Status status =
      kHasSmallTile && rows <= kTileRows<kFewRows>
          ? start_forward<A, Term, kHasSmallTile ? kFewRows : kManyRows>(a, launch)
          : start_forward<A, Term, kManyRows>(a, launch);
  if (!status.is_ok() || a.splits.num_splits == 1) return status;
  return Steps<A>::join_splits(a, launch);
}

}  // namespace attnext::cuda::simt
