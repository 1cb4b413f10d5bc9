// What the kernels of backward share: a block owns rows of one side (q and dout, or k and v), walks
// along tiles of the other, and differentiates the scores between them (FlashAttention-2, Dao 2023,
// arXiv:2307.08691; no sum is shared between blocks).
#pragma once

#include "mma/float32.cuh"
#include "mma/gradient.cuh"
#include "mma/load.cuh"
#include "mma/pipeline.cuh"
#include "mma/tile_shape.h"

namespace attnext::cuda::mma {

// In shared memory: q and dout, or k and v, of what the block owns; stages of the others; their lse
// and delta, if they are queries, in stages too; inverse norms.
template <class Shape>
struct BackwardMemory {
  using Layout = TileLayout<Shape::kHeadDim, Shape::kElementBytes>;
  static constexpr uint32_t kOwnedBytes = Layout::bytes(Shape::kOwned),
                            kWalkedBytes = Layout::bytes(Shape::kWalked),
                            kConstantBytes = 4 * Shape::kWalked;
  static constexpr uint32_t kOwn = 0, kStages = kOwn + 2 * kOwnedBytes,
                            kConstants = kStages + Shape::kStages * 2 * kWalkedBytes,
                            kNormsOwn = kConstants + Shape::kStages * 2 * kConstantBytes,
                            kNormsWalked = kNormsOwn + 4 * Shape::kOwned,
                            kBytes = kNormsWalked + 4 * Shape::kWalked;
  static_assert(kBytes <= bytes_of(Shape::kBudget), "a block must fit the architecture's memory");
};

template <class Element, class Shape>
struct BackwardBlock {
  using Memory = BackwardMemory<Shape>;
  static constexpr int kOwned = Shape::kOwned, kWalked = Shape::kWalked, kScored = Shape::kScored,
                       kHeadDim = Shape::kHeadDim, kRowFragments = Shape::kRowFragments;
  static constexpr bool kOwnsKeys = Shape::kOwnsKeys;
  using Sums = Accumulator<kRowFragments, kHeadDim / 8>;
  using Scores = Accumulator<kRowFragments, kScored / 8>;
  using Operand = RowOperand<kHeadDim, kRowFragments, Shape::kKeepsRows>;
  using RowSums = float[kRowFragments][2][kNumRowSums];

  const BackwardArguments& a;
  int32_t sequence, head_kv;  // a group is read again for every tile: registers are for sums
  Scales scales;
  int64_t first_owned;  // row of the group, or key

  PTX_FN static int thread() { return static_cast<int>(ptx::thread_index().x); }
  PTX_FN static int lane() { return static_cast<int>(ptx::lane_index()); }
  // Of what the block owns: the warp's first.
  PTX_FN static int warp_row() { return static_cast<int>(ptx::warp_index()) * Shape::kWarpRows; }
  PTX_FN Group group() const { return group_of(a.params.problem, sequence, head_kv); }
  PTX_FN bool has_cosine() const {
    return Shape::kHasOptions && a.params.problem.score == Score::kCosine;
  }

  template <int kRows>
  PTX_FN void load_rows(uint32_t at, int64_t first_row) const {
    const Problem& p = a.params.problem;
    const Group g = group();
    load_query_rows<Element, Shape::kThreads, kRows, kHeadDim>(p, g, p.q, a.q_access, at, first_row,
                                                               thread());
    load_query_rows<Element, Shape::kThreads, kRows, kHeadDim>(
        p, g, a.params.dout, a.dout_access, at + Memory::Layout::bytes(kRows), first_row, thread());
  }
  template <int kRows>
  PTX_FN void load_keys(uint32_t at, int64_t first_key) const {
    const Group g = group();
    const Problem& p = a.params.problem;
    load_key_rows<Element, Shape::kThreads, kRows, kHeadDim>(p, g, p.k, a.k_access, at, first_key,
                                                             thread());
    load_key_rows<Element, Shape::kThreads, kRows, kHeadDim>(
        p, g, p.v, a.v_access, at + Memory::Layout::bytes(kRows), first_key, thread());
  }
  // lse and delta of a tile of rows; of rows that do not exist, which nobody looks at, zeros.
  PTX_FN void load_constants(uint32_t at, int64_t first_row) const {
    const Group g = group();
    const int64_t base = workspace_row(a.params.problem, g, {0, g.first_head});
    if (thread() >= kWalked) return;
    const int64_t row = first_row + thread();
    const bool exists = row < g.num_rows;
    const int64_t from = exists ? base + row : 0;
    const auto to = at + 4 * static_cast<uint32_t>(thread());
    ptx::cp_async<4>(to, a.lse_log2 + from, exists ? 4 : 0);
    ptx::cp_async<4>(to + Memory::kConstantBytes, a.delta + from, exists ? 4 : 0);
  }

