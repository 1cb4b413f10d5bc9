// How the per-(sequence, head) parts of a small option's gradient become its elements: which axes
// are summed over.
#pragma once

#include "attention/params.h"

namespace attnext {

// Parts [batch, num_heads_q, columns] of an option; an axis that the option lacks has extent 1: it
// is summed over, in index order, so that the bits depend on nothing else.
struct HeadSums {
  TensorView gradient;  // data and dtype; its axes are below
  int64_t columns;
  int64_t extents[3], strides[3];
};

// Of an option (num_heads_q,) or (batch, num_heads_q).
inline HeadSums sums_per_head(const Problem& p, const TensorView& gradient) {
  HeadSums sums{gradient, 1, {1, 1, 1}, {0, 0, 0}};
  if (!is_present(gradient)) return sums;
  sums.extents[1] = p.num_heads_q;
  sums.strides[1] = gradient.strides[gradient.ndim - 1];
  if (gradient.ndim == 1) return sums;
  sums.extents[0] = p.batch;
  sums.strides[0] = gradient.strides[0];
  return sums;
}

// Of an option (head_dim,) or (num_heads_q, head_dim).
inline HeadSums sums_per_column(const Problem& p, const TensorView& gradient) {
  HeadSums sums{gradient, p.head_dim, {1, 1, p.head_dim}, {0, 0, 0}};
  if (!is_present(gradient)) return sums;
  sums.strides[2] = gradient.strides[gradient.ndim - 1];
  if (gradient.ndim == 1) return sums;
  sums.extents[1] = p.num_heads_q;
  sums.strides[1] = gradient.strides[0];
  return sums;
}

}  // namespace attnext
