// Forward for a panel of few rows (decoding): lanes are head dimensions, so that keys and values
// stream through whole registers and are read at the speed of memory; scores lie close together,
// [keys][rows], so that no lane of an exponential is idle.
#pragma once

#include "cpu/tile/load.h"
#include "cpu/tile/softmax.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// r[0][i] = the sum over the lanes of r[i], of kLanes vectors: pairs are folded and interleaved
// until one is left.
template <class A, int kStep = kLanes<A> / 2>
ATTNEXT_HD void sum_lanes(Vec<A>* r) {
  using Lanes = std::make_integer_sequence<int, kLanes<A>>;
  ATTNEXT_UNROLL for (int i = 0; i < kStep; ++i) r[i] =
      exchange_low<kStep>(r[i], r[i + kStep], Lanes{}) +
      exchange_high<kStep>(r[i], r[i + kStep], Lanes{});
  if constexpr (kStep > 1) sum_lanes<A, kStep / 2>(r);
}

// The next rows to be read, asked for while the present ones are worked on: a stream that waits for
// its own prefetches leaves memory idle during the other product. Into L2: a tile is more than L1
// holds, and L1 has too few misses under way at a time (on Zen 4 it read 9 GB/s, L2 14 of 16).
template <class E>
ATTNEXT_HD void prefetch_row(RowBlock<E> rows, int64_t row, int64_t width) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(E));
  constexpr int kForReading = 0, kIntoL2 = 2;
  for (int64_t d = 0; d < width; d += kLine)
    __builtin_prefetch(rows.data + row * rows.stride + d, kForReading, kIntoL2);
}

// Rows that are read in place whatever they are stored as: converted on the way to the registers.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
template <class A>
ATTNEXT_HD Vec<A> load_wide(const A* p) {
  return load_unaligned<A>(p);
}
template <class A>
ATTNEXT_HD Vec<A> load_wide(const BFloat16* p) {
  return load_bfloat(reinterpret_cast<const uint16_t*>(p));
}
template <class A>
ATTNEXT_HD Vec<A> load_wide(const Float16* p) {
  return load_half(reinterpret_cast<const uint16_t*>(p));
}

// Rows of a panel as they were before they were transposed, padded with zeros.
template <class A>
static void gather_rows(const Panel<A>& panel, int64_t head_dim, A* out) {
  const int64_t width = round_up(head_dim, kLanes<A>);
  for (int64_t row = 0; row < panel.rows.end - panel.rows.begin; ++row)
    for (int64_t d = 0; d < width; ++d)
      out[row * width + d] = d < head_dim ? panel.q_t[d * lanes_of(panel) + row] : A(0);
}

// Whether keys are multiplied one after another, or a vector of each in turn: on Zen 4 the first is
// an eighth faster for 16-bit rows, whose lines are two vectors each, and not for float32.
template <class A, class E>
constexpr bool kIsReadRowByRow = sizeof(E) < sizeof(A);

// s[key][row] = q[row] . k[key] for kLanes / kRows keys at a time; k's rows are whole vectors. What
// is left of the last vector of s is -infinity.
template <class A, int kRows, class E>
static void multiply_few(RowBlock<E> k, int64_t num_keys, const A* q, int64_t width,
                         RowBlock<E> next, int64_t next_width, A* s) {
  constexpr int kKeys = kLanes<A> / kRows;
  for (int64_t begin = 0; begin < num_keys; begin += kKeys) {
    const int64_t last = num_keys - 1, count = min_of(kKeys, num_keys - begin);
    Vec<A> sum[kLanes<A>];
    ATTNEXT_UNROLL for (int i = 0; i < kLanes<A>; ++i) sum[i] = Vec<A>{};
    for (int64_t i = 0; i < count; ++i) prefetch_row<E>(next, begin + i, next_width);
    const auto add = [&](int i, int64_t d) __attribute__((always_inline)) {
      const Vec<A> key = load_wide<A>(k.data + min_of(begin + i, last) * k.stride + d);
      ATTNEXT_UNROLL for (int row = 0; row < kRows; ++row) sum[i * kRows + row] +=
          key * load<A>(q + row * width + d);
    };
    if constexpr (kIsReadRowByRow<A, E>) {
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) for (int64_t d = 0; d < width; d += kLanes<A>)
          add(i, d);
    } else {
      for (int64_t d = 0; d < width; d += kLanes<A>)
        ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) add(i, d);
    }
    sum_lanes<A>(sum);
    store<A>(s + begin * kRows, sum[0]);
  }
  for (int64_t i = num_keys * kRows; i % kLanes<A>; ++i) s[i] = A(-__builtin_inf());
}

