// How attention weights are made for rows in any order, and for packed sequences.
#include <algorithm>
#include <cstring>
#include <memory>
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

// The part [begin, begin + length) of an axis; a broadcast axis stays as it is.
void narrow(attnext_tensor& tensor, int axis, int64_t begin, int64_t length,
            bool is_broadcastable) {
  if (axis < 0 || axis >= tensor.ndim) return;
  if (is_broadcastable && tensor.shape[axis] == 1) return;
  tensor.shape[axis] = length;
  if (tensor.data)
    tensor.data =
        static_cast<char*>(tensor.data) + begin * tensor.strides[axis] * item_size(tensor.dtype);
}

void compute(const attnext_tensor& q, const attnext_tensor& k, const attnext_options& options,
             const int64_t* rows, int64_t num_rows, const attnext_tensor& p) {
  attnext_tensor row_list = make_tensor(&num_rows, 1, ATTNEXT_INT64);
  row_list.data = const_cast<int64_t*>(rows);
  run([&] { return attnext_weights(&q, &k, &options, &row_list, &p); });
}

// One sequence of a packed call, as a call of its own.
struct SequenceCall {
  attnext_tensor q, k;
  attnext_options options;
};

SequenceCall sequence_call(const Inputs& inputs, int64_t index, Extent rows, Extent keys) {
  SequenceCall call{inputs.q, inputs.k, inputs.options.c};
  narrow(call.q, 2, rows.begin, rows.length, false);
  narrow(call.k, 2, keys.begin, keys.length, false);
  call.options.cu_seqlens_q = call.options.cu_seqlens_k = {};
  if (call.options.q_offset.ndim == 1) narrow(call.options.q_offset, 0, index, 1, false);
  if (call.options.alibi_slopes.ndim == 2) narrow(call.options.alibi_slopes, 0, index, 1, false);
  for (attnext_tensor* pairs : {&call.options.mask, &call.options.bias}) {
    narrow(*pairs, pairs->ndim - 4, index, 1, true);
    narrow(*pairs, pairs->ndim - 2, 0, rows.length, true);
    narrow(*pairs, pairs->ndim - 1, 0, keys.length, true);
  }
  return call;
}

// p is zero beyond a sequence's keys. `rows`, sorted, index the packed axis.
void compute_packed(const Inputs& inputs, std::vector<int64_t> rows, attnext_tensor p) {
  std::memset(p.data, 0, static_cast<size_t>(num_elements(p) * item_size(p.dtype)));
  for (int64_t index = 0; index < inputs.num_sequences(); ++index) {
    const Extent span = inputs.packed_rows(index), keys = inputs.packed_keys(index);
    const auto first = std::lower_bound(rows.begin(), rows.end(), span.begin);
    const auto last = std::lower_bound(first, rows.end(), span.begin + span.length);
    if (first == last || keys.length == 0) continue;
    for (auto row = first; row != last; ++row) *row -= span.begin;
    attnext_tensor part = p;
    narrow(part, 2, first - rows.begin(), last - first, false);
    narrow(part, 3, 0, keys.length, false);
    const SequenceCall call = sequence_call(inputs, index, span, keys);
    compute(call.q, call.k, call.options, &*first, last - first, part);
    for (auto row = first; row != last; ++row) *row += span.begin;
  }
}

void compute_sorted(const Inputs& inputs, const std::vector<int64_t>& rows,
                    const attnext_tensor& p) {
  if (inputs.options.is_packed())
    compute_packed(inputs, rows, p);
  else
    compute(inputs.q, inputs.k, inputs.options.c, rows.data(), static_cast<int64_t>(rows.size()),
            p);
}

// The C interface takes rows in order: the results of other orders are put in place afterwards.
void compute_any_order(const Inputs& inputs, const std::vector<int64_t>& rows,
                       const attnext_tensor& p) {
  if (std::is_sorted(rows.begin(), rows.end())) return compute_sorted(inputs, rows, p);
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return rows[a] < rows[b]; });
  std::vector<int64_t> sorted_rows;
  for (const size_t place : order) sorted_rows.push_back(rows[place]);

  const auto row_bytes = static_cast<size_t>(p.shape[3] * item_size(p.dtype));
  const auto num_heads = static_cast<size_t>(p.shape[0] * p.shape[1]);
  const std::unique_ptr<char[]> memory(new char[num_heads * rows.size() * row_bytes]);
  attnext_tensor sorted_p = p;
  sorted_p.data = memory.get();
  compute_sorted(inputs, sorted_rows, sorted_p);
  py::gil_scoped_release release;
  for (size_t head = 0; head < num_heads; ++head) {
    for (size_t i = 0; i < order.size(); ++i)
      std::memcpy(static_cast<char*>(p.data) + (head * rows.size() + order[i]) * row_bytes,
                  memory.get() + (head * rows.size() + i) * row_bytes, row_bytes);
  }
}

// Both are put together in host memory.
void refuse_on_device(const Inputs& inputs, const std::vector<int64_t>& rows) {
  if (!inputs.q_array.place.is_cuda()) return;
  if (inputs.options.is_packed())
    raise(PyExc_NotImplementedError, "layout 'thd' is not supported for arrays in CUDA memory");
  if (!std::is_sorted(rows.begin(), rows.end()))
    raise(PyExc_NotImplementedError,
          "rows must not decrease for arrays in CUDA memory, found another order");
}

}  // namespace

py::object weights(py::handle q, py::handle k, const py::tuple& options, py::handle rows) {
  const Inputs inputs(q, k, py::handle(), options);
  if (inputs.has_ragged_keys()) check_inputs(inputs);
  const std::vector<int64_t> row_list = read_rows(rows, inputs);
  refuse_on_device(inputs, row_list);
  const Output p = inputs.per_head_matrix(static_cast<int64_t>(row_list.size()), inputs.seqlen_k(),
                                          inputs.dtype());
  compute_any_order(inputs, row_list, with_leading_axes(p.tensor, 4));
  inputs.wait_if_needed();
  return p.finish();
}

}  // namespace attnext::bindings
