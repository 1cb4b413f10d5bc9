// The matrix products of a tile. Lanes are query rows (or, for the gradients of keys, head
// dimensions); the other operand is broadcast from its natural row-major place, so keys and values
// are never packed. Operands are numbers of the accumulator's type or, for a paired term, pairs of
// bfloat16 that one instruction multiplies and adds up: every "element" below is then a pair.
#pragma once

#include "attention/score.h"
#include "cpu/simd/math.h"
#include "cpu/simd/pairs.h"
#include "cpu/tile/shape.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Rows of keys or values: element (row, d) at data[row * stride + d].
template <class E>
struct RowBlock {
  const E* data;
  int64_t stride;
};

// Unaligned and of any declared type: the caller's bfloat16 are read as pairs.
template <class E>
ATTNEXT_HD E read_operand(const E* p) {
  E x;
  std::memcpy(&x, p, sizeof(E));
  return x;
}

// Whether a term is one of q - k. Its products take a number from memory in the instruction that
// subtracts or multiplies it: broadcast to a register, on Zen 4 each takes the place of a
// subtraction, of which there are as many as multiply-adds (a product takes 1.02 times a plain
// one's time, not 1.33).
template <class Term>
constexpr bool kIsOfDifferences = !Term::kIsBilinear && !Term::kHasWeight;

// f(vector, key, first lane) of each vector of a tile in registers.
template <class A, int kRows, int kVectors, class F>
ATTNEXT_HD void for_vectors(Vec<A> (&tile)[kRows][kVectors], F&& f) {
  ATTNEXT_UNROLL for (int i = 0; i < kRows; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
      f(tile[i][j], i, j * kLanes<A>);
}

// A tile in registers is part of a panel: `stride` is the panel's lanes, between rows in memory.
template <class A, int kRows, int kVectors>
ATTNEXT_HD void store_tile(const Vec<A> (&tile)[kRows][kVectors], A* to, int64_t stride) {
  ATTNEXT_UNROLL for (int i = 0; i < kRows; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
      store<A>(to + i * stride + j * kLanes<A>, tile[i][j]);
}
template <class A, int kRows, int kVectors>
ATTNEXT_HD void add_tile(const Vec<A> (&tile)[kRows][kVectors], A* to, int64_t stride) {
  ATTNEXT_UNROLL for (int i = 0; i < kRows; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
      add_to<A>(to + i * stride + j * kLanes<A>, tile[i][j]);
}

// p of the keys an operand packs, as a product that sums over keys reads them; `rounded_sum` +=
// what became of them.
template <class Term, class A>
ATTNEXT_HD void store_packed(const Vec<A> (&p)[kPack<Term>], Operand<Term, A>* out,
                             Vec<A>* rounded_sum) {
  if constexpr (kIsPaired<Term>) {
    const Vec<Pair> pair = pair_up(p[0], p[1]);
    store<Pair>(out, pair);
    *rounded_sum = add_pairs(*rounded_sum, pair);
  } else {
    store<A>(out, p[0]);
  }
}

// Column `j` of a register tile likewise, p at its lanes.
template <class Term, class A, int kKeys, int kVectors>
ATTNEXT_HD void store_weights(const Vec<A> (&tile)[kKeys][kVectors], int j, int64_t key,
                              int64_t stride, Operand<Term, A>* p) {
  constexpr int kStep = kPack<Term>;
  Vec<A> rounded{};
  ATTNEXT_UNROLL for (int i = 0; i < kKeys; i += kStep) {
    Vec<A> packed[kStep] = {};
    ATTNEXT_UNROLL for (int n = 0; n < kStep; ++n) if (i + n < kKeys) packed[n] = tile[i + n][j];
    store_packed<Term, A>(packed, p + (key + i) / kStep * stride, &rounded);
  }
}

// sum[key][lane] += sum_d term(q[d][lane], k[key][d]) over [begin, end).
template <class A, class Term, int kKeys, int kVectors>
ATTNEXT_HD void add_score_block(RowBlock<Operand<Term, A>> k, const Operand<Term, A>* q_t,
                                const A* weight_t, int64_t stride, Span block,
                                Vec<A> (&sum)[kKeys][kVectors]) {
  using E = Operand<Term, A>;
  ATTNEXT_UNROLL_TWICE
  for (int64_t d = block.begin; d < block.end; ++d) {
    Vec<E> q[kVectors];
    Vec<A> weight[kVectors];
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
      q[j] = load<E>(q_t + d * stride + j * kLanes<A>);
      weight[j] = Term::kHasWeight ? load<A>(weight_t + d * stride + j * kLanes<A>) : Vec<A>{};
    }
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) {
      const E* from = k.data + i * k.stride + d;
      const Vec<E> key = splat<E>(read_operand(from));
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
        if constexpr (kIsOfDifferences<Term>)
          sum[i][j] = Term::add_difference(sum[i][j], subtract_broadcast<A>(q[j], from));
        else
          sum[i][j] = Term::template add<VectorMath<A>>(sum[i][j], q[j], key, weight[j]);
      }
    }
  }
}

