// What every pass starts from: q, k, v in the axes of the C interface, and the options.
#pragma once

#include "bindings/options.h"
#include "bindings/outputs.h"

namespace attnext::bindings {

struct Inputs {
  // Without v where `v_or_null` is null: a pass over the scores alone.
  Inputs(py::handle q_given, py::handle k_given, py::handle v_given,
         const py::tuple& options_given);

  // A further array of q's library and axes, like dout; one in the axes of lse.
  Array like_q(py::handle given, const char* name) const;
  Array like_lse(py::handle given, const char* name) const;

  attnext_tensor canonical(const Array& array) const {
    return to_canonical(array.tensor, options.layout);
  }

  bool has_ragged_keys() const { return options.is_packed() || options.is_paged(); }
  int rank() const { return q_array.tensor.ndim; }
  int32_t dtype() const { return q_array.tensor.dtype; }
  int32_t accumulator() const {
    return dtype() == ATTNEXT_FLOAT64 ? ATTNEXT_FLOAT64 : ATTNEXT_FLOAT32;
  }
  // Packed or paged, the library must have checked the call before any of these is asked.
  int64_t seqlen_k() const;  // keys of the longest sequence
  int64_t num_sequences() const;
  int64_t num_keys(int64_t index) const;

  // A result in q's library; one like an argument.
  Output new_result(const attnext_tensor& shape_and_dtype) const;
  Output new_like(const Array& array) const;

  void wait_if_needed() const { bindings::wait_if_needed(q_array.place, options.c.backend); }

  // A result [batch, num_heads_q, length] or [batch, num_heads_q, rows, length] in the caller's
  // rank.
  Output per_head_rows(int64_t length) const;
  Output per_head_matrix(int64_t rows, int64_t length, int32_t result_dtype) const;

  Array q_array, k_array, v_array;
  Options options;
  attnext_tensor q, k, v;  // canonical; v is absent where it was not given
};

}  // namespace attnext::bindings
