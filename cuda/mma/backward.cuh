// What the kernels of backward share: a block owns rows of one side (q and dout, or k and v), walks
// along tiles of the other, and differentiates the scores between them (FlashAttention-2, Dao 2023,
// arXiv:2307.08691; no sum is shared between blocks).
#pragma once

#include "mma/backward_load.cuh"
#include "mma/float32.cuh"

namespace attnext::cuda::mma {

template <class Element, class Shape>
struct BackwardBlock : BackwardLoads<Element, Shape> {
  using Loads = BackwardLoads<Element, Shape>;
  using Loads::a, Loads::address_of, Loads::constants_of, Loads::first_owned, Loads::group,
      Loads::kHeadDim, Loads::kOwned, Loads::kOwnsKeys, Loads::kWalked, Loads::lane, Loads::next,
      Loads::place, Loads::slot_of_stage, Loads::thread, Loads::warp_row;
  using typename Loads::Memory, typename Loads::Stop, typename Loads::Streams;
  static constexpr int kScored = Shape::kScored, kSteps = kWalked / kScored,
                       kRowFragments = Shape::kRowFragments;
  using Sums = Accumulator<kRowFragments, kHeadDim / 8>;
  using Scores = Accumulator<kRowFragments, kScored / 8>;
  using Operand = LeftOperand<Element, kHeadDim, kRowFragments, Shape::kKeepsRows>;
  using OtherOperand = LeftOperand<Element, kHeadDim, kRowFragments, Shape::kKeepsOthers>;
  using RowSums = float[kRowFragments][2][kNumRowSums];

  Scales scales;

  // A tile is used in steps of kScored rows.
  struct Step {
    int32_t number, head;  // of the steps of all keys, or of the queries of a head
    uint32_t slot;         // rows from the beginning of the stages on
    bool is_full;          // every pair in it is allowed by rule
  };

  PTX_FN bool has_cosine() const {
    return Shape::kHasOptions && a.params.problem.score == Score::kCosine;
  }

  PTX_FN void invert_all_norms(uint32_t stage, bool is_first) const {
    const uint32_t shared = ptx::dyn_smem();
    if (is_first)
      invert_norms<Element, Shape::kThreads, kOwned, kHeadDim>(shared + Memory::kOwn, thread(),
                                                               shared + Memory::kNormsOwn);
    invert_norms<Element, Shape::kThreads, kWalked, kHeadDim>(stage, thread(),
                                                              shared + Memory::kNormsWalked);
    ptx::block_sync();  // the norms are there
  }

  // The steps of the walk in which the warp's rows, or keys, see something, and those in which all
  // of them see all.
  struct Sight {
    TileSpan some, all;
  };
  PTX_FN Sight sight() const {
    const Group g = group();
    const int64_t begin = first_owned() + warp_row();
    const int64_t count = kOwnsKeys ? g.mask.seqlen_k : g.num_rows;
    const Span owned = {begin, min_of(begin + Shape::kWarpRows, count)};
    if (owned.begin >= owned.end) return {};
    Span some, all;
    if constexpr (kOwnsKeys) {
      some = visible_queries(g.mask, owned);
      all = {visible_queries(g.mask, {owned.end - 1, owned.end}).begin,
             visible_queries(g.mask, {owned.begin, owned.begin + 1}).end};
    } else {
      const Span queries = queries_of(g, owned);
      some = reachable_keys(g.mask, queries);
      all = {visible_keys(g.mask, queries.end - 1).begin, visible_keys(g.mask, queries.begin).end};
    }
    // Keys that do not exist have no bias or mask to look at.
    if (Shape::kHasOptions && owned.end - owned.begin < Shape::kWarpRows) all = {0, 0};
    return {{static_cast<int32_t>(some.begin / kScored),
             static_cast<int32_t>(divide_up(some.end, kScored))},
            {static_cast<int32_t>(divide_up(all.begin, kScored)),
             static_cast<int32_t>(all.end / kScored)}};
  }