// finish(key, sum) of sum[key][lane] = sum_d term(q[d][lane], k[key][d]): what becomes of the sums
// is decided while they are in registers, so that it overlaps with the products of the next tile.
// The sum goes in blocks of Term::kSumBlock: a chain over a long head_dim would round too often.
// Between blocks it lies in memory, and compilers are told so: they would hold it in registers, and
// spill others for that even where there is but one block. That one is compiled apart, unless it is
// long (a tanh).
template <class A, class Term, int kKeys, int kVectors, class Finish>
ATTNEXT_HD void score_tile(RowBlock<Operand<Term, A>> k, int64_t first_key,
                           const Operand<Term, A>* q_t, const A* weight_t, int64_t stride,
                           int64_t head_dim, Finish& finish) {
  constexpr int64_t kBlock = Term::kSumBlock;
  const RowBlock<Operand<Term, A>> keys = {k.data + first_key * k.stride, k.stride};
  Vec<A> sum[kKeys][kVectors] = {};
  int64_t begin = 0;
  const auto add_block = [&]() __attribute__((always_inline)) {
    const Span block = {begin, min_of(begin + kBlock, head_dim)};
    add_score_block<A, Term>(keys, q_t, weight_t, stride, block, sum);
    begin += kBlock;
  };
  if constexpr (!Term::kHasWeight) add_block();
  while (begin < head_dim) {
    constexpr int kWidth = kVectors * kLanes<A>;
    alignas(kVectorBytes) A so_far[kKeys * kWidth];
    store_tile<A>(sum, so_far, kWidth);
    asm("" : : "r"(so_far) : "memory");
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
        sum[i][j] = Vec<A>{};
    add_block();
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
        sum[i][j] += load<A>(so_far + i * kWidth + j * kLanes<A>);
  }
  finish.finish(first_key, sum);
}