  // A tile is used in steps of kScored rows, counted from the first tile of all.
  static constexpr int kSteps = kWalked / kScored;
  PTX_FN static uint32_t address_of(int32_t step) {
    return ptx::dyn_smem() + Memory::kStages +
           stage_offset<Shape::kStages>(step / kSteps, 2 * Memory::kWalkedBytes) +
           static_cast<uint32_t>(Memory::Layout::bytes(step % kSteps * kScored));
  }
  PTX_FN static uint32_t constants_of(int32_t step) {
    return ptx::dyn_smem() + Memory::kConstants +
           stage_offset<Shape::kStages>(step / kSteps, 2 * Memory::kConstantBytes) +
           static_cast<uint32_t>(step % kSteps * kScored * 4);
  }
  PTX_FN void load_walked(int32_t tile) const {
    const int64_t first = int64_t{tile} * kWalked;
    if constexpr (kOwnsKeys) {
      load_rows<kWalked>(address_of(tile * kSteps), first);
      load_constants(constants_of(tile * kSteps), first);
    } else {
      load_keys<kWalked>(address_of(tile * kSteps), first);
    }
    ptx::cp_async_commit();
  }
  PTX_FN void load_owned() const {
    if constexpr (kOwnsKeys)
      load_keys<kOwned>(ptx::dyn_smem() + Memory::kOwn, first_owned);
    else
      load_rows<kOwned>(ptx::dyn_smem() + Memory::kOwn, first_owned);
    ptx::cp_async_commit();
  }

  PTX_FN void invert_all_norms(int32_t tile, bool is_first) const {
    const uint32_t shared = ptx::dyn_smem();
    if (is_first)
      invert_norms<Element, Shape::kThreads, kOwned, kHeadDim>(shared + Memory::kOwn, thread(),
                                                               shared + Memory::kNormsOwn);
    invert_norms<Element, Shape::kThreads, kWalked, kHeadDim>(address_of(tile * kSteps), thread(),
                                                              shared + Memory::kNormsWalked);
    ptx::block_sync();  // the norms are there
  }

  // `use(s, dp, step)` with the raw products of every step along `walked` in which the warp sees
  // something: s = q kT and dp = dout vT, or their transposes where the block owns keys. dp is 0
  // where it is not wanted.
  template <bool kWantsDp, class F>
  PTX_FN void walk(Span walked, F&& use) const {
    constexpr bool kIsAhead = Shape::kStages > 1;
    const auto first = static_cast<int32_t>(walked.begin / kWalked),
               last = static_cast<int32_t>((walked.end - 1) / kWalked);
    const uint32_t own = ptx::dyn_smem() + Memory::kOwn;
    load_owned();
    if constexpr (kIsAhead) load_walked(first);
    ptx::cp_async_wait<kIsAhead>();
    ptx::block_sync();  // what the block owns is there
    Operand owned, owned_other;
    owned.keep(own, warp_row(), lane());
    if constexpr (kWantsDp) owned_other.keep(own + Memory::kOwnedBytes, warp_row(), lane());
    walk_tiles<Shape::kStages>(
        first, last, [&](int32_t tile) { load_walked(tile); },
        [&](int32_t tile) {
          if (has_cosine()) invert_all_norms(tile, tile == first);
#pragma unroll 1
          for (int32_t step = tile * kSteps; step < (tile + 1) * kSteps; ++step) {
            if (!sees(step)) continue;
            Scores s, dp;
            multiply<kWantsDp>(owned, owned_other, step, s, dp);
            use(s, dp, step);
          }
        });
  }

