// What every pass starts from: q, k, v in the axes of the C interface, and the options.
#include "bindings/inputs.h"

#include <algorithm>

#include "bindings/errors.h"

namespace attnext::bindings {
namespace {

Array import_values(const Array& q, py::handle given) {
  return given ? import_beside(q, given, "v", Role::kData, Kind::kTensor) : Array();
}

}  // namespace

Inputs::Inputs(py::handle q_given, py::handle k_given, py::handle v_given,
               const py::tuple& options_given)
    : q_array(import_array(q_given, "q", Role::kData)),
      k_array(import_beside(q_array, k_given, "k", Role::kData, Kind::kTensor)),
      v_array(import_values(q_array, v_given)),
      options(options_given, q_array),
      v{} {
  require_rank(q_array, "q", options.layout);
  q = canonical(q_array);
  const auto place = [&](const Array& array, const char* name) {
    if (!options.is_paged()) {
      require_same_rank(array, name, q_array);
      return canonical(array);
    }
    if (array.tensor.ndim != 4)
      raise(PyExc_ValueError, name,
            " must have the axes (num_pages, page_size, H, D) with block_table, found shape ",
            shape_text(array.tensor));
    return pages_to_canonical(array.tensor);
  };
  k = place(k_array, "k");
  if (v_array.is_present()) v = place(v_array, "v");
}

Array Inputs::like_q(py::handle given, const char* name) const {
  Array array = import_beside(q_array, given, name, Role::kData, Kind::kTensor);
  require_same_rank(array, name, q_array);
  return array;
}

Array Inputs::like_lse(py::handle given, const char* name) const {
  Array array = import_beside(q_array, given, name, Role::kData, Kind::kTensor);
  if (array.tensor.ndim != rank() - 1)
    raise(PyExc_ValueError, name, " must have ", rank() - 1, " axes, one less than q, found shape ",
          shape_text(array.tensor));
  array.tensor = with_leading_axes(array.tensor, 3);
  return array;
}

int64_t Inputs::seqlen_k() const {
  if (!options.is_paged() && !options.is_packed()) return k.shape[2];
  int64_t longest = 0;
  for (int64_t i = 0; i < num_sequences(); ++i) longest = std::max(longest, num_keys(i));
  return longest;
}

int64_t Inputs::num_sequences() const {
  return options.is_packed() ? options.cu_seqlens_q.tensor.shape[0] - 1
                             : options.kv_lengths.tensor.shape[0];
}

int64_t Inputs::num_keys(int64_t index) const {
  if (!options.is_packed()) return integer_at(options.kv_lengths.tensor, index);
  const attnext_tensor& ends = options.cu_seqlens_k.tensor;
  return integer_at(ends, index + 1) - integer_at(ends, index);
}

Output Inputs::new_result(const attnext_tensor& shape_and_dtype) const {
  return Output(q_array, shape_and_dtype, q_array, options.c.backend);
}

Output Inputs::new_like(const Array& array) const {
  const attnext_tensor& t = array.tensor;
  return Output(array, make_tensor(t.shape, t.ndim, t.dtype), q_array, options.c.backend);
}

Output Inputs::per_head_rows(int64_t length) const {
  const int64_t shape[] = {q.shape[0], q.shape[1], length};
  return new_result(without_leading_axes(make_tensor(shape, 3, accumulator()), rank() - 1));
}

Output Inputs::per_head_matrix(int64_t rows, int64_t length, int32_t result_dtype) const {
  const int64_t shape[] = {q.shape[0], q.shape[1], rows, length};
  return new_result(without_leading_axes(make_tensor(shape, 4, result_dtype), rank()));
}

}  // namespace attnext::bindings
