// What the kernels of backward share: a block's tiles of q, dout, k and v, and the gradient of one
// tile of scores (FlashAttention-2, Dao 2023, arXiv:2307.08691; no sum is shared between blocks).
#pragma once

#include "mma/gradient.cuh"
#include "mma/load.cuh"
#include "mma/tile_shape.h"

namespace attnext::cuda::mma {

template <class Shape>
struct BackwardMemory {
  using Layout = TileLayout<Shape::kHeadDim>;
  using Weights = TileLayout<Shape::kTileK>;
  static constexpr uint32_t kQ = 0, kDout = kQ + Layout::bytes(Shape::kTileQ),
                            kK = kDout + Layout::bytes(Shape::kTileQ),
                            kV = kK + Layout::bytes(Shape::kTileK),
                            kNormsQ = kV + Layout::bytes(Shape::kTileK),
                            kNormsK = kNormsQ + 4 * Shape::kTileQ,
                            kQueryBytes = kNormsK + 4 * Shape::kTileK,
                            // The weights and their gradients, which only keys need transposed.
      kP = kQueryBytes, kDs = kP + Weights::bytes(Shape::kTileQ),
                            kKeyBytes = kDs + Weights::bytes(Shape::kTileQ);
  static_assert(kKeyBytes <= allowed_bytes(Shape::kHeadDim, kWidestSharedBackward, Shape::kBudget),
                "a block must fit the architecture's memory");
};

// What ds is multiplied by next: its norm, for cosine, belongs to the sum.
enum class GradientFor { kQueries, kKeys, kBias };

template <class Element, class Shape>
struct BackwardBlock {
  using Memory = BackwardMemory<Shape>;
  static constexpr int kTileQ = Shape::kTileQ, kTileK = Shape::kTileK, kHeadDim = Shape::kHeadDim;
  using Sums = Accumulator<1, kHeadDim / 8>;

  const BackwardArguments& a;
  int32_t sequence, head_kv;  // a group is read again for every tile: registers are for sums
  float reference;            // of the group's scales

  PTX_FN static int thread() { return static_cast<int>(ptx::thread_index().x); }
  PTX_FN static int lane() { return static_cast<int>(ptx::lane_index()); }
  // Of the tile: the warp's first row, and its first key.
  PTX_FN static int warp_row() { return static_cast<int>(ptx::warp_index()) * kFragmentRows; }
  PTX_FN Group group() const { return group_of(a.params.problem, sequence, head_kv); }
  PTX_FN bool has_cosine() const {
    return Shape::kHasOptions && a.params.problem.score == Score::kCosine;
  }

  PTX_FN void load_queries(const TensorView& t, bool has_chunks, uint32_t at,
                           int64_t first_row) const {
    load_query_rows<Shape::kThreads, kTileQ, kHeadDim>(group(), t, has_chunks, ptx::dyn_smem() + at,
                                                       first_row, thread());
  }
  PTX_FN void load_keys(const TensorView& t, bool has_chunks, uint32_t at, int64_t begin) const {
    load_key_rows<Shape::kThreads, kTileK, kHeadDim>(group(), t, has_chunks, ptx::dyn_smem() + at,
                                                     begin, thread());
  }
  PTX_FN void load_rows_and_gradients(int64_t first_row) const {
    load_queries(a.params.problem.q, a.q_has_chunks, Memory::kQ, first_row);
    load_queries(a.params.dout, a.dout_has_chunks, Memory::kDout, first_row);
    ptx::cp_async_commit();
  }

  PTX_FN void invert_query_norms() const {
    invert_norms<Element, Shape::kThreads, kTileQ, kHeadDim>(ptx::dyn_smem() + Memory::kQ, thread(),
                                                             ptx::dyn_smem() + Memory::kNormsQ);
  }
  PTX_FN void invert_key_norms() const {
    invert_norms<Element, Shape::kThreads, kTileK, kHeadDim>(ptx::dyn_smem() + Memory::kK, thread(),
                                                             ptx::dyn_smem() + Memory::kNormsK);
  }

  PTX_FN WarpTile tile_at(const Group& g, int64_t first_row, int64_t begin, int width) const {
    const int64_t first = first_row + warp_row();
    const Span rows = {first, min_of(first + kFragmentRows, g.num_rows)};
    const Span keys = {begin, begin + width};
    const TileKind kind =
        rows.begin < rows.end ? classify_tile(g.mask, queries_of(g, rows), keys) : TileKind::kSkip;
    return {first, {begin, min_of(keys.end, g.mask.seqlen_k)}, kind, lane()};
  }