// Every lane of a row, which are kRows apart, gets what `join` makes of them all.
template <class A, int kRows, int kStep = kLanes<A> / 2, class F>
ATTNEXT_HD Vec<A> join_rows(Vec<A> x, F&& join) {
  if constexpr (kStep >= kRows) {
    x = join(x, rotate<kStep>(x, std::make_integer_sequence<int, kLanes<A>>{}));
    return join_rows<A, kRows, kStep / 2>(x, join);
  }
  return x;
}

// s[key][row] <- p = 2^(s - base), the bases raised to the maximum before and the sums kept. The
// state's lanes beyond the rows hold copies of theirs.
template <class A, int kRows>
static void soften_few(int64_t num_keys, int64_t head_dim_v, A* s, A* o_t, RowState<A>* state) {
  const int64_t count = num_keys * kRows;
  Vec<A> row_max = load<A>(state->base), sum{};
  for (int64_t i = 0; i < count; i += kLanes<A>) row_max = maximum<A>(row_max, load<A>(s + i));
  row_max = join_rows<A, kRows>(row_max, [](Vec<A> a, Vec<A> b) { return maximum<A>(a, b); });
  change_base<A>(kLanes<A>, 0, row_max, head_dim_v, o_t, state);
  const Vec<A> base = VectorMath<A>::finite_or_zero(row_max);
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const Vec<A> p = exp2<A>(load<A>(s + i) - base);
    store<A>(s + i, p);
    sum += p;
  }
  add_to<A>(state->row_sum, join_rows<A, kRows>(sum, [](Vec<A> a, Vec<A> b) { return a + b; }));
}

// Between scores that lie close together and those of a panel, [key][lanes].
template <class A, class F>
static void for_few(int rows, int64_t num_keys, int lanes, F&& f) {
  for (int64_t key = 0; key < num_keys; ++key)
    for (int row = 0; row < rows; ++row) f(key * rows + row, key * lanes + row);
}

// o_t[d][row] += sum_key p[key][row] v[key][d]; v's rows are whole vectors.
template <class A, int kRows, class E>
static void accumulate_few(RowBlock<E> v, int64_t num_keys, int64_t head_dim, const A* p,
                           RowBlock<E> next, int64_t next_width, A* o_t) {
  constexpr int lanes = kLanes<A>;  // of the panel, whose rows are fewer
  const int64_t width = round_up(head_dim, kLanes<A>);
  constexpr int kVectors = 4;
  for_tiles<kVectors>(width / kLanes<A>, [&](auto vectors, int64_t vector) {
    const int64_t begin = vector * kLanes<A>;
    Vec<A> sum[kRows][vectors.value];
    ATTNEXT_UNROLL for (int row = 0; row < kRows; ++row)
        ATTNEXT_UNROLL for (int j = 0; j < vectors.value; ++j) sum[row][j] = Vec<A>{};
    for (int64_t key = 0; key < num_keys; ++key) {
      if (begin == 0) prefetch_row<E>(next, key, next_width);
      Vec<A> value[vectors.value];
      ATTNEXT_UNROLL for (int j = 0; j < vectors.value; ++j) value[j] =
          load_wide<A>(v.data + key * v.stride + begin + j * kLanes<A>);
      ATTNEXT_UNROLL for (int row = 0; row < kRows; ++row) {
        const Vec<A> weight = splat<A>(p[key * kRows + row]);
        ATTNEXT_UNROLL for (int j = 0; j < vectors.value; ++j) sum[row][j] += weight * value[j];
      }
    }
    for (int row = 0; row < kRows; ++row)
      for (int j = 0; j < vectors.value; ++j)
        for (int64_t i = 0; i < min_of(kLanes<A>, head_dim - begin - j * kLanes<A>); ++i)
          o_t[(begin + j * kLanes<A> + i) * lanes + row] += sum[row][j][i];
  });
}

// Rows a panel may have to be worked on this way: beyond a quarter of a vector of them, lanes are
// better used as queries.
template <class A>
constexpr int kFewRows = kLanes<A> >= 4 ? kLanes<A> / 4 : 1;

template <class A, class F>
ATTNEXT_HD void with_few_rows(int64_t rows, F&& f) {
  if (rows == 1) return f(Int<1>{});
  if constexpr (kFewRows<A> >= 2) {
    if (rows == 2) return f(Int<2>{});
  }
  if constexpr (kFewRows<A> >= 4) f(Int<4>{});
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