  template <bool kWantsDp>
  PTX_FN void multiply(const Operand& owned, const Operand& owned_other, int32_t step, Scores& s,
                       Scores& dp) const {
    const uint32_t own = ptx::dyn_smem() + Memory::kOwn, walked = address_of(step);
    clear(s);
    clear(dp);
    multiply_rows<Element>(owned, own, warp_row(), walked, lane(), s);
    if constexpr (kWantsDp)
      multiply_rows<Element>(owned_other, own + Memory::kOwnedBytes, warp_row(),
                             walked + Memory::kWalkedBytes, lane(), dp);
  }

  // Whether some pair of what the warp owns and of the step is allowed by rule.
  PTX_FN bool sees(int32_t step) const {
    const Group g = group();
    const int64_t own = first_owned + warp_row(), other = int64_t{step} * kScored;
    const Span owned = {own, own + Shape::kWarpRows}, walked = {other, other + kScored};
    Span rows = kOwnsKeys ? walked : owned, keys = kOwnsKeys ? owned : walked;
    rows.end = min_of(rows.end, g.num_rows);
    keys.end = min_of(keys.end, g.mask.seqlen_k);
    return rows.begin < rows.end && keys.begin < keys.end &&
           classify_tile(g.mask, queries_of(g, rows), keys) != TileKind::kSkip;
  }

  // What a lane's fragment row `own` (of the group, or a key) sees of the step from `first` on.
  PTX_FN Window window(const Group& g, int64_t own, int64_t first) const {
    if constexpr (kOwnsKeys) {
      const bool exists = own < g.mask.seqlen_k;
      const Span queries = exists ? visible_queries(g.mask, {own, own + 1}) : Span{0, 0};
      return window_of({queries.begin * g.num_heads, queries.end * g.num_heads}, first, kScored);
    } else {
      const int64_t query = position_of(g, min_of(own, g.num_rows - 1)).query;
      return window_of(visible_keys(g.mask, query), first, kScored);
    }
  }

  // The rows of a step that a lane's two columns of fragment j are.
  PTX_FN void read_rows(const Group& g, int32_t step, int j, GradientRow (&rows)[2]) const {
    const int column = 8 * j + fragment_column(lane());
    const uint32_t at = constants_of(step) + 4 * static_cast<uint32_t>(column);
    const float2 lse = ptx::ld_shared<float2>(at),
                 delta = ptx::ld_shared<float2>(at + Memory::kConstantBytes);
    const int64_t row = int64_t{step} * kScored + column;
#pragma unroll
    for (int e = 0; e < 2; ++e)
      rows[e] =
          scaled_row(a.params.problem, position_of(g, min_of(row + e, g.num_rows - 1)), scales);
    rows[0].lse_log2 = lse.x, rows[1].lse_log2 = lse.y;
    rows[0].delta = delta.x, rows[1].delta = delta.y;
  }

  // s <- the weights that met the values, dp <- ds by the raw products, relative to the reference
  // of scales. `mine`: the lane's rows of the group, where the block owns them.
  PTX_FN void differentiate(int32_t step, const GradientRow (&mine)[kRowFragments][2],
                            RowSums* sums, Scores& s, Scores& dp) const {
    const Group g = group();
    const int64_t first = int64_t{step} * kScored + fragment_column(lane());
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m) {
      const int64_t own = first_owned + warp_row() + 16 * m + fragment_row(lane(), 0);
      const Window windows[2] = {window(g, own, first), window(g, own + 8, first)};
#pragma unroll
      for (int j = 0; j < kScored / 8; ++j) {
        GradientRow rows[2];
        if constexpr (kOwnsKeys)
          read_rows(g, step, j, rows);
        else
          rows[0] = mine[m][0], rows[1] = mine[m][1];
        differentiate_fragment(g, step, m, j, rows, windows, kOwnsKeys ? own : first, sums, s[m][j],
                               dp[m][j]);
      }
    }
  }

