// The matrix products of a tile, from shared memory, a slab at a time. The first operand's rows lie
// along `ty`, the second's along `tx`; which of them are queries is the pass's choice.
#pragma once

#include "attention/score.h"
#include "simt/load.cuh"

namespace attnext::cuda::simt {

enum class Queries { kFirst, kSecond };

// sum[i][j] += term of a[i] and b[j], `a` the queries where kIsFirst; w lies like the queries.
template <class Term, bool kIsFirst, int kRows, int kWeights, class A>
PTX_FN void add_products(A (&a)[kRows], const A (&b)[kQuad], A (&w)[kWeights],
                         A (&sum)[kRows][kQuad]) {
  [[maybe_unused]] constexpr int kAtOnce = Term::kHasWeight ? kRowsAtOnce<A, kRows> : kRows;
#pragma unroll kAtOnce
  for (int i = 0; i < kRows; ++i, turn_rows(sum), turn(a)) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j)
      sum[0][j] = Term::template add<ThreadMath<A>>(sum[0][j], kIsFirst ? a[0] : b[j],
                                                    kIsFirst ? b[j] : a[0],
                                                    Term::kHasWeight ? w[kIsFirst ? 0 : j] : A(0));
    if constexpr (kIsFirst) turn(w);
  }
}

// s[i][j] += sum_d term(q[d], k[d]) over one slab of transposed operands, `width` of them, a
// multiple of 4; `weight` lies like the queries. A slab is summed from zero and then joins what is
// there: a chain over a long head_dim would round too often.
template <class Term, Queries kQueries, int kRows, class A>
PTX_FN void multiply_slab(SharedArray<A> first, SharedArray<A> second, SharedArray<A> weight,
                          int width, A (&s)[kRows][kQuad]) {
  constexpr bool kIsFirst = kQueries == Queries::kFirst;
  constexpr int kColumns = kTileRows<kRows>, kWeights = kIsFirst ? kRows : kQuad;
  const ThreadPlace place = thread_place();
  [[maybe_unused]] constexpr int kUnroll = Term::kHasWeight ? 1 : kStepsAhead<A>;  // a tanh is long
  A sum[kRows][kQuad] = {};
  // The columns of a slab are moved alike for the quad's elements: their places are found once.
#pragma unroll 1
  for (int begin = 0; begin < width; begin += kQuad) {
    const int of_rows = slab_index<kColumns>(begin, place.ty * kRows),
              of_columns = slab_index<kTileK>(begin, place.tx * kQuad);
#pragma unroll kUnroll
    for (int d = 0; d < kQuad; ++d) {
      A a[kRows], b[kQuad], w[kWeights];
      load_values<kRows>(first, of_rows + d * kColumns, a);
      load_values<kQuad>(second, of_columns + d * kTileK, b);
      if constexpr (Term::kHasWeight) {
        if constexpr (kIsFirst)
          load_values<kWeights>(weight, of_rows + d * kColumns, w);
        else
          load_values<kWeights>(weight, of_columns + d * kTileK, w);
      }
      add_products<Term, kIsFirst>(a, b, w, sum);
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j) s[i][j] += sum[i][j];
  }
}

// The whole product: slabs of `first` and `second` (and `weight`, where Term has one), `count`
// elements a row. Room for three slabs; ends with the threads met.
template <class A>
struct SlabRoom {
  SharedArray<A> first, second, weight;
};

template <class Term, Queries kQueries, int kRows, class A>
PTX_FN void multiply(const RowSource<A>& first, const RowSource<A>& second,
                     const RowSource<A>& weight, int64_t count, const SlabRoom<A>& room,
                     A (&s)[kRows][kQuad]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j) s[i][j] = A(0);
  }
  for (int64_t begin = 0; begin < count; begin += kSlab<A>) {
    const int width = static_cast<int>(min_of(kSlab<A>, round_up(count - begin, kQuad)));
    load_transposed_slab<kTileRows<kRows>>(first, begin, width, room.first);
    load_transposed_slab<kTileK>(second, begin, width, room.second);
    if constexpr (Term::kHasWeight) {
      constexpr int kColumns = kQueries == Queries::kFirst ? kTileRows<kRows> : kTileK;
      load_transposed_slab<kColumns>(weight, begin, width, room.weight);
    }
    ptx::block_sync();
    multiply_slab<Term, kQueries>(room.first, room.second, room.weight, width, s);
    ptx::block_sync();
  }
}

// Where (b, a) of a tile of weights lies, b along the second operand's rows. Threads store kRows
// values along a for one b each, so that without the exchange all b would meet in one bank.
template <int kRows>
PTX_FN int tile_index(int b, int a) {
  return b * kTileRows<kRows> + (a ^ b / kQuad % kSide * kRows);
}

// tile[b][a] <- x[a][b]: of all of the thread's own b, and of the one at `j`.
template <int kRows, class A>
PTX_FN void store_tile_column(SharedArray<A> tile, int j, const A (&x)[kRows]) {
  const ThreadPlace place = thread_place();
  store_values<kRows>(tile, tile_index<kRows>(place.tx * kQuad + j, place.ty * kRows), x);
}
template <int kRows, class A>
PTX_FN void store_tile(const A (&x)[kRows][kQuad], SharedArray<A> tile) {
#pragma unroll
  for (int j = 0; j < kQuad; ++j) {
    A column[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) column[i] = x[i][j];
    store_tile_column(tile, j, column);
  }
}

