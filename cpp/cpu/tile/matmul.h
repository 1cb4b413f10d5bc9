// The matrix products of a tile. Lanes are query rows (or, for the gradients of keys, head
// dimensions); the other operand is broadcast from its natural row-major place, so keys and values
// are never packed.
#pragma once

#include "attention/score.h"
#include "cpu/simd/math.h"
#include "cpu/tile/shape.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Rows of keys or values: element (row, d) at data[row * stride + d].
template <class A>
struct RowBlock {
  const A* data;
  int64_t stride;
};

// What becomes of the sums of a score tile. Kept, they are the raw scores.
template <class A, int kVectors>
struct KeepScores {
  inline __attribute__((always_inline)) Vec<A> start(int) const { return Vec<A>{}; }
  inline __attribute__((always_inline)) Vec<A> finish(Vec<A> s, int) { return s; }
  inline __attribute__((always_inline)) void save() {}
};

// Softened, they are p = 2^(s - row_max) straight from the registers, with the sums of p beside
// them: the exponential of one tile overlaps with the products of the next.
template <class A, int kVectors>
struct SoftenScores {
  A* row_sum;
  Vec<A> base[kVectors], sum[kVectors];
  inline __attribute__((always_inline)) SoftenScores(const A* row_max, A* sums) : row_sum(sums) {
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
      base[j] = load<A>(row_max + j * kLanes<A>);
      sum[j] = load<A>(sums + j * kLanes<A>);
    }
  }
  inline __attribute__((always_inline)) Vec<A> start(int j) const { return -base[j]; }
  inline __attribute__((always_inline)) Vec<A> finish(Vec<A> s, int j) {
    const Vec<A> p = exp2<A>(s);
    sum[j] += p;
    return p;
  }
  inline __attribute__((always_inline)) void save() {
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) store<A>(row_sum + j * kLanes<A>, sum[j]);
  }
};

// s[key][lane] = finish(start[lane] + sum_d term(q[d][lane], k[key][d])), the sum in blocks of
// Term::kSumBlock: a chain over a long head_dim would round too often. Between blocks it lies in s.
template <class A, class Term, int kKeys, int kVectors, class Finish>
ATTNEXT_HD void score_tile(RowBlock<A> k, const A* q_t, const A* weight_t, int64_t head_dim, A* s,
                           Finish finish) {
  constexpr int kStride = kVectors * kLanes<A>;
  for (int64_t begin = 0; begin < head_dim; begin += Term::kSumBlock) {
    const int64_t end = min_of(begin + Term::kSumBlock, head_dim);
    Vec<A> sum[kKeys][kVectors];
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
        sum[i][j] = begin == 0 ? finish.start(j) : Vec<A>{};
    for (int64_t d = begin; d < end; ++d) {
      Vec<A> q[kVectors], weight[kVectors];
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
        q[j] = load<A>(q_t + d * kStride + j * kLanes<A>);
        weight[j] = Term::kHasWeight ? load<A>(weight_t + d * kStride + j * kLanes<A>) : q[j];
      }
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) {
        const Vec<A> key = splat<A>(k.data[i * k.stride + d]);
        ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) sum[i][j] =
            Term::template add<VectorMath<A>>(sum[i][j], q[j], key, weight[j]);
      }
    }
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) {
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
        A* to = s + i * kStride + j * kLanes<A>;
        if (begin > 0) sum[i][j] += load<A>(to);
        store<A>(to, end == head_dim ? finish.finish(sum[i][j], j) : sum[i][j]);
      }
    }
  }
  finish.save();
}

// out_t[d][lane] += sum_key p[key][lane] slope_q(q[d][lane], k[key][d]): for the dot term the slope
// is k alone, which makes this p v as well as ds k. Rows of p are `p_stride` apart. A tile is
// summed from zero and then joins what is there: a chain over all keys would round as often as
// there are keys.
template <class A, class Term, int kRows, int kVectors>
ATTNEXT_HD void accumulate_tile(RowBlock<A> k, const A* p, int64_t p_stride, int64_t num_keys,
                                const A* q_t, A* out_t) {
  constexpr int kStride = kVectors * kLanes<A>;
  Vec<A> sum[kRows][kVectors], q[kRows][kVectors];
  ATTNEXT_UNROLL for (int i = 0; i < kRows; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
    sum[i][j] = Vec<A>{};
    q[i][j] = Term::kIsBilinear ? Vec<A>{} : load<A>(q_t + i * kStride + j * kLanes<A>);
  }
  for (int64_t key = 0; key < num_keys; ++key) {
    Vec<A> weight[kVectors];
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) weight[j] =
        load<A>(p + key * p_stride + j * kLanes<A>);
    ATTNEXT_UNROLL for (int i = 0; i < kRows; ++i) {
      const Vec<A> x = splat<A>(k.data[key * k.stride + i]);
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) sum[i][j] +=
          weight[j] * Term::slope_q(q[i][j], x);
    }
  }
  ATTNEXT_UNROLL for (int i = 0; i < kRows; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
      add_to<A>(out_t + i * kStride + j * kLanes<A>, sum[i][j]);
}