  // `use(s, dp, step)` with the raw products of every step along `walked` in which the warp sees
  // something: s = q kT and dp = dout vT, or their transposes where the block owns keys. dp is 0
  // where it is not wanted.
  template <bool kWantsDp, class F>
  PTX_FN void walk(Span walked, F&& use) const {
    constexpr bool kIsAhead = Shape::kStages > 1;
    const TileSpan tiles = {static_cast<int32_t>(walked.begin / kWalked),
                            static_cast<int32_t>(divide_up(walked.end, kWalked))};
    const auto heads = kOwnsKeys ? static_cast<int32_t>(a.params.problem.group_size) : 1;
    const uint32_t own = ptx::dyn_smem() + Memory::kOwn;
    Stop stop = {tiles.begin, place().head_kv * heads};
    Streams streams;
    this->begin_loads(tiles, stop, streams);
    const auto load = [&](int32_t number) { this->load_next(number, stop, streams); };
    if constexpr (kIsAhead) load(0);
    ptx::cp_async_wait<kIsAhead>();
    ptx::block_sync();  // what the block owns is there
    const Sight sees = sight();
    Operand owned;
    OtherOperand owned_other;
    owned.set(own, warp_row(), lane());
    if constexpr (kWantsDp) owned_other.set(own + Memory::kOwnedBytes, warp_row(), lane());
    walk_tiles<Shape::kStages>(0, (tiles.end - tiles.begin) * heads - 1, load, [&](int32_t number) {
      if (has_cosine()) invert_all_norms(address_of(slot_of_stage(number)), number == 0);
#pragma unroll 1
      for (int i = 0; i < kSteps; ++i) {
        const Step step = {stop.tile * kSteps + i, stop.head,
                           slot_of_stage(number) + static_cast<uint32_t>(i * kScored),
                           sees.all.has(stop.tile * kSteps + i)};
        if (!sees.some.has(step.number)) continue;
        Scores s, dp;
        multiply<kWantsDp>(owned, owned_other, step, s, dp);
        use(s, dp, step);
      }
      stop = next(stop);
    });
  }

  template <bool kWantsDp>
  PTX_FN void multiply(const Operand& owned, const OtherOperand& owned_other, const Step& step,
                       Scores& s, Scores& dp) const {
    const uint32_t walked = address_of(step.slot);
    clear(s);
    clear(dp);
    multiply_rows<Element>(owned, walked, lane(), s);
    if constexpr (kWantsDp)
      multiply_rows<Element>(owned_other, walked + Memory::kWalkedBytes, lane(), dp);
  }

  // What a lane's fragment row `own` (of the group, or a key) sees of the step from `first` on.
  PTX_FN Window window(const Group& g, int64_t own, int64_t first) const {
    if constexpr (kOwnsKeys) {
      const bool exists = own < g.mask.seqlen_k;
      const Span queries = exists ? visible_queries(g.mask, {own, own + 1}) : Span{0, 0};
      return window_of(queries, first, kScored);
    } else {
      const int64_t query = position_of(g, min_of(own, g.num_rows - 1)).query;
      return window_of(visible_keys(g.mask, query), first, kScored);
    }
  }

  // The rows of a step that a lane's two columns of fragment j are; `row` is any of their head.
  PTX_FN void read_rows(const Group& g, const Step& step, int j, const GradientRow& row,
                        GradientRow (&rows)[2]) const {
    const int column = 8 * j + fragment_column(lane());
    const uint32_t at = constants_of(step.slot) + 4 * static_cast<uint32_t>(column);
    const float2 lse = ptx::ld_shared<float2>(at),
                 delta = ptx::ld_shared<float2>(at + Memory::kConstantBytes);
    rows[0] = rows[1] = row;
    rows[0].lse_log2 = lse.x, rows[1].lse_log2 = lse.y;
    rows[0].delta = delta.x, rows[1].delta = delta.y;
    if constexpr (Shape::kHasOptions) {
      const int64_t query = int64_t{step.number} * kScored + column;
      rows[0].at.query = min_of(query, g.mask.seqlen_q - 1);
      rows[1].at.query = min_of(query + 1, g.mask.seqlen_q - 1);
    }
  }

  // s <- the weights that met the values, dp <- ds by the raw products, relative to the reference
  // of scales. `mine`: the lane's rows of the group, where the block owns them; `sums`: theirs, if
  // they are wanted.
  PTX_FN void differentiate(const Step& step, const GradientRow (&mine)[kRowFragments][2],
                            RowSums& sums, Scores& s, Scores& dp) const {
    if (step.is_full)
      differentiate<true>(step, mine, sums, s, dp);
    else
      differentiate<false>(step, mine, sums, s, dp);
  }

  template <bool kIsFull>
  PTX_FN void differentiate(const Step& step, const GradientRow (&mine)[kRowFragments][2],
                            RowSums& sums, Scores& s, Scores& dp) const {
    const Group g = !kIsFull || Shape::kHasOptions ? group() : Group{};
    const int64_t first = int64_t{step.number} * kScored + fragment_column(lane());
    GradientRow row = {};
    if constexpr (kOwnsKeys)
      row = scaled_row<Shape::kHasOptions>(a.params.problem, g, {0, step.head}, scales);
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m) {
      int64_t own = 0;
      Window windows[2] = {{0, kScored}, {0, kScored}};
      if constexpr (!kIsFull || Shape::kHasOptions)
        own = first_owned() + warp_row() + 16 * m + fragment_row(lane(), 0);
      if constexpr (!kIsFull)
        windows[0] = window(g, own, first), windows[1] = window(g, own + 8, first);
#pragma unroll
      for (int j = 0; j < kScored / 8; ++j) {
        GradientRow rows[2];
        if constexpr (kOwnsKeys)
          read_rows(g, step, j, row, rows);
        else
          rows[0] = mine[m][0], rows[1] = mine[m][1];
        differentiate_fragment<kIsFull>(g, step, m, j, rows, windows, kOwnsKeys ? own : first, sums,
                                        s[m][j], dp[m][j]);
      }
    }
  }

