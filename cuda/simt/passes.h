// The passes of each instance, and the steps of them that no kind of score changes. Their
// definitions lie in *_launch.cuh; cuda/instances.txt says which are compiled, each into a file of
// its own.
#pragma once

#include "kernels.h"

namespace attnext::cuda::simt {

template <class A>
struct Norms;
template <class A>
struct ForwardArguments;
template <class A>
struct BackwardArguments;

template <class A, class Term>
Status run_forward(const ForwardParams& params, Launch& launch);
template <class A, class Term>
Status run_backward(const BackwardParams& params, Launch& launch);
template <class A, class Term>
Status run_weights(const WeightsParams& params, Launch& launch);
template <class A, class Term>
Status run_stats(const StatsParams& params, Launch& launch);

// The gradient of a bias that differs by key; of no other bias nothing.
template <class A, class Term>
void start_bias(BackwardArguments<A> a, Launch& launch);

// A struct, so that one line of the list compiles them all.
template <class A>
struct Steps {
  // What the cosine score divides by; nothing for other scores.
  static Status find_norms(const Problem& p, const Norms<A>& norms, Launch& launch);
  static Status join_splits(const ForwardArguments<A>& a, Launch& launch);
  // Constants of rows, before the products of backward.
  static void prepare_rows(const BackwardArguments<A>& a, Launch& launch);
  // From gradients by normalised rows to those by q and k: cosine only.
  static void finish_cosine(const BackwardArguments<A>& a, Launch& launch);
  // Gradients of small options, from what the products left per row, column and key.
  static void add_up(const BackwardArguments<A>& a, Launch& launch);
};

}  // namespace attnext::cuda::simt
