// How a strided tensor is read and written as one run of elements: the order in which it is staged.
#pragma once

#include "attention/params.h"

namespace attnext::cuda {

// Row-major and without gaps, but for axes the tensor is broadcast along (stride 0): these stay.
TensorView packed_view(const TensorView& t);

// The elements a packed view holds: those of broadcast axes once.
int64_t packed_count(const TensorView& t);

// Moves elements [first, first + count) of the packed order between a tensor in host memory and
// `packed`, which holds just these.
void gather(const TensorView& t, int64_t first, int64_t count, void* packed);
void scatter(const TensorView& t, int64_t first, int64_t count, const void* packed);

}  // namespace attnext::cuda