  // s = q kT, dp = dout vT, against the tile's keys from `first_column` on.
  template <int kFragments>
  PTX_FN void multiply(int first_column, Accumulator<1, kFragments>& s,
                       Accumulator<1, kFragments>& dp) const {
    const uint32_t shared = ptx::dyn_smem();
    const auto skipped = static_cast<uint32_t>(Memory::Layout::bytes(first_column));
    clear(s);
    clear(dp);
    multiply_rows<Element, kHeadDim>(shared + Memory::kQ, warp_row(), shared + Memory::kK + skipped,
                                     lane(), s);
    multiply_rows<Element, kHeadDim>(shared + Memory::kDout, warp_row(),
                                     shared + Memory::kV + skipped, lane(), dp);
  }

  // s <- the weights that met the values, dp <- ds by the raw products, as `wanted` needs it.
  template <int kFragments>
  PTX_FN void differentiate(const Group& g, const WarpTile& tile, const GradientRows& rows,
                            int first_column, GradientFor wanted, bool keeps_sums,
                            Accumulator<1, kFragments>& s, Accumulator<1, kFragments>& dp,
                            RowSums& sums) const {
    const uint32_t shared = ptx::dyn_smem();
    const Dropout& dropout = a.params.problem.dropout;
    const bool has_dropout = Shape::kHasOptions && dropout.probability > 0;
    const uint64_t threshold = has_dropout ? drop_threshold(dropout.probability) : 0;
    const float kept = kept_factor(dropout);
    const int64_t first_key = tile.keys.begin + fragment_column(tile.lane);
    int64_t head[2], query[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      head[half] = g.sequence * g.problem->num_heads_q + rows.at[half].head;
      query[half] = rows.at[half].query;
    }
#pragma unroll
    for (int j = 0; j < kFragments; ++j) {
      LaneWords drawn{};
      if (has_dropout)
        drawn = draw_words(dropout, head, query, tile.keys.begin / 4 + 2 * j + tile.lane % 4 / 2,
                           tile.lane);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2, key = 8 * j + i % 2;
        float raw = s[0][j][i], norm = 1;
        if (has_cosine()) {
          const float inverse_q = ptx::ld_shared<float>(
              shared + Memory::kNormsQ +
              4 * static_cast<uint32_t>(warp_row() + fragment_row(tile.lane, half)));
          const float inverse_k = ptx::ld_shared<float>(
              shared + Memory::kNormsK +
              4 * static_cast<uint32_t>(first_column + fragment_column(tile.lane) + key));
          raw *= inverse_q * inverse_k;
          norm = wanted == GradientFor::kQueries ? inverse_k : inverse_q;
        }
        const float factor = !has_dropout ? 1 : drawn.words[half][i % 2] >= threshold ? kept : 0;
        const PairGradient pair = differentiate_pair<Shape::kHasOptions>(
            g, tile, rows, half, first_key, key, raw, dp[0][j][i] * factor);
        if (Shape::kHasOptions && keeps_sums)
          add_row_sums(g, rows, half, first_key, key, pair, sums);
        s[0][j][i] = pair.p * factor;
        dp[0][j][i] = wanted == GradientFor::kBias
                          ? pair.ds
                          : pair.ds * (pair.slope * rows.ds_scale[half] * norm);
      }
    }
  }

  // Row `row` of `sums` (of q or of k) -> t, at `offset`; `x` is the tile the row came from.
  PTX_FN void store_gradient(const TensorView& t, bool has_pairs, int64_t offset, int columns,
                             uint32_t x, uint32_t norms, int row, bool exists, bool is_stored,
                             int half, bool is_unnormalised, float scale, const Sums& sums) const {
    using Layout = TileLayout<kHeadDim>;
    float projection = 0, inverse = 1;
    if (is_unnormalised) {
      inverse = ptx::ld_shared<float>(norms + 4 * static_cast<uint32_t>(row));
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        const float2 pair = Element::unpack(
            ptx::ld_shared<uint32_t>(x + Layout::element(row, 8 * j + fragment_column(lane()))));
        projection += sums[0][j][2 * half] * pair.x + sums[0][j][2 * half + 1] * pair.y;
      }
      projection = row_total(projection) * inverse * scale;
    }
    if (!is_stored) return;
#pragma unroll
    for (int j = 0; j < kHeadDim / 8; ++j) {
      const int column = 8 * j + fragment_column(lane());
      float low = sums[0][j][2 * half] * scale, high = sums[0][j][2 * half + 1] * scale;
      if (is_unnormalised) {
        const float2 pair =
            Element::unpack(ptx::ld_shared<uint32_t>(x + Layout::element(row, column)));
        low = normalised_gradient(low, pair.x * inverse, projection, inverse);
        high = normalised_gradient(high, pair.y * inverse, projection, inverse);
      }
      store_pair(t, has_pairs, offset, column, columns, exists ? low : 0, exists ? high : 0);
    }
  }
};

}  // namespace attnext::cuda::mma
