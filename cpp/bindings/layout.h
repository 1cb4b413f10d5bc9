// How the caller's axes become the axes of the C interface, by strides alone.
#pragma once

#include "bindings/arrays.h"

namespace attnext::bindings {

enum class Layout { kBhsd, kBshd, kThd };

Layout parse_layout(py::handle value);

// Refuses a rank that q, k, v or what goes with them cannot have.
void require_rank(const Array& array, const char* name, Layout layout);
void require_same_rank(const Array& array, const char* name, const Array& q);

// q, k, v and out: to [batch, heads, seqlen, dim]. Axes that rank 3 and 2 lack have length 1.
attnext_tensor to_canonical(const attnext_tensor& tensor, Layout layout);

// Pages, whatever the layout: (num_pages, page_size, heads, dim) to [num_pages, heads, page_size,
// dim].
attnext_tensor pages_to_canonical(const attnext_tensor& pages);

// lse and its kind: axes of length 1 in front until there are `ndim`.
attnext_tensor with_leading_axes(attnext_tensor tensor, int ndim);

// The inverse: the axes in front that the caller's rank lacks are dropped.
attnext_tensor without_leading_axes(attnext_tensor tensor, int ndim);

}  // namespace attnext::bindings