// grad[key][d] += sum_row p[key][row] slope_k(x[row][d], k[key][d]), lanes are d. Rows of grad and
// x are padded to whole vectors, `stride` apart; k need only be given (and padded likewise) where
// the slope uses it.
template <class A, class Term, int kKeys, int kVectors>
ATTNEXT_HD void key_gradient_tile(const A* p, int64_t p_stride, const A* x, int64_t stride,
                                  int64_t num_rows, RowBlock<A> k, A* grad) {
  Vec<A> sum[kKeys][kVectors], key[kKeys][kVectors];
  ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
    sum[i][j] = Vec<A>{};
    key[i][j] =
        Term::kIsBilinear ? Vec<A>{} : load_unaligned<A>(k.data + i * k.stride + j * kLanes<A>);
  }
  for (int64_t row = 0; row < num_rows; ++row) {
    Vec<A> q[kVectors];
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) q[j] =
        load<A>(x + row * stride + j * kLanes<A>);
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) {
      const Vec<A> weight = splat<A>(p[i * p_stride + row]);
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) sum[i][j] +=
          weight * Term::slope_k(q[j], key[i][j]);
    }
  }
  ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
      add_to<A>(grad + i * stride + j * kLanes<A>, sum[i][j]);
}

// The three products over a whole tile. A slope that needs its second operand in registers halves
// the tile.
template <class Term>
constexpr int kSlopeRows = Term::kIsBilinear ? kTileRows : kTileRows / 2;

template <class F>
ATTNEXT_HD void with_vectors(int vectors, F&& f) {
  static_assert(kPanelVectors == 3);
  if (vectors == 3) return f(Int<3>{});
  if (vectors == 2) return f(Int<2>{});
  f(Int<1>{});
}

template <class A, class Term>
static void multiply_keys(int vectors, RowBlock<A> k, int64_t num_keys, const A* q_t,
                          const A* weight_t, int64_t head_dim, A* s) {
  with_vectors(vectors, [&](auto v) {
    for_tiles<kTileRows>(num_keys, [&](auto rows, int64_t key) {
      score_tile<A, Term, rows.value, v.value>({k.data + key * k.stride, k.stride}, q_t, weight_t,
                                               head_dim, s + key * v.value * kLanes<A>,
                                               KeepScores<A, v.value>{});
    });
  });
}

// The same for dot scores that nothing modifies: p relative to row_max, and row_sum += p.
template <class A>
static void multiply_and_soften(int vectors, RowBlock<A> k, int64_t num_keys, const A* q_t,
                                int64_t head_dim, const A* row_max, A* row_sum, A* p) {
  with_vectors(vectors, [&](auto v) {
    for_tiles<kTileRows>(num_keys, [&](auto rows, int64_t key) {
      score_tile<A, DotTerm, rows.value, v.value>({k.data + key * k.stride, k.stride}, q_t, q_t,
                                                  head_dim, p + key * v.value * kLanes<A>,
                                                  SoftenScores<A, v.value>(row_max, row_sum));
    });
  });
}

template <class A, class Term>
static void accumulate(int vectors, RowBlock<A> k, int64_t num_keys, int64_t head_dim, const A* p,
                       int64_t p_stride, const A* q_t, A* out_t) {
  with_vectors(vectors, [&](auto v) {
    for_tiles<kSlopeRows<Term>>(head_dim, [&](auto rows, int64_t d) {
      const int64_t row = d * v.value * kLanes<A>;
      accumulate_tile<A, Term, rows.value, v.value>({k.data + d, k.stride}, p, p_stride, num_keys,
                                                    Term::kIsBilinear ? q_t : q_t + row,
                                                    out_t + row);
    });
  });
}

template <class A, class Term>
static void accumulate_key_gradient(const A* p, int64_t p_stride, int64_t num_keys, const A* x,
                                    int64_t stride, int64_t num_rows, RowBlock<A> k, A* grad) {
  constexpr int kVectors = Term::kIsBilinear ? 2 : 1;
  for_tiles<kVectors>(stride / kLanes<A>, [&](auto vectors, int64_t vector) {
    const int64_t d = vector * kLanes<A>;
    for_tiles<kTileRows>(num_keys, [&](auto keys, int64_t key) {
      const RowBlock<A> rows = {Term::kIsBilinear ? k.data : k.data + key * k.stride + d, k.stride};
      key_gradient_tile<A, Term, keys.value, vectors.value>(
          p + key * p_stride, p_stride, x + d, stride, num_rows, rows, grad + key * stride + d);
    });
  });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
