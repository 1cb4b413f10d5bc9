// What surrounds the products of backward: constants of rows before them, a warp a row; afterwards
// cosine's step from normalised rows to rows, and the sums that need every block, in index order.
#pragma once

#include "simt/backward.cuh"
#include "simt/warp.cuh"

namespace attnext::cuda::simt {

template <class A>
PTX_FN double row_dlse(const BackwardParams& params, const Group& g, int64_t row) {
  return is_present(params.dlse)
             ? read_element<double>(row_pointer(params.problem, g, params.dlse, row),
                                    dtype_of(params.dlse))
             : 0;
}

template <class A>
PTX_FN double row_lse(const BackwardParams& params, const Group& g, int64_t row) {
  return read_element<double>(row_pointer(params.problem, g, params.lse, row),
                              dtype_of(params.lse));
}

template <class A>
PTX_FN void prepare_row(const BackwardArguments<A>& a, const Group& g, int64_t row) {
  const BackwardParams& params = a.params;
  const Problem& p = params.problem;
  const char *out = row_pointer(p, g, params.out, row), *dout = row_pointer(p, g, params.dout, row);
  A sum = A(0);
  for (int64_t d = ptx::lane_index(); d < p.head_dim_v; d += 32)
    sum += read_at<A>(out, params.out, d) * read_at<A>(dout, params.dout, d);
  const A whole = warp_sum(sum);
  if (ptx::lane_index() != 0) return;
  const double lse_log2 = row_lse_log2(row_lse<A>(params, g, row));
  const A rounded = static_cast<A>(lse_log2);
  // Not lse_log2 - lse_log2: fused with the product before, that is the product's rounding.
  const bool is_infinite = lse_log2 == __builtin_inf() || lse_log2 == -__builtin_inf();
  const int64_t at = row_base(p, g) + row;
  a.space.lse_log2[at] = rounded;
  a.space.lse_rest[at] =
      is_infinite ? A(0) : static_cast<A>(lse_log2 - static_cast<double>(rounded));
  a.space.delta[at] = static_cast<A>(static_cast<double>(whole) - row_dlse<A>(params, g, row));
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    backward_prepare_kernel(const __grid_constant__ BackwardArguments<A> a) {
  const Problem& p = a.params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  for_warps(p.batch * p.num_heads_kv * rows, [&](int64_t i) {
    const Place at = place_of(p, i, rows);
    const Group g = group_of(p, at.sequence, at.head_kv);
    if (at.index < g.num_rows) prepare_row(a, g, at.index);
  });
}

// The gradient by x of a function of x / |x|, from the one by x / |x|.
template <class A>
PTX_FN void unnormalise_row(const char* x, const TensorView& t, int64_t count, const A* gradient,
                            const TensorView& out_view, char* out) {
  const int64_t lane = ptx::lane_index();
  A square = A(0), dot = A(0);
  for (int64_t d = lane; d < count; d += 32) {
    const A value = read_at<A>(x, t, d);
    square += value * value;
    dot += value * gradient[d];
  }
  const A norm = ThreadMath<A>::sqrt(warp_sum(square)), whole = warp_sum(dot);
  const A inverse = norm == A(0) ? A(0) : A(1) / norm, projection = whole * inverse;
  for (int64_t d = lane; d < count; d += 32) {
    const A value =
        normalised_gradient(gradient[d], read_at<A>(x, t, d) * inverse, projection, inverse);
    write_element<A>(out + d * out_view.strides[3] * size_of(dtype_of(out_view)),
                     dtype_of(out_view), value);
  }
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    backward_cosine_kernel(const __grid_constant__ BackwardArguments<A> a) {
  const BackwardParams& params = a.params;
  const Problem& p = params.problem;
  const int64_t rows = p.seqlen_q * p.group_size, each = rows + p.seqlen_k;
  for_warps(p.batch * p.num_heads_kv * each, [&](int64_t i) {
    const Place at = place_of(p, i, each);
    const Group g = group_of(p, at.sequence, at.head_kv);
    const int64_t key = at.index - rows;
    if (a.space.dq && at.index < g.num_rows)
      unnormalise_row(row_pointer(p, g, p.q, at.index), p.q, p.head_dim,
                      a.space.dq + (row_base(p, g) + at.index) * p.head_dim, params.dq,
                      row_pointer(p, g, params.dq, at.index));
    if (a.space.dk && key >= 0 && key < g.mask.seqlen_k)
      unnormalise_row(key_pointer(p, g, p.k, key), p.k, p.head_dim,
                      a.space.dk + (key_base(p, g) + key) * p.head_dim, params.dk,
                      key_pointer(p, g, params.dk, key));
  });
}

}  // namespace attnext::cuda::simt