// out_t[d][lane] += sum_key p[key][lane] slope(q[d][lane], k[key][d]): for the dot term the slope
// is k alone, which makes this p v as well as ds k, for differences k - q, the factor in p. A tile
// is summed from zero and then joins what is there: a chain over all keys would round as often as
// there are keys.
template <class A, class Term, int kRows, int kVectors>
ATTNEXT_HD void accumulate_tile(RowBlock<Operand<Term, A>> k, const Operand<Term, A>* p,
                                int64_t p_stride, int64_t num_keys, const A* q_t, A* out_t,
                                int64_t stride) {
  using E = Operand<Term, A>;
  Vec<A> sum[kRows][kVectors] = {}, q[kRows][kVectors];
  ATTNEXT_UNROLL for (int i = 0; i < kRows; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
      q[i][j] = Term::kIsBilinear ? Vec<A>{} : load<A>(q_t + i * stride + j * kLanes<A>);
  ATTNEXT_UNROLL_TWICE
  for (int64_t key = 0; key < num_keys; ++key) {
    Vec<E> weight[kVectors];
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) weight[j] =
        load<E>(p + key * p_stride + j * kLanes<A>);
    ATTNEXT_UNROLL for (int i = 0; i < kRows; ++i) {
      const E* from = k.data + key * k.stride + i;
      const Vec<E> x = splat<E>(read_operand(from));
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
        if constexpr (kIsPaired<Term>)
          sum[i][j] = Term::template add<VectorMath<A>>(sum[i][j], weight[j], x, Vec<A>{});
        else if constexpr (Term::kIsBilinear)
          sum[i][j] = add_broadcast_product<A>(sum[i][j], weight[j], from);
        else
          sum[i][j] -= weight[j] * subtract_broadcast<A>(q[i][j], from);
      }
    }
  }
  add_tile<A>(sum, out_t, stride);
}

// grad[key][d] += sum_row p[key][row] slope(x[row][d], k[key][d]) likewise, lanes are d. Rows of
// grad and x are padded to whole vectors, `stride` apart; k need only be given (and padded
// likewise) where the slope uses it.
template <class A, class Term, int kKeys, int kVectors>
ATTNEXT_HD void key_gradient_tile(const Operand<Term, A>* p, int64_t p_stride,
                                  const Operand<Term, A>* x, int64_t stride, int64_t num_rows,
                                  RowBlock<A> k, A* grad) {
  using E = Operand<Term, A>;
  Vec<A> sum[kKeys][kVectors] = {}, key[kKeys][kVectors];
  ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
      key[i][j] =
          Term::kIsBilinear ? Vec<A>{} : load_unaligned<A>(k.data + i * k.stride + j * kLanes<A>);
  for (int64_t row = 0; row < num_rows; ++row) {
    Vec<E> q[kVectors];
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) q[j] =
        load_unaligned<E>(x + row * stride + j * kLanes<A>);
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) {
      const E* from = p + i * p_stride + row;
      const Vec<E> weight = splat<E>(read_operand(from));
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
        if constexpr (kIsPaired<Term>)
          sum[i][j] = Term::template add<VectorMath<A>>(sum[i][j], weight, q[j], Vec<A>{});
        else if constexpr (Term::kIsBilinear)
          sum[i][j] = add_broadcast_product<A>(sum[i][j], q[j], from);
        else
          sum[i][j] = add_broadcast_product<A>(sum[i][j], q[j] - key[i][j], from);
      }
    }
  }
  add_tile<A>(sum, grad, stride);
}

// The same for a last half of a vector, of terms whose slope is the row alone.
template <class A, class Term, int kKeys>
ATTNEXT_HD void half_key_gradient_tile(const Operand<Term, A>* p, int64_t p_stride,
                                       const Operand<Term, A>* x, int64_t stride, int64_t num_rows,
                                       A* grad) {
  using E = Operand<Term, A>;
  HalfVec<A> sum[kKeys] = {};
  for (int64_t row = 0; row < num_rows; ++row) {
    const HalfVec<E> q = *reinterpret_cast<const HalfVec<E>*>(x + row * stride);
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) {
      const HalfVec<E> weight = read_operand(p + i * p_stride + row) - HalfVec<E>{};
      if constexpr (kIsPaired<Term>)
        sum[i] = add_product(sum[i], weight, q);
      else
        sum[i] += weight * q;
    }
  }
  ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) *
      reinterpret_cast<HalfVec<A>*>(grad + i * stride) += sum[i];
}

// Where each element of a tile of scores takes a tanh, few rows hide its latency (2 are 3 % faster
// than 8 on Zen 4), and more would only be more code.
template <class Term>
constexpr int kScoreRows = Term::kHasWeight ? 2 : kScoreKeys;

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

// The vectors of a panel that a product is for.
struct Vectors {
  int first, count;
  int64_t stride;  // lanes of the panel
};

