// How rows of q, k, v and dout reach shared memory, a slab at a time: converted, gathered from
// pages, normalised, with zeros where there is nothing.
#pragma once

#include "simt/tile.cuh"

namespace attnext::cuda::simt {

// Tables of pointers are kept as 64-bit words.
using RowTable = SharedArray<uint64_t>;

PTX_FN void store_pointer(RowTable table, int i, const void* pointer) {
  store(table, i, static_cast<uint64_t>(reinterpret_cast<uintptr_t>(pointer)));
}
PTX_FN const char* load_pointer(RowTable table, int i) {
  return reinterpret_cast<const char*>(static_cast<uintptr_t>(load(table, i)));
}

// The rows of one operand of a product. Null in `rows`: a row of zeros.
template <class A>
struct RowSource {
  RowTable rows;
  RowTable added;        // float64 vectors that join the rows (additive score), where has_added
  SharedArray<A> norms;  // what the rows are divided by (cosine score), where has_norms
  DType dtype;
  int64_t stride, count;  // of a row
  bool has_added, has_norms;
};

// Of q, k, v and dout, which are of float64 if and only if sums are: kernels hold no code for what
// cannot be.
template <class A>
PTX_FN DType row_dtype(const TensorView& t) {
  if constexpr (sizeof(A) == 8) return DType::kFloat64;
  const DType dtype = dtype_of(t);
  return dtype == DType::kFloat16 || dtype == DType::kBFloat16 ? dtype : DType::kFloat32;
}

template <class A>
PTX_FN RowSource<A> row_source(RowTable rows, const TensorView& t, int64_t count) {
  return {rows, {0}, {0}, row_dtype<A>(t), t.strides[3], count, false, false};
}
// Float64 vectors per head of the additive score.
template <class A>
PTX_FN RowSource<A> vector_source(RowTable rows, int64_t count) {
  return {rows, {0}, {0}, DType::kFloat64, 1, count, false, false};
}

template <class A>
PTX_FN void read_row_quad(const RowSource<A>& source, int i, int64_t begin, A (&x)[kQuad]) {
  const char* row = load_pointer(source.rows, i);
#pragma unroll
  for (int j = 0; j < kQuad; ++j) x[j] = A(0);
  if (row == nullptr) return;
  read_quad<A>(row, source.dtype, source.stride, begin, source.count, x);
  // Divided, not multiplied by 1 / |x|: in one dimension the result is then exactly 1.
  if (source.has_norms) {
    const A norm = load(source.norms, i);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) x[j] /= norm;
  }
  if (source.has_added) {
    A more[kQuad];
    read_quad<A>(load_pointer(source.added, i), DType::kFloat64, 1, begin, source.count, more);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) x[j] += more[j];
  }
}

// Where (d, column) of a transposed slab lies. Threads store quads along d and load quads along
// columns: moved by multiples of 8 banks, neither collide.
template <int kColumns>
PTX_FN int slab_index(int d, int column) {
  return d * kColumns + (column ^ (d / kQuad % 4 * 8 & (kColumns - 1)));
}

// slab[d][column] = element begin + d of row `column`. `width` is a multiple of 4.
template <int kColumns, class A>
PTX_FN void load_transposed_slab(const RowSource<A>& source, int64_t begin, int width,
                                 SharedArray<A> slab) {
  // A warp takes 8 rows x 4 quads: whole sectors of memory.
  const int quads = kColumns * static_cast<int>(round_up(width, 4 * kQuad)) / kQuad;
  for (int i = thread_place().index; i < quads; i += kThreads) {
    const int column = i % 8 + i / 32 * 8 % kColumns;
    const int d = (i / 8 % 4 + i / (kColumns * 4) * 4) * kQuad;
    if (d >= width) continue;
    A x[kQuad];
    read_row_quad(source, column, begin + d, x);
    const int at = slab_index<kColumns>(d, column);  // a quad's columns are moved alike
#pragma unroll
    for (int j = 0; j < kQuad; ++j) store(slab, at + j * kColumns, x[j]);
  }
}

// slab[i][column] = element begin + column of row first + i; kColumns a row.
template <int kColumns, class A>
PTX_FN void load_slab(const RowSource<A>& source, int first, int count, int64_t begin, int quads,
                      SharedArray<A> slab) {
  const int row_quads = quads * kSide;
  for (int i = thread_place().index; i < count * row_quads; i += kThreads) {
    const int row = i / row_quads, column = i % row_quads * kQuad;
    A x[kQuad];
    read_row_quad(source, first + row, begin + column, x);
    store_values<kQuad>(slab, row * kColumns + column, x);
  }
}

}  // namespace attnext::cuda::simt