  PTX_FN void differentiate_fragment(const Group& g, int32_t step, int m, int j,
                                     const GradientRow (&rows)[2], const Window (&windows)[2],
                                     int64_t first_key, RowSums* sums, float (&s)[4],
                                     float (&dp)[4]) const {
    float factors[4];
    draw_factors(g, rows, first_owned + warp_row() + 16 * m, step, j, factors);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i / 2, column = 8 * j + i % 2, key = kOwnsKeys ? 8 * half : column;
      const GradientRow& row = rows[kOwnsKeys ? i % 2 : half];
      float raw = s[i], norm = 1;
      if (has_cosine()) raw *= inverse_norms(step, m, half, column, &norm);
      const PairGradient pair = differentiate_pair<Shape::kHasOptions>(
          a.params.problem, g, row, first_key, key, windows[half].has(column), raw,
          dp[i] * factors[i]);
      if (Shape::kHasOptions && sums)
        add_row_sums(a.params.problem, g, row, first_key, key, pair, (*sums)[m][half]);
      s[i] = pair.p * factors[i];
      dp[i] = pair.ds * (pair.slope * row.ds_scale * norm);
    }
  }

  // What dropout multiplies the weights of fragment j by.
  PTX_FN void draw_factors(const Group& g, const GradientRow (&rows)[2], int64_t own, int32_t step,
                           int j, float (&factors)[4]) const {
    const Dropout& dropout = a.params.problem.dropout;
    const bool has_dropout = Shape::kHasOptions && dropout.probability > 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) factors[i] = 1;
    if (!has_dropout) return;
    const int64_t first_head = g.sequence * a.params.problem.num_heads_q;
    const int64_t head[2] = {first_head + rows[0].at.head, first_head + rows[1].at.head},
                  query[2] = {rows[0].at.query, rows[1].at.query};
    const int64_t key_block = (int64_t{step} * kScored + 8 * j) / 4 + lane() % 4 / 2;
    const LaneWords drawn = kOwnsKeys ? draw_words_of_columns(dropout, head, query, own / 4, lane())
                                      : draw_words(dropout, head, query, key_block, lane());
    const uint64_t threshold = drop_threshold(dropout.probability);
    const float kept = kept_factor<float>(dropout);
#pragma unroll
    for (int i = 0; i < 4; ++i) factors[i] = drawn.words[i / 2][i % 2] >= threshold ? kept : 0;
  }

  // Of a pair, their product; `walked`: the one that the sum is to be multiplied by.
  PTX_FN float inverse_norms(int32_t step, int m, int half, int column, float* walked) const {
    const uint32_t shared = ptx::dyn_smem();
    const int own = warp_row() + 16 * m + fragment_row(lane(), half);
    const int other = step % kSteps * kScored + fragment_column(lane()) + column;
    *walked =
        ptx::ld_shared<float>(shared + Memory::kNormsWalked + 4 * static_cast<uint32_t>(other));
    return *walked *
           ptx::ld_shared<float>(shared + Memory::kNormsOwn + 4 * static_cast<uint32_t>(own));
  }

  // Row `row` of what the block owns: its sums -> t, at `offset`.
  PTX_FN void store_gradient(const TensorView& t, bool has_pairs, int64_t offset, int columns,
                             int row, bool exists, bool is_stored, int half, bool is_unnormalised,
                             float scale, const float (&sums)[kHeadDim / 8][4]) const {
    using Layout = typename Memory::Layout;
    const uint32_t x = ptx::dyn_smem() + Memory::kOwn;
    float projection = 0, inverse = 1;
    if (is_unnormalised) {
      inverse = ptx::ld_shared<float>(ptx::dyn_smem() + Memory::kNormsOwn +
                                      4 * static_cast<uint32_t>(row));
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        const float2 pair = Element::unpack(ptx::ld_shared<typename Element::Pair>(
            x + Layout::element(row, 8 * j + fragment_column(lane()))));
        projection += sums[j][2 * half] * pair.x + sums[j][2 * half + 1] * pair.y;
      }
      projection = row_total(projection) * inverse * scale;
    }
    if (!is_stored) return;
#pragma unroll
    for (int j = 0; j < kHeadDim / 8; ++j) {
      const int column = 8 * j + fragment_column(lane());
      float low = sums[j][2 * half] * scale, high = sums[j][2 * half + 1] * scale;
      if (is_unnormalised) {
        const float2 pair = Element::unpack(
            ptx::ld_shared<typename Element::Pair>(x + Layout::element(row, column)));
        low = normalised_gradient(low, pair.x * inverse, projection, inverse);
        high = normalised_gradient(high, pair.y * inverse, projection, inverse);
      }
      store_pair(t, has_pairs, offset, column, columns, exists ? low : 0, exists ? high : 0);
    }
  }
};

}  // namespace attnext::cuda::mma