// Keys [keys.begin, keys.end) of the tile that begins at `k`, for kVectors vectors from `lane` on.
// The pointers are those of the panel.
template <class A, class Term, int kVectors, class Finish>
ATTNEXT_HD void multiply_some_keys(int64_t lane, int64_t stride, RowBlock<Operand<Term, A>> k,
                                   Span keys, const Operand<Term, A>* q_t, const A* weight_t,
                                   int64_t head_dim, Finish& finish) {
  for_tiles<kScoreRows<Term>>(
      keys.end,
      [&](auto rows, int64_t key) {
        score_tile<A, Term, rows.value, kVectors>(k, key, q_t + lane, weight_t + lane, stride,
                                                  head_dim, finish);
      },
      keys.begin);
}

// `vectors` moves the pointers, and those of `finish`.
template <class A, class Term, class Finish>
static void multiply_keys(Vectors vectors, RowBlock<Operand<Term, A>> k, Span keys,
                          const Operand<Term, A>* q_t, const A* weight_t, int64_t head_dim,
                          Finish finish) {
  const int64_t lane = vectors.first * kLanes<A>;
  finish.move_to(lane);
  with_vectors(vectors.count, [&](auto v) {
    multiply_some_keys<A, Term, v.value>(lane, vectors.stride, k, keys, q_t, weight_t, head_dim,
                                         finish);
  });
}

template <class A, class Term>
static void accumulate(Vectors vectors, RowBlock<Operand<Term, A>> k, Span keys, int64_t head_dim,
                       const Operand<Term, A>* p, int64_t p_stride, const A* q_t, A* out_t) {
  const int64_t lane = vectors.first * kLanes<A>;
  with_vectors(vectors.count, [&](auto v) {
    for_tiles<kSlopeRows<Term>>(head_dim, [&](auto rows, int64_t d) {
      const int64_t row = d * vectors.stride + lane;
      accumulate_tile<A, Term, rows.value, v.value>(
          {k.data + keys.begin * k.stride + d, k.stride}, p + keys.begin * p_stride + lane,
          p_stride, keys.end - keys.begin, Term::kIsBilinear ? q_t : q_t + row, out_t + row,
          vectors.stride);
    });
  });
}

// Rows of grad and x have `elements`, in `stride`.
template <class A, class Term>
static void accumulate_key_gradient(const Operand<Term, A>* p, int64_t p_stride, int64_t num_keys,
                                    const Operand<Term, A>* x, int64_t elements, int64_t stride,
                                    int64_t num_rows, RowBlock<A> k, A* grad) {
  constexpr int kVectors = Term::kIsBilinear ? kGradientVectors : kSlopeVectors;
  constexpr bool kMayHaveHalf = kHasHalves && Term::kIsBilinear;
  const int64_t half = stride - kLanes<A>;  // where it begins
  const bool has_half = kMayHaveHalf && elements - half <= kLanes<A> / 2;
  for_tiles<kVectors>(stride / kLanes<A> - has_half, [&](auto vectors, int64_t vector) {
    const int64_t d = vector * kLanes<A>;
    constexpr int kKeys = vectors.value == kVectors ? kGradientKeys : kTileRows;
    for_tiles<kKeys>(num_keys, [&](auto keys, int64_t key) {
      const RowBlock<A> rows = {Term::kIsBilinear ? k.data : k.data + key * k.stride + d, k.stride};
      key_gradient_tile<A, Term, keys.value, vectors.value>(
          p + key * p_stride, p_stride, x + d, stride, num_rows, rows, grad + key * stride + d);
    });
  });
  if constexpr (kMayHaveHalf) {
    if (!has_half) return;
    for_tiles<kTileRows>(num_keys, [&](auto keys, int64_t key) {
      half_key_gradient_tile<A, Term, keys.value>(p + key * p_stride, p_stride, x + half, stride,
                                                  num_rows, grad + key * stride + half);
    });
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