  template <bool kIsFull>
  PTX_FN void differentiate_fragment(const Group& g, const Step& step, int m, int j,
                                     const GradientRow (&rows)[2], const Window (&windows)[2],
                                     int64_t first_key, RowSums& sums, float (&s)[4],
                                     float (&dp)[4]) const {
    const bool has_dropout = Shape::kHasOptions && a.has_dropout;
    FragmentPairs<kOwnsKeys> pairs = {rows, first_key, 8 * j, {}};
    float factors[4], norms[4];
    if (has_dropout) {
      draw_factors(g, rows, first_owned() + warp_row() + 16 * m, step, j, factors);
      for_pairs([&](int i) { dp[i] *= factors[i]; });
    }
    if (has_cosine())
      for_pairs(
          [&](int i) { s[i] *= inverse_norms(step, m, i / 2, pairs.column + i % 2, &norms[i]); });
    for_pairs(
        [&](int i) { pairs.is_visible[i] = kIsFull || windows[i / 2].has(pairs.column + i % 2); });
    const FragmentGradient r =
        differentiate_pairs<Shape::kHasOptions, !kIsFull>(a, g, pairs, s, dp);
    if (Shape::kHasOptions && !kOwnsKeys && a.row_sums)
      for_pairs(
          [&](int i) { add_row_sums(a.params.problem, g, pairs, i, s[i], r, sums[m][i / 2]); });
    for_pairs([&](int i) { s[i] = r.p[i], dp[i] = r.ds[i] * pairs.row(i).ds_scale; });
    if (has_dropout) for_pairs([&](int i) { s[i] *= factors[i]; });
    if (Shape::kHasOptions && a.cap > 0) for_pairs([&](int i) { dp[i] *= r.slope[i]; });
    if (has_cosine()) for_pairs([&](int i) { dp[i] *= norms[i]; });
  }

  // What dropout multiplies the weights of fragment j by.
  PTX_FN void draw_factors(const Group& g, const GradientRow (&rows)[2], int64_t own,
                           const Step& step, int j, float (&factors)[4]) const {
    const Dropout& dropout = a.params.problem.dropout;
    const int64_t first_head = g.sequence * a.params.problem.num_heads_q;
    const int64_t head[2] = {first_head + rows[0].at.head, first_head + rows[1].at.head},
                  query[2] = {rows[0].at.query, rows[1].at.query};
    const int64_t key_block = (int64_t{step.number} * kScored + 8 * j) / 4 + lane() % 4 / 2;
    const LaneWords drawn = kOwnsKeys ? draw_words_of_columns(dropout, head, query, own / 4, lane())
                                      : draw_words(dropout, head, query, key_block, lane());
    const uint64_t threshold = drop_threshold(dropout.probability);
    const float kept = kept_factor<float>(dropout);
#pragma unroll
    for (int i = 0; i < 4; ++i) factors[i] = drawn.words[i / 2][i % 2] >= threshold ? kept : 0;
  }

  // Of a pair, their product; `walked`: the one that the sum is to be multiplied by.
  PTX_FN float inverse_norms(const Step& step, int m, int half, int column, float* walked) const {
    const uint32_t shared = ptx::dyn_smem();
    const int own = warp_row() + 16 * m + fragment_row(lane(), half);
    const int other = step.number % kSteps * kScored + fragment_column(lane()) + column;
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

// Whole tiles of the other side, if they can come by streams.
template <class Shape>
PTX_FN int32_t streamed_tiles(const BackwardArguments& a, const Group& g) {
  const Problem& p = a.params.problem;
  if constexpr (Shape::kOwnsKeys) {
    if (!a.q_access.has_streams || !a.dout_access.has_streams) return 0;
    return static_cast<int32_t>(g.mask.seqlen_q / Shape::kWalked);
  } else {
    if (!a.k_access.has_streams || !a.v_access.has_streams || p.page_size > 0) return 0;
    return static_cast<int32_t>(g.mask.seqlen_k / Shape::kWalked);
  }
}

// By all threads of the block, which owns the rows, or keys, from `first` on.
template <class Element, class Shape>
PTX_FN BackwardBlock<Element, Shape> backward_block(const BackwardArguments& a, const Group& g,
                                                    int64_t first) {
  keep_place(ptx::dyn_smem() + BackwardMemory<Shape>::kPlace,
             {static_cast<int32_t>(g.sequence), static_cast<int32_t>(g.head_kv),
              static_cast<int32_t>(first / Shape::kOwned), streamed_tiles<Shape>(a, g)});
  return {a, scales_of(a.params.problem, g)};
}

}  // namespace attnext::cuda::mma