// Of what the thread itself has stored there: x <- x[i][..] of store_tile, and x[..][j].
template <int kRows, class A>
PTX_FN void load_tile_row(SharedArray<A> tile, int i, A (&x)[kQuad]) {
  const ThreadPlace place = thread_place();
#pragma unroll
  for (int j = 0; j < kQuad; ++j)
    x[j] = load(tile, tile_index<kRows>(place.tx * kQuad + j, place.ty * kRows + i));
}
template <int kRows, class A>
PTX_FN void load_tile_column(SharedArray<A> tile, int j, A (&x)[kRows]) {
  const ThreadPlace place = thread_place();
  load_values<kRows>(tile, tile_index<kRows>(place.tx * kQuad + j, place.ty * kRows), x);
}

// Visits add(i, c, weight, x): tile row b's weight for the thread's row i, and column c of `x`'s
// row b - first, for all b of a slab. `x` has room for kMaxQuads quads a thread, of which kQuads
// are looked at. The columns of a tile are moved alike for four rows that begin at a multiple of
// four: their places are found once.
template <int kRows, int kMaxQuads, int kQuads, class A, class F>
PTX_FN void for_weighted(SharedArray<A> tile, int first, int count, SharedArray<A> x, F&& add) {
  const ThreadPlace place = thread_place();
  const auto visit = [&](int at, int b) {
    A weight[kRows];
    load_values<kRows>(tile, at, weight);
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      A values[kQuad];
      load_values<kQuad>(x, b * kMaxQuads * kQuadColumns + quad * kQuadColumns + place.tx * kQuad,
                         values);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int j = 0; j < kQuad; ++j) add(i, quad * kQuad + j, weight[i], values[j]);
      }
    }
  };
  [[maybe_unused]] constexpr int kUnroll = kStepsAhead<A>;
  const int whole = count / kQuad * kQuad;
#pragma unroll 1
  for (int b = 0; b < whole; b += kQuad) {
    const int at = tile_index<kRows>(first + b, place.ty * kRows);
#pragma unroll kUnroll
    for (int i = 0; i < kQuad; ++i) visit(at + i * kTileRows<kRows>, b + i);
  }
#pragma unroll 1
  for (int b = whole; b < count; ++b) visit(tile_index<kRows>(first + b, place.ty * kRows), b);
}

// Columns of an output: those a block accumulates, [begin, ..), `quads` of 64 of them.
struct Columns {
  int64_t begin;
  int quads;  // 0: none
};

template <int kMaxQuads>
PTX_FN Columns columns_of(int64_t slice, int64_t count) {
  const int64_t begin = slice * kMaxQuads * kQuadColumns;
  const int64_t quads = divide_up(count - begin, kQuadColumns);
  return {begin, static_cast<int>(clamp_to(quads, 0, kMaxQuads))};
}
// Slices that `count` columns are shared out to: at least one.
ATTNEXT_HD int64_t num_slices(int64_t count, int max_quads) {
  return max_of(1, divide_up(count, int64_t{max_quads} * kQuadColumns));
}

// Column c of a thread, counted from the block's first.
PTX_FN int column_of(int c) {
  return c / kQuad * kQuadColumns + thread_place().tx * kQuad + c % kQuad;
}

// Calls visit(first, rows) for every slab of `count` rows of x. Ends with a barrier.
template <int kColumns, class A, class F>
PTX_FN void for_slabs(const RowSource<A>& x, int count, Columns columns, SharedArray<A> slab,
                      F&& visit) {
  for (int first = 0; first < count; first += kSlab<A>) {
    const int rows = count - first < kSlab<A> ? count - first : kSlab<A>;
    load_slab<kColumns * kSide>(x, first, rows, columns.begin, columns.quads, slab);
    ptx::block_sync();
    visit(first, rows);
    ptx::block_sync();
  }
}

// out[a][c] += sum_b tile[b][a] slope(a, c, x[b][c]) over `count` rows of x. A slab is summed from
// zero and then joins what is there.
template <int kRows, int kColumns, class A, class Slope>
PTX_FN void accumulate(SharedArray<A> tile, const RowSource<A>& x, int count, Columns columns,
                       SharedArray<A> slab, A (&out)[kRows][kColumns], Slope&& slope) {
  constexpr int kMaxQuads = kColumns / kQuad;
  static_assert(kMaxQuads <= 2);
  for_slabs<kColumns>(x, count, columns, slab, [&](int first, int rows) {
    A sum[kRows][kColumns] = {};
    const auto add = [&](int i, int c, A weight, A value) {
      sum[i][c] += weight * slope(i, c, value);
    };
    if (columns.quads == kMaxQuads)
      for_weighted<kRows, kMaxQuads, kMaxQuads>(tile, first, rows, slab, add);
    else if (columns.quads == 1)
      for_weighted<kRows, kMaxQuads, 1>(tile, first, rows, slab, add);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) out[i][c] += sum[i][c];
    }
  });
}

}  // namespace attnext::cuda::simt
