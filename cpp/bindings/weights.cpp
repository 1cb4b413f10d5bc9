// Which rows of the weights are asked for, and the call.
#include <numeric>
#include <vector>

#include "bindings/errors.h"
#include "bindings/passes.h"

namespace attnext::bindings {
namespace {

std::vector<int64_t> read_rows(py::handle given, const Inputs& inputs) {
  const int64_t num_rows = inputs.q.shape[2];
  std::vector<int64_t> rows(static_cast<size_t>(num_rows));
  std::iota(rows.begin(), rows.end(), int64_t{0});
  if (given.is_none()) return rows;
  const Array array = import_small(given, "rows", Role::kInteger);
  if (array.tensor.ndim != 1)
    raise(PyExc_ValueError, "rows must have one axis, found shape ", shape_text(array.tensor));
  rows.resize(static_cast<size_t>(array.tensor.shape[0]));
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t row = integer_at(array.tensor, static_cast<int64_t>(i));
    if (row < -num_rows || row >= num_rows)
      raise(PyExc_ValueError, "rows must be in [", -num_rows, ", ", num_rows, "), found ", row);
    rows[i] = row < 0 ? row + num_rows : row;
  }
  return rows;
}

}  // namespace

py::object weights(py::handle q, py::handle k, const py::tuple& options, py::handle rows) {
  const Inputs inputs(q, k, py::handle(), options);
  if (inputs.has_ragged_keys()) check_inputs(inputs);
  std::vector<int64_t> row_list = read_rows(rows, inputs);
  const auto num_rows = static_cast<int64_t>(row_list.size());
  attnext_tensor c_rows = make_tensor(&num_rows, 1, ATTNEXT_INT64);
  c_rows.data = row_list.data();
  const Output p = inputs.per_head_matrix(num_rows, inputs.seqlen_k(), inputs.dtype());
  const attnext_tensor c_p = with_leading_axes(p.tensor, 4);
  run([&] { return attnext_weights(&inputs.q, &inputs.k, &inputs.options.c, &c_rows, &c_p); });
  inputs.wait_if_needed();
  return p.finish();
}

}  // namespace attnext::bindings
